"""What a client may send in a second: token buckets, and inboxes that pause the reading for a client that sends more.

An inbox without a limit is a plain `Dispatcher`, and pays nothing. Heartbeats and other packets of the engine, and the control
frames of WebSocket, have an allowance of their own, far above what an honest client sends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import ceil, inf

from engineio_wsgi.log import shorten
from engineio_wsgi.options.options import Options
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Loop, Timer
from engineio_wsgi.session.dispatcher import DispatchedSession, Dispatcher
from engineio_wsgi.session.overlap import OverlappingDispatcher
from engineio_wsgi.transports.base import CloseReason, size_of

__all__ = ["RateLimit", "TokenBucket", "make_inbox"]

logger = logging.getLogger("engine.socket")

#: packets and frames that are no messages and that a client may send in a second at least; a heartbeat is one in many seconds
LEAST_CONTROL = 100
#: the same for each ping that the server sends, where it sends many
CONTROL_PER_PING = 4
#: seconds: a debt that is paid sooner is nothing that a client could notice
SHORTEST_PAUSE = 0.001


class TokenBucket:
    """Counts what is spent of an allowance that grows with time. What is spent beyond it is a debt.

    Args:
        rate: the allowance of a second, and the most that can be saved.
        now: of the monotonic clock.
    """

    __slots__ = ("_rate", "_tokens", "_updated")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate)
        self._updated = now

    def refill(self, now: float) -> bool:
        """Add the allowance of the time that has passed. Returns whether the bucket is full."""
        self._tokens = min(float(self._rate), self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        return self._tokens == self._rate

    def spend(self, amount: int) -> float:
        """Take out an amount. Returns the seconds after which the debt is paid; 0 without a debt."""
        self._tokens -= amount
        return max(0.0, -self._tokens / self._rate)


class RateLimit:
    """What one client may send.

    Args:
        loop: gevent's event loop.
        options: with the limits.
    """

    __slots__ = ("_bytes", "_control", "_exceeded_since", "_loop", "_messages", "_timeout", "_timer")

    def __init__(self, loop: Loop, options: Options) -> None:
        self._loop = loop
        self._timeout = options.rate_limit_timeout
        now = monotonic()
        messages, size = options.max_messages_per_second, options.max_bytes_per_second
        self._messages = None if messages is None else TokenBucket(messages, now)
        self._bytes = None if size is None else TokenBucket(size, now)
        self._control = TokenBucket(max(messages or 0, LEAST_CONTROL, ceil(CONTROL_PER_PING / options.ping_interval)), now)
        #: since when the client has always sent more than it may; ``None`` if it does not
        self._exceeded_since: float | None = None
        #: runs while the reading is paused
        self._timer: Timer | None = None

    def spend(self, messages: Sequence[str | bytes], now: float) -> float:
        """Count messages. Returns the seconds for which the reading has to pause; ``inf`` if the session has to end."""
        pause, is_rested = 0.0, self._control.refill(now)
        if self._messages is not None:
            is_rested = self._messages.refill(now) and is_rested
            pause = self._messages.spend(len(messages))
        if self._bytes is not None:
            is_rested = self._bytes.refill(now) and is_rested
            pause = max(pause, self._bytes.spend(sum(map(size_of, messages))))
        return self._judge(max(pause, self._control.spend(0)), is_rested, now)

    def spend_control(self, number: int, now: float) -> float:
        """As :meth:`spend`, for packets and frames that are no messages."""
        others = [bucket for bucket in (self._messages, self._bytes) if bucket is not None]
        rested = [bucket.refill(now) for bucket in (self._control, *others)]
        pause = self._control.spend(number)
        if pause < SHORTEST_PAUSE:
            # a heartbeat neither ends a session that has sent too many messages, nor its pause
            return 0.0
        return self._judge(max(pause, *[bucket.spend(0) for bucket in others]), all(rested), now)

    def _judge(self, pause: float, is_rested: bool, now: float) -> float:
        if is_rested:
            self._exceeded_since = None
        if pause < SHORTEST_PAUSE:
            return 0.0
        if self._exceeded_since is None:
            self._exceeded_since = now
        return inf if max(pause, now - self._exceeded_since) > self._timeout else pause

    @property
    def is_pausing(self) -> bool:
        """Whether the reading is paused."""
        return self._timer is not None

    def pause(self, seconds: float, on_over: Callable[[], object]) -> None:
        """Pause the reading for so long, and call ``on_over`` then."""
        self.stop()
        self._timer = self._loop.timer(seconds)
        self._timer.start(on_over)

    def stop(self) -> None:
        """Pause no longer. Harmless if repeated."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None


class _RateLimited(Dispatcher):
    """An inbox whose client may not send as much as it likes. A base of two classes: see :func:`make_inbox`."""

    __slots__ = ()

    _limit: RateLimit

    def _accepts(self, messages: Sequence[str | bytes]) -> bool:
        """Count messages, and pause the reading if they are too many. Returns ``False`` if the session ends because of them."""
        return self._obey(self._limit.spend(messages, monotonic()), "max_messages_per_second or max_bytes_per_second allows")

    def count_control(self, number: int) -> bool:
        """See :class:`Inbox`."""
        return self.closed or self._obey(self._limit.spend_control(number, monotonic()),
                                         "is allowed of packets and frames that are no messages")

    def _obey(self, seconds: float, limit: str) -> bool:
        """Pause the reading for so long; ``inf`` is the end of the session. Returns whether it goes on."""
        if seconds == inf:
            logger.info("< %s: closed: it has sent more than %s", shorten(self._session.id), limit)
            self._session.end(CloseReason.RATE_LIMIT, "the client has sent too much for too long")
            return False
        if seconds:
            self._limit.pause(seconds, self._on_rested)
            self._pause_reading()
        return True

    def _on_rested(self) -> None:
        """The debt is paid: read again, unless the inbox is full."""
        self._limit.stop()
        if self.reading_paused and not self._is_full:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if not self._limit.is_pausing:
            super()._resume_reading()

    def deliver(self, data: str | bytes, now: float) -> None:
        """See :class:`Dispatcher`."""
        if self._accepts((data,)):
            super().deliver(data, now)
        else:
            self.run_turn()

    def enqueue(self, messages: Sequence[str | bytes]) -> None:
        """See :class:`Dispatcher`."""
        if messages and not self.closed and self._accepts(messages):
            self._queue(messages)

    def close(self) -> None:
        """See :class:`Dispatcher`."""
        super().close()
        self._limit.stop()


class _RateLimitedDispatcher(_RateLimited):
    __slots__ = ("_limit",)

    def __init__(self, session: DispatchedSession) -> None:
        super().__init__(session)
        self._limit = RateLimit(session.loop, session.registry.options)


class _RateLimitedOverlappingDispatcher(_RateLimited, OverlappingDispatcher):
    __slots__ = ("_limit",)

    def __init__(self, session: DispatchedSession) -> None:
        super().__init__(session)
        self._limit = RateLimit(session.loop, session.registry.options)


def make_inbox(session: DispatchedSession, overlaps: bool = False) -> Dispatcher:
    """The inbox of a session, with the limits that the options ask for.

    Args:
        overlaps: whether a listener may release its turn before it returns.
    """
    options = session.registry.options
    if options.max_messages_per_second is None and options.max_bytes_per_second is None:
        return OverlappingDispatcher(session) if overlaps else Dispatcher(session)
    return _RateLimitedOverlappingDispatcher(session) if overlaps else _RateLimitedDispatcher(session)
