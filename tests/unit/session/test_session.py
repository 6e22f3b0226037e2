"""A session over a transport that writes and reads when the test says so: writing, packets, the upgrade, the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support.fakesession import FakeHost, FakeTransport, opened_session, outcome, quiet, started

from engineio_wsgi.errors import SocketClosed
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.session.delivery import OnSlow
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports.base import Prepared, TrackedPacket


class Switching(FakeTransport):
    """A transport that a session may move to, and what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = self
        self.calls: list[str] = []

    def watch(self, on_readable: object) -> None:
        """As a `Connection` does."""

    def open(self) -> None:
        """The session reads from it now."""
        self.calls.append("open")

    def pause(self) -> None:
        """The inbox is full."""
        self.calls.append("pause")

    def resume(self) -> None:
        """The inbox has room."""
        self.calls.append("resume")

    def discard(self) -> None:
        """The session has moved."""
        self.calls.append("discard")

    def ping(self) -> bool:
        """A ping is written past the buffer."""
        self.calls.append("ping")
        return True


def over(transport: Any, **options: Any) -> Any:
    """An open session over ``transport``."""
    host: Any = FakeHost(**options)
    session = Session(host, "0123456789abcdef", 4)
    session.open(transport, [])
    return session


def recorded(session: Any, *events: str) -> list[Any]:
    """What the listeners of ``events`` are called with."""
    log: list[Any] = []
    for event in events:
        session.inbox.on(event, lambda *args, event=event: log.append((event, *args)))
    return log


# -- writing


def test_packets_of_the_engine_never_block() -> None:
    session, transport = opened_session(max_buffered=100)
    session.send_packet(Packet(PacketType.PONG, "x" * 40))
    session.send_packet(Packet(PacketType.PING))
    assert [packet.type for packet in session.outbox.entries] == [PacketType.PONG, PacketType.PING]
    session.send_packet(Packet(PacketType.PONG))
    assert (session.close_reason, transport.closings) == ("client too slow", ["client too slow"])
    session.send_packet(Packet(PacketType.PONG))
    assert len(session.outbox.entries) == 2


@pytest.mark.parametrize("watched", [False, True])
def test_a_ping_is_written_at_once_unless_the_buffer_is_watched(watched: bool) -> None:
    transport = Switching()
    session = over(transport)
    if watched:
        session.inbox.on("flush", print)
    session.send_ping()
    assert (transport.calls, len(session.outbox.entries)) == (([], 1) if watched else (["ping"], 0))


def test_flush_and_drain_listeners_and_callbacks_are_called() -> None:
    session, transport = opened_session()
    log = recorded(session, "flush", "drain")
    called: list[str] = []
    session.append("a", 1)
    session.append(TrackedPacket(Packet(PacketType.MESSAGE, "b"), lambda: called.append("b")), 1)
    transport.take()
    session.inbox.run_turn()
    (flush, packets), drain = log
    assert (flush, [packet.data for packet in packets], drain, called) == ("flush", ["a", "b"], ("drain",), ["b"])


def test_the_buffer_is_watched_as_long_as_somebody_asks() -> None:
    session, transport = opened_session()
    log = recorded(session, "flush")
    session.append("a", 1)
    transport.take()
    assert session.outbox.watched
    session.inbox.off("flush")
    session.append(TrackedPacket(Packet(PacketType.MESSAGE, "b"), lambda: log.append("b")), 1)
    # the kernel takes it, and then the next one
    session.on_stalled(session.outbox.take())
    session.append("c", 1)
    session.on_written([])
    assert session.outbox.watched
    transport.take()
    assert not session.outbox.watched


def test_listeners_of_the_server_are_called_with_the_socket() -> None:
    host: Any = FakeHost()
    log: list[Any] = []
    host.listeners_of = lambda event: (lambda *args: log.append((event, args[0])),) if event in ("flush", "drain") else ()
    session = Session(host, "a", 4)
    transport = FakeTransport()
    session.open(transport, [])
    session.present_as("what the application sees")
    session.append("a", 1)
    transport.take()
    session.inbox.run_turn()
    assert log == [("flush", "what the application sees"), ("drain", "what the application sees")]


