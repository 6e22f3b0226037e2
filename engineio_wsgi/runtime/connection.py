"""A TCP or TLS connection that was taken out of the server loop that accepted it.

Owns the file descriptor, its two event-loop watchers, and the bytes that the kernel has not taken yet: no other object
reads, writes or closes it, except that ``recv_fd`` and ``send_fd`` lend it for one ``recv`` or ``send``. Knows nothing of HTTP,
WebSocket or sessions. For the hub's thread only.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import ssl
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gevent
from gevent.event import Event
from gevent.socket import socket as GeventSocket

from engineio_wsgi.runtime.deadline import Deadline, DeadlineTimer
from engineio_wsgi.runtime.forks import hold
from engineio_wsgi.runtime.loop import READ, WRITE, IoLoop, Stream, Watcher
from engineio_wsgi.runtime.sends import send_to_all
from engineio_wsgi.vendors.gevent_sockets import TlsObject, c_socket, take_c_socket, tls_object

__all__ = ["Connection", "ConnectionSnapshot", "detach"]

#: bytes of one ``recv``. 64 KiB cost no more than 2 KiB (2.3 µs for a socket pair and 1 KB); with 128 KiB, for which malloc asks
#: the kernel each time, it was 13.9 µs
RECV_SIZE = 65536
#: the flag of ``send`` that says that more follows; other systems than Linux have none
MORE = getattr(_socket, "MSG_MORE", 0)
#: seconds that a closing connection waits for the peer to read what was sent and to close its side
LINGER = 5.0
#: bytes that it reads and drops meanwhile; a client that sends more does not look at the answer, and would only cost CPU time
MAX_DROPPED = 64 << 20


class _TlsStream:
    """A TLS socket as a :class:`Stream`: ``BlockingIOError`` where OpenSSL wants to wait, ``b""`` at the end."""

    __slots__ = ("_socket", "_tls")

    def __init__(self, tls_socket: GeventSocket, tls: TlsObject) -> None:
        self._socket = tls_socket
        self._tls = tls

    def recv(self, size: int) -> bytes:
        try:
            return self._tls.read(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        try:
            return self._tls.write(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error

    def fileno(self) -> int:
        number: int = self._socket.fileno()
        return number

    def shutdown(self, how: int) -> None:
        """End the sending side: of TLS, if the kernel takes its message at once, and of TCP."""
        with contextlib.suppress(OSError):
            self._tls.shutdown()
        c_socket(self._socket).shutdown(how)

    def close(self) -> None:
        self._socket.close()


def detach(sock: GeventSocket) -> Stream:
    """Take the connection out of a gevent or stdlib socket, whose own ``close`` then closes nothing.

    Returns a non-blocking C socket. For a TLS socket, whose state cannot leave its object, it returns an adapter, and the caller
    has to keep the former owner from closing the socket.
    """
    tls = tls_object(sock)
    if tls is not None:
        return _TlsStream(sock, tls)
    raw = take_c_socket(sock)
    if raw is None:
        raw = _socket.socket(fileno=sock.detach())
        raw.setblocking(False)
    return raw


class _ClosedSocket:
    """The stream of a closed connection."""

    __slots__ = ()

    def recv(self, size: int) -> bytes:
        return b""

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        raise BrokenPipeError("the connection is closed")

    def fileno(self) -> int:
        return -1

    def shutdown(self, how: int) -> None:
        raise BrokenPipeError("the connection is closed")

    def close(self) -> None:
        """Nothing is left to close."""


CLOSED: Stream = _ClosedSocket()
#: in the place of a socket that was given away
_SPENT: Stream = _ClosedSocket()


class Connection:
    """One connection: non-blocking reads and writes, and callbacks in the hub when it is readable, drained or closed.

    Args:
        sock: what :func:`detach` returned.
        pending: bytes that were read from the connection already; ``recv`` returns them first.

    """

    __slots__ = ("__weakref__", "_loop", "_on_closed", "_on_drained", "_on_readable", "_read_ahead", "_reader", "_sock",
                 "_unsent", "_writer", "lost", "recv_fd", "send_fd", "unsent")

    def __init__(self, sock: Stream, pending: bytes = b"") -> None:
        self._sock = sock
        # what TLS receives and sends is not what the kernel has
        number = sock.fileno() if isinstance(sock, _socket.socket) else -1
        #: the descriptor, if the next bytes come from it, so that one may receive from it instead of calling `recv`; or -1
        self.recv_fd = -1 if pending else number
        #: the descriptor, if one may send to it instead of calling `write`, as long as nothing is unsent; or -1. What is not sent
        #: is passed to `keep`, and an error to `lose`
        self.send_fd = number
        self._loop: IoLoop = gevent.get_hub().loop
        #: bytes that were read before, and that `recv` has not returned yet
        self._read_ahead = pending
        self._reader: Watcher | None = None
        self._writer: Watcher | None = None
        self._on_readable: Callable[[], object] | None = None
        self._on_closed: Callable[[], object] | None = None
        self._unsent: list[bytes | memoryview] = []
        #: bytes that were written here and that the kernel has not taken yet
        self.unsent = 0
        #: why nothing can be written any more; ``unsent`` is then the number of bytes that were lost
        self.lost: OSError | None = None
        self._on_drained: Callable[[], object] | None = None
        if getattr(sock, "family", None) == _socket.AF_UNIX:
            # it may be one of a pair, which has no listener's address
            hold(self)

    @property
    def closed(self) -> bool:
        """Whether the connection was closed on this side."""
        return self._sock is CLOSED

    @property
    def secure(self) -> bool:
        """Whether the connection is a TLS one."""
        return isinstance(self._sock, _TlsStream)

    def fileno(self) -> int:
        """The file descriptor; -1 once closed."""
        return self._sock.fileno()

    # -- reading

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes; ``b""`` at the end of the stream. Never blocks.

        Raises:
            BlockingIOError: there is nothing to read now.
            OSError: the connection is lost.
        """
        if self._read_ahead:
            head, self._read_ahead = self._read_ahead[:size], self._read_ahead[size:]
            if not self._read_ahead:
                self.recv_fd = self.send_fd
            return head
        return self._sock.recv(size)

    def watch(self, on_readable: Callable[[], object]) -> None:
        """Call ``on_readable()`` in the hub, repeatedly, as long as there is something to read."""
        if self._sock is CLOSED:
            return
        if self._reader is None:
            self._reader = self._loop.io(self._sock.fileno(), READ)
        self._on_readable = on_readable
        self._reader.start(on_readable)
        if self._read_ahead:
            self._loop.run_callback(self._fire_if_watching, on_readable)

    def unwatch(self, on_readable: Callable[[], object] | None = None) -> None:
        """Stop calling back, or only stop calling ``on_readable``; what arrives stays with the kernel."""
        if on_readable is not None and self._on_readable != on_readable:
            return
        if self._on_readable is not None and self._reader is not None:
            self._on_readable = None
            self._reader.stop()

    def _fire_if_watching(self, on_readable: Callable[[], object]) -> None:
        if self._on_readable is on_readable:
            on_readable()

    # -- writing

    def write(self, data: bytes, more: bool = False) -> None:
        """Send what the kernel takes now, keep the rest, and send it in order when the kernel takes it. Never blocks.

        Args:
            more: whether more is written at once. The kernel may send both in one packet, which costs half as much as two.

        Raises:
            OSError: the connection is lost; unsent bytes are dropped.
        """
        if self.unsent or self.lost is not None:
            self._queue(data)
            return
        try:
            sent = self._sock.send(data, MORE) if more else self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.lost = error
            raise
        if sent != len(data):
            self.keep(memoryview(data)[sent:])

    @staticmethod
    def write_to_all(connections: Sequence[Connection], data: bytes) -> bool:
        """Write the same bytes to connections on which nothing is ``unsent``, as :meth:`write` does. Never blocks.

        Returns:
            Whether the kernel has taken all bytes of all of them. If not, some have bytes ``unsent``, or are ``lost``.
        """
        # -1, for a connection that uses TLS or is closed, is an exception
        exceptions = send_to_all([connection.send_fd for connection in connections], data)
        for position, sent in exceptions:
            connection = connections[position]
            if connection.send_fd < 0:
                with contextlib.suppress(OSError):  # it is `lost`
                    connection.write(data)
            else:
                connection._on_partly_sent(data, sent)
        return not exceptions

    def _on_partly_sent(self, data: bytes, sent: int) -> None:
        """Not all of ``data`` was sent: ``sent`` bytes were, or it is the negative number of an error."""
        if sent < 0 and -sent not in (errno.EAGAIN, errno.EWOULDBLOCK):
            self.lose(OSError(-sent, os.strerror(-sent)))
            return
        self.keep(memoryview(data)[max(0, sent):])

    def keep(self, rest: bytes | memoryview) -> None:
        """The kernel has not taken ``rest`` of what was sent: send it when it does. For the case that nothing else is unsent."""
        self._unsent.append(rest)
        self.unsent = len(rest)
        self._watch_writable()

    def lose(self, error: OSError) -> None:
        """Sending has failed with ``error``, so that nothing can be written any more."""
        self.lost = error

    def _queue(self, data: bytes) -> None:
        if self.lost is not None:
            raise self.lost
        self._unsent.append(data)
        self.unsent += len(data)

    def _watch_writable(self) -> None:
        if self._writer is None:
            self._writer = self._loop.io(self._sock.fileno(), WRITE)
        self._writer.start(self._on_writable)

    def _on_writable(self) -> None:
        batch = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        try:
            sent = self._sock.send(batch)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.lost = error
            self._finish_sending()
            return
        self.unsent -= sent
        if self.unsent:
            self._unsent = [memoryview(batch)[sent:]]
        else:
            self._finish_sending()

    def _finish_sending(self) -> None:
        """All bytes are sent, or the connection is lost."""
        self._unsent = []
        if self._writer is not None:
            self._writer.stop()
        if self._on_drained is not None:
            self._on_drained()

    def call_when_drained(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` in the hub whenever ``unsent`` becomes 0, and when the connection is ``lost`` with bytes unsent.

        It replaces the callback before it.
        """
        self._on_drained = callback

    def wait_drained(self, timeout: float | None = None) -> bool:
        """Block the greenlet until all bytes are sent; ``False`` if the connection is lost, or after ``timeout`` seconds."""
        if self.unsent and self.lost is None:
            drained = Event()
            self._on_drained = drained.set
            Deadline(timeout).wait(drained)
            self._on_drained = None
        return not self.unsent

    # -- the end

    def on_closed(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` once, when this side closes the connection; at once if it is closed already."""
        if self._sock is CLOSED:
            callback()
        else:
            self._on_closed = callback

    def wait_closed(self) -> None:
        """Block the greenlet until this side has closed the connection.

        The former owner of a TLS socket calls it before it closes the socket: the state of TLS cannot leave that object.
        """
        if self._sock is not CLOSED:
            closed = Event()
            self._on_closed = _both(self._on_closed, closed.set)
            closed.wait()

    def linger(self, timeout: float = LINGER) -> None:
        """Close in the background: send what is unsent, end the sending side, and wait until the peer closes.

        If it were closed while the peer is still sending, the kernel would reset the connection, and the peer could lose the
        last bytes that were written to it. What the peer sends is dropped, up to `MAX_DROPPED` bytes.

        Args:
            timeout: seconds to wait for the peer.
        """
        if self.unsent:
            self._on_drained = self._finish_writing
        else:
            self._finish_writing()
        if self.closed:
            # already, or because the peer has gone
            return
        timer = DeadlineTimer(self._loop, timeout, self.close)
        self._on_closed = _both(self._on_closed, timer.close)
        self.watch(_Dropper(self))

    def _finish_writing(self) -> None:
        self._on_drained = None
        self.send_fd = -1
        if self.lost is not None:
            self.close()
            return
        try:
            self._sock.shutdown(_socket.SHUT_WR)
        except OSError:
            self.close()

    def close(self) -> None:
        """Close the connection now; unsent bytes are lost. May be called again."""
        if self._sock is CLOSED:
            return
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._reader = self._writer = self._on_readable = self._on_drained = None
        self._unsent = []
        self._sock.close()
        self._sock = CLOSED
        self.recv_fd = self.send_fd = -1
        self._read_ahead = b""
        self.lost = self.lost or BrokenPipeError("the connection is closed")
        callback, self._on_closed = self._on_closed, None
        if callback is not None:
            callback()

    # -- in another process

    @property
    def movable(self) -> bool:
        """Whether another process can go on with the connection: it is not TLS, closed or lost."""
        return isinstance(self._sock, _socket.socket) and self.lost is None

    @property
    def is_half_of_pair(self) -> bool:
        """Whether it is one end of a socket pair: the client's own connection is elsewhere."""
        sock = self._sock
        return isinstance(sock, _socket.socket) and sock.family == _socket.AF_UNIX and not (
            sock.getsockname() or sock.getpeername())

    def snapshot(self) -> ConnectionSnapshot:
        """What another process needs besides the file descriptor."""
        return ConnectionSnapshot(self._read_ahead, b"".join(self._unsent))

    def give_away(self) -> Stream:
        """Return the socket, which is the caller's from now on. This object is closed then, and nothing reaches the client."""
        sock, self._sock = self._sock, _SPENT
        self._unsent, self.unsent = [], 0
        self.close()
        return sock


class ConnectionSnapshot(NamedTuple):
    """The bytes of a connection that are in the process.

    Attributes:
        read_ahead: received, and not used yet.
        unsent: written, and not taken by the kernel.
    """

    read_ahead: bytes
    unsent: bytes


class _Dropper:
    """Reads and drops what the peer of a connection sends, and closes it when the peer has, or has sent too much."""

    __slots__ = ("_connection", "_left")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left = MAX_DROPPED

    def __call__(self) -> None:
        try:
            data = self._connection.recv(RECV_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._left -= len(data)
        if not data or self._left < 0:
            self._connection.close()


def _both(first: Callable[[], object] | None, second: Callable[[], object]) -> Callable[[], object]:
    def call() -> None:
        second()
        if first is not None:
            first()

    return call
