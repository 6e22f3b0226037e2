"""The handler: the WebSockets of applications, the attributes of gevent-websocket's handler, logs, and subclasses."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import gevent.pywsgi
import pytest
from gunicorn.workers.ggevent import PyWSGIHandler
from support.plain import LogText, PlainServer, client_side, records_of, serving
from support.rawwebsocket import TEXT, Closed, Refused, WebSocketClient, frame_bytes, handshake_headers

from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.options.values import Deflate

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    websocket = environ.get("wsgi.websocket")
    if websocket is None:
        start_response("200 OK", [("Content-Length", "4")])
        return [b"http"]
    while (message := websocket.receive()) is not None:
        websocket.send(message)
    return []


def open_websocket(server: PlainServer, headers: Any = (), **options: Any) -> WebSocketClient:
    return WebSocketClient.open(server.connect(**options), "/path", headers)


# -- WebSockets


def test_echo() -> None:
    with serving(echo) as server:
        client = open_websocket(server)
        for message in ("text", b"bytes", "", b"", "x" * 100_000):
            client.send(message)
            assert client.recv() == message
        client.close(1001)
        assert client.wait_closed().code == 1001
        assert client.http.read_to_end() == b""
        assert server.connect().get("/").body == b"http"
        assert server.errors.text == ""


def test_echo_over_tls(certificate: dict[str, str]) -> None:
    with serving(echo, tls=certificate) as server:
        client = open_websocket(server, tls=client_side(certificate))
        client.send("x" * 100_000)
        assert client.recv() == "x" * 100_000
        client.close()
        assert client.wait_closed().code == 1000
        assert client.http.read_to_end() == b""
        assert server.errors.text == ""


def test_frames_that_come_with_the_handshake() -> None:
    with serving(echo) as server:
        connection = server.connect()
        head = connection.head("GET", "/", handshake_headers(KEY))
        connection.send(head + frame_bytes(TEXT, b"early"))
        client = WebSocketClient(connection, connection.response())
        assert client.recv() == "early"


def test_a_websocket_is_closed_when_the_application_returns() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.websocket"].send("bye")
        start_response("200 OK", [])
        return [b"nobody sees this"]

    with serving(application) as server:
        client = open_websocket(server)
        assert client.recv() == "bye"
        with pytest.raises(Closed) as closed:
            client.recv()
        assert closed.value.code == 1000
        assert client.http.read_to_end() == b""


def test_an_application_that_is_a_generator() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        environ["wsgi.websocket"].send(environ["wsgi.websocket"].receive())
        yield b"nobody sees this"

    with serving(application) as server:
        client = open_websocket(server)
        client.send("hello")
        assert client.recv() == "hello"
        assert client.wait_closed().code == 1000
        assert server.errors.text == ""


def test_an_application_that_returns_nothing() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.websocket"].close(4000, "done")

    with serving(application) as server:
        assert open_websocket(server).wait_closed() == Closed(4000, "done")
        assert server.errors.text == ""


@pytest.mark.complains
def test_an_application_that_fails() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.websocket"].send("so far")
        raise ValueError("a bug")

    with serving(application) as server:
        client = open_websocket(server)
        assert client.recv() == "so far"
        assert client.wait_closed().code == 1011
        assert client.http.read_to_end() == b""


def test_a_client_that_goes_away_is_no_error() -> None:
    ended = gevent.event.Event()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            while True:
                environ["wsgi.websocket"].send("x" * 10_000)
        finally:
            ended.set()

    with serving(application) as server:
        open_websocket(server).http.reset()
        assert ended.wait(60)
        gevent.sleep(0)
        assert server.errors.text == ""


def test_an_ordinary_response_instead() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        assert not environ["wsgi.websocket"].accepted
        start_response("403 Forbidden", [])
        return [b"not you"]

    with serving(application) as server:
        with pytest.raises(Refused) as refused:
            open_websocket(server)
        response = refused.value.response
        assert (response.status, response.body) == (403, b"not you")
        assert response.tokens("Connection") == {"close"}


@pytest.mark.parametrize(
    ("headers", "status", "what"),
    [
        ([("Connection", "Upgrade"), ("Upgrade", "websocket")], 400, "Sec-WebSocket-Key"),
        (
            [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", KEY)],
            400,
            "Connection: Upgrade",
        ),
        (
            [
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "12"),
                ("Sec-WebSocket-Key", KEY),
            ],
            426,
            "13",
        ),
        (
            [
                ("Connection", "Upgrade"),
                ("Upgrade", "WebSocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "?"),
            ],
            400,
            "Sec-WebSocket-Key",
        ),
    ],
)
def test_a_handshake_that_is_not_valid(headers: Any, status: int, what: str) -> None:
    def swallowing(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            return echo(environ, start_response)
        except Exception:
            return []

    for application in (echo, swallowing):
        with serving(application) as server:
            response = server.connect().get("/", headers)
            assert response.status == status
            assert what in response.text
            assert response.header("Sec-WebSocket-Version") in (None, "13")
            assert server.errors.text == ""


def test_limits_of_messages() -> None:
    with serving(echo, max_message_size=1000) as server:
        client = open_websocket(server)
        client.send("x" * 1000)
        assert client.recv() == "x" * 1000
        client.send("x" * 1001)
        assert client.wait_closed().code == 1009


@pytest.mark.parametrize(("setting", "compresses"), [(False, False), (True, True), (Deflate(threshold=1), True)])
def test_compression(setting: Any, compresses: bool) -> None:
    with serving(echo, per_message_deflate=setting) as server:
        client = open_websocket(server, [("Sec-WebSocket-Extensions", "permessage-deflate")])
        assert ((client.response.header("Sec-WebSocket-Extensions") or "")[:18] == "permessage-deflate") is compresses


# -- what gevent-websocket's handler is known for


class Chooser:
    """An application that chooses its sub-protocol as gevent-websocket's ``Resource`` does."""

    def app_protocol(self, path: str) -> str:
        return "chat" if path == "/path" else ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.websocket"].accept()
        environ["wsgi.websocket"].send(str(environ["wsgi.websocket"].protocol))
        return []


