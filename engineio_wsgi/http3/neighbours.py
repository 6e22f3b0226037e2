"""The other processes that receive on the same UDP port: datagrams that the kernel gives to the wrong one are passed on.

The kernel chooses a process by the client's address. A client keeps its process until its address changes, or a process begins or
ends. The ids of connections begin with a mark of their process, so that any other one can pass their datagrams on, over a Unix
socket. Processes of other users are not listened to.
"""

from __future__ import annotations

import _socket
import os
import secrets
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import gevent

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.runtime.forks import hold
from engineio_wsgi.runtime.loop import READ, IoLoop

if TYPE_CHECKING:
    from aioquic.quic.connection import NetworkAddress

__all__ = ["MARK_SIZE", "Neighbours"]

#: bytes of a mark
MARK_SIZE = 2
#: marks that are tried, until one is free
MAX_ATTEMPTS = 64
#: bytes of one ``recvmsg``
MESSAGE_SIZE = 70_000
#: datagrams that are read before the event loop looks at other sockets
BATCH = 64
#: the process, user and group that the kernel reports of a sender
CREDENTIALS = struct.Struct("3i")


class Neighbours:
    """See the module.

    Args:
        port: the UDP port.
        on_datagram: called in the hub with each datagram that another process has passed on, and the client's address.

    Raises:
        ConfigurationError: the system has no such Unix sockets, or too many processes use the port.
    """

    def __init__(self, port: int, on_datagram: Callable[[bytes, NetworkAddress], object]) -> None:
        if not hasattr(socket, "SO_PASSCRED") or not hasattr(socket, "SO_REUSEPORT"):
            raise ConfigurationError("several processes on one UDP port need Linux")
        self._port = port
        self._on_datagram = on_datagram
        # the C socket: where gevent has patched the process, the other one's methods would wait
        self._socket = _socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        #: the beginning of this process' connection ids
        self.mark = self._bind()
        hold(self)
        #: datagrams that were passed on
        self.passed_on = 0
        loop: IoLoop = gevent.get_hub().loop
        self._watcher = loop.io(self._socket.fileno(), READ)
        self._watcher.start(self._on_readable)

    def _bind(self) -> bytes:
        for _ in range(MAX_ATTEMPTS):
            mark = secrets.token_bytes(MARK_SIZE)
            with suppress(OSError):
                self._socket.bind(self._name(mark))
                return mark
        self._socket.close()
        raise ConfigurationError(f"too many processes receive on the UDP port {self._port}")

    def _name(self, mark: bytes) -> str:
        """The name of a process' socket; of the abstract kind, which ends with the process."""
        return f"\0engineio-wsgi/udp/{self._port}/{mark.hex()}"

    def pass_on(self, identifier: bytes, data: bytes, address: NetworkAddress) -> bool:
        """Give a datagram to the process whose mark a connection id has. Returns whether there is such a process."""
        mark = identifier[:MARK_SIZE]
        if mark == self.mark or len(mark) < MARK_SIZE:
            return False
        head = f"{address[0]} {address[1]}\n".encode()
        try:
            self._socket.sendto(head + data, self._name(mark))
        except BlockingIOError:
            return True  # it is lost, as datagrams may be
        except OSError:
            return False
        self.passed_on += 1
        return True

    def _on_readable(self) -> None:
        for _ in range(BATCH):
            try:
                message, ancillary, _, _ = self._socket.recvmsg(MESSAGE_SIZE, socket.CMSG_SPACE(CREDENTIALS.size))
            except OSError:
                return
            if _sender(ancillary) == os.getuid():
                head, _, data = message.partition(b"\n")
                host, _, port = head.decode("ascii", "replace").partition(" ")
                if port.isdigit():
                    self._on_datagram(data, (host, int(port)))

    def fileno(self) -> int:
        """The descriptor of the Unix socket; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop receiving."""
        self._watcher.stop()
        self._watcher.close()
        self._socket.close()


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The user of the process that has sent a message."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return int(CREDENTIALS.unpack(data[:CREDENTIALS.size])[1])
    return None
