"""The upgrade from polling to WebSocket, step by step; `test_upgrade_invariant` does it at random."""

from __future__ import annotations

import json
from typing import Any

import gevent
import gevent.event
import pytest
from support.clients import PollingSession, WebSocketSession, probe, upgrade
from support.rawwebsocket import BINARY, TEXT, Closed, Refused, frame_bytes


def polling(served: Any, eio: int = 4) -> PollingSession:
    return PollingSession(served, eio).open()


def still_polling(session: PollingSession) -> None:
    """The session works as if nobody had tried to upgrade it."""
    session.say("still polling")
    while (packet := session.recv()) == "6":
        pass
    assert packet == "4still polling"
    assert session.served.events.of("close") == []
    assert session.served.events.of("upgrade") == []


def test_upgrade(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    session.say("before")
    assert session.hear() == "before"
    moved = upgrade(session)
    moved.say("after", b"\x00\x01")
    assert moved.hear_many(2) == ["after", b"\x00\x01"]
    events = session.served.events
    assert events.wait("upgrading")["transport"] == "websocket"
    assert events.wait("upgrade")["transport"] == "websocket"
    names = [name for name, _ in events.entries if name in ("upgrading", "upgrade", "close")]
    assert names == ["upgrading", "upgrade"]


@pytest.mark.ours
def test_what_the_socket_says(serve: Any) -> None:
    session = polling(serve())
    socket = session.served.socket(session.sid)
    states = [(socket.upgrading, socket.upgraded, socket.transport.name)]
    candidate = probe(session)
    states.append((socket.upgrading, socket.upgraded, socket.transport.name))
    candidate.send("5")
    session.served.events.wait("upgrade")
    states.append((socket.upgrading, socket.upgraded, socket.transport.name))
    assert states == [(False, False, "polling"), (True, False, "polling"), (False, True, "websocket")]


def test_a_waiting_get_gets_a_noop(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    session.start_poll()
    probe(session)
    assert session.end_poll() == ["6"]


def test_noops_go_on_until_the_upgrade_completes(serve: Any) -> None:
    session = polling(serve())
    candidate = probe(session)
    for _ in range(4):
        assert session.poll() == ["6"]
    candidate.send("5")
    candidate.say("x")
    assert candidate.hear() == "x"


def test_messages_go_on_over_polling_while_probing(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    candidate = probe(session)
    received: list[Any] = []
    for i in range(5):
        session.say(str(i))
        received += session.poll()
    candidate.send("5")
    candidate.say("last")
    while (packet := candidate.recv()) != "4last":
        received.append(packet)
    assert [packet for packet in received if packet != "6"] == [f"4{i}" for i in range(5)]


def test_the_write_buffer_moves_in_order(serve: Any, eio: int) -> None:
    session = polling(serve(app="told"), eio)
    candidate = probe(session)
    session.send("4" + json.dumps(["send", ["one", {"hex": "0002"}, "three"]]))
    candidate.send("5", "4" + json.dumps(["send", ["four"]]))
    assert candidate.hear_many(4) == ["one", b"\x00\x02", "three", "four"]


def test_messages_right_behind_the_upgrade_packet(serve: Any) -> None:
    session = polling(serve())
    candidate = probe(session)
    candidate.ws.http.send(frame_bytes(TEXT, b"5") + frame_bytes(TEXT, b"4one") + frame_bytes(BINARY, b"two"))
    assert candidate.hear_many(2) == ["one", b"two"]


@pytest.mark.ours
def test_messages_posted_before_are_dispatched_before(serve: Any) -> None:
    received: list[str] = []
    served = serve(app=None)
    go = gevent.event.Event()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            go.wait()
            received.append(data)
            socket.send(data)

    session = polling(served)
    session.say("one", "two")
    candidate = probe(session)
    session.say("three")
    candidate.send("5")
    candidate.say("four", "five")
    served.settle()
    go.set()
    assert candidate.hear_many(5) == received == ["one", "two", "three", "four", "five"]


@pytest.mark.ours
def test_a_get_that_waits_at_the_switch_ends(serve: Any) -> None:
    session = polling(serve())
    candidate = probe(session)
    assert session.poll() == ["6"]
    session.park()
    candidate.ws.http.send(frame_bytes(TEXT, b"5") + frame_bytes(TEXT, b"4x"))
    assert session.end_poll() == ["6"]
    assert candidate.hear() == "x"


def test_binary_before_and_after(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    session.say(b"\x00\xff", "text", b"")
    assert session.hear_many(3) == [b"\x00\xff", "text", b""]
    moved = upgrade(session)
    moved.say(b"\x00\xff", "text", b"")
    assert moved.hear_many(3) == [b"\x00\xff", "text", b""]


@pytest.mark.alone("what comes to another worker comes at another time")
def test_a_get_right_behind_the_upgrade_packet(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    candidate = probe(session)
    other = session.served.connect()
    other.get("/")  # a connection whose handler waits already: the loop may hear of the later of two events first
    candidate.send("5")
    assert other.get(session.target()).status == 400
    candidate.say("x")
    assert candidate.hear() == "x"


@pytest.mark.alone("what comes to another worker comes at another time")
def test_a_websocket_right_behind_the_upgrade_packet(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    candidate = probe(session)
    candidate.send("5")
    assert WebSocketSession(session.served, eio, sid=session.sid).ws.wait_closed().code in (1005, 1008)
    candidate.say("x")
    assert candidate.hear() == "x"


# -- candidates that do not make it


@pytest.mark.parametrize("packet", ["2wrong", "2", "4message", "3probe", "6", "1", b"\x04binary"], ids=repr)
def test_a_wrong_probe_leaves_the_session(serve: Any, packet: Any) -> None:
    session = polling(serve())
    candidate = WebSocketSession(session.served, sid=session.sid)
    candidate.ws.send(packet)
    candidate.ws.wait_closed()
    still_polling(session)


@pytest.mark.parametrize("packet", ["4message", "2", "x"], ids=repr)
def test_a_wrong_packet_after_the_probe_leaves_the_session(serve: Any, packet: str) -> None:
    session = polling(serve())
    candidate = probe(session)
    candidate.ws.send(packet)
    candidate.ws.wait_closed()
    still_polling(session)


@pytest.mark.differs("takes an upgrade without a probe")
def test_an_upgrade_without_a_probe_leaves_the_session(serve: Any) -> None:
    session = polling(serve())
    candidate = WebSocketSession(session.served, sid=session.sid)
    candidate.send("5")
    candidate.ws.wait_closed()
    still_polling(session)


@pytest.mark.parametrize(
    "data",
    [frame_bytes(TEXT, b"2probe", masked=False), frame_bytes(TEXT, b"\xff"), frame_bytes(3, b"")],
    ids=["unmasked", "not UTF-8", "reserved opcode"],
)
def test_garbage_on_the_candidate_leaves_the_session(serve: Any, data: bytes) -> None:
    session = polling(serve())
    candidate = WebSocketSession(session.served, sid=session.sid)
    candidate.ws.http.send(data)
    assert candidate.ws.wait_closed().code in (1002, 1007)
    still_polling(session)


@pytest.mark.parametrize("probed", [False, True])
def test_a_candidate_that_vanishes_leaves_the_session(serve: Any, probed: bool) -> None:
    session = polling(serve())
    candidate = probe(session) if probed else WebSocketSession(session.served, sid=session.sid)
    candidate.vanish()
    session.served.settle()
    still_polling(session)
    moved = upgrade(session)
    moved.say("x")
    assert moved.hear() == "x"


@pytest.mark.parametrize("probed", [False, True])
def test_upgrade_timeout(serve: Any, probed: bool) -> None:
    session = polling(serve(upgrade_timeout=1.0))
    candidate = probe(session) if probed else WebSocketSession(session.served, sid=session.sid)
    candidate.ws.wait_closed()
    still_polling(session)
    moved = upgrade(session)
    moved.say("x")
    assert moved.hear() == "x"


def assert_candidate_refused(session: PollingSession) -> None:
    """Another WebSocket for the same session is turned away."""
    try:
        candidate = WebSocketSession(session.served, sid=session.sid)
    except Refused as refused:
        assert refused.response.status == 400
        assert refused.response.json()["code"] == 3
    else:
        assert session.served.handler != "ours"
        assert isinstance(candidate.ws.wait_closed(), Closed)


def test_a_second_candidate_while_one_is_probing(serve: Any) -> None:
    session = polling(serve())
    first = probe(session)
    assert_candidate_refused(session)
    first.send("5")
    first.say("x")
    assert first.hear() == "x"


def test_a_candidate_after_one_has_won(serve: Any) -> None:
    session = polling(serve())
    moved = upgrade(session)
    session.served.events.wait("upgrade")
    # accepted and closed: a client of npm's ws would raise an error for a refusal
    assert WebSocketSession(session.served, sid=session.sid).ws.wait_closed().code in (1005, 1008)
    moved.say("x")
    assert moved.hear() == "x"


# -- ends


def test_the_session_closes_while_probing(serve: Any) -> None:
    session = polling(serve())
    candidate = probe(session)
    session.close()
    assert session.served.events.wait("close")["reason"] == "transport close"
    candidate.ws.wait_closed()


@pytest.mark.differs("calls it a transport error")
def test_the_poll_is_aborted_while_probing(serve: Any) -> None:
    session = polling(serve())
    candidate = WebSocketSession(session.served, sid=session.sid)
    session.vanish()
    assert session.served.events.wait("close")["reason"] == "transport close"
    candidate.ws.wait_closed()


def test_closing_while_probing_waits_for_the_client(serve: Any) -> None:
    session = polling(serve(app="told"))
    candidate = probe(session)
    session.send('4["then_close", ["bye"]]')
    received = session.poll()
    while "1" not in received:
        received += session.poll()
    assert [packet for packet in received if packet != "6"] == ["4bye", "1"]
    assert session.served.events.wait("close")["reason"] == "forced close"
    candidate.ws.wait_closed()


def test_the_upgraded_session_closes(serve: Any, eio: int) -> None:
    moved = upgrade(polling(serve(), eio))
    moved.close()
    assert moved.served.events.wait("close")["reason"] == "transport close"


def test_the_upgraded_connection_vanishes(serve: Any) -> None:
    moved = upgrade(polling(serve()))
    moved.served.events.wait("upgrade")
    moved.vanish()
    assert moved.served.events.wait("close")["reason"] == "transport close"
