"""Who is still there: pings, their deadlines, and the difference between a dead peer and a busy process.

Owns one event-loop timer a session, and one a server that notices when the loop itself was late. All deadlines are on
the monotonic clock. Knows nothing of transports.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any, Protocol

from engineio_wsgi.transports.base import CloseReason

__all__ = ["Heartbeat", "LoopWatch"]

logger = logging.getLogger("engine")

#: seconds between two looks at the loop
TICK = 0.25
#: seconds by which a timer may be late before the loop counts as having been blocked
LATE = 0.1
#: seconds of a blockage that are worth a line in the log
WORTH_A_LINE = 1.0


class LoopWatch:
    """Notices that the loop was blocked (by somebody's computation, or by a busy machine), and for how long.

    While it was, nothing was read; peers must not be held to deadlines that passed meanwhile.
    """

    __slots__ = ("_due", "_loop", "_patience_until", "_timer")

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._timer: Any = None
        self._due = 0.0
        self._patience_until = 0.0

    def start(self) -> None:
        """Begin to look; harmless if repeated."""
        if self._timer is None:
            self._due = monotonic() + TICK
            # a server that only watches must not keep the process alive
            self._timer = self._loop.timer(TICK, TICK, ref=False)
            self._timer.start(self._on_tick)

    def stop(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _on_tick(self) -> None:
        now = monotonic()
        self.note(now - self._due, now)
        self._due = now + TICK

    def note(self, late: float, now: float) -> None:
        """A timer was ``late`` seconds late. If that is much, everybody gets as long again to be heard."""
        if late < LATE:
            return
        if late >= WORTH_A_LINE and now >= self._patience_until:
            logger.warning("the event loop was blocked for %.1f s; heartbeats are put off by as much", late)
        self._patience_until = max(self._patience_until, now + late)

    def patience(self, now: float) -> float:
        """Seconds from ``now`` for which nobody may be declared dead."""
        return max(0.0, self._patience_until - now)


class Beating(Protocol):
    """What a heartbeat needs to know of its session."""

    heard: float
    stalled_since: float
    reading_paused: bool
    protocol: int

    def send_ping(self) -> None:
        """Ask the client for a sign of life."""
        ...

    def end(self, reason: str, description: object = None) -> None:
        """The session ends now."""
        ...


class Heartbeat:
    """One session's heartbeat.

    From revision 4 on the server pings every ``interval`` seconds and the client answers within ``timeout``; up to
    revision 3 the client pings and has ``interval + timeout`` for it. Any packet counts as life.
    """

    __slots__ = ("_interval", "_loop", "_pinged_at", "_session", "_timeout", "_timer", "_watch", "due")

    def __init__(self, session: Beating, loop: Any, watch: LoopWatch, interval: float, timeout: float) -> None:
        self._session = session
        self._loop = loop
        self._watch = watch
        self._interval = interval
        self._timeout = timeout
        self._pinged_at = 0.0
        self._timer: Any = None
        self.due = 0.0

    def start(self) -> None:
        """Begin: the session has just been opened."""
        self._session.heard = monotonic()
        if self._session.protocol >= 4:
            self._arm(self._interval, self._ping)
        else:
            self._arm(self._interval + self._timeout, self._expire)

    def stop(self) -> None:
        """No more beats."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def on_beat(self) -> None:
        """The client's half of a heartbeat has arrived."""
        if self._timer is None:
            return
        if self._session.protocol < 4:
            self._arm(self._interval + self._timeout, self._expire)
        elif self._pinged_at:
            # a pong that nobody asked for must not put off the next ping
            self._pinged_at = 0.0
            self._arm(self._interval, self._ping)

    def _beat_again(self, now: float) -> None:
        """The client is taken to be alive without having said so."""
        if self._session.protocol >= 4:
            self._arm(max(0.0, self._session.heard + self._interval - now), self._ping)
        else:
            self._arm(self._interval + self._timeout, self._expire)

    def _arm(self, delay: float, action: Any) -> None:
        if self._timer is not None:
            self._timer.close()
        # gevent's timers cannot be given another delay; a new one costs 0.3 µs, twice an interval
        self._timer = self._loop.timer(delay)
        self.due = monotonic() + delay
        self._timer.start(action)

    def _ping(self) -> None:
        self._pinged_at = monotonic()
        self._watch.note(self._pinged_at - self.due, self._pinged_at)
        if self._too_slow(self._pinged_at):
            return
        self._session.send_ping()
        if self._timer is None:
            return  # the client turned out to be gone
        self._arm(self._timeout, self._expire)

    def _expire(self) -> None:
        """The deadline has passed; find out whether that is the client's fault."""
        now = monotonic()
        session = self._session
        self._watch.note(now - self.due, now)
        if self._too_slow(now):
            return
        if session.reading_paused:
            # its packets wait in the kernel because the application is slow: that is no reason to drop it
            session.heard = now
            self._beat_again(now)
        elif session.protocol >= 4 and session.heard >= self._pinged_at:
            self._beat_again(now)
        elif session.protocol < 4 and session.heard + self._interval + self._timeout > now:
            self._arm(session.heard + self._interval + self._timeout - now, self._expire)
        elif self._watch.patience(now):
            self._arm(self._watch.patience(now), self._expire)
        else:
            session.end(CloseReason.PING_TIMEOUT, f"nothing was heard for {now - session.heard:.1f} s")

    def _too_slow(self, now: float) -> bool:
        """End the session if its client has taken nothing of what waits for it for a whole heartbeat."""
        since = self._session.stalled_since
        if not since or now - since - self._watch.patience(now) < self._interval + self._timeout:
            return False
        self._session.end(CloseReason.CLIENT_TOO_SLOW, f"nothing was taken for {now - since:.1f} s")
        return True
