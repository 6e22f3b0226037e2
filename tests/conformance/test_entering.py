"""The ways in: listen, attach, wrap, and passing requests, WebSockets and sockets by hand."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.queue
import gevent.socket
import pytest
from gevent.pywsgi import WSGIServer
from support.clients import PollingSession, Session, open_session, upgrade
from support.rawhttp import HttpConnection
from support.rawwebsocket import Refused, WebSocketClient
from support.serving import EventLog, Served, fallback, handler_class

pytestmark = pytest.mark.ours


def assert_echoes(session: Session) -> None:
    session.say("x", b"\x00")
    assert session.hear_many(2) == ["x", b"\x00"]


def echo_on(engine: Any) -> Any:
    engine.on("connection", lambda socket: socket.on("message", socket.send))
    return engine


Start = Callable[[Any], tuple[str, int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a gevent server that the test has made."""
    started: list[Any] = []

    def run(http: Any) -> tuple[str, int]:
        http.start()
        started.append(http)
        address: tuple[str, int] = http.address
        return address

    yield run
    for http in started:
        http.stop(timeout=1)


def at(address: tuple[str, int], path: str = "/engine.io/") -> Served:
    return Served(address, EventLog(), handler="ours", path=path)


# -- listen


@pytest.fixture
def listening() -> Iterator[Served]:
    """The smallest server."""
    import engineio_wsgi

    with gevent.socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    engine = echo_on(engineio_wsgi.listen(address))
    serving = gevent.spawn(engine.serve_forever)
    yield at(address)
    engine.close(timeout=0)
    serving.kill()


def test_listen(listening: Served, transport: str) -> None:
    assert_echoes(open_session(listening, transport))


@pytest.mark.parametrize("path", ["/", "/engine", "/engine.iox", "/engine.io.js", "/x/engine.io/"])
def test_listen_answers_501_elsewhere(listening: Served, path: str) -> None:
    connection = listening.connect()
    for method in ("GET", "POST"):
        assert connection.request(method, path, body=b"").status == 501
    with pytest.raises(Refused) as refused:
        WebSocketClient.open(listening.connect(), path)
    assert refused.value.response.status == 501
    assert_echoes(open_session(listening))


@pytest.mark.parametrize("spawn", [gevent.spawn, gevent.get_hub().threadpool.spawn], ids=["greenlet", "thread"])
def test_serve_forever_ends_after_the_sessions(spawn: Callable[..., Any]) -> None:
    import engineio_wsgi

    engine = engineio_wsgi.listen(("127.0.0.1", 0))
    order: list[str] = []
    session = open_session(at(engine.address), "polling")
    engine.clients[session.sid].send("last words").on("close", lambda reason, _: order.append(reason))
    serving = gevent.spawn(engine.serve_forever)
    serving.link(lambda _: order.append("served"))
    closing = spawn(engine.close)
    assert session.hear() == "last words"
    assert session.recv() == "1"
    gevent.joinall([serving], timeout=60)
    closing.get(timeout=60)
    assert order == ["server shutting down", "served"]


def test_closing_twice_at_the_same_time() -> None:
    import engineio_wsgi

    engine = engineio_wsgi.listen(("127.0.0.1", 0))
    session = open_session(at(engine.address), "polling")
    engine.clients[session.sid].send("last words")
    closing = [gevent.spawn(engine.close) for _ in range(2)]
    assert session.hear() == "last words"
    assert len(gevent.joinall(closing, timeout=60)) == 2


# gevent leaves the socket that it could not bind to the garbage collector
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_an_address_that_is_taken() -> None:
    import engineio_wsgi
    from engineio_wsgi.errors import CannotListen

    with gevent.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = engineio_wsgi.Server()
        with pytest.raises(CannotListen) as refused:
            server.listen(("127.0.0.1", port))
        assert str(refused.value) == f"[Errno 98] cannot listen on 127.0.0.1:{port}: Address already in use"
        assert isinstance(refused.value, OSError)
        assert refused.value.__suppress_context__, "one traceback is enough"
        with pytest.raises(CannotListen, match=f"cannot listen on port {port}: Address already in use"):
            server.listen(port)
        assert server.address is None
        with pytest.raises(RuntimeError, match="nothing to serve"):
            server.serve_forever()
    server.listen(("127.0.0.1", port))
    assert server.address[1] == port
    server.close(timeout=0)
    del refused
    gc.collect()


# -- attach


def test_attach(start: Start, transport: str) -> None:
    import engineio_wsgi

    http = WSGIServer(("127.0.0.1", 0), fallback, log=None)
    engine = echo_on(engineio_wsgi.attach(http, path="/chat", ping_interval=12.5))
    served = at(start(http), "/chat/")
    session = open_session(served, transport)
    assert session.info["pingInterval"] == 12500
    assert_echoes(session)
    assert served.connect().get("/elsewhere").text == "application /elsewhere"
    engine.close(timeout=0)


