"""Directories for Unix sockets that no other user can enter: nobody else can take a name in them, or connect."""

from __future__ import annotations

import _socket
import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir

__all__ = ["folder_of_user", "is_bound", "is_private", "make_private"]


def folder_of_user(name: str) -> Path:
    """The path of this user's directory of a name, in ``XDG_RUNTIME_DIR`` or else in the directory for temporary files.

    A process that was started by root, and has become another user since, has root's ``XDG_RUNTIME_DIR``, which is not used.
    """
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if not folder or not _is_ours(Path(folder)):
        folder = gettempdir()
    return Path(folder) / f"engineio_wsgi-{os.geteuid()}-{name}"


def _is_ours(path: Path) -> bool:
    with suppress(OSError):
        return path.stat().st_uid == os.geteuid()
    return False


def make_private(path: Path) -> None:
    """Create a directory that only this user can enter, unless it exists. Its parent is sticky, or this user's.

    Raises:
        PermissionError: there is something else, or a directory that other users can enter.
        OSError: it cannot be created.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not is_private(path):
        raise PermissionError(f"{path} is not a directory of this user with mode 0700; remove it")


def is_private(path: Path) -> bool:
    """Whether the path is a directory that only this user can enter."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def is_bound(sock: _socket.socket, address: str) -> bool:
    """Whether a process has the Unix socket at an address. Does not block.

    Args:
        sock: a new socket of the same type, which is closed.
        address: a path, or an abstract name.
    """
    sock.setblocking(False)
    try:
        sock.connect(address)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True
    finally:
        sock.close()
    return True