def test_the_start_of_a_stall_is_kept() -> None:
    session, _ = opened_session()
    session.append("ab", 2)
    under_way = session.outbox.take()
    session.on_stalled(under_way)
    since = session.stalled_since
    session.on_stalled()
    assert (since > 0, session.stalled_since, session.outbox.size) == (True, since, 2)
    session.on_written(under_way)
    assert (session.stalled_since, session.outbox.size) == (0.0, 0)


def test_a_broadcast_is_queued_unless_the_buffer_is_full() -> None:
    session, _ = opened_session(max_buffered=10)
    message = Prepared("x" * 10, True)
    session.send_prepared(message)
    session.send_prepared(Prepared("left out", True), OnSlow.DROP)
    assert (session.outbox.entries[-1], session.closed) == (message, False)
    session.send_prepared(Prepared("y", True))
    assert session.close_reason == "client too slow"
    session.send_prepared(Prepared("to nobody", True))


def test_the_latest_value_takes_the_place_of_the_one_before() -> None:
    session, _ = opened_session(max_buffered=10)
    session.send_prepared(Prepared("x" * 10, True))
    for number in range(3):
        session.send_prepared(Prepared(f"price {number}", True, "price"), OnSlow.LATEST)
    assert [entry.messages for entry in session.outbox.entries[-2:]] == [("x" * 10,), ("price 2",)]


def test_what_another_thread_sends_is_queued_in_the_hub() -> None:
    session, _ = opened_session()
    session.inbox.on("packet_create", lambda packet: None)
    session.append_from_thread("a", 1)
    assert session.outbox.entries == []
    gevent.sleep(0)
    assert [entry.data for entry in session.outbox.entries] == ["a"]
    session.append_from_thread("b", 1)
    session.end("test")
    gevent.sleep(0)
    assert session.outbox.entries == []


def test_a_post_waits_for_room() -> None:
    session, transport = opened_session(max_inbox=100)
    transport.arrive("x" * 101)
    waiting = started(session.wait_for_room)
    session.inbox.next_message()
    assert outcome(waiting) is None
    transport.arrive("x" * 101)
    waiting = started(session.wait_for_room)
    session.end("test")
    assert outcome(waiting) is None


# -- packets


@pytest.mark.parametrize(("protocol", "sent", "answer"), [(4, PacketType.PONG, []), (3, PacketType.PING, [PacketType.PONG])])
def test_a_heartbeat_packet_from_the_client(protocol: int, sent: PacketType, answer: list[PacketType]) -> None:
    host: Any = FakeHost()
    session = Session(host, "a", protocol)
    session.open(FakeTransport(), [])
    log = recorded(session, "heartbeat")
    session.on_packet(Packet(sent))
    session.inbox.run_turn()
    assert [entry.type for entry in session.outbox.entries if isinstance(entry, Packet)] == answer
    assert log == [("heartbeat",)]


@pytest.mark.parametrize(("protocol", "sent"), [(3, PacketType.PONG), (4, PacketType.PING)])
def test_a_heartbeat_packet_that_only_the_server_sends(protocol: int, sent: PacketType) -> None:
    host: Any = FakeHost()
    session = Session(host, "a", protocol)
    session.open(FakeTransport(), [])
    session.on_packet(Packet(sent))
    assert session.close_reason == "transport error"


def test_a_close_packet() -> None:
    session, _ = opened_session()
    session.on_packet(Packet(PacketType.NOOP))
    assert not session.closed
    session.on_packet(Packet(PacketType.CLOSE))
    session.on_packet(Packet(PacketType.CLOSE))
    assert (session.close_reason, session.registry.forgotten) == ("transport close", [session])


# -- the upgrade


