"""The sending half of an application's WebSocket: frames that belong together in one `send`, and a bound on what waits.

Owns the order of what is written to a `Connection`. Knows nothing of what the frames mean, and never reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent
from gevent.event import Event

from engineio_wsgi.deadline import Deadline
from engineio_wsgi.runtime.connection import Connection

__all__ = ["FrameWriter"]

logger = logging.getLogger("engine.ws")

#: bytes that wait here or that the kernel has not taken, beyond which a writer has to wait
MAX_UNSENT = 65_536
SEND_TIMEOUT = 60.0  #: seconds without the client taking a single byte, after which it is given up


class FrameWriter:
    """Writes frames to a connection, for any number of greenlets.

    Args:
        wire: the connection. What it calls when it is drained belongs to this object from now on.
        on_lost: called when the connection turns out to be of no use any more.
    """

    __slots__ = ("_drained", "_held", "_held_size", "_is_closed", "_is_scheduled", "_loop", "_on_lost", "_wire")

    def __init__(self, wire: Connection, on_lost: Callable[[], object]) -> None:
        self._wire = wire
        self._on_lost = on_lost
        self._loop = gevent.get_hub().loop
        self._held: list[bytes] = []
        self._held_size = 0
        self._is_scheduled = False
        self._is_closed = False
        self._drained: Event | None = None

    @property
    def is_behind(self) -> bool:
        """Whether the client has still to take more than anybody should have waiting."""
        return self._wire.unsent + self._held_size > MAX_UNSENT

    def hold(self, frame: bytes) -> None:
        """Write a frame together with those that come right behind it: with the next `flush`, or when the hub runs."""
        self._held.append(frame)
        self._held_size += len(frame)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.run_callback(self._flush_in_hub)

    def write(self, frame: bytes) -> None:
        """Write a frame now, behind what is held. Blocks while the client is far behind.

        Raises:
            OSError: the connection is lost.
        """
        self._send(frame)
        if self._wire.unsent > MAX_UNSENT:
            self.wait()

    def flush(self) -> None:
        """Write what is held. Does not block.

        Raises:
            OSError: the connection is lost.
        """
        if self._held:
            self._send(b"")

    def _flush_in_hub(self) -> None:
        self._is_scheduled = False
        try:
            self.flush()
        except OSError:
            # whoever writes next is told
            return

    def _send(self, frame: bytes) -> None:
        held = self._held
        if held:
            self._held = []
            self._held_size = 0
            held.append(frame)
            frame = b"".join(held)
        try:
            self._wire.write(frame)
        except OSError:
            self._on_lost()
            raise

    def wait(self) -> None:
        """Block until the kernel has taken all that was written; a client that takes nothing is given up.

        Raises:
            OSError: the connection is lost, or was closed meanwhile.
        """
        wire = self._wire
        drained = self._drained
        if drained is None:
            drained = self._drained = Event()
            wire.call_when_drained(drained.set)
        while wire.unsent and not self._is_dead:
            unsent = wire.unsent
            drained.clear()
            if not Deadline(SEND_TIMEOUT).wait(drained) and wire.unsent >= unsent:
                logger.info("> a client has taken nothing for %g s, with %d bytes unsent", SEND_TIMEOUT, unsent)
                self._on_lost()
        if self._is_dead:
            self._on_lost()
            raise BrokenPipeError("the connection was lost while it was written to")

    @property
    def _is_dead(self) -> bool:
        return self._is_closed or self._wire.lost is not None

    def finish(self, frame: bytes) -> None:
        """Write the last frame, and leave the connection to its polite end. Does not block.

        Raises:
            OSError: the connection is lost.
        """
        self._send(frame)
        self._wire.linger()
        self.end()

    def end(self) -> None:
        """Nothing is written any more: who waits is told, what is held is dropped."""
        self._is_closed = True
        # its owner refers to this object: nothing is to be left for the garbage collector
        self._on_lost = _nobody
        self._held = []
        self._held_size = 0
        if self._drained is not None:
            self._drained.set()


def _nobody() -> None:
    """There is nobody left to be told."""
