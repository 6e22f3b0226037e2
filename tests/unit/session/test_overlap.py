"""An inbox whose listeners release their turn: the next message does not wait for their end."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event
from support.fakesession import FakeHost, FakeTransport, started

from engineio_wsgi.session.session import Session


def overlapping() -> Any:
    """An open session whose listeners may overlap."""
    host: Any = FakeHost()
    session = Session(host, "0123456789abcdef", 4)
    session.let_listeners_overlap()
    session.open(FakeTransport(), [])
    return session


class Recorder:
    """A listener that releases its turn if it is to, and then waits."""

    def __init__(self, session: Any, releases: bool = True) -> None:
        self.order: list[str] = []
        self.gate = Event()
        self._session, self._releases = session, releases
        session.inbox.on("message", self)

    def __call__(self, data: str) -> None:
        self.order.append(data)
        if self._releases:
            self._session.inbox.release_turn()
        if data.startswith("slow"):
            self.gate.wait(5)
            self.order.append(f"end of {data}")


def test_a_listener_that_has_released_its_turn_holds_nothing_up() -> None:
    session = overlapping()
    recorder = Recorder(session)
    busy = started(session.inbox.deliver, "slow", 0.0)
    session.inbox.deliver("next", 0.0)
    assert recorder.order == ["slow", "next"]
    recorder.gate.set()
    busy.join(5)
    assert recorder.order == ["slow", "next", "end of slow"]
    assert not session.inbox.busy


def test_a_listener_that_keeps_its_turn_holds_up_the_next_message() -> None:
    session = overlapping()
    recorder = Recorder(session, releases=False)
    busy = started(session.inbox.deliver, "slow", 0.0)
    session.inbox.deliver("next", 0.0)
    assert recorder.order == ["slow"]
    recorder.gate.set()
    busy.join(5)
    gevent.sleep(0)
    assert recorder.order == ["slow", "end of slow", "next"]


def test_messages_of_a_batch_begin_in_their_order() -> None:
    session = overlapping()
    recorder = Recorder(session)
    session.inbox.enqueue(["slow 1", "2", "slow 3", "4"])
    first = started(session.inbox.run_turn)
    while len(recorder.order) < 4:
        gevent.sleep(0)
    assert recorder.order == ["slow 1", "2", "slow 3", "4"]
    recorder.gate.set()
    first.join(5)
    while len(recorder.order) < 6:
        gevent.sleep(0)
    assert not session.inbox.busy


def test_the_end_of_the_session_waits_for_no_listener_that_has_released_its_turn() -> None:
    session = overlapping()
    recorder = Recorder(session)
    closed: list[Any] = []
    session.inbox.on("close", lambda reason, description: closed.append(reason))
    busy = started(session.inbox.deliver, "slow", 0.0)
    session.end("transport close")
    while not closed:
        gevent.sleep(0)
    assert (closed, recorder.order) == (["transport close"], ["slow"])
    recorder.gate.set()
    busy.join(5)
    assert closed == ["transport close"]


@pytest.mark.complains
def test_a_listener_that_fails_after_it_has_released_its_turn(caplog: Any) -> None:
    session = overlapping()

    @session.inbox.on("message")
    def message(data: str) -> None:
        session.inbox.release_turn()
        raise ValueError(data)

    session.inbox.deliver("one", 0.0)
    session.inbox.enqueue(["two"])
    session.inbox.run_turn()
    assert caplog.text.count("ValueError: ") == 2
    assert not session.inbox.busy
