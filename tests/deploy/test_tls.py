"""TLS without a proxy: every way in which gevent, gunicorn and the command line serve it, and connections that end in any way."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
from gevent import socket, ssl
from support.clients import PollingSession, WebSocketSession, open_session
from support.deployment import Program, Site, free_port
from support.node import Driver
from support.processes import APPLICATION
from support.rawhttp import HttpConnection
from support.rawwebsocket import TEXT, Refused, WebSocketClient, frame_bytes, handshake_headers

WAYS = ["polling", "websocket", "upgraded"]
#: what starts a server with CERTIFICATE, KEY and PORT in its place
PYTHON = {
    "server": "from gevent.pywsgi import WSGIServer; from engineio_wsgi import WebSocketHandler; WSGIServer(('127.0.0.1', PORT),"
              "app.app, keyfile=KEY, certfile=CERTIFICATE, handler_class=WebSocketHandler, log=None).serve_forever()",
    "attach": "from gevent.pywsgi import WSGIServer; s = WSGIServer(('127.0.0.1', PORT), app.application, keyfile=KEY,"
              "certfile=CERTIFICATE, log=None); app.server.attach(s); s.serve_forever()",
    "listen": "app.server.listen(('127.0.0.1', PORT), keyfile=KEY, certfile=CERTIFICATE).serve_forever()",
}
GUNICORN = {"worker": "engineio_wsgi.gunicorn.Worker", "gevent": "gevent"}
KINDS = [*PYTHON, "command", *GUNICORN]
#: those whose log is ours, where a client that fails in its handshake is no line
QUIET = ["attach", "listen", "command", "worker"]


class StrictContext:
    """A client's context: whoever just hangs up without saying so in TLS is an ``SSLEOFError``, and no end."""

    def __init__(self, certificate: dict[str, str]) -> None:
        self._context = ssl.create_default_context(cafile=certificate["certfile"])

    def wrap_socket(self, sock: Any, **options: Any) -> Any:
        """See ``ssl.SSLContext``."""
        return self._context.wrap_socket(sock, suppress_ragged_eofs=False, **options)


class SecureServer(Program):
    """A server that speaks TLS, in a process: one of ``KINDS``."""

    def __init__(self, folder: Path, kind: str, certificate: dict[str, str]) -> None:
        self.kind = kind
        (folder / "app.py").write_text(APPLICATION)
        port = free_port()
        self.served = Site(("127.0.0.1", port), StrictContext(certificate))
        super().__init__(folder, command_of(kind, port, certificate), self.served.is_up, cwd=folder, OPTIONS="{}")

    def closed(self, count: int) -> Callable[[], bool]:
        """Whether so many clients have been seen to leave."""
        return lambda: self.logs().count("closed: transport close") >= count


def command_of(kind: str, port: int, certificate: dict[str, str]) -> list[str]:
    """What starts a server."""
    address, files = f"127.0.0.1:{port}", ["--certfile", certificate["certfile"], "--keyfile", certificate["keyfile"]]
    if kind == "command":
        return [sys.executable, "-m", "engineio_wsgi", "serve", "app:app", "--bind", address, *files]
    if kind in GUNICORN:
        # that socket is reported some time later, when a test may already be reading the log
        return [sys.executable, "-m", "gunicorn", "--no-control-socket", "-k", GUNICORN[kind], "-b", address, *files, "app:app"]
    text = PYTHON[kind].replace("PORT", str(port))
    names = f"import app; CERTIFICATE, KEY = {certificate['certfile']!r}, {certificate['keyfile']!r}; "
    return [sys.executable, "-c", names + text]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
           certificate: dict[str, str]) -> Iterator[SecureServer]:
    """One process for all tests of a kind."""
    running = SecureServer(tmp_path_factory.mktemp("server"), request.param, certificate)
    yield running
    running.stop()
    # one of the tests is a page of another origin
    assert [line for line in running.complaints() if "WARNING engine: a page of" not in line] == [], running.logs()


@pytest.fixture
def start(tmp_path: Path, certificate: dict[str, str]) -> Iterator[Callable[[str], SecureServer]]:
    """A factory of servers of the test's own."""
    running: list[SecureServer] = []

    def start_server(kind: str) -> SecureServer:
        running.append(SecureServer(tmp_path, kind, certificate))
        return running[-1]

    yield start_server
    for server in running:
        server.stop()


# -- messages

@pytest.mark.parametrize("way", WAYS)
def test_messages(server: SecureServer, way: str) -> None:
    session = open_session(server.served, way)
    messages: list[str | bytes] = ["text", b"\x00\xff", "é" * 100_000, bytes(range(256)) * 2000, *map(str, range(50))]
    for message in messages:
        session.say(message)
    assert session.hear_many(len(messages)) == messages
    session.close()


def test_frames_right_behind_the_handshake(server: SecureServer) -> None:
    """TLS has decrypted them together with the request: no socket becomes readable for them."""
    connection = server.served.connect()
    head = connection.head("GET", "/engine.io/?EIO=4&transport=websocket", handshake_headers("AAAAAAAAAAAAAAAAAAAAAA=="))
    connection.send(head + frame_bytes(TEXT, b"4early") + frame_bytes(TEXT, b"4bird"))
    websocket = WebSocketClient(connection, connection.response())
    assert [str(websocket.recv())[:6] for _ in range(3)] == ['0{"sid', "4early", "4bird"]


def test_frames_in_one_record(server: SecureServer) -> None:
    """What TLS has decrypted and nobody has read yet is not forgotten, however much it is."""
    session = WebSocketSession(server.served).open()
    numbers = [str(number) for number in range(2000)]
    session.ws.http.send(b"".join(frame_bytes(TEXT, b"4" + number.encode()) for number in numbers))
    assert session.hear_many(len(numbers)) == numbers


