"""The connection of a request that asks for a WebSocket, for applications that implement the protocol themselves.

Owns the socket that libraries such as simple-websocket (of flask-sock) use. The connection is detached when they first use it;
until then the request may be answered in any other way. Knows nothing of what they send.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from engineio_wsgi.log import Throttle
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.connection import Connection
from engineio_wsgi.runtime.reader import ReadWaiter
from engineio_wsgi.runtime.threads import current_thread

__all__ = ["SOCKET_KEYS", "LentSocket"]

logger = logging.getLogger("engine.http")

#: environ keys under which werkzeug's and gunicorn's servers have the socket
SOCKET_KEYS = ("werkzeug.socket", "gunicorn.socket")
UNPATCHED = ("a WebSocket library of the application reads in a thread, which cannot be: call gevent.monkey.patch_all() first of "
             "all, or serve with gunicorn")
_throttle = Throttle()


class LentSocket:
    """A socket for greenlets: one that receives, and any number that send.

    The connection belongs to the application from the first byte that it sends or receives. It is closed when the application
    returns.

    Args:
        detach: detaches the connection, with the bytes that were read ahead.
        timeout: seconds in which the client takes nothing, after which sending fails.
    """

    __slots__ = ("_connection", "_detach", "_ended", "_reader", "_thread", "_timeout", "_write_timeout")

    _reader: ReadWaiter

    def __init__(self, detach: Callable[[], Connection], timeout: float) -> None:
        self._detach = detach
        self._write_timeout = timeout
        self._timeout: float | None = None
        self._thread = current_thread()
        self._connection: Connection | None = None
        self._ended = False

    @property
    def taken(self) -> bool:
        """Whether the application has used it."""
        return self._connection is not None

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the one that serves the connection."""
        return current_thread() == self._thread

    def _open(self) -> Connection:
        if not self.is_here:
            if _throttle.passes(UNPATCHED, monotonic()):
                logger.error(UNPATCHED)
            raise OSError(UNPATCHED)
        if self._connection is None:
            self._connection = self._detach()
            self._reader = ReadWaiter()
        return self._connection

    # -- in and out

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes; ``b""`` at the end. Blocks until there are some.

        Raises:
            TimeoutError: none arrived within the time that :meth:`settimeout` set.
            OSError: the connection is lost.
        """
        connection = self._open()
        while not self._ended:
            try:
                return connection.recv(size)
            except BlockingIOError:
                if self._timeout == 0:
                    raise
                self._reader.wait(connection, self._timeout)
        return b""

    def send(self, data: bytes) -> int:
        """Send all of ``data``, and return its length. Blocks until the kernel has taken it.

        Raises:
            TimeoutError: the client took nothing for too long; the connection is closed.
            OSError: the connection is lost.
        """
        connection = self._open()
        connection.write(data)
        if connection.unsent and not connection.wait_drained(self._write_timeout):
            connection.close()
            raise connection.lost or TimeoutError(f"the client took nothing for {self._write_timeout:g} s")
        return len(data)

    def sendall(self, data: bytes) -> None:
        """The same as :meth:`send`."""
        self.send(data)

    # -- other methods of sockets

    def fileno(self) -> int:
        """The file descriptor; -1 once closed."""
        return self._open().fileno()

    def gettimeout(self) -> float | None:
        """The seconds that :meth:`recv` waits; ``None`` for no limit."""
        return self._timeout

    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that :meth:`recv` waits; ``None`` for no limit, 0 for no wait."""
        self._timeout = timeout

    def setblocking(self, flag: bool) -> None:
        """Have :meth:`recv` wait without a limit, or not at all."""
        self._timeout = None if flag else 0.0

    def shutdown(self, how: int) -> None:
        """The same as :meth:`close`."""
        self.close()

    def close(self) -> None:
        """Close the connection in the background, when all bytes are sent. May be called again, and from any thread."""
        if not self.is_here:
            return
        if self._connection is None or self._ended:
            return
        self._ended = True
        self._reader.wake_soon()
        self._connection.linger()
