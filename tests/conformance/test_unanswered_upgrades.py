"""WebSocket handshakes outside the engine's path that the application leaves unanswered: ``destroy_upgrade`` and its timeout."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from gevent.event import Event
from support.clients import open_session
from support.plain import PlainServer, client_side, records_of, serving
from support.rawhttp import HttpConnection, Response
from support.rawwebsocket import WebSocketClient, handshake_headers
from support.serving import EventLog, Served

import engineio_wsgi
from engineio_wsgi.engine import middleware
from engineio_wsgi.log import Throttle

#: seconds that the application has in these tests
SHORT = 0.2
TEXT = "The application has not answered this WebSocket handshake in time\n"


class Application:
    """Answers by the path, some of them when it is released."""

    def __init__(self) -> None:
        self.released = Event()
        #: what came of the handshakes that it takes when it is released
        self.outcomes: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """One request."""
        kind = environ["PATH_INFO"][1:]
        respond: Callable[..., Any] = getattr(self, kind)
        return respond(environ, start_response)

    def page(self, environ: dict[str, Any], start_response: Any) -> Any:
        """An ordinary response, late."""
        self.released.wait()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"a page"]

    def generated(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The same by a generator, whose first part is late."""
        self.released.wait()
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a page"

    def begun(self, environ: dict[str, Any], start_response: Any) -> Any:
        """A response that has begun in time, and whose body is late."""
        start_response("200 OK", [("Content-Type", "text/plain")])
        self.released.wait()
        return [b"a page"]

    def taken(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The WebSocket, at once."""
        websocket = environ["wsgi.websocket"]
        while (message := websocket.receive()) is not None:
            websocket.send(message)
        return []

    def lent(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The connection, for a protocol of its own."""
        sock = environ["werkzeug.socket"]
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        while data := sock.recv(100):
            sock.sendall(data)
        return []

    def late(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The WebSocket, late."""
        self.released.wait()
        try:
            environ["wsgi.websocket"].send("too late")
        except Exception as error:
            self.outcomes.append(str(error))
            raise
        return []


Start = Callable[..., tuple[PlainServer, Application]]


@pytest.fixture(params=["plain", "tls"])
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, certificate: dict[str, str]) -> Iterator[Start]:
    """A factory of servers: ``start(**options)``. They stop when their applications have returned."""
    monkeypatch.setattr(middleware, "_throttle", Throttle())
    with ExitStack() as stack:
        def run(around: Any = lambda app: app, **options: Any) -> tuple[PlainServer, Application]:
            application = Application()
            engine = engineio_wsgi.Server(**options)
            tls = certificate if request.param == "tls" else None
            server = stack.enter_context(serving(around(engine.wrap(application)), tls=tls))
            stack.callback(application.released.set)
            stack.callback(engine.close, timeout=0)
            return server, application

        yield run


def begin(server: PlainServer, path: str, certificate: dict[str, str]) -> HttpConnection:
    """Send a handshake."""
    secure = bool(server.http.ssl_enabled)
    connection = server.connect(**({"tls": client_side(certificate)} if secure else {}))
    connection.start("GET", path, handshake_headers(base64.b64encode(os.urandom(16)).decode()))
    return connection


def ended(connection: HttpConnection) -> Response:
    """The response that the application did not give; the connection ends with it."""
    response = connection.response()
    assert (response.status, response.text, response.header("Connection")) == (503, TEXT, "close")
    assert connection.read_to_end() == b""
    return response


@pytest.mark.parametrize("path", ["/page", "/generated", "/late"])
def test_a_handshake_that_nobody_answers_is_ended(start: Start, certificate: dict[str, str], path: str) -> None:
    server, application = start(destroy_upgrade_timeout=SHORT)
    with records_of("engine") as records:
        ended(begin(server, path, certificate))
        ended(begin(server, path, certificate))
    # once a minute
    assert [record.getMessage() for record in records if record.levelname == "WARNING"] == [
        f"> a WebSocket handshake for '{path}' was answered with 503: the application had neither answered it nor taken the "
        "WebSocket after 0.2 s (destroy_upgrade_timeout); with destroy_upgrade=False it may take any time"]
    assert [f'"GET {path} HTTP/1.1" 503 ' in line for line in server.log.lines] == [True, True]
    # the application goes on, without an effect and without a failure
    application.released.set()
    assert begin(server, path, certificate).response().status == (101 if path == "/late" else 200)
    assert server.errors.text == ""


@pytest.mark.parametrize("path", ["/page", "/generated"])
def test_without_the_option_it_may_take_any_time(start: Start, certificate: dict[str, str], path: str) -> None:
    server, application = start(destroy_upgrade=False, destroy_upgrade_timeout=SHORT)
    waiting = begin(server, path, certificate)
    clock, _ = start(destroy_upgrade_timeout=2 * SHORT)
    ended(begin(clock, path, certificate))
    application.released.set()
    assert (response := waiting.response()).status == 200
    assert response.text == "a page"


def test_what_has_been_answered_or_taken_in_time_goes_on(start: Start, certificate: dict[str, str]) -> None:
    server, application = start(destroy_upgrade_timeout=SHORT)
    begun = begin(server, "/begun", certificate)
    taken, lent = (begin(server, path, certificate) for path in ("/taken", "/lent"))
    websocket = WebSocketClient(taken, taken.response())
    assert lent.response().status == 101
    ordinary = server.connect(**({"tls": client_side(certificate)} if server.http.ssl_enabled else {}))
    ordinary.start("GET", "/page")
    # a later handshake is ended first
    ended(begin(server, "/late", certificate))
    websocket.send("still here")
    assert websocket.recv() == "still here"
    websocket.close()
    websocket.wait_closed()
    lent.send(b"still here")
    assert lent.read(10) == b"still here"
    lent.close()
    application.released.set()
    assert begun.response().text == "a page"
    assert ordinary.response().text == "a page"
    assert server.errors.text == ""


def test_a_response_that_a_middleware_keeps_has_been_given_in_time(start: Start, certificate: dict[str, str]) -> None:
    def keep(app: Any) -> Any:
        def around(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            begun: list[Any] = []
            body = b"".join(app(environ, lambda *args: begun.append(args)))
            start_response(*begun[0])
            return [body]

        return around

    server, application = start(around=keep, destroy_upgrade_timeout=SHORT)
    waiting = begin(server, "/begun", certificate)
    ended(begin(server, "/late", certificate))
    application.released.set()
    assert waiting.response().text == "a page"


@pytest.mark.parametrize("copies", [False, True], ids=["itself", "copied"])
def test_another_engine_behind_it_takes_its_time(start: Start, certificate: dict[str, str], copies: bool) -> None:
    """Its handshakes are its own, also where a middleware in between copies the environ."""
    admitted = Event()
    inner = engineio_wsgi.Server(path="/inner", allow_request=lambda request: admitted.wait())
    inner.on("connection", lambda socket: socket.on("message", socket.send))
    server, application = start(destroy_upgrade_timeout=SHORT)
    wrapped = inner.wrap(application)
    front = server.http.application
    front.application = (lambda environ, start: wrapped(dict(environ), start)) if copies else wrapped
    connection = begin(server, "/inner/?EIO=4&transport=websocket", certificate)
    ended(begin(server, "/late", certificate))
    admitted.set()
    client = WebSocketClient(connection, connection.response())
    assert str(client.recv()).startswith("0{")
    client.send("4hello")
    assert client.recv() == "4hello"
    inner.close(timeout=0)


def test_sessions_go_on_beside_it(start: Start, certificate: dict[str, str]) -> None:
    server, _ = start(destroy_upgrade_timeout=SHORT)
    if server.http.ssl_enabled:
        return
    front = server.http.application
    front.server.on("connection", lambda socket: socket.on("message", socket.send))
    session = open_session(Served(server.http.address, EventLog(), handler="ours"), "upgraded")
    ended(begin(server, "/late", certificate))
    session.say("beside")
    assert session.hear() == "beside"
    session.close()
