"""Handshakes and the first requests of connections go over the lane where nothing has to see them, and nothing else changes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent.socket import socket as GeventSocket
from support.rawhttp import HttpConnection
from support.rawwebsocket import WebSocketClient
from support.serving import LocalServer, Served

from engineio_wsgi import Cors, Forbidden, HttpCompression, Middleware, Server, WebSocketHandler, handshake_only
from engineio_wsgi.http.http_server import HttpServer
from engineio_wsgi.http.lane import Lane

pytestmark = pytest.mark.ours
VARIABLE = re.compile(rb"(?:Date|Retry-After): [^\r]*\r\n")
SID = re.compile(rb'(?<="sid":")[^"]+|(?<=sid\\":\\")[\w-]+|(?<=io=)[^;]+')

#: what may follow the line of a request
FIELDS = {
    "plain": "Host: h\r\n",
    "cookie": "Host: h\r\nUser-Agent: a\r\nCookie: b=c; d=e\r\nAccept-Encoding: gzip\r\n",
    "lower": "host: h\r\nconnection: keep-alive\r\naccept:  */*  \r\n",
    "origin": "Host: h\r\nOrigin: http://page.example\r\n",
    "own-origin": "Host: h\r\nOrigin: http://h\r\n",
    "foreign": "Host: h\r\nOrigin: http://other.example\r\n",
    "odd-origin": "Host: h\r\nOrigin: \xff\r\n",
    "proxy": "Host: h\r\nX-Forwarded-For: 1.2.3.4\r\n",
    "close": "Host: h\r\nConnection: close\r\n",
    "expect": "Host: h\r\nExpect: 100-continue\r\n",
    "no-host": "",
    "two-hosts": "Host: h\r\nHost: i\r\n",
    "bad": "Host\r\n",
    "control": "Host: h\r\nCookie: \x01\r\n",
    "many": "Host: h\r\n" + "X: y\r\n" * 101,
    "repeated": "Host: h\r\nX-A: 1\r\nX-A: 2\r\n",
    "underscore": "Host: h\r\nX_A: 1\r\n",
    "latin": "Host: h\r\nX-A: \xe9\r\n",
    "upgrade": "Host: h\r\nUpgrade: other\r\nConnection: upgrade\r\n",
    "body": "Host: h\r\nContent-Length: 3\r\n\r\nabc",
}
TARGETS = {
    "usual": "/engine.io/?EIO=4&transport=polling&t=abc",
    "bare": "/engine.io/?EIO=4&transport=polling",
    "deeper": "/engine.io/a/b?EIO=4&transport=polling",
    "escaped": "/engine%2Eio/?EIO=4&transport=polling",
    "query": "/engine.io/?a=b&EIO=4&transport=polling",
    "eio3": "/engine.io/?EIO=3&transport=polling",
    "eio5": "/engine.io/?EIO=5&transport=polling",
    "jsonp": "/engine.io/?EIO=4&transport=polling&j=0",
    "b64": "/engine.io/?EIO=4&transport=polling&b64=1",
    "websocket": "/engine.io/?EIO=4&transport=websocket",
    "page": "/page",
    "unknown": "/engine.io/?EIO=4&transport=polling&sid=unknown",
    "long": "/engine.io/?EIO=4&transport=polling&t=" + "x" * 9000,
    "absolute": "http://h/engine.io/?EIO=4&transport=polling",
}




def refuse(request: Any) -> bool:
    """What ``allow_request`` may be."""
    raise Forbidden("not today")


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "cors": {"cors": Cors(origins="http://page.example", credentials=True)},
    "any-origin": {"cors": Cors(origins="*")},
    "asked-origin": {"cors": Cors(origins=lambda origin: origin.startswith("http://page"))},
    "hosts": {"allowed_hosts": ["i"]},
    "host": {"allowed_hosts": ["h"]},
    "cookie": {"cookie": True},
    "allow": {"allow_request": lambda request: True},
    "refuse": {"allow_request": refuse},
    "eio3": {"allow_eio3": True, "jsonp": True},
    "first-packet": {"initial_packet": "hello"},
    "websocket": {"transports": ["websocket"]},
    "quota": {"max_sessions_per_address": 1},
    "compressed": {"http_compression": HttpCompression(threshold=10)},
    "ids": {"generate_id": lambda request: secrets.token_hex(12)},
}


@contextmanager
def running(handler: str, prepare: Callable[[Server], object] = lambda engine: None, **options: Any) -> Iterator[LocalServer]:
    """A server, until the end of the block."""
    server = LocalServer("echo", handler, **options)
    prepare(server.engine)
    yield server
    HttpConnection.close_all()
    server.stop()


@pytest.fixture
def over_the_lane(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each request that nothing like was accepted before: whether it has gone over the lane."""
    served: list[bool] = []
    original = Lane._serve_first

    def serve_first(self: Lane, data: bytes) -> bool:
        served.append(original(self, data))
        return served[-1]

    monkeypatch.setattr(Lane, "_serve_first", serve_first)
    return served


