"""A connection whose other half is in another worker: bytes from the one to the other, both ways.

Owns both connections until they end, and how long one that takes nothing is waited for. No greenlet waits for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gevent

from engineio_wsgi.deadline import DeadlineTimer
from engineio_wsgi.runtime.connection import RECV_SIZE

__all__ = ["Pump", "Pumped"]

#: bytes that may wait for one side; then nothing more is read from the other
MAX_WAITING = 262_144


class Pumped(Protocol):
    """What is needed of a connection: a part of what a :class:`Connection` is, with the same meanings."""

    unsent: int
    lost: OSError | None

    def recv(self, size: int) -> bytes:
        """Read what is there."""
        ...

    def watch(self, on_readable: Callable[[], object]) -> None:
        """Call back when there is something."""
        ...

    def unwatch(self) -> None:
        """Do not call back."""
        ...

    def call_when_drained(self, callback: Callable[[], object]) -> None:
        """Call back whenever nothing is unsent any more."""
        ...

    def write(self, data: bytes) -> None:
        """Send."""
        ...

    def linger(self) -> None:
        """Close politely."""
        ...

    def close(self) -> None:
        """Close."""
        ...


class Pump:
    """Carries what comes from either of two connections to the other until both have ended. Nothing here blocks.

    Args:
        one: a connection; the client's.
        other: another; who answers the client is behind it.
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
    """One of the two ways."""

    __slots__ = ("_ended", "_patience", "_pump", "_source", "_target", "_timer")

    def __init__(self, pump: Pump, source: Pumped, target: Pumped, patience: float) -> None:
        self._pump = pump
        self._source = source
        self._target = target
        self._patience = patience
        self._timer: Any = None
        self._ended = False

    def start(self) -> None:
        """Carry whatever is there, from now on."""
        self._target.call_when_drained(self._resume)
        self._source.watch(self._carry)
        # TLS may have decrypted more than was asked for: nothing becomes readable for that
        self._carry()

    def _carry(self) -> None:
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
        """The source is not read meanwhile, so that its end would not be seen either."""
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
            self._source.watch(self._carry)

    def _end(self) -> None:
        """The source has nothing more to say, or the target does not listen: neither is worth anything to the other."""
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
        # who has ended one half of a connection has left: half-closed ones are not kept anywhere else. There may be something on
        # its way to either
        self._source.linger()
        self._target.linger()
