"""Heartbeats on a clock that the tests set: when pings are sent, and which clients are closed when."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakeloop import FakeLoop

from engineio_wsgi.session import heartbeat
from engineio_wsgi.session.heartbeat import Heartbeat, HeartbeatTimer

#: seconds; a tick is 1/16 of a second then, so that every sum of them is exact
INTERVAL, TIMEOUT, TICK = 1.25, 2.5, 0.0625
PING_TIMEOUT, TOO_SLOW = "ping timeout", "client too slow"


class FakeSession:
    """What a heartbeat sees of a session; ``pings`` and ``ended`` are what it did to it, and when."""

    def __init__(self, loop: FakeLoop, timer: HeartbeatTimer, protocol: int = 4) -> None:
        self._loop = loop
        self._start = loop.now
        self.last_seen = 0.0
        self.stalled_since = 0.0
        self.reading_paused = False
        self.protocol = protocol
        self.pings: list[float] = []
        self.ended: tuple[float, str, str] | None = None
        self.on_ping: Callable[[], object] = int
        self.inbox = self
        self.heartbeat = Heartbeat(self, timer, INTERVAL, TIMEOUT)

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self.ended is not None

    def send_ping(self) -> None:
        """A ping goes out."""
        assert self.ended is None
        self.pings.append(self._loop.now - self._start)
        self.on_ping()

    def end(self, reason: str, description: object = None) -> None:
        """The session ends, and with it its heartbeat."""
        assert self.ended is None, "a session ends once"
        self.ended = (self._loop.now - self._start, str(reason), str(description))
        self.heartbeat.stop()

    def hear(self) -> None:
        """Some packet arrives."""
        self.last_seen = self._loop.now

    def answer(self) -> None:
        """Have the client answer a ping soon: ``on_ping`` of one that is there."""
        self._loop.timer(TICK / 2).start(self.pong)

    def pong(self) -> None:
        """The client's half of a heartbeat arrives."""
        self.hear()
        self.heartbeat.on_beat()


class Beats:
    """A loop, the timer of a server, and sessions; the clock stands still until the test moves it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.loop = FakeLoop()
        patch.setattr(heartbeat, "monotonic", self.loop.monotonic)
        self.timer = HeartbeatTimer(self.loop, INTERVAL)
        self.timer.start()

    def session(self, protocol: int = 4) -> FakeSession:
        """A session that has just been opened."""
        session = FakeSession(self.loop, self.timer, protocol)
        session.heartbeat.start()
        return session


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> Beats:
    """A server's."""
    return Beats(monkeypatch)


# -- revision 4: the server pings


def test_the_first_ping_comes_after_the_interval(beats: Beats) -> None:
    session = beats.session()
    beats.loop.advance(INTERVAL - TICK)
    assert session.pings == []
    beats.loop.advance(TICK)
    assert session.pings == [INTERVAL]


def test_opening_counts_as_a_packet(beats: Beats) -> None:
    assert beats.session().last_seen == beats.loop.now


def test_the_next_ping_comes_an_interval_after_the_answer(beats: Beats) -> None:
    session = beats.session()
    beats.loop.advance(INTERVAL + 0.5)
    session.pong()
    beats.loop.advance(INTERVAL)
    assert session.pings == [INTERVAL, 0.5 + 2 * INTERVAL]


def test_an_unanswered_ping_ends_the_session_after_the_timeout(beats: Beats) -> None:
    session = beats.session()
    beats.loop.advance(INTERVAL + TIMEOUT - TICK)
    assert session.ended is None
    beats.loop.advance(TICK)
    assert session.ended == (INTERVAL + TIMEOUT, PING_TIMEOUT, "nothing was received for 3.8 s")
    beats.loop.advance(10 * INTERVAL)
    assert session.pings == [INTERVAL]