@pytest.mark.parametrize("name", ["ours", "stock"])
def test_attach_to_a_server_with_a_websocket_handler(start: Start, transport: str, name: str) -> None:
    import engineio_wsgi

    http = WSGIServer(("127.0.0.1", 0), fallback, log=None, handler_class=handler_class(name))
    engine = echo_on(engineio_wsgi.attach(http))
    assert_echoes(open_session(at(start(http)), transport))
    engine.close(timeout=0)


def test_attach_twice(start: Start) -> None:
    import engineio_wsgi

    http = WSGIServer(("127.0.0.1", 0), fallback, log=None)
    first = echo_on(engineio_wsgi.attach(http, path="/one"))
    second = echo_on(engineio_wsgi.attach(http, path="/two"))
    address = start(http)
    sessions = [
        open_session(at(address, path), transport)
        for path in ("/one/", "/two/")
        for transport in ("polling", "websocket")
    ]
    for session in sessions:
        assert_echoes(session)
    assert (first.clients_count, second.clients_count) == (2, 2)
    assert at(address).connect().get("/three").text == "application /three"
    first.close(timeout=0)
    second.close(timeout=0)


def test_attach_of_a_server_made_before(start: Start) -> None:
    import engineio_wsgi

    http = WSGIServer(("127.0.0.1", 0), fallback, log=None)
    engine = echo_on(engineio_wsgi.Server(path="/chat"))
    engine.attach(http)
    assert_echoes(open_session(at(start(http), "/chat/")))
    engine.close(timeout=0)


# -- upgrades outside the engine's path

def upgrade_elsewhere(address: tuple[str, int]) -> bytes:
    """What is received until the server ends the connection."""
    connection = HttpConnection(address)
    connection.sock.sendall(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    return connection.read_to_end()


@pytest.mark.parametrize("is_attached", [False, True], ids=["wrapped", "attached"])
def test_an_upgrade_that_the_application_does_not_take_is_ended_with_its_response(start: Start, is_attached: bool) -> None:
    import engineio_wsgi

    engine = engineio_wsgi.Server()
    http = WSGIServer(("127.0.0.1", 0), fallback if is_attached else engine.wrap(fallback), log=None,
                      handler_class=engineio_wsgi.WebSocketHandler)
    if is_attached:
        engine.attach(http)
    received = upgrade_elsewhere(start(http))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"application /elsewhere")
    engine.close(timeout=0)


def test_an_upgrade_that_nobody_takes_is_ended(listening: Served) -> None:
    assert upgrade_elsewhere(listening.address).startswith(b"HTTP/1.1 501 ")


def test_gevent_websockets_handler_closes_what_the_application_does_not_take(start: Start) -> None:
    """It has accepted the WebSocket before the application is called."""
    import engineio_wsgi

    http = WSGIServer(("127.0.0.1", 0), engineio_wsgi.Server().wrap(fallback), log=None, handler_class=handler_class("stock"))
    received = upgrade_elsewhere(start(http))
    assert received.startswith(b"HTTP/1.1 101 ")
    assert received.endswith(b"\r\n\r\n\x88\x00")


# -- wrap


def test_wrap(serve: Any, transport: str) -> None:
    served = serve()
    assert_echoes(open_session(served, transport))
    connection = served.connect()
    for path in ("/", "/engine", "/engine.iox/", "/x/engine.io/"):
        assert connection.get(path).text == f"application {path}"


def test_middleware_is_wrap(start: Start) -> None:
    import engineio_wsgi

    engine = echo_on(engineio_wsgi.Server())
    http = WSGIServer(
        ("127.0.0.1", 0),
        engineio_wsgi.Middleware(fallback, engine),
        log=None,
        handler_class=engineio_wsgi.WebSocketHandler,
    )
    assert_echoes(open_session(at(start(http)), "websocket"))
    engine.close(timeout=0)


@pytest.mark.alone("it has an application that the other worker has not")
def test_several_servers_on_several_paths(serve: Any, transport: str) -> None:
    import engineio_wsgi

    other = echo_on(engineio_wsgi.Server(path="/other"))
    served = serve(path="/chat/room", wsgi=lambda engine: other.wrap(engine.wrap(fallback)))
    mine = open_session(served, transport)
    theirs = open_session(at(served.address, "/other/"), transport)
    assert_echoes(mine)
    assert_echoes(theirs)
    assert list(served.server.clients) == [mine.sid]
    assert list(other.clients) == [theirs.sid]
    response = served.connect().get(f"/other/?EIO=4&transport=polling&sid={mine.sid}")
    assert response.json()["code"] in (1, 3), "a session belongs to its server"
    other.close(timeout=0)


