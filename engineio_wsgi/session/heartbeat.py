"""Who is still there: pings, their deadlines, and the difference between a dead peer and a busy process.

Owns one event-loop timer a server: it beats for all sessions, and notices when the loop itself was late. All deadlines
are on the monotonic clock. Knows nothing of transports.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from math import ceil
from typing import Protocol

from engineio_wsgi.clock import Loop, Timer, monotonic
from engineio_wsgi.transports.base import CloseReason

__all__ = ["Heartbeat", "HeartbeatTimer"]

logger = logging.getLogger("engine")

#: seconds between two looks at the deadlines, where an interval has at least ``TICKS`` of them. With a timer of its own for
#: each session, the loop woke up for each ping and each pong: 10,000 sessions cost nearly twice as much
TICK = 0.1
TICKS = 20
#: seconds by which a timer may be late before the loop counts as having been blocked
LATE = 0.1
#: seconds of a blockage that are worth a line in the log
WORTH_A_LINE = 1.0


class HeartbeatTimer:
    """The deadlines of all heartbeats of a server, in slots of one tick each: a timer wheel.

    It notices, too, that the loop was blocked (by somebody's computation, or by a busy machine), and for how long.
    While it was, nothing was read; peers must not be held to deadlines that passed meanwhile.

    Args:
        loop: gevent's.
        shortest: seconds of the shortest delay that heartbeats have.
    """

    __slots__ = ("_due", "_loop", "_patience_until", "_reached", "_slots", "_started_at", "_tick", "_timer")

    def __init__(self, loop: Loop, shortest: float) -> None:
        self._loop = loop
        self._tick = min(TICK, shortest / TICKS)
        self._timer: Timer | None = None
        self._started_at = 0.0
        self._due = 0.0
        self._patience_until = 0.0
        self._reached = 0
        self._slots: dict[int, set[Heartbeat]] = {}

    def start(self) -> None:
        """Begin to tick; harmless if repeated."""
        if self._timer is None:
            self._started_at = monotonic()
            self._reached = 0
            self._due = self._started_at + self._tick
            self._timer = timer = self._loop.timer(self._tick, self._tick)
            timer.start(self._on_tick)

    def stop(self) -> None:
        """Stop ticking: there are no sessions."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._slots.clear()

    def slot(self, due: float) -> set[Heartbeat]:
        """Those that fire at the first tick after ``due``; whoever wants to be among them adds itself."""
        number = max(ceil((due - self._started_at) / self._tick), self._reached + 1)
        return self._slots.setdefault(number, set())

    def _on_tick(self) -> None:
        now = monotonic()
        self._note(now - self._due, now)
        self._due = now + self._tick
        first, self._reached = self._reached + 1, int((now - self._started_at) / self._tick)
        for number in self._slots_until(first):
            beats = self._slots.pop(number, ())
            while beats:
                self._fire(beats.pop(), now)

    def _slots_until(self, first: int) -> Iterable[int]:
        """The numbers of the slots that have been reached since ``first``, without those that do not exist if they are many."""
        numbers = range(first, self._reached + 1)
        if len(numbers) <= len(self._slots):
            return numbers
        return sorted(number for number in self._slots if number <= self._reached)

    @staticmethod
    def _fire(heartbeat: Heartbeat, now: float) -> None:
        try:
            heartbeat.on_due(now)
        except Exception:
            logger.exception("a heartbeat failed")  # the others' must not

    def _note(self, late: float, now: float) -> None:
        """A tick was ``late`` seconds late. If that is much, everybody gets as long again to be heard."""
        if late < LATE:
            return
        if late >= WORTH_A_LINE and now >= self._patience_until:
            logger.warning("the event loop was blocked for %.1f s; heartbeats are put off by as much", late)
        self._patience_until = max(self._patience_until, now + late)

    def is_late(self, now: float) -> bool:
        """Whether a tick is overdue by so much that the loop counts as having been blocked."""
        return now - self._due >= LATE

    def patience(self, now: float) -> float:
        """Seconds from ``now`` for which nobody may be declared dead."""
        return max(0.0, self._patience_until - now)


class HeartbeatInbox(Protocol):
    """What a heartbeat needs of its session's inbox."""

    last_seen: float
    reading_paused: bool

    def hear(self) -> None:
        """Set ``last_seen`` to the present."""
        ...


class HeartbeatSession(Protocol):
    """What a heartbeat needs of its session."""

    protocol: int
    stalled_since: float

    @property
    def inbox(self) -> HeartbeatInbox:
        """Where received packets go."""
        ...

    def send_ping(self) -> None:
        """Send a ping."""
        ...

    def end(self, reason: str, description: object = None) -> None:
        """End the session now."""
        ...


class Heartbeat:
    """One session's heartbeat.

    From revision 4 on the server pings every ``interval`` seconds and the client answers within ``timeout``; up to
    revision 3 the client pings and has ``interval + timeout`` for it. Any packet counts as life.
    """

    __slots__ = ("_interval", "_pinged_at", "_session", "_slot", "_timeout", "_timer")

    def __init__(self, session: HeartbeatSession, timer: HeartbeatTimer, interval: float, timeout: float) -> None:
        self._session = session
        self._timer = timer
        self._interval = interval
        self._timeout = timeout
        self._pinged_at = 0.0
        self._slot: set[Heartbeat] | None = None

    def start(self) -> None:
        """Begin: the session has just been opened."""
        self._session.inbox.hear()
        self._beat_again(self._session.inbox.last_seen)

    def stop(self) -> None:
        """No more beats."""
        if self._slot is not None:
            self._slot.discard(self)
            self._slot = None

    def overdue(self) -> bool:
        """Whether the client's time is up. For a request that comes between the deadline and the tick that would see it.

        A session whose own application or event loop was late has until the tick.
        """
        now, session = monotonic(), self._session
        if now < session.inbox.last_seen + self._interval + self._timeout or self._slot is None:
            return False
        if session.protocol >= 4 and not self._was_pinged(now):
            return False
        return not (session.inbox.reading_paused or self._timer.is_late(now) or self._timer.patience(now))

    def _was_pinged(self, now: float) -> bool:
        """Whether a ping has gone unanswered, which was on time or long enough ago."""
        last_seen, pinged_at = self._session.inbox.last_seen, self._pinged_at
        if last_seen >= pinged_at:
            return False
        on_time = pinged_at <= last_seen + self._interval + min(LATE, self._timeout / 4)
        return on_time or now >= pinged_at + self._timeout

    def on_beat(self) -> None:
        """The client's half of a heartbeat has arrived."""
        # a pong that nobody asked for must not put off the next ping
        if self._slot is not None and (self._pinged_at or self._session.protocol < 4):
            self._beat_again(monotonic())

    def _beat_again(self, last_seen: float) -> None:
        """The next beat, from when the client is taken to have been alive."""
        self._pinged_at = 0.0
        self._arm(last_seen + self._interval + (0.0 if self._session.protocol >= 4 else self._timeout))

    def _arm(self, due: float) -> None:
        if self._slot is not None:
            self._slot.discard(self)
        self._slot = slot = self._timer.slot(due)
        slot.add(self)

    def on_due(self, now: float) -> None:
        """The time has come to ask for a sign of life, or to judge that none has come."""
        if self._too_slow(now):
            return
        if self._session.protocol >= 4 and not self._pinged_at:
            self._ping(now)
        else:
            self._expire(now)

    def _ping(self, now: float) -> None:
        self._pinged_at = now
        self._session.send_ping()
        if self._slot is not None:  # the client has not turned out to be gone
            self._arm(now + self._timeout)

    def _expire(self, now: float) -> None:
        """The deadline has passed; find out whether that is the client's fault."""
        session = self._session
        if session.inbox.reading_paused:
            # its packets wait in the kernel because the application is slow: that is no reason to drop it
            session.inbox.hear()
            self._beat_again(now)
        elif self._is_alive(now):
            self._beat_again(session.inbox.last_seen)
        elif self._timer.patience(now):
            self._arm(now + self._timer.patience(now))
        else:
            session.end(CloseReason.PING_TIMEOUT, f"nothing was heard for {now - session.inbox.last_seen:.1f} s")

    def _is_alive(self, now: float) -> bool:
        last_seen = self._session.inbox.last_seen
        if self._session.protocol >= 4:
            return last_seen >= self._pinged_at
        return last_seen + self._interval + self._timeout > now

    def _too_slow(self, now: float) -> bool:
        """End the session if its client has taken nothing of what waits for it for a whole heartbeat."""
        since = self._session.stalled_since
        if not since or now - since - self._timer.patience(now) < self._interval + self._timeout:
            return False
        self._session.end(CloseReason.CLIENT_TOO_SLOW, f"nothing was taken for {now - since:.1f} s")
        return True
