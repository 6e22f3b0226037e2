"""Forked processes: a child gives up the listeners and connections that its parent serves.

gevent continues its event loop in a forked child, and parent and child share every socket, so that either of them could read
what the parent's clients send. Directly after a fork, in the child, the file descriptors of the parent's listeners and
connections are replaced by a socket on which nothing ever arrives. Each descriptor keeps its number: objects of the parent still
refer to it, and no other file may get that number.

Owns the list of what a process serves: the addresses of its listeners, which their accepted connections have too, and the
sockets without such an address. Knows nothing of sessions: objects with state of their own register a function.
"""

from __future__ import annotations

import _socket
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

import gevent

if TYPE_CHECKING:
    from socket import socket as Socket

__all__ = ["call_in_child", "hold", "reserve_names", "serve"]

logger = logging.getLogger("engine")


class Descriptor(Protocol):
    """An object that has a file descriptor."""

    def fileno(self) -> int:
        """Its number; -1 once closed."""
        ...


#: descriptors that are checked where the system has no list of the open ones
MAX_DESCRIPTORS = 65_536

#: ports and names of Unix sockets that this process serves
_addresses: set[int | bytes] = set()
#: prefixes of the names of the Unix sockets by which workers reach each other
_reserved: set[bytes] = set()
#: connections that have no such address
_held: WeakSet[Descriptor] = WeakSet()
_resets: list[Callable[[bool], object]] = []


def serve(sock: Socket) -> None:
    """Record that this process serves the local address of ``sock``, a listener or an accepted connection."""
    with suppress(OSError):
        address = _address(sock)
        if address:
            _addresses.add(address)


def reserve_names(prefix: str) -> None:
    """Record that Unix sockets whose names begin with ``prefix`` belong to this process."""
    _reserved.add(os.fsencode(prefix))


def hold(connection: Descriptor) -> None:
    """Record that ``connection`` belongs to this process. It is not kept alive."""
    _held.add(connection)


def call_in_child(reset: Callable[[bool], object]) -> None:
    """Call ``reset(served)`` in each forked child, as long as the process lives.

    The child has given up the parent's connections by then. ``served`` says whether the parent had a listener. No event loop runs
    meanwhile, and ``reset`` must not block.
    """
    _resets.append(reset)


def _address(sock: Socket | _socket.socket) -> int | bytes | None:
    """The port, or the name of a Unix socket, which a listener and its accepted connections have in common."""
    return _key(sock.family, sock.getsockname())


def _key(family: int, name: Any) -> int | bytes | None:  # the standard library types addresses so
    if family in (socket.AF_INET, socket.AF_INET6):
        return int(name[1])
    return os.fsencode(name) if family == socket.AF_UNIX else None


def _after_fork_in_child() -> None:
    served = bool(_addresses)
    for reset in (_let_go, *_resets):
        try:
            reset(served)
        except Exception:
            logger.exception("a forked process could not give up the sockets of its parent")


def _let_go(served: bool) -> None:
    if not (served or _held or _reserved):
        return
    # first of all: before it, stopping a watcher could change what the parent's loop waits for. It may be called again
    gevent.reinit()
    _replace([*_held_descriptors(), *filter(_is_served, _open_descriptors())])
    _held.clear()
    _addresses.clear()


def _replace(descriptors: Iterable[int]) -> None:
    """Replace the descriptors by a socket that has no other end: writing to it fails, and nothing ever arrives."""
    silent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    silent.setblocking(False)
    for number in descriptors:
        os.dup2(silent.fileno(), number, inheritable=False)
    silent.close()


def _held_descriptors() -> list[int]:
    numbers = [connection.fileno() for connection in list(_held)]
    return [number for number in numbers if number >= 0]


def _open_descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return list(range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], MAX_DESCRIPTORS)))


def _is_served(number: int) -> bool:
    """Whether a file descriptor is a listener or a connection of this process."""
    try:
        sock = _socket.socket(fileno=number)
    except OSError:
        return False
    try:
        if sock.type == _socket.SOCK_DGRAM:
            return False
        if _address(sock) in _addresses:
            return True
        return sock.family == _socket.AF_UNIX and (_is_reserved(sock.getsockname) or _is_reserved(sock.getpeername))
    except OSError:
        return False
    finally:
        sock.detach()


def _is_reserved(name_of: Callable[[], str | bytes]) -> bool:
    with suppress(OSError):
        name = os.fsencode(name_of())
        return any(name.startswith(prefix) for prefix in _reserved)
    return False


os.register_at_fork(after_in_child=_after_fork_in_child)
