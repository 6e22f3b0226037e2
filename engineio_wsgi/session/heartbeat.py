"""Heartbeats: pings, their deadlines, and the difference between a dead client and a busy process.

Owns one event-loop timer for each server, which serves all sessions and detects that the loop was blocked. All deadlines
are on the monotonic clock. Does not know transports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import Any, NamedTuple, Protocol

from engineio_wsgi.runtime.blame import Blame
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Loop, Timer
from engineio_wsgi.transports.base import CloseReason

__all__ = ["Heartbeat", "HeartbeatSnapshot", "HeartbeatTimer", "ping_each"]

logger = logging.getLogger("engine")

#: seconds between two checks of the deadlines, if the shortest delay has at least ``TICKS`` of them. With one timer for each
#: session, the loop woke up for each ping and each pong, and 10,000 sessions took nearly twice as much CPU
TICK = 0.1
TICKS = 20
#: seconds by which a timer may be late before the loop is taken to have been blocked
LATE = 0.1
#: seconds for which the loop must have been blocked before that is logged
LOGGED = 1.0


class HeartbeatTimer:
    """A timer wheel with the deadlines of all heartbeats of a server, in slots of one tick each.

    It also detects that the loop was blocked, by a computation or because the machine is busy, and for how long. Nothing was
    read during that time, so deadlines that passed meanwhile are extended.

    Args:
        loop: gevent's event loop.
        shortest: the shortest delay of any heartbeat, in seconds.
        blame: which function has blocked the loop.
        ping_all: sends a ping to each of some sessions.
        on_lag: called at each tick with the seconds by which it was late.
    """

    __slots__ = ("_blame", "_due", "_extended_until", "_loop", "_on_lag", "_ping_all", "_reached", "_slot", "_slot_begins",
                 "_slot_ends", "_slots", "_started_at", "_tick", "_timer")

    def __init__(self, loop: Loop, shortest: float, blame: Blame | None = None,
                 # Any: whole sessions, of which a heartbeat sees only a part
                 ping_all: Callable[[list[Any]], object] | None = None,
                 on_lag: Callable[[float], object] | None = None) -> None:
        self._loop = loop
        self._on_lag = on_lag
        self._blame = blame or Blame()
        self._ping_all = ping_all or ping_each
        # the slot that was asked for last, and its time: most pings of one tick, and most of their answers, share a slot
        self._slot: set[Heartbeat] = set()
        self._slot_begins = self._slot_ends = 0.0
        self._tick = min(TICK, shortest / TICKS)
        self._timer: Timer | None = None
        self._started_at = 0.0
        self._due = 0.0
        self._extended_until = 0.0
        self._reached = 0
        self._slots: dict[int, set[Heartbeat]] = {}

    def start(self) -> None:
        """Start the timer; harmless if repeated."""
        if self._timer is None:
            self._started_at = monotonic()
            self._reached = 0
            self._due = self._started_at + self._tick
            self._timer = timer = self._loop.timer(self._tick, self._tick)
            timer.start(self._on_tick)

    def stop(self) -> None:
        """Stop the timer and drop all deadlines."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._slots.clear()
        self._forget_slot()

    def slot(self, due: float) -> set[Heartbeat]:
        """Return the set of heartbeats that fire at the first tick after ``due``; the caller adds itself."""
        if not self._slot_begins < due < self._slot_ends:
            number = max(ceil((due - self._started_at) / self._tick), self._reached + 1)
            self._slot_ends = self._started_at + number * self._tick
            self._slot_begins = self._slot_ends - self._tick
            self._slot = self._slots.setdefault(number, set())
        return self._slot

    def _forget_slot(self) -> None:
        self._slot_begins = self._slot_ends = 0.0

    def _on_tick(self) -> None:
        now = monotonic()
        self._on_late(now - self._due, now)
        if self._on_lag is not None:
            self._on_lag(max(0.0, now - self._due))
        self._due = now + self._tick
        first, self._reached = self._reached + 1, int((now - self._started_at) / self._tick)
        self._forget_slot()
        pinged: list[HeartbeatSession] = []
        for number in self._slots_until(first):
            beats = self._slots.pop(number, ())
            while beats:
                self._fire(beats.pop(), now, pinged)
        if pinged:
            self._ping_all(pinged)

    def _slots_until(self, first: int) -> Iterable[int]:
        """The numbers of the slots from ``first`` to the one that has been reached; of many, only those that exist."""
        numbers = range(first, self._reached + 1)
        if len(numbers) <= len(self._slots):
            return numbers
        return sorted(number for number in self._slots if number <= self._reached)

    @staticmethod
    def _fire(heartbeat: Heartbeat, now: float, pinged: list[HeartbeatSession]) -> None:
        try:
            heartbeat.on_due(now, pinged)
        except Exception:
            logger.exception("a heartbeat failed")  # and the others go on

    def _on_late(self, late: float, now: float) -> None:
        """A tick was ``late`` seconds late. If the loop was blocked, extend all deadlines by as much."""
        if late < LATE:
            return
        if late >= LOGGED and now >= self._extended_until:
            logger.warning("the event loop was blocked for %.1f s%s, and nobody was served; heartbeats are put off by as much. "
                           "To cure it, %s", late, self._blame.of_last(late), self._blame.cure())
        self._extended_until = max(self._extended_until, now + late)

    def is_late(self, now: float) -> bool:
        """Whether a tick is so late that the loop is taken to have been blocked."""
        return now - self._due >= LATE

    def extension(self, now: float) -> float:
        """Seconds from ``now`` in which no client is taken for dead."""
        return max(0.0, self._extended_until - now)

    def due_of(self, slot: set[Heartbeat] | None) -> float:
        """When the heartbeats of a slot fire; 0.0 if there is no such slot. Looks through all slots."""
        for number, known in self._slots.items():
            if known is slot:
                return self._started_at + number * self._tick
        return 0.0


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

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        ...

    def send_ping(self) -> None:
        """Send a ping."""
        ...

    def end(self, reason: str, description: object = None) -> None:
        """End the session now."""
        ...