def answer(server: LocalServer, request: str) -> tuple[bytes, dict[str, Any] | None]:
    """What comes for one request on a new connection, and the environ of the session that it has opened."""
    connection = server.served.connect()
    connection.send(request.encode("latin-1"))
    connection.finish()
    received = connection.read_to_end()
    found = re.search(rb'"sid":"([^"]+)"', received)
    environ = None
    if found is not None:
        environ = dict(server.engine.clients[found[1].decode()].request.environ)
        for key in ("wsgi.input", "werkzeug.request", "REMOTE_PORT", "SERVER_PORT", "SERVER_NAME"):
            environ.pop(key, None)
    connection.close()
    return SID.sub(b"", VARIABLE.sub(b"", received)), environ


#: what a server may have beside options
LISTENERS: dict[str, Callable[[Server], object]] = {
    "headers": lambda engine: engine.on("headers", lambda headers, request: headers.add("X-Own", "1")),
    "initial-headers": lambda engine: engine.on("initial_headers", lambda headers, request: headers.add("X-Own", "1")),
    "middleware": lambda engine: engine.use(marking),
    "marked-middleware": lambda engine: engine.use(handshake_only(marking)),
    "closing": lambda engine: engine.close(timeout=0),
}


def marking(application: Any) -> Any:
    """A middleware that adds a header."""
    def wrapped(environ: dict[str, Any], start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, ("X-Own", "1")], *more)

        return application(environ, start)

    return wrapped


def answers(handler: str, targets: list[str], prepare: Callable[[Server], object] = lambda engine: None,
            **options: Any) -> list[Any]:
    """What a server answers to requests with all kinds of header fields, and what its sockets know of them."""
    with running(handler, prepare, **options) as server:
        lines = [f"GET {target} HTTP/1.1" for target in targets]
        lines += [f"POST {TARGETS['usual']} HTTP/1.1", f"GET {TARGETS['usual']} HTTP/1.0"]
        return [answer(server, f"{line}\r\n{fields}\r\n") for line in lines for fields in FIELDS.values()]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_answers_and_the_environs_are_the_same(options: str) -> None:
    targets = list(TARGETS.values()) if options in ("default", "eio3") else [TARGETS["usual"]]
    assert answers("ours", targets, **OPTIONS[options]) == answers("laneless", targets, **OPTIONS[options])


@pytest.mark.parametrize("listeners", LISTENERS)
def test_whatever_has_to_see_handshakes_sees_them(listeners: str) -> None:
    targets = [TARGETS["usual"]]
    assert answers("ours", targets, LISTENERS[listeners]) == answers("laneless", targets, LISTENERS[listeners])


def session(server: LocalServer) -> list[str]:
    """A client that opens a session, gets its own message back, and closes the session, on a new connection each time."""
    sid = server.served.connect().get(TARGETS["usual"]).body[9:33].decode()
    target = f"{TARGETS['usual']}&sid={sid}"
    assert server.served.connect().post(target, b"4hello").text == "ok"
    assert server.served.connect().get(target).text == "4hello"
    assert server.served.connect().post(target, b"1").text == "ok"
    assert server.events.wait("close")
    return [fields["reason"] for fields in server.events.of("close")]


def test_plain_requests_pass_nothing_but_the_engine(over_the_lane: list[bool]) -> None:
    with running("ours") as server:
        assert session(server) == ["transport close"]
    assert over_the_lane == [True] * 4


