"""deadline.py: a deadline is put off by as long as it was found late, once."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import gevent.event
import pytest
from gevent import socket
from support.fakeloop import FakeLoop
from support.lateness import block_loop

from engineio_wsgi.runtime import deadline
from engineio_wsgi.runtime.deadline import TURN, Deadline, DeadlineTimer


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    """A loop and its clock."""
    loop = FakeLoop()
    monkeypatch.setattr(deadline, "monotonic", loop.monotonic)
    return loop


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection."""
    pair = socket.socketpair()
    yield pair
    for each in pair:
        each.close()


def test_in_time(loop: FakeLoop) -> None:
    end = Deadline(5)
    assert end.left == 5
    assert not end.has_passed()
    loop.now += 4
    assert end.left == 1
    assert not end.has_passed()


@pytest.mark.parametrize(("late", "more"), [(0.0, TURN), (0.5, 0.5), (60.0, 60.0)])
def test_late(loop: FakeLoop, late: float, more: float) -> None:
    end = Deadline(5)
    loop.now += 5 + late
    assert not end.has_passed()
    assert end.left == pytest.approx(more)
    assert not end.has_passed()
    loop.now += more + 0.001
    assert end.left == 0
    assert end.has_passed(), "it is put off once"


def test_without_an_end(loop: FakeLoop) -> None:
    end = Deadline(None)
    loop.now += 1e9
    assert end.left is None
    assert not end.has_passed()


@pytest.mark.parametrize("timeout", [0, 0.0, -1])
def test_a_timeout_of_zero(loop: FakeLoop, timeout: float) -> None:
    assert Deadline(timeout).has_passed()
    assert Deadline(timeout).left == 0


def test_waiting_for_an_event() -> None:
    event = gevent.event.Event()
    gevent.spawn(event.set)
    assert Deadline(60).wait(event)
    assert Deadline(0).wait(event)
    event.clear()
    assert not Deadline(0).wait(event)
    assert not Deadline(0.01).wait(event)


def test_what_arrived_while_the_loop_was_blocked_is_seen(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    event = gevent.event.Event()
    watcher = gevent.get_hub().loop.io(near.fileno(), 1)
    watcher.start(event.set)
    block_loop(0.2, lambda: far.sendall(b"x"))
    assert Deadline(0.1).wait(event)
    watcher.stop()
    watcher.close()


def test_a_timer_in_time(loop: FakeLoop) -> None:
    called: list[int] = []
    DeadlineTimer(loop, 5, called.append, 1)
    loop.advance(4.999)
    assert not called
    loop.advance(0.1)
    assert called == [1]
    loop.advance(100)
    assert called == [1]
    assert not loop.timers


def test_a_late_timer(loop: FakeLoop) -> None:
    called: list[int] = []
    DeadlineTimer(loop, 5, called.append, 1)
    loop.block(8)
    loop.advance(2.9)
    assert not called
    loop.advance(0.2)
    assert called == [1]


def test_a_closed_timer(loop: FakeLoop) -> None:
    called: list[int] = []
    timer = DeadlineTimer(loop, 5, called.append, 1)
    loop.block(8)
    timer.close()
    timer.close()
    loop.advance(100)
    assert not called
    assert not loop.timers


def test_a_timer_that_is_started_by_a_late_loop(loop: FakeLoop) -> None:
    """libev counts from when the loop's turn began, and calls such a timer too early."""
    called: list[int] = []
    DeadlineTimer(loop, 5, called.append, 1)
    loop.timers[0].due = loop.now + 1
    loop.advance(4.9)
    assert not called
    loop.advance(0.2)
    assert called == [1]
