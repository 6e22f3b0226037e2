"""The time at which a client's authentication expires.

Owns the timer, and the rule that the session ends unless a listener sets another time. Does not know how clients authenticate.
For the hub's thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Protocol

from engineio_wsgi.runtime.deadline import TURN, DeadlineTimer
from engineio_wsgi.runtime.loop import Loop
from engineio_wsgi.session.ports import SessionRegistry
from engineio_wsgi.transports.base import CloseReason

__all__ = ["Expiry", "check_time"]

#: seconds that the ``expire`` listeners wait for a listener that is running; then they run beside it
EXPIRE_GRACE = 1.0
#: seconds since the epoch that no token has: the year 5138. What is larger is milliseconds
LATEST = 100_000_000_000


def check_time(at: object) -> float | None:
    """Check a time in seconds since the epoch, or ``None``.

    Raises:
        TypeError: it is no number.
        ValueError: it is not finite, or looks like milliseconds.
    """
    if at is None:
        return None
    if isinstance(at, bool) or not isinstance(at, (int, float)):
        hint = "; call its timestamp()" if hasattr(at, "timestamp") else ""
        raise TypeError(f"expire_at: expected seconds since the epoch, a number, or None; got {type(at).__name__}{hint}")
    if not -LATEST < at < LATEST:
        raise ValueError(f"expire_at: expected seconds since the epoch, such as time.time() + 3600; got {at!r}, which would be "
                         "after the year 5138: are these milliseconds?")
    return float(at)


class ExpiringInbox(Protocol):
    """What an expiry needs of its session's inbox."""

    def has(self, event: str) -> bool:
        """Whether there are listeners of ``event``."""
        ...

    def queue_call(self, listener: Callable[..., object], *args: object) -> None:
        """Queue a call."""
        ...

    def call_each(self, event: str, *args: object) -> None:
        """Call every listener of ``event`` now."""
        ...


class ExpiringSession(Protocol):
    """What an expiry needs of its session."""

    registry: SessionRegistry

    @property
    def loop(self) -> Loop:
        """The event loop."""
        ...

    @property
    def inbox(self) -> ExpiringInbox:
        """Where the listeners are."""
        ...

    def end_when_drained(self, reason: str, description: object = None) -> None:
        """End when the client has received what is buffered."""
        ...


class Expiry:
    """When a session expires, and what happens then."""

    __slots__ = ("_is_telling", "_session", "_timer", "at")

    def __init__(self, session: ExpiringSession) -> None:
        self._session = session
        #: seconds since the epoch; ``None`` for never
        self.at: float | None = None
        self._timer: DeadlineTimer | None = None
        #: whether the listeners are about to be called
        self._is_telling = False

    def set(self, at: float | None) -> None:
        """Let the session expire at this time, and not at the one before. The system's clock is read now, and not again."""
        self.stop()
        self.at = at
        if at is not None:
            # the application's clock, which a test may have frozen: the time is one of it
            self._timer = DeadlineTimer(self._session.loop, max(at - time(), TURN), self._on_time)

    def stop(self) -> None:
        """The session does not expire any more. Harmless if repeated."""
        self._is_telling = False
        self.at = None
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _on_time(self) -> None:
        session = self._session
        if not session.inbox.has("expire"):
            self._end()
            return
        self._is_telling = True
        self._timer = DeadlineTimer(session.loop, EXPIRE_GRACE, session.registry.greenlets.run, self._tell)
        session.inbox.queue_call(self._tell)

    def _tell(self) -> None:
        """Call the listeners, once, and end the session unless one of them has set another time, or ``None``."""
        if not self._is_telling:
            return
        self.stop()
        # `set` puts something else in its place
        self.at = expired = -1.0
        self._session.inbox.call_each("expire")
        if self.at == expired:
            self._end()

    def _end(self) -> None:
        self.stop()
        self._session.end_when_drained(CloseReason.EXPIRED)
