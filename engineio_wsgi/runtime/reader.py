"""Blocking one greenlet until a connection is readable."""

from __future__ import annotations

from contextlib import nullcontext

import gevent
from gevent.exceptions import ConcurrentObjectUseError
from gevent.hub import Waiter

from engineio_wsgi.runtime.connection import Connection

__all__ = ["ReadWaiter"]


class ReadWaiter:
    """Lets one greenlet at a time wait until a connection is readable, or until :meth:`wake` is called."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: Waiter | None = None

    def wait(self, connection: Connection, timeout: float | None = None) -> None:
        """Block the greenlet.

        Args:
            timeout: seconds; ``None`` for no limit.

        Raises:
            ConcurrentObjectUseError: another greenlet is waiting.
            TimeoutError: after ``timeout`` seconds.
        """
        if self._waiter is not None:
            raise ConcurrentObjectUseError("another greenlet is receiving from this connection already")
        waiter = self._waiter = Waiter()
        try:
            connection.watch(self.wake)
            with nullcontext() if timeout is None else gevent.Timeout(timeout, TimeoutError("timed out")):
                waiter.get()
        finally:
            self._waiter = None
            connection.unwatch(self.wake)

    def wake(self) -> None:
        """Wake the greenlet that waits, if there is one. For the hub only."""
        if self._waiter is not None:
            self._waiter.switch(None)

    def wake_soon(self) -> None:
        """The same from a greenlet."""
        if self._waiter is not None:
            gevent.get_hub().loop.run_callback(self.wake)
