"""Servers that answer each request in a plain thread: polling, WebSocket and the upgrade work, and nothing complains."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gevent import ssl
from support.clients import PollingSession, WebSocketSession, data_of, probe
from support.codec import Packet
from support.deployment import Program, Site, free_port
from support.node import Driver
from support.processes import ServerProcess
from support.rawhttp import Headers, Response
from support.rawwebsocket import TEXT, Refused, WebSocketClient, frame_bytes, handshake_headers
from support.workers import Nomad

TARGET = "/engine.io/?EIO=4&transport=websocket"
KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="
#: the arguments of each, and whether it serves several requests at a time
KINDS = {"wsgiref": ((), False), "werkzeug": ((), True), "sync": ((), False), "sync threads": (("--threads", "4"), True),
         "gthread": (("--threads", "4"), True)}
#: closes of WebSockets that have to leave no line in the server's log
CLOSES = 1000


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """One of `KINDS`."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One process for all tests of a kind."""
    arguments, _ = KINDS[kind]
    options = {"ping_interval": 0.3, "ping_timeout": 60, "max_http_buffer_size": 1000}
    running = ServerProcess(tmp_path_factory.mktemp("server"), kind.partition(" ")[0], *arguments, options=options)
    yield running
    said = running.complaints()
    running.stop()
    assert not said, running.logs()


class _OneByOne(PollingSession):
    """A client that has no connection open while it does nothing: some servers serve one connection at a time."""

    def start_poll(self, headers: Headers = ()) -> None:
        self.getting = self.served.connect()
        super().start_poll(headers)

    def end_poll(self) -> list[Packet]:
        packets = super().end_poll()
        self.getting.close()
        return packets

    def post(self, *packets: Packet) -> Response:
        self.posting = self.served.connect()
        response = super().post(*packets)
        self.posting.close()
        return response


def open_polling(server: ServerProcess) -> PollingSession:
    """A session on a server that may serve one connection at a time."""
    session = _OneByOne(server.served, headers=[("Connection", "close")])
    session.posting.close()
    session.open()
    session.getting.close()
    return session


def hear(session: WebSocketSession) -> str | bytes:
    """The next message, whatever pings come before it."""
    while (packet := session.recv()) in ("2", "6"):
        pass
    return data_of(packet)


def test_polling(server: ServerProcess) -> None:
    session = open_polling(server)
    assert session.info["upgrades"] == ["websocket"]
    session.say("text", b"\x00binary")
    assert [packet for packet in (session.recv(), session.recv()) if packet != "2"] == ["4text", b"\x00binary"]


def test_heartbeat_and_end(server: ServerProcess) -> None:
    """Time passes for a session when no request is under way."""
    session = open_polling(server)
    assert session.recv() == "2"
    session.send("3", "1")
    server.wait_for("closed: transport close")


def test_message_reaches_a_waiting_poll(server: ServerProcess, kind: str) -> None:
    if not KINDS[kind][1]:
        # one request at a time: the poll has to end first, which a ping makes it do
        session = open_polling(server)
        assert session.recv() == "2"
        return
    session = open_polling(server)
    session.start_poll()
    session.say("now")
    assert [packet for packet in session.end_poll() if packet != "2"] == ["4now"] or session.recv() == "4now"


def test_websocket(server: ServerProcess) -> None:
    session = WebSocketSession(server.served).open()
    for message in ("text", b"\x00binary", "x" * 900):
        session.say(message)
        assert hear(session) == message
    session.close()


def test_frames_that_come_with_the_handshake_are_read(server: ServerProcess) -> None:
    connection = server.served.connect()
    connection.send(connection.head("GET", TARGET, handshake_headers(KEY)) + frame_bytes(TEXT, b"4early"))
    response = connection.response()
    assert response.status == 101
    websocket = WebSocketClient(connection, response)
    assert websocket.recv()[0] == "0"
    assert websocket.recv() == "4early"


def test_an_upgrade_loses_nothing(server: ServerProcess) -> None:
    session = open_polling(server)
    session.say("push 20")
    websocket = probe(session)
    websocket.send("5")
    websocket.say("push 20")
    assert [hear(websocket) for _ in range(40)] == [str(number) for number in range(20)] * 2


def test_a_refusal_leaves_the_server_as_it_was(server: ServerProcess) -> None:
    for target in (TARGET.replace("EIO=4", "EIO=9"), f"{TARGET}&sid=unknown"):
        with pytest.raises(Refused) as caught:
            WebSocketClient.open(server.served.connect(), target)
        assert caught.value.response.status == 400
        assert caught.value.response.json()["code"] in (1, 5)
    test_websocket(server)


def lines_of(text: str) -> int:
    """How many lines of a log are neither one for each request nor the application's."""
    return len([line for line in text.splitlines() if not re.search(r'^closed: |" [1-5]\d\d ', line)])