def test_the_sub_protocol() -> None:
    with serving(Chooser()) as server:
        client = open_websocket(server, [("Sec-WebSocket-Protocol", "other, chat")])
        assert client.response.header("Sec-WebSocket-Protocol") == "chat"
        assert client.recv() == "chat"
        client = open_websocket(server, [("Sec-WebSocket-Protocol", "other")])
        assert client.response.header("Sec-WebSocket-Protocol") is None


def test_the_clients_of_the_server() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        websocket = environ["wsgi.websocket"]
        handler = websocket.handler
        assert handler.websocket is websocket
        assert handler.active_client.ws is websocket
        for client in list(handler.server.clients.values()):
            client.ws.send(f"{len(handler.server.clients)}")
        return echo(environ, start_response)

    with serving(application) as server:
        first, second = open_websocket(server), open_websocket(server)
        assert [first.recv(), first.recv(), second.recv()] == ["1", "2", "2"]
        first.close()
        first.wait_closed()
        second.close()
        second.wait_closed()
        assert server.http.clients == {}


def test_the_hook_before_a_websocket() -> None:
    def hook(handler: WebSocketHandler) -> bool:
        return handler.path == "/path"

    with serving(echo) as server:
        server.http.pre_start_hook = hook
        with pytest.raises(Refused) as refused:
            open_websocket(server)
        assert refused.value.response.body == b"http"
        client = WebSocketClient.open(server.connect(), "/other")
        client.send("x")
        assert client.recv() == "x"


def test_a_handler_that_keeps_the_application_out() -> None:
    class Own(WebSocketHandler):
        prevent_wsgi_call = True

        def run_application(self) -> None:
            super().run_application()
            assert self.websocket is not None
            self.websocket.send("from the handler")

    with serving(echo, Own) as server:
        client = open_websocket(server)
        assert client.recv() == "from the handler"
        assert client.wait_closed().code == 1000


# -- logs and subclasses


def test_the_access_log() -> None:
    with serving(echo) as server:
        server.connect().get("/a?b")
        (line,) = server.log.lines
        assert re.fullmatch(
            r'127\.0\.0\.1 - - \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "GET /a\?b HTTP/1\.1" 200 \d+ 0\.\d{6}', line
        )