def test_any_packet_answers_a_ping(beats: Beats) -> None:
    session = beats.session()
    beats.loop.advance(INTERVAL + 1.5)
    session.hear()
    beats.loop.advance(TIMEOUT - 1.5 + TICK)
    assert session.ended is None
    assert len(session.pings) == 1
    beats.loop.advance(INTERVAL)
    assert session.pings == [INTERVAL, INTERVAL + 1.5 + INTERVAL]


def test_a_packet_from_before_the_ping_does_not_answer_it(beats: Beats) -> None:
    session = beats.session()
    beats.loop.advance(INTERVAL - TICK)
    session.hear()
    beats.loop.advance(TICK + TIMEOUT)
    assert session.ended is not None


def test_packets_do_not_delay_a_ping(beats: Beats) -> None:
    session = beats.session()
    beats.loop.advance(INTERVAL - TICK)
    session.hear()
    beats.loop.advance(TICK)
    assert session.pings == [INTERVAL]


def test_a_pong_without_a_ping_does_not_delay_the_next_ping(beats: Beats) -> None:
    session = beats.session()
    beats.loop.advance(INTERVAL / 2)
    session.pong()
    beats.loop.advance(INTERVAL / 2)
    assert session.pings == [INTERVAL]


def test_a_second_pong_does_not_delay_the_next_ping(beats: Beats) -> None:
    session = beats.session()
    beats.loop.advance(INTERVAL)
    session.pong()
    beats.loop.advance(INTERVAL / 2)
    session.pong()
    beats.loop.advance(INTERVAL / 2)
    assert session.pings == [INTERVAL, 2 * INTERVAL]


def test_a_session_that_ends_while_it_is_pinged_has_no_more_deadlines(beats: Beats) -> None:
    session = beats.session()
    session.on_ping = lambda: session.end("transport close")
    beats.loop.advance(10 * (INTERVAL + TIMEOUT))
    assert session.pings == [INTERVAL]


# -- a request that comes between the deadline and the tick that would see it


def between_ticks(beats: Beats, protocol: int = 4) -> FakeSession:
    """A session whose deadlines are a quarter of a tick before a tick."""
    beats.loop.advance(TICK * 3 / 4)
    return beats.session(protocol)


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_session_is_overdue_at_the_deadline_and_not_only_at_the_next_tick(beats: Beats, protocol: int) -> None:
    session = between_ticks(beats, protocol)
    beats.loop.advance(INTERVAL + TIMEOUT - TICK / 8)
    assert not session.heartbeat.overdue()
    beats.loop.advance(TICK / 8)
    assert session.ended is None
    assert session.heartbeat.overdue()


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_client_that_sent_a_packet_is_not_overdue(beats: Beats, protocol: int) -> None:
    session = between_ticks(beats, protocol)
    beats.loop.advance(INTERVAL + TICK)
    session.hear()
    beats.loop.advance(TIMEOUT - TICK)
    assert not session.heartbeat.overdue()


def test_a_client_that_was_not_pinged_is_not_overdue(beats: Beats) -> None:
    session = between_ticks(beats)
    beats.loop.now += INTERVAL + TIMEOUT  # nothing has fired
    assert not session.heartbeat.overdue()


@pytest.mark.parametrize("protocol", [3, 4])
def test_no_client_is_overdue_while_the_loop_is_late(beats: Beats, protocol: int) -> None:
    session = between_ticks(beats, protocol)
    beats.loop.advance(INTERVAL + TIMEOUT - TICK)
    beats.loop.now += 5.0
    assert not session.heartbeat.overdue(), "late, and no tick has noticed it"
    beats.loop.block(0)
    assert session.ended is None
    assert not session.heartbeat.overdue(), "late, and a tick has"


def test_a_late_ping_extends_the_deadline(beats: Beats) -> None:
    session = between_ticks(beats)
    beats.loop.advance(INTERVAL - TICK)
    beats.loop.block(1.5)
    assert len(session.pings) == 1
    beats.loop.advance(TIMEOUT - TICK)
    assert beats.timer.extension(beats.loop.now) == 0.0
    assert not session.heartbeat.overdue()


