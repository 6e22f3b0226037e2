"""Unix sockets that keep records apart, with file descriptors beside them.

Owns the choice of their kind: ``SOCK_SEQPACKET``, or, where the platform lacks it (macOS), a stream with the length before each
record. Never blocks. Knows nothing of messages.
"""

from __future__ import annotations

import _socket
import array
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

__all__ = ["CLOSE_ON_EXEC", "NO_SIGNAL", "Ancillary", "Records", "descriptors_in", "make_socket", "records_of"]

#: what came beside a record: level, kind, content
Ancillary = Iterable[tuple[int, int, bytes]]
#: what is sent beside a record
Beside = Iterable[tuple[int, int, "bytes | array.array[int]"]]

#: flags that not every platform has. Python ignores SIGPIPE; without the other one, descriptors are marked after they have come
NO_SIGNAL: int = getattr(_socket, "MSG_NOSIGNAL", 0)
CLOSE_ON_EXEC: int = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)
_LENGTH = struct.Struct("!I")
_INT_SIZE = array.array("i").itemsize


class Records(Protocol):
    """A connected socket that sends and receives whole records, as a C socket of the kind ``SOCK_SEQPACKET`` does."""

    def sendmsg(self, buffers: Sequence[memoryview], ancillary: Beside, flags: int, /) -> int:
        """Send one record and descriptors beside it.

        Raises:
            BlockingIOError: there is no room now; the same record has to be sent again.
        """
        ...

    def recvmsg(self, size: int, ancillary_size: int, flags: int, /) -> tuple[bytes, Ancillary, int, object]:
        """Receive one record; an empty one if the other side has closed. ``MSG_TRUNC`` is set if it is longer than ``size``.

        Raises:
            BlockingIOError: no whole record has arrived yet.
        """
        ...

    def recv(self, size: int, /) -> bytes:
        """The same without descriptors."""
        ...


class StreamRecords:
    """Records over a stream.

    Args:
        sock: a connected, non-blocking C socket, which belongs to the caller.
        keep: called with the descriptors that have come, at once: a record that never comes whole cannot keep them open.
    """

    __slots__ = ("_beside", "_flags", "_keep", "_received", "_sock", "_unsent")

    def __init__(self, sock: _socket.socket, keep: Callable[[Ancillary], object]) -> None:
        self._sock = sock
        self._keep = keep
        #: the rest of a record of which the kernel has taken a part, or nothing yet, and what is sent beside its first byte
        self._unsent = memoryview(b"")
        self._beside: Beside = ()
        #: the length and the record, as far as they have arrived, and the flags that came with them
        self._received = bytearray()
        self._flags = 0

    def sendmsg(self, buffers: Sequence[memoryview], ancillary: Beside, flags: int, /) -> int:
        """See :class:`Records`."""
        size = sum(map(len, buffers))
        if not self._unsent:
            self._unsent = memoryview(b"".join([_LENGTH.pack(size), *buffers]))
            self._beside = ancillary
        while self._unsent:
            sent = self._sock.sendmsg([self._unsent], self._beside, flags)
            self._unsent, self._beside = self._unsent[sent:], ()
        return size

    def recvmsg(self, size: int, ancillary_size: int, flags: int, /) -> tuple[bytes, Ancillary, int, object]:
        """See :class:`Records`. Never reads ahead: the next record has descriptors of its own."""
        if not self._fill(_LENGTH.size, ancillary_size, flags):
            return b"", (), 0, None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > size:
            return b"", (), _socket.MSG_TRUNC, None
        if not self._fill(_LENGTH.size + length, ancillary_size, flags):
            return b"", (), 0, None
        record, seen = bytes(self._received[_LENGTH.size:]), self._flags
        self._received.clear()
        self._flags = 0
        return record, (), seen, None

    def recv(self, size: int, /) -> bytes:
        """See :class:`Records`."""
        return self.recvmsg(size, 0, 0)[0]

    def _fill(self, count: int, ancillary_size: int, flags: int) -> bool:
        """Receive until ``count`` bytes are there; ``False`` if the other side has closed before."""
        while (missing := count - len(self._received)) > 0:
            data, beside, seen, _ = self._sock.recvmsg(missing, ancillary_size, flags)
            self._keep(beside)
            self._flags |= seen
            self._received += data
            if not data:
                return False
        return True


def descriptors_in(ancillary: Ancillary) -> list[int]:
    """The file descriptors among what came beside a record; they are closed if this process executes another program."""
    numbers = array.array("i")
    for level, kind, content in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            numbers.frombytes(content[:len(content) - len(content) % _INT_SIZE])
    if not CLOSE_ON_EXEC:
        for number in numbers:
            os.set_inheritable(number, False)
    return list(numbers)


def _choose_kind() -> int:
    try:
        _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET).close()
    except (AttributeError, OSError):
        return _socket.SOCK_STREAM
    return _socket.SOCK_SEQPACKET


#: the kind of all sockets of this module: workers of one machine have the same
KIND = _choose_kind()


def make_socket() -> _socket.socket:
    """A C socket that is not connected yet.

    Raises:
        OSError: such sockets cannot be made.
    """
    return _socket.socket(_socket.AF_UNIX, KIND)


def records_of(sock: _socket.socket, keep: Callable[[Ancillary], object]) -> Records:
    """What sends and receives the records of a connected socket; of one that keeps them apart, itself."""
    return StreamRecords(sock, keep) if sock.type == _socket.SOCK_STREAM else sock
