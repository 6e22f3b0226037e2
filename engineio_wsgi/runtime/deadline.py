"""Deadlines for waiting on peers, extended when this process itself was late.

While the event loop is blocked, nothing is read: what a peer sent in time may be found after the deadline. A deadline that is
found to have passed is therefore extended once, by the time that it was found late. Does not know what is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from gevent.event import Event

from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Loop, Timer

__all__ = ["Deadline", "DeadlineTimer"]

#: seconds by which a deadline is extended at least, so that the loop reads what has arrived: it calls expired timers before it
#: reads the sockets that became readable in the same turn
TURN = 0.001


class Deadline:
    """The end of one wait, on the monotonic clock.

    Args:
        timeout: seconds from now; ``None`` for no end. With 0 or less it has passed at once, and is not extended.

    Example::

        deadline = Deadline(5.0)
        while not answered:
            if deadline.has_passed():
                raise TimeoutError
            wait_for_something(deadline.left)
    """

    __slots__ = ("_ends", "_final")

    def __init__(self, timeout: float | None) -> None:
        self._ends = inf if timeout is None else monotonic() + timeout
        #: whether it will not be extended any more
        self._final = timeout is not None and timeout <= 0

    @property
    def left(self) -> float | None:
        """Seconds until the end, at least 0; ``None`` without an end."""
        return None if self._ends == inf else max(0.0, self._ends - monotonic())

    def has_passed(self) -> bool:
        """Whether the wait is over. Call this after each check of what is waited for, and before each wait."""
        late = monotonic() - self._ends
        if late < 0:
            return False
        if self._final:
            return True
        self._final = True
        self._ends += late + max(late, TURN)
        return False

    def wait(self, event: Event) -> bool:
        """Block the calling greenlet until ``event`` is set. Returns ``False`` if the deadline passed first."""
        while not event.is_set():
            if self.has_passed():
                return False
            event.wait(self.left)
        return True


class DeadlineTimer:
    """Calls ``callback(*args)`` in the hub when a deadline has passed, unless the timer is closed before.

    Args:
        loop: gevent's event loop.
        timeout: seconds from now; more than 0.
    """

    __slots__ = ("_args", "_callback", "_deadline", "_loop", "_timer")

    def __init__(self, loop: Loop, timeout: float, callback: Callable[..., object], *args: object) -> None:
        self._loop = loop
        self._callback = callback
        self._args = args
        self._deadline = Deadline(timeout)
        self._timer = self._start()

    def _start(self) -> Timer:
        timer = self._loop.timer(max(self._deadline.left or 0.0, TURN))
        timer.start(self._on_timer)
        return timer

    def _on_timer(self) -> None:
        self._timer.close()
        if self._deadline.has_passed():
            self._callback(*self._args)
        else:
            self._timer = self._start()

    def close(self) -> None:
        """Cancel the call. Harmless if repeated."""
        self._timer.close()
