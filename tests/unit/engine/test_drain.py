"""The drain: how long it takes, in which order sessions are closed, and when."""

from __future__ import annotations

import random

import pytest

from engineio_wsgi.engine import drain as room
from engineio_wsgi.engine.drain import drain, drain_seconds


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move the time."""
        self.now += seconds


class FakeSession:
    """Something that can be closed, and the time at which it was."""

    def __init__(self) -> None:
        self.closed = False
        self.closed_at = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the drain."""
    clock = Clock()
    monkeypatch.setattr(room, "monotonic", clock.monotonic)
    monkeypatch.setattr(room, "sleep", clock.sleep)
    return clock


def run(sessions: list[FakeSession], seconds: float, clock: Clock) -> list[FakeSession]:
    """Drain them; returns them in the order in which they were closed."""
    order: list[FakeSession] = []

    def close(session: FakeSession) -> None:
        session.closed, session.closed_at = True, clock.now
        order.append(session)

    drain(sessions, seconds, close)
    return order


@pytest.mark.parametrize(("count", "rate", "timeout", "seconds"), [
    (0, 50, 30.0, 0.0), (1, 50, 30.0, 0.02), (100, 50, 30.0, 2.0), (10_000, 50, 30.0, 24.0), (10_000, None, 30.0, 0.0),
    (10_000, 50, 0.0, 0.0), (10_000, 50, -1.0, 0.0), (3, 1, 30.0, 3.0),
])  # fmt: skip
def test_it_takes_as_long_as_the_rate_and_the_time_to_stop_allow(count: int, rate: int | None, timeout: float,
                                                                 seconds: float) -> None:
    assert drain_seconds(count, rate, timeout) == pytest.approx(seconds)


def test_the_closes_are_evenly_spread(clock: Clock) -> None:
    order = run([FakeSession() for _ in range(4)], 8.0, clock)
    assert [session.closed_at for session in order] == [100.0, 102.0, 104.0, 106.0]


def test_the_order_is_random(clock: Clock) -> None:
    sessions = [FakeSession() for _ in range(50)]
    random.seed(1)
    order = run(list(sessions), 1.0, clock)
    assert order != sessions
    assert {*order} == {*sessions}


def test_sessions_that_have_ended_take_no_time(clock: Clock) -> None:
    sessions = [FakeSession() for _ in range(4)]
    sessions[0].closed = sessions[1].closed = True
    assert {*run(sessions, 8.0, clock)} == {*sessions[2:]}
    assert clock.now == 102.0


def test_one_that_ends_just_before_its_turn_is_left_out(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [FakeSession() for _ in range(2)]

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        sessions[0].closed = sessions[1].closed = True

    monkeypatch.setattr(room, "sleep", sleep)
    assert len(run(sessions, 2.0, clock)) == 1


def test_without_time_all_are_closed_at_once(clock: Clock) -> None:
    assert {session.closed_at for session in run([FakeSession() for _ in range(3)], 0.0, clock)} == {100.0}
