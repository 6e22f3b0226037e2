"""Servers whose connections cannot be taken over: polling works, WebSocket is declined, and the log says so once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.clients import PollingSession
from support.codec import Packet
from support.processes import ServerProcess
from support.rawhttp import Headers, HttpConnection, Response
from support.rawwebsocket import Refused, WebSocketClient

#: the arguments of each, and whether it serves several requests at a time
KINDS = {"wsgiref": ((), False), "werkzeug": ((), True), "sync": ((), False), "gthread": (("--threads", "4"), True)}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One process for all tests of a kind."""
    arguments, _ = KINDS[request.param]
    options = {"ping_interval": 0.3, "ping_timeout": 60, "max_http_buffer_size": 1000}
    running = ServerProcess(tmp_path_factory.mktemp("server"), request.param, *arguments, options=options)
    yield running
    said = running.complaints()
    running.stop()
    assert len(said) == 1, running.logs()
    assert "connections cannot be taken over from this server (" in said[0]
    assert "so only polling is offered; for WebSockets use gunicorn -k engineio_wsgi.gunicorn.Worker" in said[0]


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


def test_polling(server: ServerProcess) -> None:
    session = open_polling(server)
    assert session.info["upgrades"] == []
    session.say("text", b"\x00binary")
    assert [packet for packet in (session.recv(), session.recv()) if packet != "2"] == ["4text", b"\x00binary"]


def test_heartbeat_and_end(server: ServerProcess) -> None:
    """Time passes for a session when no request is under way."""
    session = open_polling(server)
    assert session.recv() == "2"
    session.send("3", "1")
    server.wait_for("closed: transport close")


def test_message_reaches_a_waiting_poll(server: ServerProcess) -> None:
    if not KINDS[server.kind][1]:
        # one request at a time: the poll has to end first, which a ping makes it do
        session = open_polling(server)
        assert session.recv() == "2"
        return
    session = open_polling(server)
    session.start_poll()
    session.say("now")
    assert [packet for packet in session.end_poll() if packet != "2"] == ["4now"] or session.recv() == "4now"


def test_websocket_is_declined(server: ServerProcess) -> None:
    with pytest.raises(Refused) as caught:
        WebSocketClient.open(server.served.connect(), "/engine.io/?EIO=4&transport=websocket")
    response = caught.value.response
    assert (response.status, response.json()) == (400, {"code": 3, "message": "Bad request"})
    assert "a server that can upgrade connections" in (response.header("Engineio-Reason") or "")
    HttpConnection.close_all()


def test_too_large(server: ServerProcess) -> None:
    """No hop-by-hop header, which wsgiref would not have."""
    session = open_polling(server)
    response = session.post("4" + "x" * 2000)
    assert (response.status, response.text) == (413, "")
    assert "1000" in (response.header("Engineio-Reason") or "")
