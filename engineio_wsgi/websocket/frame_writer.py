"""The sending half of an application's WebSocket: it sends frames together, and bounds the bytes that wait.

Owns the order of the frames that are written to a `Connection`. Knows nothing of their content, and never reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent
from gevent.event import Event

from engineio_wsgi.runtime.connection import Connection
from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.runtime.loop import IoLoop

__all__ = ["FrameWriter"]

logger = logging.getLogger("engine.ws")

#: bytes that are held here or that the kernel has not taken, beyond which a writer blocks
MAX_UNSENT = 65_536
SEND_TIMEOUT = 60.0  #: seconds in which the client takes no byte, after which the connection is closed


class FrameWriter:
    """Writes frames to a connection, for any number of greenlets.

    Args:
        connection: the connection. Its callback for "drained" belongs to this object from now on.
        on_lost: called when the connection is found to be lost.
    """

    __slots__ = ("_connection", "_drained", "_held", "_held_size", "_is_closed", "_is_scheduled", "_loop", "_on_lost")

    def __init__(self, connection: Connection, on_lost: Callable[[], object]) -> None:
        self._connection = connection
        self._on_lost = on_lost
        self._loop: IoLoop = gevent.get_hub().loop
        self._held: list[bytes] = []
        self._held_size = 0
        self._is_scheduled = False
        self._is_closed = False
        self._drained: Event | None = None

    @property
    def is_behind(self) -> bool:
        """Whether more bytes wait for the client than :data:`MAX_UNSENT`."""
        return self._connection.unsent + self._held_size > MAX_UNSENT

    def hold(self, frame: bytes) -> None:
        """Keep a frame until the next `flush` or `write`, or until the hub runs, and send it together with others."""
        self._held.append(frame)
        self._held_size += len(frame)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.run_callback(self._flush_in_hub)

    def write(self, frame: bytes) -> None:
        """Write a frame now, after the frames that are held. Blocks while too many bytes wait for the client.

        Raises:
            OSError: the connection is lost.
        """
        self._send(frame)
        if self._connection.unsent > MAX_UNSENT:
            self.wait()

    def flush(self) -> None:
        """Write the frames that are held. Does not block.

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
            # the next write raises it
            return

    def _send(self, frame: bytes) -> None:
        held = self._held
        if held:
            self._held = []
            self._held_size = 0
            held.append(frame)
            frame = b"".join(held)
        try:
            self._connection.write(frame)
        except OSError:
            self._on_lost()
            raise

    def wait(self) -> None:
        """Block until the kernel has taken all bytes. Closes the connection of a client that takes nothing.

        Raises:
            OSError: the connection was lost or closed.
        """
        connection = self._connection
        drained = self._drained
        if drained is None:
            drained = self._drained = Event()
            connection.call_when_drained(drained.set)
        while connection.unsent and not self._is_dead:
            unsent = connection.unsent
            drained.clear()
            if not Deadline(SEND_TIMEOUT).wait(drained) and connection.unsent >= unsent:
                logger.info("> a client has taken nothing for %g s, with %d bytes unsent", SEND_TIMEOUT, unsent)
                self._on_lost()
        if self._is_dead:
            self._on_lost()
            raise BrokenPipeError("the connection was lost while it was written to")

    @property
    def _is_dead(self) -> bool:
        return self._is_closed or self._connection.lost is not None

    def finish(self, frame: bytes) -> None:
        """Write the last frame, and close the connection in the background. Does not block.

        Raises:
            OSError: the connection is lost.
        """
        self._send(frame)
        self._connection.linger()
        self.end()

    def end(self) -> None:
        """Write nothing any more: drop the frames that are held, and wake the greenlets that wait."""
        self._is_closed = True
        # breaks the reference cycle with the owner
        self._on_lost = _ignore
        self._held = []
        self._held_size = 0
        if self._drained is not None:
            self._drained.set()


def _ignore() -> None:
    """The owner has ended this writer itself."""
