"""The other processes that receive on the same UDP port: datagrams that the kernel gives to the wrong one are passed on.

The kernel chooses a process by the client's address. A client keeps its process until its address changes, or a process begins or
ends. The ids of connections begin with a mark of their process, so that any other one can pass their datagrams on, over a Unix
socket. The sockets are in a directory of this user: another user could take the names of abstract ones, and get the datagrams.
"""

from __future__ import annotations

import _socket
import errno
import os
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import gevent

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.runtime.forks import hold
from engineio_wsgi.runtime.loop import READ, IoLoop
from engineio_wsgi.runtime.private_folders import folder_of_user, is_bound, make_private

if TYPE_CHECKING:
    from aioquic.quic.connection import NetworkAddress

__all__ = ["MARK_SIZE", "Neighbours"]

#: bytes of a mark
MARK_SIZE = 2
#: marks that are tried, until one is free
MAX_ATTEMPTS = 64
#: bytes of one ``recv``
MESSAGE_SIZE = 70_000
#: datagrams that are read before the event loop looks at other sockets
BATCH = 64


class Neighbours:
    """See the module.

    Args:
        port: the UDP port.
        on_datagram: called in the hub with each datagram that another process has passed on, and the client's address.

    Raises:
        ConfigurationError: the system is not Linux, the directory cannot be used, or too many processes use the port.
    """

    def __init__(self, port: int, on_datagram: Callable[[bytes, NetworkAddress], object]) -> None:
        if sys.platform != "linux":
            raise ConfigurationError("several processes on one UDP port need Linux")
        self._port = port
        self._on_datagram = on_datagram
        self._folder = folder_of_user(f"udp-{port}")
        # the C socket: where gevent has patched the process, the other one's methods would wait
        self._socket = _socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        #: the beginning of this process' connection ids
        self.mark = self._bind()
        hold(self)
        #: datagrams that were passed on
        self.passed_on = 0
        loop: IoLoop = gevent.get_hub().loop
        self._watcher = loop.io(self._socket.fileno(), READ)
        self._watcher.start(self._on_readable)

    def _bind(self) -> bytes:
        try:
            make_private(self._folder)
            for path in self._folder.iterdir():
                if not _is_alive(path):
                    path.unlink(missing_ok=True)
            return self._take_mark()
        except OSError as error:
            self._socket.close()
            raise ConfigurationError(f"the processes on the UDP port {self._port} cannot reach each other: {error}") from error

    def _take_mark(self) -> bytes:
        attempts = 0
        while True:
            mark = secrets.token_bytes(MARK_SIZE)
            attempts += 1
            try:
                self._socket.bind(self._name(mark))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or attempts == MAX_ATTEMPTS:
                    raise
            else:
                return mark

    def _name(self, mark: bytes) -> str:
        """The path of a process' socket."""
        return str(self._folder / mark.hex())

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
                head, _, data = self._socket.recv(MESSAGE_SIZE).partition(b"\n")
            except OSError:
                return
            host, _, port = head.decode().partition(" ")
            self._on_datagram(data, (host, int(port)))

    def fileno(self) -> int:
        """The descriptor of the Unix socket; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop receiving. Harmless if repeated."""
        if self._socket.fileno() < 0:
            return
        self._watcher.stop()
        self._watcher.close()
        self._socket.close()
        with suppress(OSError):
            os.unlink(self._name(self.mark))


def _is_alive(path: Path) -> bool:
    """Whether a process has the socket at a path."""
    return is_bound(_socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), str(path))
