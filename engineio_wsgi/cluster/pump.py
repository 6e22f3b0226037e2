"""Copies bytes between two connections in both directions, without a greenlet.

Owns both connections until they end, and the timeout for a side that does not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import gevent

from engineio_wsgi.runtime.connection import RECV_SIZE
from engineio_wsgi.runtime.deadline import DeadlineTimer

__all__ = ["Pump", "Pumped"]

#: unsent bytes for one side, beyond which the other side is not read
MAX_WAITING = 262_144


class Pumped(Protocol):
    """The part of a :class:`Connection` that a pump needs."""

    unsent: int
    lost: OSError | None

    def recv(self, size: int) -> bytes:
        """Read the bytes that are there."""
        ...

    def watch(self, on_readable: Callable[[], object]) -> None:
        """Call back whenever there is something to read."""
        ...

    def unwatch(self) -> None:
        """Stop calling back."""
        ...

    def call_when_drained(self, callback: Callable[[], object]) -> None:
        """Call back whenever all bytes have been sent."""
        ...

    def write(self, data: bytes) -> None:
        """Send."""
        ...

    def linger(self) -> None:
        """Close after everything was sent."""
        ...

    def close(self) -> None:
        """Close."""
        ...


class Pump:
    """Copies the bytes of each connection to the other until both have ended. Nothing here blocks.

    Args:
        one: the client's connection.
        other: the connection to the server that answers it.
        patience: seconds a side may leave received data unread.
    """

    __slots__ = ("__weakref__", "_connections")

    def __init__(self, one: Pumped, other: Pumped, patience: float) -> None:
        self._connections = (one, other)
        for source, target in ((one, other), (other, one)):
            _Direction(self, source, target, patience).start()

    def close(self) -> None:
        """End both connections now. Harmless if repeated."""
        for connection in self._connections:
            connection.close()


class _Direction:
    """One of the two directions."""

    __slots__ = ("_ended", "_patience", "_pump", "_source", "_target", "_timer")

    def __init__(self, pump: Pump, source: Pumped, target: Pumped, patience: float) -> None:
        self._pump = pump
        self._source = source
        self._target = target
        self._patience = patience
        self._timer: DeadlineTimer | None = None
        self._ended = False

    def start(self) -> None:
        """Begin to copy."""
        self._target.call_when_drained(self._resume)
        self._source.watch(self._copy)
        # TLS may have decrypted more than was read: the socket does not become readable for that
        self._copy()

    def _copy(self) -> None:
        source, target = self._source, self._target
        try:
            data = source.recv(RECV_SIZE)
            while data:
                target.write(data)
                if target.unsent > MAX_WAITING:
                    source.unwatch()
                    self._await_room()
                    return
                data = source.recv(RECV_SIZE)
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end()

    def _await_room(self) -> None:
        """Wait for the target; the end of the source goes unnoticed meanwhile, since it is not read."""
        if self._timer is None:
            self._timer = DeadlineTimer(gevent.get_hub().loop, self._patience, self._give_up)

    def _give_up(self) -> None:
        self._stop_timer()
        self._pump.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _resume(self) -> None:
        self._stop_timer()
        if self._ended:
            self._finish()
        elif self._target.lost is not None:
            self._end()
        else:
            self._source.watch(self._copy)

    def _end(self) -> None:
        """The source has ended, or the target has: close both once everything was sent."""
        if self._ended:
            return
        self._ended = True
        self._source.unwatch()
        if not self._target.unsent or self._target.lost is not None:
            self._finish()
        else:
            self._await_room()

    def _finish(self) -> None:
        self._stop_timer()
        # half-closed connections are not kept, here as elsewhere. Both may have unsent bytes
        self._source.linger()
        self._target.linger()
