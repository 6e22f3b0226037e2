"""Where the workers of a machine listen for each other.

Owns the names of their Unix sockets, and who may be behind one: the same user, as the kernel says. The name is made of the
user and the worker's id, so nobody has to keep a list of workers.
"""

from __future__ import annotations

import _socket
import os
import re
import socket
import stat
import struct
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Protocol

from engineio_wsgi.errors import ConfigurationError

__all__ = ["AbstractNames", "Folder", "Names", "belongs_to_us", "choose_names", "is_worker_id"]

#: what a session id may begin with; the rest of it is nobody's business here. It becomes a part of a file's name
_WORKER_ID = re.compile(r"[0-9A-Za-z_-]{4}")
#: process, user, group (unix(7), SO_PEERCRED)
_CREDENTIALS = struct.Struct("3i")


class Names(Protocol):
    """A way to turn a worker's id into the address of its socket."""

    def address(self, worker_id: str) -> str:
        """The address of a worker's socket."""
        ...

    def prepare(self) -> None:
        """Make what has to be there before a socket is bound."""
        ...

    def release(self, worker_id: str) -> None:
        """The worker does not listen any more."""
        ...

    def workers(self) -> list[str]:
        """The ids of those that listen now."""
        ...


class AbstractNames:
    """Linux: names that live in no file system, and end with their process.

    Args:
        group: of workers that serve each other's sessions.
    """

    def __init__(self, group: str) -> None:
        self._prefix = f"engineio_wsgi/{os.geteuid()}/{_mark(group)}/"

    def address(self, worker_id: str) -> str:
        """The address of a worker's socket."""
        return f"\0{self._prefix}{worker_id}"

    def prepare(self) -> None:
        """Nothing has to be there."""

    def release(self, worker_id: str) -> None:
        """The kernel has done it."""

    def workers(self) -> list[str]:
        """The ids of those that listen now: the kernel keeps the list."""
        prefix = f"@{self._prefix}"
        table = Path("/proc/net/unix").read_text(errors="replace")
        return sorted({word[len(prefix):] for word in table.split() if word.startswith(prefix)})


class Folder:
    """A directory that only this user can enter.

    Args:
        path: of the directory; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def address(self, worker_id: str) -> str:
        """The address of a worker's socket."""
        return str(self._path / worker_id)

    def prepare(self) -> None:
        """Make the directory, and sweep out what killed workers have left.

        Raises:
            ConfigurationError: it is there, and others could have put something into it.
        """
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ConfigurationError(f"cluster: {self._path} has to be a directory of this user's with mode 0700; remove it")
        for path in self._path.iterdir():
            if is_worker_id(path.name) and not _is_alive(str(path)):
                path.unlink(missing_ok=True)

    def release(self, worker_id: str) -> None:
        """Remove the socket's file."""
        with suppress(OSError):
            os.unlink(self.address(worker_id))

    def workers(self) -> list[str]:
        """The ids of those that listen now."""
        return sorted(path.name for path in self._path.iterdir() if is_worker_id(path.name) and _is_alive(str(path)))


def _is_alive(address: str) -> bool:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    try:
        sock.connect(address)
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    finally:
        sock.close()
    return True


def choose_names(group: str) -> Names:
    """The names that this platform can have, for the workers of a group."""
    if sys.platform == "linux":
        return AbstractNames(group)
    folder = os.environ.get("XDG_RUNTIME_DIR") or gettempdir()
    return Folder(Path(folder) / f"engineio_wsgi-{os.geteuid()}" / _mark(group))


def _mark(group: str) -> str:
    """A short name for a group, whose own may be longer than an address: of 108 bytes (unix(7))."""
    return sha256(group.encode()).hexdigest()[:12]


def is_worker_id(text: str) -> bool:
    """Whether ``text`` can be the id of a worker."""
    return _WORKER_ID.fullmatch(text) is not None


def belongs_to_us(sock: Any) -> bool:
    """Whether the process at the other end of a Unix socket runs as the same user, as far as the kernel can tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        # nobody else could have reached the directory that the socket is in
        return True
    _, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return bool(user == os.geteuid())
