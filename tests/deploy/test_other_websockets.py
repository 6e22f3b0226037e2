"""WebSockets of other libraries beside the engine: flask-sock with simple-websocket, and plain ``environ["wsgi.websocket"]``."""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import Callable, Iterator

import pytest
from support.clients import open_session
from support.processes import ServerProcess
from support.rawhttp import ConnectionEnded
from support.rawwebsocket import TEXT, WebSocketClient, frame_bytes, handshake_headers

OURS = "engineio_wsgi.gunicorn.Worker"

APPLICATION = '''
import flask
import flask_sock
import simple_websocket
import engineio_wsgi

pages = flask.Flask(__name__)
pages.config["SOCK_SERVER_OPTIONS"] = {"subprotocols": ["chat"], "max_message_size": 1_000_000}
sock = flask_sock.Sock(pages)
server = engineio_wsgi.Server()

@server.on("connection")
def connected(socket):
    socket.on("message", socket.send)

@sock.route("/echo")
def echo(websocket):
    while (message := websocket.receive()) != "leave":
        websocket.send(message)

@sock.route("/fails")
def fails(websocket):
    raise RuntimeError("a view that fails")

@pages.get("/page")
def page():
    return "a page"

@pages.get("/refused", websocket=True)
def refused():
    return "not today", 403

def application(environ, start_response):
    if environ["PATH_INFO"] == "/plain":
        websocket = environ["wsgi.websocket"]
        while (message := websocket.receive()) is not None:
            websocket.send(message)
        return []
    if environ["PATH_INFO"] == "/pings":
        websocket = simple_websocket.Server.accept(environ, ping_interval=3)
        try:
            while True:
                websocket.send(websocket.receive())
        except simple_websocket.ConnectionClosed:
            return []
    return pages(environ, start_response)

app = server.wrap(application)
'''
SERVER = ("from gevent import monkey; monkey.patch_all(); from gevent.pywsgi import WSGIServer; import app, engineio_wsgi;"
          "s = WSGIServer(('127.0.0.1', 0), app.app, handler_class=engineio_wsgi.WebSocketHandler, log=None); s.start();"
          "print('Listening at: http://127.0.0.1:%d' % s.server_port, flush=True); s.serve_forever()")
UNPATCHED = SERVER.replace("from gevent import monkey; monkey.patch_all(); ", "")
MAINS = {"handler": SERVER, "unpatched": UNPATCHED}
OWN = ["handler", OURS, "tls"]
Start = Callable[[str], ServerProcess]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, certificate: dict[str, str]) -> Iterator[Start]:
    """One process of each kind for all tests."""
    running: dict[str, ServerProcess] = {}

    def start_server(kind: str) -> ServerProcess:
        if kind not in running:
            arguments, context = [], None
            if kind == "tls":
                arguments = ["--certfile", certificate["certfile"], "--keyfile", certificate["keyfile"]]
                context = ssl.create_default_context(cafile=certificate["certfile"])
            running[kind] = ServerProcess(tmp_path_factory.mktemp("server"), OURS if kind == "tls" else kind, *arguments,
                                          application=APPLICATION, mains=MAINS, tls=context)
        return running[kind]

    yield start_server
    for server in running.values():
        server.stop()


@pytest.fixture(params=[*OWN, "gevent"])
def server(request: pytest.FixtureRequest, start: Start) -> ServerProcess:
    """Ours, and gunicorn's own worker to compare."""
    return start(request.param)


@pytest.fixture(params=OWN)
def own(request: pytest.FixtureRequest, start: Start) -> ServerProcess:
    """What only ours can."""
    return start(request.param)


def opened(server: ServerProcess, target: str) -> WebSocketClient:
    return WebSocketClient.open(server.served.connect(), target, [("Sec-WebSocket-Protocol", "chat")])