@pytest.mark.parametrize("options", ["allow", "cookie", "ids", "quota"])
def test_options_that_want_the_handshake(over_the_lane: list[bool], options: str) -> None:
    with running("ours", **OPTIONS[options]) as server:
        server.served.connect().get(TARGETS["usual"])
    assert over_the_lane == [False]


def test_a_connection_that_begins_with_something_else() -> None:
    with running("ours") as server:
        connection = server.served.connect()
        assert connection.get("/page").text == "application /page"
        assert connection.get(TARGETS["usual"]).status == 200
        assert connection.get("/page").text == "application /page"
        websocket = WebSocketClient.open(server.served.connect(), TARGETS["websocket"])
        assert websocket.response.status == 101


def test_a_head_that_arrives_in_pieces() -> None:
    with running("ours") as server:
        connection = server.served.connect()
        head = f"GET {TARGETS['usual']} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
        connection.send(head[:50])
        server.served.settle()
        connection.send(head[50:])
        assert connection.response().status == 200


def test_a_body_that_arrives_later() -> None:
    with running("ours") as server:
        sid = server.served.connect().get(TARGETS["usual"]).body[9:33].decode()
        connection = server.served.connect()
        connection.send(f"POST {TARGETS['usual']}&sid={sid} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n".encode())
        server.served.settle()
        connection.send(b"4a")
        assert connection.response().text == "ok"


@contextmanager
def serving(application: Any, **options: Any) -> Iterator[Served]:
    """An HTTP server of ours that has served one engine request, until the end of the block."""
    http = HttpServer(("127.0.0.1", 0), application, **options)
    http.start()
    served = Served(http.address, None, handler="ours", server=None, path="/engine.io/")
    served.connect().get(TARGETS["usual"])
    yield served
    HttpConnection.close_all()
    http.stop()


class ClosedHandler(WebSocketHandler):
    first_lane = False


class ClosedSeeingHandler(WebSocketHandler):
    lane, first_lane = True, False

    def get_environ(self) -> Any:
        """It changes the environ."""
        return super().get_environ()


class ClosedServer(Server):
    first_lane = False


class ClosedMiddleware(Middleware):
    first_lane = False


CLOSED: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "handler": lambda: (Server().wrap(page), {"handler_class": ClosedHandler}),
    "seeing-handler": lambda: (Server().wrap(page), {"handler_class": ClosedSeeingHandler}),
    "server": lambda: (ClosedServer().wrap(page), {}),
    "middleware": lambda: (ClosedMiddleware(page, Server()), {}),
}


def page(environ: dict[str, Any], start_response: Any) -> Any:
    """An application that says in which kind of greenlet it runs."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [type(gevent.getcurrent()).__name__.encode()]


@pytest.mark.parametrize("closed", CLOSED)
def test_a_subclass_may_refuse_first_requests(over_the_lane: list[bool], closed: str) -> None:
    application, options = CLOSED[closed]()
    with serving(application, **options) as served:
        assert served.connect().get(TARGETS["usual"]).status == 200
    assert True not in over_the_lane


def test_the_greenlets_of_the_application_are_those_of_its_server() -> None:
    with serving(Server().wrap(page)) as served:
        assert served.connect().get("/page").text == "Greenlet"


def test_a_handler_that_looks_at_its_socket_gets_that_of_gevent() -> None:
    kinds = []

    class Looking(WebSocketHandler):
        def __init__(self, sock: Any, address: object, server: Any) -> None:
            kinds.append(type(sock))
            super().__init__(sock, address, server)

    with serving(Server().wrap(page), handler_class=Looking) as served:
        assert served.connect().get(TARGETS["usual"]).status == 200
    assert kinds == [GeventSocket] * 2


def test_a_poll_is_answered_after_its_http_server_was_closed() -> None:
    with running("ours", takes_first=False) as server:
        other = HttpServer(("127.0.0.1", 0), server.http.application)
        other.start()
        sid = server.served.connect().get(TARGETS["usual"]).body[9:33].decode()
        connection = HttpConnection(other.address)
        connection.send(f"GET {TARGETS['usual']}&sid={sid} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        server.served.settle()
        other.close()
        server.engine.send(sid, "hello")
        assert connection.response().text == "4hello"