def test_the_format_is_the_subclass_own() -> None:
    class Own(WebSocketHandler):
        def format_request(self) -> str:
            return f"{self.status} {self.command} {self.path} {self.code} {self.response_length > 0}"

    with serving(echo, Own) as server:
        server.connect().get("/a")
        assert server.log.lines == ["200 OK GET /a 200 True"]


def test_a_log_that_nobody_reads_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(WebSocketHandler, "format_request", lambda self: lines.append("formatted"))
    server = gevent.pywsgi.WSGIServer(("127.0.0.1", 0), echo, log=None, handler_class=WebSocketHandler)
    assert WebSocketHandler(None, None, server)._is_logging is False
    server.log = LogText()
    assert WebSocketHandler(None, None, server)._is_logging is True


class GunicornLog:
    """What gunicorn's handler logs to."""

    def __init__(self) -> None:
        self.requests: list[tuple[Any, ...]] = []

    def log(self, level: int, message: str) -> None:
        """What pywsgi looks for."""

    def access(self, response: Any, request_headers: Any, environ: dict[str, Any], seconds: Any) -> None:
        line = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}"
        self.requests.append((response.status, dict(response.headers), response.sent, dict(request_headers), line))


def test_gunicorns_handler() -> None:
    class Gunicorn(PyWSGIHandler, WebSocketHandler):  # type: ignore[misc]
        pass

    environs: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        environs.append(environ)
        return echo(environ, start_response)

    with serving(application, Gunicorn) as server:
        server.http.log = log = GunicornLog()
        connection = server.connect()
        assert connection.get("/a%20b", [("X-Thing", "1")]).body == b"http"
        assert environs[0]["RAW_URI"] == "/a%20b"
        assert environs[0]["gunicorn.sock"] is not None
        ((status, headers, sent, request_headers, line),) = log.requests
        assert (status, headers, line) == ("200 OK", {"Content-Length": "4"}, "GET /a%20b HTTP/1.1")
        assert sent > 4
        assert request_headers["X-Thing"] == "1"
        assert request_headers["Host"].startswith("127.0.0.1:")
        connection.send(b"nonsense\r\n\r\n")
        assert connection.response().status == 400
        assert [(entry[0], entry[3], entry[4]) for entry in log.requests[1:]] == [("400 Bad Request", {}, "- - -")]
        client = open_websocket(server)
        client.send("x")
        assert client.recv() == "x"


@pytest.mark.complains
def test_a_handler_may_report_errors_itself() -> None:
    reported: list[type] = []

    class Own(WebSocketHandler):
        def handle_error(self, kind: Any, value: Any, traceback: Any) -> None:
            reported.append(kind)
            super().handle_error(kind, value, traceback)

    with serving(lambda environ, start_response: 1 / 0, Own) as server:
        assert server.connect().get("/").status == 500
        assert reported == [ZeroDivisionError]


def test_killing_a_request() -> None:
    serving_it = gevent.event.AsyncResult()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        serving_it.set(gevent.getcurrent())
        gevent.event.Event().wait()

    with serving(application) as server:
        connection = server.connect(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        serving_it.get(timeout=60).kill()
        assert connection.response().status == 500
        assert connection.read_to_end() == b""
        assert server.errors.text == ""


def test_nothing_is_left_of_a_connection() -> None:
    def alive() -> list[WebSocketHandler]:
        gc.collect()
        return [thing for thing in gc.get_objects() if isinstance(thing, WebSocketHandler)]

    with serving(echo) as server, records_of("engine.http"):
        # what other tests have left may go or stay
        before = alive()
        for _ in range(5):
            server.connect().get("/", [("Connection", "close")])
            server.connect(b"nonsense\r\n\r\n").read_to_end()
            client = open_websocket(server)
            client.close()
            client.wait_closed()
            client.http.read_to_end()
        gevent.sleep(0)
        assert not [handler for handler in alive() if handler not in before]


def test_what_an_idle_connection_keeps() -> None:
    handlers: list[WebSocketHandler] = []

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        every = [thing for thing in gc.get_objects() if isinstance(thing, WebSocketHandler)]
        handlers.extend(handler for handler in every if handler.environ is environ)
        return echo(environ, start_response)

    with serving(application) as server:
        connection = server.connect()
        connection.get("/")
        gevent.sleep(0)
        assert handlers[0].environ is None
        assert handlers[0]._connection.buffer == b""
