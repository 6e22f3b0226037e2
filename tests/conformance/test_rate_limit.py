"""Clients that send more than they may: they are slowed down, and closed if they go on."""

from __future__ import annotations

from typing import Any

import pytest
from support.clients import Session, WebSocketSession, open_session
from support.rawwebsocket import Closed, frame_bytes

pytestmark = pytest.mark.ours


def inbox_of(session: Session) -> Any:
    """Where the server puts what the client has sent."""
    return session.served.socket(session.sid)._session.inbox


def test_a_burst_is_slowed_down_and_nothing_is_lost(serve: Any, transport: str, eio: int) -> None:
    session = open_session(serve(max_messages_per_second=200), transport, eio)
    texts = [str(number) for number in range(240)]
    session.say(*texts)
    session.say("last")
    assert session.hear_many(241) == [*texts, "last"]
    assert session.served.events.of("close") == []


def test_a_websocket_is_not_read_meanwhile(serve: Any) -> None:
    session = open_session(serve(max_messages_per_second=1), "websocket")
    session.say("one", "two", "three")
    assert session.hear_many(3) == ["one", "two", "three"]
    session.say("four")
    session.served.settle()
    assert inbox_of(session).reading_paused
    assert session.hear() == "four"


def test_a_post_is_answered_when_the_client_may_send_again(serve: Any) -> None:
    session = open_session(serve(max_bytes_per_second=1000), "polling")
    session.posting.start("POST", session.target(), session.headers, ("4" + "x" * 1200).encode())
    session.served.settle()
    assert inbox_of(session).reading_paused
    assert session.posting.response().text == "ok"
    assert not inbox_of(session).reading_paused


@pytest.mark.parametrize("limit", ["max_messages_per_second", "max_bytes_per_second"])
def test_a_client_that_sends_far_too_much_is_closed(serve: Any, transport: str, limit: str) -> None:
    session = open_session(serve("silent", **{limit: 5}, rate_limit_timeout=1.0), transport)
    with_limit = session.served.socket(session.sid)
    session.say(*["x"] * 100)
    closed = session.served.events.wait("close")
    assert closed["reason"] == "rate limit exceeded"
    assert with_limit.closed
    if transport == "websocket":
        with pytest.raises(Closed) as ended:
            session.recv()
        assert (ended.value.code, ended.value.reason) == (1008, "rate limit exceeded")
    assert session.served.server.clients_count == 0


def test_heartbeats_do_not_count(serve: Any) -> None:
    session = open_session(serve(max_messages_per_second=1, rate_limit_timeout=0.001), "websocket")
    for _ in range(50):
        session.send("3")
    session.say("hello")
    assert session.hear() == "hello"


def test_a_client_that_is_slowed_down_is_not_taken_for_dead(serve: Any) -> None:
    session = open_session(serve(max_messages_per_second=4, ping_interval=0.1, ping_timeout=0.1), "websocket")
    session.say(*["x"] * 8)
    heard = []
    while len(heard) < 8:
        packet = session.recv()
        if packet != "2":
            heard.append(packet)
    # nothing of the client's was read for ten times as long as a heartbeat may take
    while inbox_of(session).reading_paused:
        assert session.recv() == "2"
        session.send("3")
    session.say("alive")
    while (packet := session.recv()) == "2":
        session.send("3")
    assert packet == "4alive"


#: packets that are no messages
FLOODS = {"pongs": "3", "noops": "6"}


@pytest.mark.parametrize("packet", FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize("limit", ["max_messages_per_second", "max_bytes_per_second"])
def test_a_flood_of_other_packets_is_closed(serve: Any, transport: str, limit: str, packet: str) -> None:
    session = open_session(serve("silent", **{limit: 1_000_000 if "bytes" in limit else 5}, rate_limit_timeout=1.0), transport)
    with_limit = session.served.socket(session.sid)
    for _ in range(5):
        try:
            session.send(*[packet] * 200)
        except (OSError, AssertionError, Closed):
            break
    assert session.served.events.wait("close")["reason"] == "rate limit exceeded"
    assert with_limit.closed


@pytest.mark.parametrize("opcode", [9, 10], ids=["ping", "pong"])
def test_a_flood_of_control_frames_is_closed(serve: Any, opcode: int) -> None:
    session = open_session(serve("silent", max_messages_per_second=5, rate_limit_timeout=1.0), "websocket")
    assert isinstance(session, WebSocketSession)
    session.ws.http.send(frame_bytes(opcode, b"x") * 1000)
    assert session.served.events.wait("close")["reason"] == "rate limit exceeded"


def test_control_frames_beyond_the_limit_are_read_later(serve: Any) -> None:
    session = open_session(serve(max_messages_per_second=1), "websocket")
    assert isinstance(session, WebSocketSession)
    session.ws.http.send(frame_bytes(9, b"x") * 110)
    session.say("after")
    assert session.hear() == "after"
    assert session.served.events.of("close") == []


def test_without_a_limit_control_packets_are_not_counted(serve: Any, transport: str) -> None:
    session = open_session(serve(rate_limit_timeout=0.001), transport)
    session.send(*["3"] * 1000)
    session.say("hello")
    assert session.hear() == "hello"


def test_heartbeats_of_a_short_interval_do_not_count(serve: Any) -> None:
    """A server that pings a thousand times a second allows for the answers."""
    session = open_session(serve(max_messages_per_second=1, rate_limit_timeout=0.001, ping_interval=0.001, ping_timeout=60.0),
                           "websocket")
    for _ in range(20):
        session.send(*["3"] * 50)
    session.say("hello")
    while (packet := session.recv()) != "4hello":
        assert packet == "2"