class Heartbeat:
    """One session's heartbeat.

    In revision 4 the server pings every ``interval`` seconds and the client answers within ``timeout`` seconds; up to revision 3
    the client pings within ``interval + timeout`` seconds. Any packet shows that the client is alive.
    """

    __slots__ = ("_interval", "_pinged_at", "_session", "_slot", "_timeout", "_timer", "held")

    def __init__(self, session: HeartbeatSession, timer: HeartbeatTimer, interval: float, timeout: float) -> None:
        self._session = session
        self._timer = timer
        self._interval = interval
        self._timeout = timeout
        self._pinged_at = 0.0
        #: whether nothing is read from the client at the moment, so that it is not taken for dead
        self.held = False
        self._slot: set[Heartbeat] | None = None

    def start(self) -> None:
        """Start, when the session has been opened."""
        inbox = self._session.inbox
        inbox.hear()
        self._schedule_next(inbox.last_seen)

    def stop(self) -> None:
        """Stop: no more pings and deadlines."""
        if self._slot is not None:
            self._slot.discard(self)
            self._slot = None

    def overdue(self) -> bool:
        """Whether the client's deadline has passed. For a request that arrives after the deadline and before the next tick.

        If the application or the event loop was late, the session has until the tick.
        """
        now, session = monotonic(), self._session
        if now < session.inbox.last_seen + self._interval + self._timeout or self._slot is None or self.held:
            return False
        if session.protocol >= 4 and not self._was_pinged(now):
            return False
        return not (session.inbox.reading_paused or self._timer.is_late(now) or self._timer.extension(now))

    def _was_pinged(self, now: float) -> bool:
        """Whether a ping is unanswered that was sent in time or at least ``timeout`` seconds ago."""
        last_seen, pinged_at = self._session.inbox.last_seen, self._pinged_at
        if last_seen >= pinged_at:
            return False
        on_time = pinged_at <= last_seen + self._interval + min(LATE, self._timeout / 4)
        return on_time or now >= pinged_at + self._timeout

    def hold(self) -> None:
        """Do not take the client for dead until :meth:`release`, because nothing is read from it. Pings go on."""
        self.held = True

    def release(self) -> None:
        """The client's packets are read again. Harmless if repeated."""
        self.held = False

    def on_beat(self) -> float:
        """The client's ping or pong was received. Returns the seconds since the ping that was answered; 0 if there was none."""
        last_seen, pinged_at = self._session.inbox.last_seen, self._pinged_at
        # a pong without a ping must not delay the next ping
        if self._slot is not None and (pinged_at or self._session.protocol < 4):
            self._schedule_next(last_seen)
        return last_seen - pinged_at if pinged_at else 0.0

    def _schedule_next(self, last_seen: float) -> None:
        """Schedule the next heartbeat; the client was alive at ``last_seen``."""
        self._pinged_at = 0.0
        self._schedule(last_seen + self._interval + (0.0 if self._session.protocol >= 4 else self._timeout))

    def _schedule(self, due: float) -> None:
        if self._slot is not None:
            self._slot.discard(self)
        self._slot = slot = self._timer.slot(due)
        slot.add(self)

    def on_due(self, now: float, pinged: list[HeartbeatSession]) -> None:
        """Called at a deadline: add the session to those that are pinged, or decide whether the client is dead."""
        session = self._session
        if session.stalled_since and not self.held and self._too_slow(now):
            return
        # while it is held: the client's answer is not read, on which the next ping depends that the client waits for
        if session.protocol >= 4 and (self.held or not self._pinged_at):
            self._pinged_at = now
            self._schedule(now + self._timeout)
            pinged.append(session)
        else:
            self._expire(now)

    def _expire(self, now: float) -> None:
        """The deadline has passed: end the session, unless the server was late."""
        session = self._session
        if self.held:
            self._schedule(now + self._timeout)
        elif session.inbox.reading_paused:
            # the client's packets are unread because the application is slow
            session.inbox.hear()
            self._schedule_next(now)
        elif self._is_alive(now):
            self._schedule_next(session.inbox.last_seen)
        elif self._timer.extension(now):
            self._schedule(now + self._timer.extension(now))
        else:
            session.end(CloseReason.PING_TIMEOUT, f"nothing was received for {now - session.inbox.last_seen:.1f} s")

    def _is_alive(self, now: float) -> bool:
        last_seen = self._session.inbox.last_seen
        if self._session.protocol >= 4:
            return last_seen >= self._pinged_at
        return last_seen + self._interval + self._timeout > now

    def _too_slow(self, now: float) -> bool:
        """End a session that is stalled if its client has received nothing of what is buffered for a whole heartbeat."""
        since = self._session.stalled_since
        if now - since - self._timer.extension(now) < self._interval + self._timeout:
            return False
        self._session.end(CloseReason.CLIENT_TOO_SLOW, f"nothing could be written for {now - since:.1f} s")
        return True

    # -- in another process

    def snapshot(self) -> HeartbeatSnapshot:
        """What another process of this machine needs to go on."""
        return HeartbeatSnapshot(self._session.inbox.last_seen, self._pinged_at, self._timer.due_of(self._slot))

    def restore(self, snapshot: HeartbeatSnapshot) -> None:
        """Go on where another process has stopped, instead of :meth:`start`.

        If the deadline were computed anew, a ping could be late by an interval, and the client would take the server for dead.
        """
        self._pinged_at = snapshot.pinged_at
        self._schedule(snapshot.due)


class HeartbeatSnapshot(NamedTuple):
    """Times of a session, on the machine's monotonic clock.

    Attributes:
        last_seen: of the last packet.
        pinged_at: of the ping that is unanswered; 0.0 if there is none.
        due: of the next ping, or of the client's deadline.
    """

    last_seen: float
    pinged_at: float
    due: float


def ping_each(sessions: Sequence[HeartbeatSession]) -> None:
    """Send a ping to each of ``sessions``, one after the other, unless it has ended meanwhile."""
    for session in sessions:
        try:
            if not session.closed:
                session.send_ping()
        except Exception:
            logger.exception("a heartbeat failed")  # and the others go on