def test_messages(server: ServerProcess) -> None:
    client = opened(server, "/echo")
    assert client.response.header("Sec-WebSocket-Protocol") == "chat"
    for message in ("text", b"\x00binary", "x" * 300_000):
        client.send(message)
        assert client.recv() == message
    client.close()
    assert client.wait_closed().code == 1000
    assert client.http.read_to_end() == b""


def test_the_view_leaves(server: ServerProcess) -> None:
    """A close, and not a byte of HTTP behind it; whoever closes properly then is done with at once."""
    client = opened(server, "/echo")
    client.send("leave")
    assert client.wait_closed().code == 1000
    assert client.http.read_to_end() == b""


def test_frames_right_behind_the_handshake(own: ServerProcess) -> None:
    """gunicorn's parser would keep what it has read ahead."""
    connection = own.served.connect()
    head = connection.head("GET", "/echo", handshake_headers(base64.b64encode(os.urandom(16)).decode()))
    connection.send(head + frame_bytes(TEXT, b"early") + frame_bytes(TEXT, b"bird"))
    client = WebSocketClient(connection, connection.response())
    assert [client.recv(), client.recv()] == ["early", "bird"]


def test_pings(server: ServerProcess) -> None:
    """Of a library that waits for the file descriptor."""
    client = opened(server, "/pings")
    assert client.read_frame().opcode == 9
    client.send_frame(10)
    client.send("after the pong")
    assert client.recv() == "after the pong"
    client.close()
    client.wait_closed()


def test_many_at_a_time(server: ServerProcess) -> None:
    clients = [opened(server, "/echo") for _ in range(20)]
    session = open_session(server.served, "upgraded")
    for number, client in enumerate(clients):
        client.send(str(number))
    assert [client.recv() for client in clients] == [str(number) for number in range(20)]
    session.say("beside")
    assert session.hear() == "beside"
    assert server.served.connect().get("/page").text == "a page"
    for client in clients:
        client.http.reset()
    session.close()


def test_refused_by_the_application(server: ServerProcess) -> None:
    connection = server.served.connect()
    headers = handshake_headers(base64.b64encode(os.urandom(16)).decode())
    response = connection.request("GET", "/refused", headers)
    assert (response.status, response.text) == (403, "not today")


def test_connections_end_quietly(server: ServerProcess) -> None:
    """Reset, cut off, or left by the view: no line in the log, and no byte where frames are."""
    before = server.complaints()
    for _ in range(10):
        opened(server, "/echo").http.reset()
        half_closed = opened(server, "/echo")
        half_closed.http.finish()
        assert b"HTTP/" not in half_closed.http.read_to_end()
        client = opened(server, "/echo")
        client.send("leave")
        client.http.close()
    assert server.served.connect().get("/page").text == "a page"
    assert server.complaints() == before


def test_plain_websocket(own: ServerProcess) -> None:
    client = opened(own, "/plain")
    client.send("hello")
    assert client.recv() == "hello"
    client.close()
    assert client.wait_closed().code == 1000


def test_access_log(start: Start) -> None:
    server = start(OURS)
    opened(server, "/echo").close()
    server.until(lambda: re.search(r'"GET /echo HTTP/1.1" 101 ', server.access_log.read_text()) is not None)


def test_view_that_fails(server: ServerProcess) -> None:
    """Its error is logged, and the connection ends."""
    client = opened(server, "/fails")
    with pytest.raises(ConnectionEnded):
        while True:
            client.read_frame()
    server.wait_for("RuntimeError: a view that fails")


def test_without_patches_nothing_stands_still(start: Start) -> None:
    """simple-websocket reads in a thread, which cannot be there: the log says what to do, and everything else is served."""
    server = start("unpatched")
    assert opened(server, "/echo").wait_closed().code in (1000, 1006)
    server.wait_for("a WebSocket library of the application reads in a thread, .* call gevent.monkey.patch_all")
    assert server.served.connect().get("/page").text == "a page"
