"""With the lane and without it, the bytes of all answers are the same, whatever clients send."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.rawhttp import HttpConnection
from support.serving import LocalServer

from engineio_wsgi import Cors, HttpCompression

pytestmark = pytest.mark.ours
CONNECTIONS, SESSIONS = 3, 2
DATE = re.compile(rb"Date: [^\r]*\r\n")

#: what may follow a request line
FIELDS = [
    "Host: h\r\nUser-Agent: a\r\nCookie: b=c\r\n",
    "Host: h\r\nUser-Agent: a\r\nCookie: b=d\r\n",
    "Host: h\r\nAccept-Encoding: gzip\r\nOrigin: http://page.example\r\n",
    "Host: h\r\nOrigin: http://other.example\r\n",
    "host: h\r\nconnection: keep-alive\r\n",
    "Host: h\r\nX-Forwarded-For: 1.2.3.4\r\n",
]
#: odd ones, most of them refused
ODD_FIELDS = [
    "Host: h\r\nConnection: close\r\n", "Host: h\r\nExpect: 100-continue\r\n", "Host: h\r\nContent-Length: 3\r\n", "", "Host\r\n",
    "Host: h\r\nUpgrade: other\r\nConnection: upgrade\r\n", "Host: h\r\nContent-Type: application/octet-stream\r\n",
    "Host: h\r\nTransfer-Encoding: chunked\r\n", "Host: h\r\nCookie: \x01\r\n", "Host: h\r\nHost: i\r\n",
    "Host: h\r\n" + "X: y\r\n" * 101, "Host: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
]
QUERIES = [
    "EIO=4&transport=polling&t=a1&sid={sid}", "EIO=4&transport=polling&t=b2.-_~&sid={sid}",
    "EIO=4&transport=polling&sid={sid}&t=c3", "token=x&EIO=4&transport=polling&t=d4&sid={sid}",
]
ODD_QUERIES = [
    "EIO=3&transport=polling&sid={sid}", "EIO=4&transport=websocket&sid={sid}", "EIO=4&transport=polling&sid={sid}x",
    "EIO=4&transport=polling&t=%41&sid={sid}", "sid=y&EIO=4&transport=polling&sid={sid}", "j=0&EIO=4&transport=polling&sid={sid}",
    "EIO=4&transport=polling&sid={sid}&sid=x", "transport=polling&EIO=4&sid={sid}", "EIO=4&EIO=3&transport=polling&sid={sid}", "",
    "EIO=4&transport=polling&t=" + "x" * 9000 + "&sid={sid}", "EIO=4&transport=polling&b64=1&t=5&sid={sid}",
]
#: any bytes
RAW = ["\r\n", "nonsense\r\n\r\n", "GET /page HTTP/1.1\r\nHost: h\r\n\r\n"]
PAYLOADS = [b"4a", b"4" + "\N{SNOWMAN}".encode(), b"4b\x1e4c", b"bAAEC", b"4d\x1ebAAEC\x1e3", b"3", b"4" + b"x" * 2000, b"4"]
ODD_PAYLOADS = [b"", b"4\xff", b"9", b"b*", b"\x1e", b"2", b"1", b"4a\x1e1", b"4" + b"y" * 20_000, b"d=4a"]

Step = tuple[Any, ...]


def often(plain: list[Any], odd: list[Any]) -> st.SearchStrategy[Any]:
    """One of ``plain``, and now and then one of ``odd``."""
    return st.integers(0, 9).flatmap(lambda number: st.sampled_from(odd if number == 9 else plain))


lines = st.tuples(st.integers(0, SESSIONS - 1), often(QUERIES, ODD_QUERIES), often(FIELDS[:1] * 6 + FIELDS, ODD_FIELDS))
connections = st.integers(0, CONNECTIONS - 1)
steps = st.one_of(
    st.tuples(st.just("get"), connections, lines),
    st.tuples(st.just("get"), connections, lines),
    st.tuples(st.just("post"), connections, lines, often(PAYLOADS, ODD_PAYLOADS), st.booleans()),
    st.tuples(st.just("post"), connections, lines, often(PAYLOADS, ODD_PAYLOADS), st.just(False)),
    st.tuples(st.just("send"), st.integers(0, SESSIONS - 1), st.sampled_from(["m", b"\0\1", "z" * 2000])),
    st.tuples(st.just("other"), connections, st.sampled_from(["PUT", "OPTIONS", "HEAD", "DELETE"]), lines),
    st.tuples(st.just("raw"), connections, st.sampled_from(RAW)),
    st.tuples(st.just("finish"), connections),
    st.tuples(st.just("close"), connections),
)


class Run:
    """One server, two sessions, and what it sent on each of its connections."""

    def __init__(self, handler: str) -> None:
        numbers = count()
        self.server = LocalServer(
            "echo", handler, cors=Cors(origins="http://page.example"), allow_eio3=True, ping_interval=1000.0, ping_timeout=1000.0,
            takes_first=False, max_http_buffer_size=10_000, http_compression=HttpCompression(threshold=1000),
            generate_id=lambda request: f"session-{next(numbers)}")
        self.served = self.server.served
        self.connections: list[HttpConnection] = []
        self.transcript: list[Any] = []
        for _ in range(SESSIONS):
            self.served.connect().get("/engine.io/?EIO=4&transport=polling")

    def connection(self, number: int) -> HttpConnection:
        """A connection, which is made anew once it has ended."""
        while len(self.connections) <= number:
            self.connections.append(self.served.connect())
        return self.connections[number]

    def do(self, step: Step) -> None:
        """Do one step, and note what has come from the server since the last."""
        kind, number, *rest = step
        self.actions[kind](self, number, *rest)
        self.served.settle()
        self.served.settle()
        for index, connection in enumerate(self.connections):
            self.transcript.append((index, *self._arrived(connection)))

    def _arrived(self, connection: HttpConnection) -> tuple[bytes, bool]:
        received, over = b"", False
        connection.sock.setblocking(False)
        try:
            while data := connection.sock.recv(65_536):
                received += data
            over = True
        except BlockingIOError:
            pass
        except OSError:
            over = True
        if over:
            connection.close()
            self.connections[self.connections.index(connection)] = self.served.connect()
        return DATE.sub(b"", received), over

    def _send(self, number: int, text: str | bytes) -> None:
        data = text.encode("latin-1") if isinstance(text, str) else text
        connection = self.connection(number)
        connection.sock.setblocking(True)
        try:
            connection.send(data)
        except OSError:
            # the server has closed it
            return

    def _head(self, method: str, line: tuple[int, str, str], more: str = "") -> str:
        session, query, fields = line
        return f"{method} /engine.io/?{query.format(sid=f'session-{session}')} HTTP/1.1\r\n{fields}{more}\r\n"

    def get(self, number: int, line: tuple[int, str, str]) -> None:
        """A GET."""
        self._send(number, self._head("GET", line))

    def post(self, number: int, line: tuple[int, str, str], body: bytes, in_pieces: bool) -> None:
        """A POST."""
        more = "" if "Content-Length" in line[2] or "Transfer" in line[2] else f"Content-Length: {len(body)}\r\n"
        head = self._head("POST", line, more).encode("latin-1")
        if in_pieces:
            self._send(number, head)
            self.served.settle()
            self._send(number, body)
        else:
            self._send(number, head + body)
        self._wait_for_a_close(body)

    def _wait_for_a_close(self, body: bytes) -> None:
        if body.endswith(b"1"):
            # it waits for a GET that may come just behind it
            import gevent

            gevent.sleep(0.02)

    def send(self, number: int, data: str | bytes) -> None:
        """The server sends a message."""
        socket = self.server.engine.clients.get(f"session-{number}")
        if socket is not None and socket.ready_state == "open":
            socket.send(data)

    def other(self, number: int, method: str, line: tuple[int, str, str]) -> None:
        """A request with another method."""
        self._send(number, self._head(method, line))

    def raw(self, number: int, text: str) -> None:
        """Any bytes."""
        self._send(number, text)

    def finish(self, number: int) -> None:
        """The client sends nothing more."""
        try:
            self.connection(number).finish()
        except OSError:
            # the server has closed it
            return

    def close(self, number: int) -> None:
        """The client closes a connection."""
        connection = self.connection(number)
        connection.close()
        self.connections[number] = self.served.connect()

    actions: ClassVar[dict[str, Callable[..., None]]] = {
        "get": get, "post": post, "send": send, "other": other, "raw": raw, "finish": finish, "close": close}

    def end(self) -> list[Any]:
        """Stop the server, and return all that it has sent, and why its sessions have ended."""
        for socket in list(self.server.engine.clients.values()):
            socket.close(discard=True)
        # twice, as after each step: what is behind a GET that has waited is read one turn later
        self.served.settle()
        self.served.settle()
        for index, connection in enumerate(self.connections):
            self.transcript.append((index, *self._arrived(connection)))
        self.server.stop()
        ends = [(fields["sid"], fields["reason"], str(fields["description"])) for fields in self.server.events.of("close")]
        return [*self.transcript, sorted(ends)]


def transcript(handler: str, script: list[Step]) -> list[Any]:
    """What a server sends if clients do ``script``."""
    run = Run(handler)
    for step in script:
        run.do(step)
    return run.end()


PLAIN = (0, QUERIES[0], FIELDS[0])


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=4, max_size=25))
@example([("post", 0, PLAIN, b"4a", False), ("get", 0, PLAIN)] * 3)
@example([("get", 0, PLAIN), ("send", 0, "a"), ("get", 0, PLAIN), ("get", 1, PLAIN), ("get", 0, PLAIN)])
@example([("get", 0, PLAIN), ("send", 0, "a"), ("get", 0, PLAIN), ("close", 0), ("get", 1, PLAIN)])
@example([("get", 0, PLAIN), ("send", 0, "a"), ("get", 0, PLAIN), ("finish", 0), ("get", 1, PLAIN)])
@example([("post", 1, PLAIN, b"4a", False), ("get", 0, PLAIN), ("get", 0, PLAIN), ("post", 0, PLAIN, b"4b", False),
          ("post", 1, PLAIN, b"4c", False)])
def test_the_answers_are_the_same(script: list[Step]) -> None:
    assert transcript("ours", script) == transcript("laneless", script)


def test_scripts_go_over_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    from engineio_wsgi.http.lane import Lane

    served: list[bool] = []
    original = Lane.serve

    def serve(self: Lane) -> bool:
        served.append(original(self))
        return served[-1]

    monkeypatch.setattr(Lane, "serve", serve)
    transcript("ours", [("post", 0, PLAIN, b"4a", False), ("get", 0, PLAIN)] * 3)
    assert served.count(True) == 4