def test_a_thousand_ends_of_every_kind(server: ServerProcess) -> None:
    """The server's own log has no line about any."""
    server.ask()
    before = lines_of(server.logs())
    for number in range(CLOSES):
        session = WebSocketSession(server.served).open()
        session.say("a")
        if number % 2:
            session.close()
        else:
            session.vanish()
    server.until(lambda: server.ask()["clients"] <= 10)
    assert lines_of(server.logs()) == before, server.logs()[-3000:]


@pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]], ids="+".join)
def test_the_official_client(server: ServerProcess, kind: str, drive: Callable[..., Driver], transports: list[str]) -> None:
    if not KINDS[kind][1]:
        # its keep-alive connection would be the only one that is served
        transports = ["websocket"]
    client = drive("http://{}:{}".format(*server.served.address), json.dumps({"transports": transports}))
    client.events.wait("open")
    if len(transports) == 2:
        assert client.events.wait("upgrade")["transport"] == "websocket"
    for fields in (sent := [{"text": "héllo"}, {"base64": "AAEC"}, {"text": "x" * 900}]):
        client.tell("send", **fields)
    client.events.wait("message", len(sent))
    assert client.events.of("message") == sent
    client.tell("close")
    client.events.wait("close")
    assert client.events.of("error") == []


def test_too_large(server: ServerProcess) -> None:
    """No hop-by-hop header, which wsgiref would not have."""
    session = open_polling(server)
    response = session.post("4" + "x" * 2000)
    assert (response.status, response.text) == (413, "")
    assert "1000" in (response.header("Engineio-Reason") or "")


def test_workers_serve_each_others_websockets(tmp_path: Path) -> None:
    running = ServerProcess(tmp_path, "gthread", "-w", "3", "--threads", "8", options={"cluster": "local"})
    try:
        for number in range(12):
            session = Nomad(running.served).open()
            session.say("push 3")
            websocket = session.upgrade()
            websocket.send("5")
            websocket.send(f"4{number}")
            assert [websocket.recv() for _ in range(4)] == ["40", "41", "42", f"4{number}"]
        assert not running.complaints(), running.logs()
    finally:
        running.stop()


def test_only_polling_is_offered_over_tls(tmp_path: Path, certificate: dict[str, str]) -> None:
    """The connection's keys cannot leave the server, and the log says once what to do."""
    context = ssl.create_default_context(cafile=certificate["certfile"])
    files = [f"--{name}={path}" for name, path in certificate.items()]
    running = ServerProcess(tmp_path, "gthread", "--threads", "4", *files, tls=context)
    try:
        for _ in range(2):
            assert PollingSession(running.served).open().info["upgrades"] == []
        with pytest.raises(Refused) as caught:
            WebSocketClient.open(running.served.connect(), TARGET)
        assert (caught.value.response.status, caught.value.response.json()["code"]) == (400, 3)
        assert "a server that can upgrade connections" in (caught.value.response.header("Engineio-Reason") or "")
        [advice] = running.complaints()
        assert "so only polling is offered; for WebSockets use gunicorn -k engineio_wsgi.gunicorn.Worker" in advice
    finally:
        running.stop()


FLASK = """
import flask
import engineio_wsgi

server = engineio_wsgi.Server()

@server.on("connection")
def connected(socket):
    socket.send("version 1")

app = flask.Flask("app")
app.wsgi_app = server.wrap(app.wsgi_app)
"""


def test_flask_run_with_the_debugger_and_its_reloader(tmp_path: Path) -> None:
    port = free_port()
    site = Site(("127.0.0.1", port), None)
    (tmp_path / "app.py").write_text(FLASK)
    running = Program(tmp_path, [sys.executable, "-m", "flask", "run", "--debug", "--port", str(port)], site.is_up, cwd=tmp_path)
    try:
        session = WebSocketSession(site).open()
        assert session.recv() == "4version 1"
        (tmp_path / "app.py").write_text(FLASK.replace("version 1", "version 2"))
        session.ws.wait_closed()
        running.until(site.is_up)
        assert WebSocketSession(site).open().recv() == "4version 2"
        assert "Traceback" not in running.logs()
    finally:
        running.stop()


WAITRESS = ("import logging; logging.basicConfig(); import app, waitress;"
            "s = waitress.create_server(app.app, listen='127.0.0.1:0');"
            "print('Listening at: http://127.0.0.1:%s' % s.effective_port, flush=True); s.run()")


def test_waitress_keeps_its_connections(tmp_path: Path) -> None:
    """So polling alone is offered, and the log says once what to do."""
    running = ServerProcess(tmp_path, "waitress", mains={"waitress": WAITRESS})
    try:
        for _ in range(2):
            session = PollingSession(running.served).open()
            assert session.info["upgrades"] == []
            session.say("text", b"\x00binary")
            assert session.hear_many(2) == ["text", b"\x00binary"]
            session.close()
        with pytest.raises(Refused) as caught:
            WebSocketClient.open(running.served.connect(), TARGET)
        assert (caught.value.response.status, caught.value.response.json()["code"]) == (400, 3)
        [advice] = running.complaints()
        assert "so only polling is offered; for WebSockets use" in advice
    finally:
        running.stop()