@pytest.mark.alone("it has an application that the other worker has not")
def test_mounted_under_a_prefix(serve: Any, transport: str) -> None:
    """A dispatcher that moves a prefix to SCRIPT_NAME, as frameworks do."""

    def mount(engine: Any) -> Any:
        inner = engine.wrap(fallback)

        def dispatch(environ: dict[str, Any], start_response: Any) -> Any:
            assert environ["PATH_INFO"].startswith("/mounted") or environ["PATH_INFO"] == "/settled"
            moved = environ["PATH_INFO"].removeprefix("/mounted")
            return inner({**environ, "SCRIPT_NAME": "/mounted", "PATH_INFO": moved}, start_response)

        return dispatch

    served = serve(wsgi=mount)
    served.path = "/mounted/engine.io/"
    assert_echoes(open_session(served, transport))


# -- by hand


@pytest.mark.alone("it has an application that the other worker has not")
def test_requests_passed_by_hand(serve: Any, transport: str) -> None:
    def by_hand(engine: Any) -> Any:
        def application(environ: dict[str, Any], start_response: Any) -> Any:
            if environ["PATH_INFO"] == "/my/own/place":
                return engine.handle_request(environ, start_response)
            return fallback(environ, start_response)

        return application

    served = serve(wsgi=by_hand)
    served.path = "/my/own/place"
    assert_echoes(open_session(served, transport))


def websockets_by_hand(engine: Any) -> Any:
    """An application that takes WebSockets itself and passes them on."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        if "wsgi.websocket" in environ:
            engine.handle_upgrade(environ, environ["wsgi.websocket"])
            return []
        return engine.handle_request(environ, start_response)

    return application


def test_websockets_passed_by_hand(serve: Any, eio: int) -> None:
    assert_echoes(open_session(serve(wsgi=websockets_by_hand), "websocket", eio))


def test_an_upgrade_passed_by_hand(serve: Any) -> None:
    polling = PollingSession(serve(wsgi=websockets_by_hand)).open()
    polling.served.settle = lambda: None  # type: ignore[method-assign]
    moved = upgrade(polling)
    assert_echoes(moved)


@pytest.mark.alone("it has an application that the other worker has not")
def test_a_refused_websocket_passed_by_hand(serve: Any) -> None:
    served = serve(wsgi=websockets_by_hand)
    try:
        client = WebSocketClient.open(served.connect(), f"{served.path}?EIO=4&transport=websocket&sid=tobi")
    except Refused as refused:
        assert refused.response.json()["code"] == 1
    else:
        assert client.wait_closed().code == 1008
    assert served.events.wait("connection_error")["code"] == 1


class DuckWebSocket:
    """What handle_upgrade accepts: anything of gevent-websocket's shape."""

    def __init__(self) -> None:
        self.incoming: gevent.queue.Queue = gevent.queue.Queue()
        self.outgoing: gevent.queue.Queue = gevent.queue.Queue()
        self.closed = False

    def receive(self) -> str | bytes | bytearray | None:
        """The next message, ``None`` at the end."""
        data: str | bytes | None = None if self.closed else self.incoming.get()
        return bytearray(data) if isinstance(data, bytes) else data

    def send(self, message: str | bytes, binary: bool | None = None) -> None:
        """Send one message."""
        self.outgoing.put(message)

    def close(self, code: int = 1000, message: bytes = b"") -> None:
        """Close."""
        if not self.closed:
            self.closed = True
            self.incoming.put(None)
            self.outgoing.put(None)


def test_any_websocket_will_do() -> None:
    import engineio_wsgi

    engine = echo_on(engineio_wsgi.Server())
    reasons: list[str] = []
    engine.on("connection", lambda socket: socket.on("close", lambda reason, description: reasons.append(str(reason))))
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/engine.io/",
        "QUERY_STRING": "EIO=4&transport=websocket",
        "HTTP_HOST": "localhost",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "127.0.0.1",
    }
    duck = DuckWebSocket()
    serving = gevent.spawn(engine.handle_upgrade, environ, duck)
    assert duck.outgoing.get(timeout=60).startswith('0{"sid":"')
    duck.incoming.put("4hello")
    duck.incoming.put(b"\x00\x01")
    assert [duck.outgoing.get(timeout=60) for _ in range(2)] == ["4hello", b"\x00\x01"]
    duck.incoming.put(None)
    serving.get(timeout=60)
    assert reasons == ["transport close"]
    assert engine.clients_count == 0


def test_http_1_0_and_keep_alive_off(serve: Any) -> None:
    served = serve()
    connection = served.connect()
    connection.send(f"GET {served.path}?EIO=4&transport=polling HTTP/1.0\r\n\r\n".encode())
    response = connection.response()
    assert response.status == 200
    assert response.text.startswith('0{"sid":')
    assert connection.read_to_end() == b""
    second = HttpConnection(served.address)
    assert second.get(f"{served.path}?EIO=4&transport=polling", [("Connection", "close")]).status == 200
    assert second.read_to_end() == b""
