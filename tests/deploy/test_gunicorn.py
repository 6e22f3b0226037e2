"""Polling and WebSocket under every server whose connections can be taken over, none of them configured for it."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.clients import PollingSession, Session, WebSocketSession, open_session
from support.processes import ServerProcess
from support.rawhttp import ConnectionEnded, HttpConnection
from support.rawwebsocket import TEXT, Closed, WebSocketClient, frame_bytes, handshake_headers

OURS = "engineio_wsgi.gunicorn.Worker"
PLAIN_WEBSOCKET = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
KINDS = [OURS, "gevent", "gevent_pywsgi", PLAIN_WEBSOCKET, "plain"]
WEBSOCKET = "/engine.io/?EIO=4&transport=websocket"
ROUNDS = 20


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One process for all tests of a kind."""
    running = ServerProcess(tmp_path_factory.mktemp("server"), request.param)
    yield running
    running.stop()
    assert not running.complaints(), running.logs()


def handshake(target: str = WEBSOCKET) -> bytes:
    """A valid opening handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in handshake_headers(key))]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("way", ["polling", "websocket", "upgraded"])
def test_messages(server: ServerProcess, way: str) -> None:
    session: Session = open_session(server.served, way)
    assert session.info["upgrades"] == ([] if way == "websocket" else ["websocket"])
    session.say("text", b"\x00binary", "x" * 100_000)
    assert session.hear_many(3) == ["text", b"\x00binary", "x" * 100_000]
    session.close()


def test_frames_right_behind_the_handshake(server: ServerProcess) -> None:
    """What the server's loop has read ahead belongs to the session."""
    connection = server.served.connect()
    connection.send(handshake() + frame_bytes(TEXT, b"4early") + frame_bytes(TEXT, b"4bird"))
    assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    websocket = WebSocketClient(connection, None)  # type: ignore[arg-type]
    assert [str(websocket.recv())[:6] for _ in range(3)] == ['0{"sid', "4early", "4bird"]


def test_upgrade_header_among_others(server: ServerProcess) -> None:
    connection = server.served.connect()
    headers = dict(handshake_headers(base64.b64encode(bytes(16)).decode()), Connection="keep-alive, Upgrade")
    assert connection.request("GET", WEBSOCKET, headers.items()).status == 101


@pytest.mark.parametrize(("target", "code"), [(WEBSOCKET + "&sid=unknown", 1), ("/engine.io/?EIO=4&transport=nonsense", 0)])
def test_refused_upgrade(server: ServerProcess, target: str, code: int) -> None:
    connection = server.served.connect()
    connection.send(handshake(target))
    if server.kind == PLAIN_WEBSOCKET:
        # it has accepted before the engine sees the request
        assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        assert WebSocketClient(connection, None).wait_closed().code == 1008  # type: ignore[arg-type]
        return
    response = connection.response()
    assert (response.status, response.json()["code"]) == (400, code)
    assert response.tokens("Connection") == {"close"}
    assert connection.read_to_end() == b""


