"""Heartbeats: who sends pings, and which clients are closed."""

from __future__ import annotations

import time
from typing import Any

import gevent
import gevent.event
import pytest
from support.clients import PollingSession, WebSocketSession, open_session, upgrade

FAST = {"ping_interval": 0.1, "ping_timeout": 0.1}
PATIENT = {"ping_interval": 0.05, "ping_timeout": 60.0}
#: for those who answer, or talk, in time; far less often is enough
CALM = {"ping_interval": 0.1, "ping_timeout": 1.0}


# -- revision 4: the server pings


def test_the_server_pings(serve: Any, transport: str) -> None:
    session = open_session(serve(**PATIENT), transport)
    for count in range(1, 4):
        assert session.recv() == "2"
        session.send("3")
        session.served.events.wait("heartbeat", count)


def test_pings_go_on_after_the_upgrade(serve: Any) -> None:
    session = upgrade(PollingSession(serve(**PATIENT)).open())
    for count in range(1, 3):
        while session.recv() != "2":
            pass
        session.send("3")
        session.served.events.wait("heartbeat", count)


@pytest.mark.ours
def test_pings_go_out_among_many_large_messages(serve: Any) -> None:
    served = serve(app="silent", **PATIENT)
    session = open_session(served, "websocket")
    socket = served.socket(session.sid)
    sending = gevent.spawn(lambda: [socket.send(f"{number} " + "x" * 65536) for number in range(100)])
    received: list[str] = []
    pings = 0
    while len(received) < 100 or not pings:
        packet = str(session.recv())
        if packet == "2":
            pings += 1
            session.send("3")
        else:
            received.append(packet[1:].split()[0])
    assert received == [str(number) for number in range(100)]
    served.events.wait("heartbeat")
    sending.get()
    assert served.events.of("close") == []


def test_a_client_that_does_not_answer_is_closed(serve: Any, transport: str) -> None:
    session = open_session(serve(**FAST), transport)
    assert session.recv() == "2"
    assert session.served.events.wait("close")["reason"] == "ping timeout"
    if isinstance(session, WebSocketSession):
        session.ws.wait_closed()
    else:
        assert isinstance(session, PollingSession)
        assert session.getting.get(session.target()).json()["code"] == 1


def test_a_client_that_does_not_poll_is_closed(serve: Any) -> None:
    session = open_session(serve(**FAST))
    assert session.served.events.wait("close")["reason"] == "ping timeout"


@pytest.mark.ours
def test_a_waiting_poll_learns_of_the_ping_timeout(serve: Any) -> None:
    session = PollingSession(serve(**FAST)).open()
    assert session.poll() == ["2"]
    assert session.poll() == ["1"]
    assert session.served.events.wait("close")["reason"] == "ping timeout"


def test_a_client_that_answers_is_not_closed_with_one_that_does_not(serve: Any, transport: str) -> None:
    served = serve(**CALM)
    lost = open_session(served, transport)
    alive = open_session(served, transport)
    while not served.events.of("close"):
        if alive.recv() == "2":
            alive.send("3")
    assert [closed["sid"] for closed in served.events.of("close")] == [lost.sid]


def test_a_ping_from_the_client_is_an_error(serve: Any, transport: str) -> None:
    session = open_session(serve(), transport)
    session.send("2")
    assert session.served.events.wait("close")["reason"] == "transport error"


@pytest.mark.differs("a packet counts as life once there")
def test_any_packet_counts_as_life(serve: Any, transport: str) -> None:
    session = open_session(serve(app="silent", **CALM), transport)
    heard: list[Any] = []
    gevent.spawn(lambda: [heard.append(session.recv()) for _ in range(2)])
    while len(heard) < 2:
        gevent.sleep(0.02)
        session.say("alive")
    assert heard == ["2"] * 2
    assert session.served.events.of("close") == []


# -- revisions 1 to 3: the client pings


def test_the_client_pings(serve: Any, transport: str) -> None:
    session = open_session(serve(), transport, 3)
    for count in range(1, 4):
        session.send("2")
        assert session.recv() == "3"
        session.served.events.wait("heartbeat", count)


def test_a_pong_from_the_client_is_an_error(serve: Any, transport: str) -> None:
    session = open_session(serve(), transport, 3)
    session.send("3")
    assert session.served.events.wait("close")["reason"] == "transport error"


def test_a_client_that_does_not_ping_is_closed(serve: Any, transport: str) -> None:
    session = open_session(serve(**FAST), transport, 3)
    assert session.served.events.wait("close")["reason"] == "ping timeout"


def test_a_client_that_pings_is_not_closed(serve: Any, transport: str) -> None:
    session = open_session(serve(ping_interval=0.5, ping_timeout=0.5), transport, 3)
    for _ in range(15):
        gevent.sleep(0.1)
        session.send("2")
        assert session.recv() == "3"
    assert session.served.events.of("close") == []


# -- nobody is dropped because this side was busy


@pytest.mark.ours
def test_a_busy_listener_does_not_cost_the_session(serve: Any, transport: str) -> None:
    served = serve(app=None, **CALM)
    go = gevent.event.Event()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            go.wait()
            socket.send(data)

    session = open_session(served, transport)
    session.say("x")
    pings = 0
    while pings < 5:
        assert session.recv() == "2"
        session.send("3")
        pings += 1
    go.set()
    while (packet := session.recv()) == "2":
        session.send("3")
    assert packet == "4x"
    assert served.events.of("close") == []


@pytest.mark.ours
def test_a_blocked_hub_does_not_cost_the_session(serve: Any, transport: str) -> None:
    session = open_session(serve(**FAST), transport)
    for _ in range(3):
        assert session.recv() == "2"
        if isinstance(session, PollingSession):
            session.posting.start("POST", session.target(), [("Content-Type", "text/plain")], b"3")
            session.start_poll()
        else:
            session.send("3")
        time.sleep(0.5)  # somebody computes: longer than both deadlines
        if isinstance(session, PollingSession):
            assert session.posting.response().status == 200
    while (packet := session.recv()) == "2":
        session.send("3", "4still here")
    assert packet == "4still here"
    assert session.served.events.of("close") == []
