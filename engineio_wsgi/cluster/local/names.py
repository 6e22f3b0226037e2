"""The names of the Unix sockets on which the workers of a machine listen.

Owns the names, the creation of the sockets, and the check that the process at the other end runs as the same user. A name
consists of the user and the worker's id, so no list of workers has to be kept.
"""

from __future__ import annotations

import _socket
import errno
import os
import re
import socket
import struct
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from engineio_wsgi.cluster.local.records import make_socket
from engineio_wsgi.runtime.forks import reserve_names
from engineio_wsgi.runtime.private_folders import folder_of_user, is_bound, is_private, make_private

__all__ = ["FORMER", "AbstractNames", "Folder", "Names", "belongs_to_us", "choose_names", "is_listening", "is_worker_id",
           "listening_names", "short_mark", "user_prefix"]

#: the beginning of a session id, which becomes a part of a file's name
_WORKER_ID = re.compile(r"[0-9A-Za-z_-]{4}")
#: a group of this machine that has a name, and the path after it
_NAMED = re.compile(r"local:([0-9A-Za-z._-]{1,64})/")
#: process, user, group (unix(7), SO_PEERCRED)
_CREDENTIALS = struct.Struct("3i")
#: behind a worker's id: the name of the socket of the process that had this id before, as long as it has sessions
FORMER = ".former"
#: connections that wait to be accepted
BACKLOG = 1024


class Names(Protocol):
    """Turns a worker's id into the address of its socket."""

    def address(self, worker_id: str) -> str:
        """The address of a worker's socket."""
        ...

    def listen(self, worker_id: str) -> _socket.socket:
        """A worker's listening, non-blocking C socket.

        Raises:
            FileExistsError: the id is taken.
            OSError: such sockets cannot be made here.
        """
        ...

    def release(self, worker_id: str) -> None:
        """Free the name of a worker that has closed its socket."""
        ...

    def workers(self) -> list[str]:
        """The ids of the workers that listen now."""
        ...


def user_prefix() -> str:
    """The prefix of the names of all workers of this user."""
    return f"engineio_wsgi/{os.geteuid()}/"


def listening_names(prefix: str) -> list[str]:
    """The abstract names that begin with ``prefix``, without it."""
    table = Path("/proc/net/unix").read_text(errors="replace")
    return sorted({word[len(prefix) + 1:] for word in table.split() if word.startswith(f"@{prefix}")})


class AbstractNames:
    """Abstract names (Linux), which are in no file system, and end with their process.

    Args:
        group: of workers that serve each other's sessions.
    """

    def __init__(self, group: str) -> None:
        self._prefix = f"{user_prefix()}{_mark(group)}/"
        reserve_names(self.address(""))

    def address(self, worker_id: str) -> str:
        """See :class:`Names`."""
        return f"\0{self._prefix}{worker_id}"

    def listen(self, worker_id: str) -> _socket.socket:
        """See :class:`Names`."""
        try:
            return _listen(self.address(worker_id))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise FileExistsError(f"the worker id {worker_id} is taken") from error
            raise

    def release(self, worker_id: str) -> None:
        """See :class:`Names`. The kernel has done it."""

    def workers(self) -> list[str]:
        """See :class:`Names`. The kernel keeps the list."""
        return [name for name in listening_names(self._prefix) if is_worker_id(name)]


class Folder:
    """A directory that only this user can enter.

    Args:
        path: of the directory, which is created if it does not exist. No other user may write into its parent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        reserve_names(f"{path}/")

    def address(self, worker_id: str) -> str:
        """See :class:`Names`."""
        return str(self._path / worker_id)

    def listen(self, worker_id: str) -> _socket.socket:
        """See :class:`Names`. Removes the sockets of killed workers.

        Raises:
            FileExistsError: the id is taken.
            OSError: other users can write into the directory, or such sockets cannot be made here.
        """
        make_private(self._path)
        for path in self._sockets():
            if not is_listening(str(path)):
                path.unlink(missing_ok=True)
        # it gets its name once it listens: before that, it looks like the socket of a killed worker
        unnamed = self._path / f".{worker_id}.{os.getpid()}"
        sock = _listen(str(unnamed))
        try:
            os.link(unnamed, self.address(worker_id))
        except BaseException:
            sock.close()
            raise
        finally:
            unnamed.unlink()
        return sock

    def release(self, worker_id: str) -> None:
        """See :class:`Names`. Removes the socket's file."""
        with suppress(OSError):
            os.unlink(self.address(worker_id))

    def workers(self) -> list[str]:
        """See :class:`Names`."""
        return sorted(path.name for path in self._sockets() if is_listening(str(path)))

    def _sockets(self) -> list[Path]:
        return [path for path in self._path.iterdir() if is_worker_id(path.name)] if is_private(self._path) else []


def _listen(address: str) -> _socket.socket:
    sock = make_socket()
    try:
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def is_listening(address: str) -> bool:
    """Whether a process listens on the address of a worker. Does not block."""
    return is_bound(make_socket(), address)


def choose_names(group: str) -> Names:
    """The names of a group's workers on this platform."""
    if sys.platform == "linux":
        return AbstractNames(group)
    return Folder(folder_of_user(short_mark(group)))


def short_mark(group: str) -> str:
    """A short name for a group: an address has no more than 108 bytes (unix(7))."""
    return sha256(group.encode()).hexdigest()[:12]


def _mark(group: str) -> str:
    """The ``NAME`` of ``local:NAME``, by which `running_clusters` finds it, and the short name: 77 bytes at most."""
    name = _NAMED.match(group)
    return f"{name[1]}~{short_mark(group)}" if name else short_mark(group)


def is_worker_id(text: str) -> bool:
    """Whether ``text`` has the form of a worker's id."""
    return _WORKER_ID.fullmatch(text) is not None


def belongs_to_us(sock: _socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket runs as the same user, as far as the kernel can tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        # no other user can enter the directory of the socket
        return is_private(Path(sock.getpeername() or sock.getsockname()).parent)
    _, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return bool(user == os.geteuid())