def test_a_switch_moves_unsent_entries_and_the_pause() -> None:
    session, old = opened_session(max_inbox=100)
    old.arrive("x" * 200)
    session.append("unsent", 6)
    new: Any = Switching()
    outcomes: list[bool] = []
    assert session.start_upgrade(new, lambda: outcomes.append)
    assert not session.start_upgrade(Switching(), lambda: outcomes.append), "one at a time"
    session.switch_transport(new)
    assert (session.transport, new.sink, new.calls, new.wakes) == (new, session, ["open", "pause"], 1)
    assert session.state.upgraded
    session.append("b", 1)
    assert new.take() == ["unsent", "b"]


def test_a_switch_ends_a_stall() -> None:
    """A session was closed a heartbeat after its upgrade if something had been sent while no GET waited."""
    session, _ = opened_session()
    new = Switching()
    assert session.start_upgrade(new, lambda: None)
    session.append("ab", 2)
    session.on_stalled()
    session.switch_transport(new)
    assert (session.stalled_since, session.outbox.take()) == (0.0, ["ab"])


def test_a_closing_session_may_be_upgraded_and_then_ends() -> None:
    session, _ = opened_session()
    session.append("left", 4)
    session.end_when_drained("test")
    new: Any = Switching()
    session.start_upgrade(new, lambda: None)
    session.outbox.clear()
    session.switch_transport(new)
    assert (session.close_reason, session.state.upgraded) == ("test", True)


def test_the_end_of_a_session_abandons_its_upgrade() -> None:
    session, _ = opened_session()
    new: Any = Switching()
    outcomes: list[bool] = []
    session.start_upgrade(new, lambda: outcomes.append)
    session.end("test")
    assert (outcomes, new.closings) == ([False], ["transport close"])
    assert not session.start_upgrade(Switching(), lambda: outcomes.append)


# -- the end


@pytest.mark.parametrize("discard", [False, True])
def test_close_listeners_are_called_once(discard: bool) -> None:
    session, transport = opened_session()
    log = recorded(session, "close")
    session.end_from_thread("test", discard)
    gevent.sleep(0)
    session.end("again")
    gevent.sleep(0)
    gevent.sleep(0)
    assert (log, transport.closings, session.state.over) == ([("close", "test", None)], ["test"], True)
    assert session.socket is None


def test_a_closing_session_ends_when_its_client_has_received_everything() -> None:
    session, transport = opened_session()
    session.append("left", 4)
    session.end_when_drained("test")
    assert (session.closing, session.close_reason) == (True, None)
    session.inbox.enqueue(["too late"])
    transport.take()
    assert (session.closed, session.close_reason, list(session.inbox.messages)) == (True, "test", [])


def test_close_listeners_wait_for_a_listener_that_is_running() -> None:
    session, _ = opened_session()
    log = recorded(session, "close")
    go_on = Event()
    session.inbox.on("message", lambda data: go_on.wait(5))
    busy = started(session.inbox.deliver, "a", monotonic())
    session.end("test")
    gevent.sleep(0)
    assert log == []
    go_on.set()
    busy.join(5)
    assert log == [("close", "test", None)]


def test_spawned_greenlets_are_killed_when_the_session_ends() -> None:
    session, _ = opened_session()
    task = gevent.Greenlet(gevent.sleep, 1000)
    session.spawn(task)
    gevent.sleep(0)
    session.end("test")
    assert isinstance(outcome(task), gevent.GreenletExit)
    late: Callable[..., Any] = session.spawn
    assert isinstance(quiet(late, gevent.Greenlet(print)), SocketClosed)


def test_entries_under_way_count_as_unsent_in_close_listeners() -> None:
    session, transport = opened_session()
    transport.under_way = ["under way"]
    session.append("a", 1)
    left: list[Any] = []
    session.inbox.on("close", lambda *why: left.extend(session.outbox.entries))
    session.end("test")
    session.inbox.run_turn()
    assert left == ["under way", "a"]
    assert session.outbox.entries == []