def test_no_client_is_overdue_while_reading_is_paused(beats: Beats) -> None:
    session = between_ticks(beats)
    beats.loop.advance(INTERVAL + TIMEOUT)
    session.reading_paused = True
    assert not session.heartbeat.overdue()


def test_a_session_that_has_ended_is_not_overdue(beats: Beats) -> None:
    session = between_ticks(beats)
    beats.loop.advance(INTERVAL + TIMEOUT + TICK)
    assert session.ended is not None
    assert not session.heartbeat.overdue()


# -- up to revision 3: the client pings


@pytest.mark.parametrize("protocol", [1, 2, 3])
def test_a_client_of_revision_3_is_not_pinged_and_has_interval_and_timeout(beats: Beats, protocol: int) -> None:
    session = beats.session(protocol)
    beats.loop.advance(INTERVAL + TIMEOUT - TICK)
    assert session.ended is None
    beats.loop.advance(TICK)
    assert session.ended is not None
    assert session.ended[:2] == (INTERVAL + TIMEOUT, PING_TIMEOUT)
    assert session.pings == []


def test_a_ping_of_revision_3_extends_the_deadline(beats: Beats) -> None:
    session = beats.session(3)
    for _ in range(5):
        beats.loop.advance(INTERVAL + TIMEOUT - TICK)
        session.pong()
    assert session.ended is None
    beats.loop.advance(INTERVAL + TIMEOUT)
    assert session.ended is not None


def test_any_packet_of_revision_3_extends_the_deadline(beats: Beats) -> None:
    session = beats.session(3)
    beats.loop.advance(INTERVAL)
    session.hear()
    beats.loop.advance(INTERVAL + TIMEOUT - TICK)
    assert session.ended is None
    beats.loop.advance(2 * TICK)
    assert session.ended is not None


# -- whose fault it is


def test_a_session_whose_reading_is_paused_is_not_ended(beats: Beats) -> None:
    session = beats.session()
    session.reading_paused = True
    beats.loop.advance(20 * (INTERVAL + TIMEOUT))
    assert session.ended is None
    assert len(session.pings) == 20
    session.reading_paused = False
    beats.loop.advance(INTERVAL + TIMEOUT)
    assert session.ended is not None


def test_a_blocked_loop_extends_deadlines_by_as_much(beats: Beats) -> None:
    session = beats.session()
    beats.loop.advance(INTERVAL)
    blocked = TICK + TIMEOUT + 5.0
    beats.loop.block(blocked)
    late = blocked - TICK
    assert session.ended is None
    beats.loop.advance(late - TICK)
    assert session.ended is None
    beats.loop.advance(2 * TICK)
    assert session.ended is not None


def test_a_packet_after_a_blocked_loop_keeps_the_session(beats: Beats) -> None:
    session = beats.session()
    beats.loop.advance(INTERVAL)
    beats.loop.block(TIMEOUT + 5.0)
    session.hear()
    beats.loop.advance(TIMEOUT + 5.0)
    assert session.ended is None
    assert len(session.pings) == 2


def test_the_extension_ends(beats: Beats) -> None:
    beats.loop.block(5.0 + TICK)
    assert beats.timer.extension(beats.loop.now) == 5.0
    assert beats.timer.extension(beats.loop.now + 3.0) == 2.0
    assert beats.timer.extension(beats.loop.now + 6.0) == 0.0


def test_after_a_long_blockage_only_existing_slots_are_visited(beats: Beats) -> None:
    """However far the clock has jumped; those that exist come in their order."""
    first, second = beats.session(), beats.session()
    beats.loop.advance(INTERVAL / 2)
    third = beats.session()
    order: list[FakeSession] = []
    for session in (third, second, first):
        session.on_ping = lambda session=session: order.append(session)  # type: ignore[misc]
    beats.loop.block(1e12)
    beats.loop.advance(TICK)
    assert set(order[:2]) == {first, second}
    assert order[2:] == [third]


