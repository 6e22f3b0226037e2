"""A connection whose other half is in another worker: bytes from the one to the other, both ways.

Owns both connections until they end. No greenlet waits for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engineio_wsgi.wire import RECV_SIZE

__all__ = ["Pumped", "pump"]

#: bytes that may wait for one side; then nothing more is read from the other
MAX_WAITING = 262_144


class Pumped(Protocol):
    """What is needed of a connection: a part of what a :class:`Wire` is, with the same meanings."""

    unsent: int
    lost: OSError | None
    on_drained: Callable[[], object] | None

    @property
    def recv(self) -> Callable[[int], bytes]:
        """Read what is there."""
        ...

    def watch(self, on_readable: Callable[[], object]) -> None:
        """Call back when there is something."""
        ...

    def unwatch(self) -> None:
        """Do not call back."""
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


def pump(one: Pumped, other: Pumped) -> None:
    """Carry what comes from either to the other until both have ended. Does not block."""
    _Direction(one, other).start()
    _Direction(other, one).start()


class _Direction:
    """One of the two ways."""

    __slots__ = ("_ended", "_source", "_target")

    def __init__(self, source: Pumped, target: Pumped) -> None:
        self._source = source
        self._target = target
        self._ended = False

    def start(self) -> None:
        """Carry whatever is there, from now on."""
        self._target.on_drained = self._resume
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
                    return
                data = source.recv(RECV_SIZE)
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end()

    def _resume(self) -> None:
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

    def _finish(self) -> None:
        # who has ended one half of a connection has left: half-closed ones are not kept anywhere else
        self._source.close()
        self._target.linger()
