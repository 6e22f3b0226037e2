"""The connection of a request that asks for a WebSocket, for applications that speak the protocol themselves.

Owns what such libraries (simple-websocket, and with it flask-sock) call a socket. Nothing is given away before they use it, so
that everybody else may answer the request; knows nothing of what they send.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from engineio_wsgi.clock import monotonic
from engineio_wsgi.runtime.connection import Connection
from engineio_wsgi.runtime.reader import ReadWaiter
from engineio_wsgi.runtime.threads import current_thread
from engineio_wsgi.throttle import Throttle

__all__ = ["SOCKET_KEYS", "LentSocket"]

logger = logging.getLogger("engine.http")

#: where in an environ werkzeug's and gunicorn's own servers have the socket
SOCKET_KEYS = ("werkzeug.socket", "gunicorn.socket")
#: seconds for which the same complaint is not logged again
COMPLAINT_PERIOD = 60.0
UNPATCHED = ("a WebSocket library of the application reads in a thread, which cannot be: call gevent.monkey.patch_all() first of "
             "all, or serve with gunicorn")
_complaints = Throttle(COMPLAINT_PERIOD)


class LentSocket:
    """What is called a socket, for greenlets: one that receives, and any number that send.

    The connection is the application's from the first byte that it sends or receives. It ends when the application returns.

    Args:
        detach: gives the connection away, with what has been read of it.
        timeout: seconds that the client may take nothing of what is sent.
    """

    __slots__ = ("_detach", "_ended", "_reader", "_thread", "_timeout", "_wire", "_write_timeout")

    def __init__(self, detach: Callable[[], Connection], timeout: float) -> None:
        self._detach = detach
        self._write_timeout = timeout
        self._timeout: float | None = None
        self._thread = current_thread()
        self._wire: Connection | None = None
        self._reader = ReadWaiter()
        self._ended = False

    @property
    def taken(self) -> bool:
        """Whether the application has used it."""
        return self._wire is not None

    def _open(self) -> Connection:
        if current_thread() != self._thread:
            if _complaints.passes(UNPATCHED, monotonic()):
                logger.error(UNPATCHED)
            raise OSError(UNPATCHED)
        if self._wire is None:
            self._wire = self._detach()
        return self._wire

    # -- in and out

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes; ``b""`` at the end. Blocks until there are some.

        Raises:
            TimeoutError: there were none for so long as :meth:`settimeout` has said.
            OSError: the connection is lost.
        """
        wire = self._open()
        while not self._ended:
            try:
                return wire.recv(size)
            except BlockingIOError:
                if self._timeout == 0:
                    raise
                self._reader.wait(wire, self._timeout)
        return b""

    def send(self, data: bytes) -> int:
        """Send all of ``data``, and return how much that was. Blocks while the client takes nothing.

        Raises:
            TimeoutError: the client took nothing for too long; the connection is closed.
            OSError: the connection is lost.
        """
        wire = self._open()
        wire.write(data)
        if wire.unsent and not wire.wait_drained(self._write_timeout):
            wire.close()
            raise wire.lost or TimeoutError(f"the client took nothing for {self._write_timeout:g} s")
        return len(data)

    def sendall(self, data: bytes) -> None:
        """The same as :meth:`send`, which always sends all."""
        self.send(data)

    # -- the rest of a socket's face

    def fileno(self) -> int:
        """The file descriptor, to wait for it; -1 once closed."""
        return self._open().fileno()

    def gettimeout(self) -> float | None:
        """Seconds that :meth:`recv` waits; ``None`` for as long as it takes."""
        return self._timeout

    def settimeout(self, timeout: float | None) -> None:
        """Set them."""
        self._timeout = timeout

    def setblocking(self, flag: bool) -> None:
        """Have :meth:`recv` wait as long as it takes, or not at all."""
        self._timeout = None if flag else 0.0

    def shutdown(self, how: int) -> None:
        """Say that nothing follows. As :meth:`close`: nobody receives afterwards."""
        self.close()

    def close(self) -> None:
        """End the connection, once the client has got what was sent. Does not block; harmless if repeated, from any thread."""
        if current_thread() != self._thread:
            return
        if self._wire is None or self._ended:
            return
        self._ended = True
        self._reader.wake_soon()
        self._wire.linger()