@pytest.mark.parametrize("way", ["polling", "websocket"])
def test_client_that_reads_late(server: SecureServer, way: str) -> None:
    """What the kernel has no room for is written later, in order."""
    session = open_session(server.served, way)
    late = server.served.connect(receive_buffer=4096)
    if isinstance(session, WebSocketSession):
        session = WebSocketSession(server.served, http=late).open()
    elif isinstance(session, PollingSession):
        session.getting.close()
        session.getting = late
        session.start_poll()
    messages = [str(number) * 300_000 for number in range(3)]
    for message in messages:
        session.say(message)
    server.served.settle()
    assert session.hear_many(3) == messages


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_origin(server: SecureServer, transport: str) -> None:
    """A page that came over HTTPS may connect, the same host's page over HTTP may not."""
    own = server.served.origin
    session = open_session(server.served, transport, headers=[("Origin", own)])
    session.close()
    target, foreign = f"/engine.io/?EIO=4&transport={transport}", [("Origin", own.replace("https", "http"))]
    if transport == "polling":
        response = server.served.connect().get(target, foreign)
    else:
        with pytest.raises(Refused) as refused:
            WebSocketClient.open(server.served.connect(), target, foreign)
        response = refused.value.response
    assert (response.status, response.json()["code"]) == (403, 4)


def test_official_client(server: SecureServer, drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch,
                         certificate: dict[str, str]) -> None:
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", certificate["certfile"])
    client = drive(server.served.origin, json.dumps({"transports": ["polling", "websocket"]}))
    assert client.events.wait("upgrade")["transport"] == "websocket"
    client.tell("send", text="x" * 100_000)
    assert client.events.wait("message") == {"text": "x" * 100_000}
    client.tell("close")
    client.events.wait("close")
    assert client.events.of("error") == []


# -- the ends

def test_server_says_in_tls_that_it_ends(server: SecureServer) -> None:
    """Else a client had to think that it was cut off."""
    session = WebSocketSession(server.served).open()
    session.ws.close()
    assert session.ws.wait_closed().code == 1000
    assert session.ws.http.read_to_end() == b""
    if server.kind != "gevent":
        # whose HTTP connections are gunicorn's: it hangs up
        connection = server.served.connect()
        connection.get("/", [("Connection", "close")])
        assert connection.read_to_end() == b""


def hang_up(connection: HttpConnection) -> None:
    """FIN, and nothing of TLS."""
    connection.close()


def say_goodbye(connection: HttpConnection) -> None:
    """A close_notify; the connection stays."""
    with pytest.raises((OSError, TimeoutError)):
        connection.sock.settimeout(0.05)
        connection.sock.unwrap()


@pytest.mark.parametrize("leave", [hang_up, say_goodbye, HttpConnection.reset])
@pytest.mark.parametrize("way", WAYS)
def test_client_that_leaves_is_seen(server: SecureServer, way: str, leave: Callable[[HttpConnection], None]) -> None:
    """At once, be it in the middle of a poll."""
    before = server.logs().count("closed: transport close")
    session = open_session(server.served, way)
    if isinstance(session, PollingSession):
        session.park()
        leave(session.getting)
    elif isinstance(session, WebSocketSession):
        leave(session.ws.http)
    server.until(server.closed(before + 1))


def knock(server: SecureServer, data: bytes) -> None:
    """A client that speaks no TLS, or not to the end."""
    with socket.create_connection(server.served.address) as knocking, contextlib.suppress(OSError):
        knocking.sendall(data)
        knocking.shutdown(socket.SHUT_WR)
        while knocking.recv(1000):
            pass


@pytest.mark.parametrize("kind", QUIET)
def test_clients_that_fail_to_speak_tls(start: Callable[[str], SecureServer], kind: str, certificate: dict[str, str]) -> None:
    """Not a line of the log is about them, and others are served meanwhile."""
    server = start(kind)
    session = WebSocketSession(server.served).open()
    before = server.logs()
    hello = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    for data in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", bytes(100), (begun := hello.read())[:50], begun):
        knock(server, data)
    with pytest.raises(ssl.SSLCertVerificationError), socket.create_connection(server.served.address) as distrustful:
        ssl.create_default_context().wrap_socket(distrustful, server_hostname="127.0.0.1")
    session.say("still here")
    assert session.hear() == "still here"
    assert server.logs() == before


@pytest.mark.parametrize("kind", ["command", "worker"])
def test_graceful_stop(start: Callable[[str], SecureServer], kind: str) -> None:
    server = start(kind)
    websocket = WebSocketSession(server.served).open()
    waiting = PollingSession(server.served).open()
    waiting.park()
    server.signal(SIGTERM)
    closed = websocket.ws.wait_closed()
    assert (closed.code, closed.reason) == (1001, "server shutting down")
    assert websocket.ws.http.read_to_end() == b""
    assert waiting.end_poll() == ["1"]
    HttpConnection.close_all()
    assert server.wait() == 0
    assert not server.complaints()


def test_stop_while_a_refused_client_lingers(start: Callable[[str], SecureServer]) -> None:
    """Its connection is no longer one that waits for a request, and not gone either."""
    server = start("worker")
    refused = server.served.connect()
    refused.send(b"nonsense\r\n\r\nand more")
    assert refused.response().status == 400
    server.signal(SIGTERM)
    assert server.wait() == 0
    assert "Traceback" not in server.logs(), server.logs()
