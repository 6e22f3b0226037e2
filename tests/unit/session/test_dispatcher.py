"""The inbox of a session: turns of its listeners, messages that wait, and the greenlet that receives them."""

from __future__ import annotations

import logging
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support.fakesession import FakeHost, FakeTransport, opened_session, outcome, started

from engineio_wsgi.errors import SocketClosed, UsageError
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.session.session import Session


class Pausing(FakeTransport):
    """A transport that writes down when it is paused and resumed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def pause(self) -> None:
        """The inbox is full."""
        self.calls.append("pause")

    def resume(self) -> None:
        """The inbox is empty."""
        self.calls.append("resume")


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


# -- turns


def test_a_message_is_delivered_at_once() -> None:
    session, _ = opened_session()
    log = recorded(session, "message", "data")
    session.inbox.deliver("a", monotonic())
    assert log == [("message", "a"), ("data", "a")]


def test_what_arrives_while_a_listener_runs_waits_for_its_end() -> None:
    session, _ = opened_session()
    order: list[str] = []
    go_on = Event()

    @session.inbox.on("message")
    def message(data: str) -> None:
        order.append(data)
        if data == "a":
            go_on.wait(5)
            order.append("end of a")

    busy = started(session.inbox.deliver, "a", monotonic())
    session.inbox.deliver("b", monotonic())
    session.inbox.enqueue(["c"])
    assert order == ["a"]
    go_on.set()
    busy.join(5)
    assert order == ["a", "end of a", "b", "c"]


def test_messages_wait_until_there_is_a_listener() -> None:
    session, transport = opened_session()
    transport.arrive("a", "b")
    log = recorded(session, "message")
    gevent.sleep(0)
    gevent.sleep(0)
    assert log == [("message", "a"), ("message", "b")]


def test_packet_listeners_see_messages_and_other_packets() -> None:
    session, _ = opened_session()
    log = recorded(session, "packet", "heartbeat", "message")
    session.inbox.enqueue(["a"])
    session.on_packet(Packet(PacketType.PONG))
    session.inbox.run_turn()
    assert [(event, *(packet.type for packet in rest if isinstance(packet, Packet))) for event, *rest in log] == [
        ("packet", PacketType.MESSAGE), ("packet", PacketType.PONG), ("heartbeat",), ("message",)]


@pytest.mark.complains
@pytest.mark.parametrize("queued", [False, True])
def test_a_failing_listener_does_not_end_the_session(caplog: pytest.LogCaptureFixture, queued: bool) -> None:
    session, _ = opened_session()
    errors: list[BaseException] = []
    session.inbox.on("error", errors.append)
    session.inbox.on("message", lambda data: 1 / 0)
    if queued:
        session.inbox.enqueue(["a"])
        session.inbox.run_turn()
    else:
        session.inbox.deliver("a", monotonic())
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert "a listener (message) failed; the session goes on" in caplog.text
    assert not session.closed


@pytest.mark.complains
def test_a_failing_error_listener_is_not_called_again(caplog: pytest.LogCaptureFixture) -> None:
    session, _ = opened_session()
    session.inbox.on("error", lambda error: 1 / 0)
    session.inbox.queue_call(lambda: [].pop())
    session.inbox.run_turn()
    assert caplog.text.count("Traceback") >= 2


@pytest.mark.parametrize("known", [True, False])
def test_a_listener_may_find_the_session_closed(caplog: pytest.LogCaptureFixture, known: bool) -> None:
    session, _ = opened_session()

    def send() -> None:
        session.end_when_drained("forced close")
        raise SocketClosed(sid=session.id if known else None)

    with caplog.at_level(logging.DEBUG, "engine.socket"):
        session.inbox.queue_call(send)
        session.inbox.run_turn()
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert "a listener (send) found the session closed" in caplog.text


@pytest.mark.complains
@pytest.mark.parametrize("ended", [True, False])
def test_a_listener_that_finds_another_session_closed_has_failed(caplog: pytest.LogCaptureFixture, ended: bool) -> None:
    session, _ = opened_session()

    def send() -> None:
        if ended:
            session.end_when_drained("forced close")
        raise SocketClosed(sid="another")

    session.inbox.queue_call(send)
    session.inbox.run_turn()
    assert "another session, which it sent to, is closed; the session goes on" in caplog.text
    assert "catch SocketClosed at each send()" in caplog.text


def test_turns_are_timed_if_a_meter_counts() -> None:
    transport = FakeTransport()
    transport.meter = meter = Meter()
    session = over(transport)
    session.inbox.on("message", lambda data: None)
    session.inbox.deliver("a", monotonic())
    session.inbox.enqueue(["b", "c"])
    session.inbox.run_turn()
    session.inbox.run_turn()
    assert (meter.messages_in, meter.turns) == (3, 2)


def test_waiting_does_not_count_as_time_of_a_turn() -> None:
    transport = FakeTransport()
    transport.meter = meter = Meter()
    session = over(transport)
    done = Event()
    session.inbox.queue_call(lambda: (session.inbox.wait_for_message(5), done.set()))
    gevent.sleep(0)
    gevent.sleep(0)
    assert meter.turns == 1
    transport.arrive("a")
    assert done.wait(5)
    gevent.sleep(0)
    assert meter.turns == 2


# -- the inbox


def test_a_full_inbox_pauses_the_transport_until_it_is_empty() -> None:
    transport = Pausing()
    session = over(transport, max_inbox=100)
    transport.arrive("x" * 101, "y")
    assert (session.inbox.reading_paused, transport.calls) == (True, ["pause"])
    assert session.inbox.next_message() == "x" * 101
    assert session.inbox.reading_paused
    assert session.inbox.next_message() == "y"
    assert (session.inbox.reading_paused, transport.calls) == (False, ["pause", "resume"])


def test_calls_queued_behind_a_busy_listener_count() -> None:
    session, _ = opened_session(max_inbox=100)
    go_on = Event()
    session.inbox.queue_call(go_on.wait, 5)
    gevent.sleep(0)
    gevent.sleep(0)
    for _ in range(3):
        session.inbox.queue_call(print)
    assert session.inbox.reading_paused
    session.inbox.off()
    session.inbox.clear()
    go_on.set()
    gevent.sleep(0)
    gevent.sleep(0)
    assert not session.inbox.reading_paused


def test_a_second_greenlet_cannot_wait_for_a_message() -> None:
    session, _ = opened_session()
    waiting = started(session.inbox.wait_for_message, 5)
    with pytest.raises(UsageError):
        session.inbox.wait_for_message(None)
    session.end("test")
    assert outcome(waiting) is None
    assert session.inbox.receiver is None


def test_a_wait_for_a_message_ends_in_time() -> None:
    session, _ = opened_session()
    assert session.inbox.wait_for_message(0.001) is None
    assert session.inbox.receiver is None


def test_a_listener_that_receives_runs_the_calls_that_are_queued_behind_it() -> None:
    session, _ = opened_session()
    ran: list[str] = []
    done = Event()

    def listener() -> None:
        session.inbox.queue_call(ran.append, "queued")
        assert session.inbox.run_own_call()
        assert not session.inbox.run_own_call()
        done.set()

    session.inbox.queue_call(listener)
    assert done.wait(5)
    session.inbox.queue_call(print)
    assert not session.inbox.run_own_call(), "only the greenlet that runs the listeners"
    assert ran == ["queued"]


# -- the end


def test_nothing_is_queued_once_the_session_is_closing() -> None:
    session, transport = opened_session()
    session.inbox.enqueue(["before"])
    session.append("left", 4)
    session.end_when_drained("test")
    session.inbox.enqueue(["after"])
    log = recorded(session, "message")
    session.inbox.run_turn()
    assert log == [("message", "before")]
    transport.take()
    session.inbox.run_turn()
    assert session.inbox.listeners("message") == []


def test_a_closing_session_wakes_the_greenlet_that_receives() -> None:
    session, _ = opened_session()
    waiting = started(session.inbox.wait_for_message, None)
    session.append("left", 4)
    session.end_when_drained("test")
    assert outcome(waiting) is None