def test_invalid_handshake(server: ServerProcess) -> None:
    connection = server.served.connect()
    response = connection.get(WEBSOCKET, [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "7"),
                                          ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")])
    if server.kind != PLAIN_WEBSOCKET:
        assert response.status == 426
        assert response.header("Sec-WebSocket-Version") == "13"


def test_other_requests_on_the_connection(server: ServerProcess) -> None:
    """A connection goes on after a poll, and after a POST that is too large to be read is not misread."""
    connection = server.served.connect()
    assert connection.get("/engine.io/?EIO=4&transport=polling").status == 200
    assert connection.get("/anything").status == 200


# -- connections that end in every way

def leave_cleanly(server: ServerProcess) -> None:
    session = WebSocketSession(server.served).open()
    session.ws.close()
    assert session.ws.wait_closed().code == 1000
    assert session.ws.http.read_to_end() == b""


def leave_by_packet(server: ServerProcess) -> None:
    session = WebSocketSession(server.served).open()
    session.send("1")
    assert session.ws.wait_closed().code in (1000, 1005)


def reset(server: ServerProcess) -> None:
    WebSocketSession(server.served).open().ws.http.reset()


def reset_during_handshake(server: ServerProcess) -> None:
    connection = server.served.connect()
    connection.send(handshake())
    connection.reset()


def half_close(server: ServerProcess) -> None:
    session = WebSocketSession(server.served).open()
    session.ws.http.finish()
    with pytest.raises(Closed):
        session.ws.recv()
    assert b"HTTP/" not in session.ws.http.read_to_end()


def talk_garbage(server: ServerProcess) -> None:
    """An HTTP request on a WebSocket is a protocol error (its frame would not be masked), and not answered as one."""
    session = WebSocketSession(server.served).open()
    session.ws.http.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert session.ws.wait_closed().code == 1002
    assert session.ws.http.read_to_end() == b""


def talk_after_refusal(server: ServerProcess) -> None:
    connection = server.served.connect()
    connection.send(handshake(WEBSOCKET + "&sid=unknown") + frame_bytes(TEXT, b"4nobody listens"))
    received = connection.read_to_end()
    assert received.count(b"HTTP/1.1 ") == 1, received


def abort_poll(server: ServerProcess) -> None:
    PollingSession(server.served).open().vanish()


def reset_poll(server: ServerProcess) -> None:
    session = PollingSession(server.served).open()
    session.park()
    session.getting.reset()
    session.posting.close()


def break_off_post(server: ServerProcess) -> None:
    session = PollingSession(server.served).open()
    session.posting.start("POST", session.target(), [("Content-Length", "1000")], b"4only a part")
    session.posting.reset()
    session.getting.close()


def upgrade_and_leave(server: ServerProcess) -> None:
    session = open_session(server.served, "upgraded")
    session.say("last")
    assert session.hear() == "last"
    session.close()


WAYS: list[Callable[[ServerProcess], None]] = [
    leave_cleanly, leave_by_packet, reset, reset_during_handshake, half_close, talk_garbage, talk_after_refusal, abort_poll,
    reset_poll, break_off_post, upgrade_and_leave,
]  # fmt: skip


def said(server: ServerProcess) -> list[str]:
    """The lines of the error log, but for one of the start that is not waited for."""
    return [line for line in server.error_log.read_text().splitlines() if "Control socket" not in line]


def test_connections_end_quietly(server: ServerProcess) -> None:
    """No line in the error log, no byte of HTTP where frames are, and nothing left of a session that was ended."""
    before = said(server)
    remaining = server.ask()["clients"]
    for _ in range(ROUNDS):
        for way in WAYS:
            way(server)
        HttpConnection.close_all()
    # an aborted POST is no end of its session, which waits for another poll
    server.until(lambda: server.ask()["clients"] <= remaining + ROUNDS)
    assert said(server) == before
    assert not server.complaints()


def test_still_serves(server: ServerProcess) -> None:
    """After all that."""
    session = WebSocketSession(server.served).open()
    session.say("hello")
    assert session.hear() == "hello"
    with pytest.raises(ConnectionEnded):
        session.ws.close()
        session.ws.wait_closed()
        session.ws.http.read(1)


HANGING = """
import engineio_wsgi
from gevent.event import Event
server = engineio_wsgi.Server(destroy_upgrade_timeout=0.2)

def application(environ, start_response):
    Event().wait()

app = server.wrap(application)
"""


def test_a_handshake_that_the_application_never_answers(tmp_path: Path) -> None:
    """Its client and the access log see a 503."""
    running = ServerProcess(tmp_path, OURS, application=HANGING)
    try:
        connection = running.served.connect()
        connection.send(handshake("/elsewhere"))
        assert connection.read_to_end().startswith(b"HTTP/1.1 503 ")
        running.until(lambda: '"GET /elsewhere HTTP/1.1" 503 ' in running.access_log.read_text())
        running.wait_for("a WebSocket handshake for '/elsewhere' was answered with 503")
    finally:
        running.stop()