def test_a_shorter_blockage_does_not_shorten_the_extension(beats: Beats) -> None:
    beats.loop.block(5.0 + TICK)
    beats.loop.block(0.5)
    assert beats.timer.extension(beats.loop.now) == 4.5


def test_a_slightly_late_loop_extends_nothing(beats: Beats) -> None:
    beats.loop.block(TICK + TICK)
    assert beats.timer.extension(beats.loop.now) == 0.0


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of blocked loops."""
    return [record.getMessage() for record in caplog.records if "blocked" in record.getMessage()]


def test_a_long_blockage_is_logged_once(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "engine"):
        beats.loop.block(30.0 + TICK)
        beats.loop.block(20.0)
    (line,) = lines(caplog)
    assert line.startswith("the event loop was blocked for 30.0 s, and nobody was served; heartbeats are put off by as much. "
                           "To cure it, ")
    with caplog.at_level(logging.WARNING, "engine"):
        beats.loop.advance(60.0)
        beats.loop.block(20.0 + TICK)
    assert len(lines(caplog)) == 2


def test_a_short_blockage_is_not_logged(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "engine"):
        beats.loop.block(0.9 + TICK)
    assert lines(caplog) == []
    assert beats.timer.extension(beats.loop.now) > 0


# -- a client that takes nothing


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_client_that_receives_nothing_is_closed_although_it_sends(beats: Beats, protocol: int) -> None:
    session = beats.session(protocol)
    session.on_ping = session.answer
    session.stalled_since = beats.loop.now
    while session.ended is None and beats.loop.now < 1100.0:
        session.hear()
        beats.loop.advance(TICK)
    assert session.ended is not None
    assert session.ended[1] == TOO_SLOW
    assert INTERVAL + TIMEOUT <= session.ended[0] <= 2 * (INTERVAL + TIMEOUT)
    assert session.ended[2].startswith("nothing could be written for ")


def test_a_client_that_receives_something_is_not_closed(beats: Beats) -> None:
    session = beats.session()
    session.on_ping = session.answer
    for _ in range(50):
        session.stalled_since = beats.loop.now
        beats.loop.advance(INTERVAL)
    assert session.ended is None


def test_time_in_which_the_loop_was_blocked_does_not_count_against_a_slow_client(beats: Beats) -> None:
    session = beats.session()
    session.on_ping = session.answer
    session.stalled_since = beats.loop.now
    beats.loop.block(INTERVAL + TIMEOUT + TICK)
    assert session.ended is None


# -- the timer of a server


def test_a_tick_is_a_tenth_of_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = FakeLoop()
    monkeypatch.setattr(heartbeat, "monotonic", loop.monotonic)
    HeartbeatTimer(loop, 25.0).start()
    assert [timer.due - loop.now for timer in loop.timers] == [pytest.approx(0.1)]


def test_starting_twice_starts_one_timer(beats: Beats) -> None:
    beats.timer.start()
    assert len(beats.loop.timers) == 1


def test_a_timer_that_was_stopped_starts_anew(beats: Beats) -> None:
    beats.loop.advance(10 * INTERVAL)
    left = beats.session()
    beats.timer.stop()
    beats.timer.stop()
    assert beats.loop.timers == []
    beats.loop.advance(100.0)
    beats.timer.start()
    session = beats.session()
    beats.loop.advance(INTERVAL)
    assert session.pings == [INTERVAL]
    assert beats.timer.extension(beats.loop.now) == 0.0, "it was stopped, not late"
    beats.loop.advance(20 * INTERVAL)
    assert left.pings == []


def test_a_deadline_in_the_past_fires_at_the_next_tick(beats: Beats) -> None:
    beats.loop.advance(1.0)
    session = FakeSession(beats.loop, beats.timer)
    beats.timer.slot(beats.loop.now - 0.5).add(session.heartbeat)
    beats.loop.advance(TICK)
    assert session.pings == [TICK]


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_stopped_heartbeat_does_nothing(beats: Beats, protocol: int) -> None:
    session = beats.session(protocol)
    beats.loop.advance(INTERVAL)
    session.heartbeat.stop()
    session.heartbeat.stop()
    session.pong()
    beats.loop.advance(10.0)
    assert session.pings == ([INTERVAL] if protocol == 4 else [])
    assert session.ended is None


def test_stopping_another_heartbeat_of_the_same_tick(beats: Beats) -> None:
    """Which of the two is first is not said; its ping ends the other session, which must not be pinged any more."""
    first, second = beats.session(), beats.session()
    first.on_ping = lambda: second.end("of the test")
    second.on_ping = lambda: first.end("of the test")
    beats.loop.advance(INTERVAL + 2 * TICK)
    assert len(first.pings) + len(second.pings) == 1


@pytest.mark.complains
def test_a_failing_heartbeat_does_not_stop_the_others(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    sessions = [beats.session() for _ in range(5)]
    for session in sessions:
        session.on_ping = session.answer
    sessions[2].on_ping = fail
    beats.loop.advance(INTERVAL)
    assert [session.pings for session in sessions] == [[INTERVAL]] * 5
    beats.loop.advance(INTERVAL + TICK)
    assert sessions[4].pings == [INTERVAL, 2 * INTERVAL + TICK]
    assert "a heartbeat failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


# -- whatever a client does

STEPS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["packet", "beat"])), max_size=20)


@given(steps=STEPS, protocol=st.sampled_from([3, 4]))
def test_a_session_ends_only_if_its_client_is_silent(steps: list[tuple[int, str]], protocol: int) -> None:
    """``steps`` are ticks that pass, and what arrives then; after them nothing does."""
    with pytest.MonkeyPatch.context() as patch:
        session = play(Beats(patch), steps, protocol)
    assert session.ended is not None
    when, reason, _ = session.ended
    silent = when - (session.last_seen - 1000.0)
    assert reason == PING_TIMEOUT
    assert (TIMEOUT if protocol == 4 else INTERVAL + TIMEOUT) <= silent
    assert silent <= max(INTERVAL, TIMEOUT) + TIMEOUT + 2 * TICK


def play(made: Beats, steps: list[tuple[int, str]], protocol: int) -> FakeSession:
    """A session through ``steps``, and for as long as it lives then."""
    session = made.session(protocol)
    for ticks, arrives in steps:
        made.loop.advance(ticks * TICK)
        if session.ended is not None:
            return session
        session.hear()
        if arrives == "beat":
            session.heartbeat.on_beat()
    made.loop.advance(10 * (INTERVAL + TIMEOUT))
    return session


# -- a client from which nothing is read


def test_a_client_from_which_nothing_is_read_is_pinged_and_not_taken_for_dead(beats: Beats) -> None:
    session = beats.session()
    session.heartbeat.hold()
    session.stalled_since = session.last_seen
    beats.loop.advance(INTERVAL + 3 * TIMEOUT)
    assert session.pings == [INTERVAL + number * TIMEOUT for number in range(4)]
    assert (session.ended, session.heartbeat.overdue()) == (None, False)
    session.heartbeat.release()
    session.stalled_since = 0.0
    beats.loop.advance(TIMEOUT)
    assert session.ended is not None


def test_a_client_of_revision_3_from_which_nothing_is_read_is_not_taken_for_dead(beats: Beats) -> None:
    session = beats.session(3)
    session.heartbeat.hold()
    beats.loop.advance(10 * (INTERVAL + TIMEOUT))
    assert (session.ended, session.heartbeat.overdue()) == (None, False)
    session.heartbeat.release()
    assert session.heartbeat.overdue()
    beats.loop.advance(TIMEOUT)
    assert session.ended is not None
