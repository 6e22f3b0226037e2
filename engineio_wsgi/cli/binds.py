"""Where the command listens: ``HOST:PORT``, ``unix:PATH``, ``fd:NUMBER``, or what systemd has opened.

Owns the text of ``--bind`` and the listening sockets. It must not know what is served on them.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import socket
import stat
from collections.abc import MutableMapping, Sequence
from contextlib import suppress

from gevent.socket import socket as GeventSocket

from engineio_wsgi.errors import CannotListen

__all__ = ["Bound", "bind_text", "inherited_binds", "open_binds"]

FORM = "HOST:PORT, unix:PATH or fd:NUMBER"
TCP = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\s]*)):(?P<port>\d{1,5})")
#: connections that wait to be accepted, of which the kernel may allow fewer
BACKLOG = 2048
#: the first descriptor that systemd passes on: sd_listen_fds(3)
FIRST_INHERITED = 3


class Bound:
    """A listening socket.

    Args:
        listener: the socket.
        host: the host that was asked for, if one was; the address in a URL is made of it.
        path: of a Unix socket that was made here, and that is removed when it is of no more use.
    """

    def __init__(self, listener: GeventSocket, host: str | None = None, path: str | None = None) -> None:
        self.listener = listener
        self._host = host
        self._path = path
        self._file = None if path is None else _identity(path)

    def url(self, scheme: str) -> str:
        """Where clients reach it, for people; a Unix socket has no URL."""
        name = self.listener.getsockname()
        if self.listener.family == socket.AF_UNIX:
            return f"unix:{os.fsdecode(name)}"
        host = name[0] if self._host is None else self._host or "localhost"
        return f"{scheme}://[{host}]:{name[1]}/" if ":" in host else f"{scheme}://{host}:{name[1]}/"

    def close(self) -> None:
        """Accept nothing more, and remove the path of a Unix socket, unless another process listens there by now."""
        self.listener.close()
        if self._path is not None:
            with suppress(FileNotFoundError):
                if _identity(self._path) == self._file:
                    os.unlink(self._path)


def _identity(path: str) -> tuple[int, int]:
    """What no other file at a path has: the number of a removed file may be used again."""
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns


def bind_text(text: str) -> str:
    """The value of a flag ``--bind``, checked.

    Raises:
        ArgumentTypeError: it has none of the forms.
    """
    kind, _, rest = text.partition(":")
    match = TCP.fullmatch(text)
    good = rest.isdecimal() if kind == "fd" else bool(rest) if kind == "unix" else match and int(match["port"]) <= 65535
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is not {FORM}")
    return text


def inherited_binds(environ: MutableMapping[str, str]) -> list[str]:
    """The sockets that systemd has opened for this process (``LISTEN_FDS``). The variables are removed: children have none.

    Args:
        environ: the process' environment.
    """
    count, pid = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_PID", "")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    return [f"fd:{FIRST_INHERITED + number}" for number in range(int(count))]


def open_binds(texts: Sequence[str]) -> list[Bound]:
    """Listen everywhere, or nowhere.

    Raises:
        CannotListen: an address cannot be used.
    """
    opened: list[Bound] = []
    try:
        for text in texts:
            opened.append(_open(text))
    except OSError as error:
        for bound in opened:
            bound.close()
        raise CannotListen(error, text) from None
    return opened


def _open(text: str) -> Bound:
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return _open_path(rest)
    if kind == "fd" and rest.isdecimal():
        return Bound(_adopt(int(rest)))
    match = TCP.fullmatch(text)
    assert match is not None
    host = match["six"] or match["host"] or ""
    listener = GeventSocket(socket.AF_INET6 if match["six"] else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return Bound(_listen(listener, (host, int(match["port"]))), host)


def _listen(listener: GeventSocket, address: object) -> GeventSocket:
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _open_path(path: str) -> Bound:
    _remove_stale(path)
    return Bound(_listen(GeventSocket(socket.AF_UNIX, socket.SOCK_STREAM), path), path=os.path.abspath(path))


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that has ended without removing it.

    Raises:
        OSError: a process listens there.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(path) != errno.ECONNREFUSED:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        os.unlink(path)


def _adopt(number: int) -> GeventSocket:
    """The listening socket of a descriptor.

    Raises:
        OSError: it is none.
    """
    listener = GeventSocket(fileno=number)
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise OSError(errno.EINVAL, "the descriptor is no listening socket")
    os.set_inheritable(number, False)
    return listener
