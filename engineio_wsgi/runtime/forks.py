"""Forked processes: what a child must not touch of what its parent serves.

gevent continues its event loop in a forked child, and parent and child share every socket, so that either of them would read
what the parent's clients send. Directly after a fork, in the child, the file descriptors of the parent's listeners and
connections are replaced by a socket on which nothing ever arrives. Each keeps its number: objects of the parent's that are still
around refer to it, and it must not become another file's.

Owns the list of what a process serves: the addresses of its listeners, by which their connections are known, too, and the
sockets that have no such address. Knows nothing of sessions; whoever has a state of its own registers a function.
"""

from __future__ import annotations

import _socket
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import gevent

__all__ = ["call_in_child", "hold", "reserve_names", "serve"]

logger = logging.getLogger("engine")

#: descriptors that are looked through where the system has no list of the open ones
MAX_DESCRIPTORS = 65_536

#: ports, and names of Unix sockets, that this process serves
_addresses: set[int | bytes] = set()
#: what the names of the Unix sockets begin with by which workers reach each other
_reserved: set[bytes] = set()
#: connections that are known by neither
_held: WeakSet[Any] = WeakSet()
_resets: list[Callable[[bool], object]] = []


def serve(sock: Any) -> None:
    """This process serves the listener that has the local address of ``sock``: a listener, or a connection it has accepted."""
    with suppress(OSError):
        address = _address(sock)
        if address:
            _addresses.add(address)


def reserve_names(prefix: str) -> None:
    """Unix sockets whose names begin with ``prefix`` are for conversations of this process."""
    _reserved.add(os.fsencode(prefix))


def hold(connection: Any) -> None:
    """``connection`` is this process's alone. It has a ``fileno()``, and is not kept alive by this."""
    _held.add(connection)


def call_in_child(reset: Callable[[bool], object]) -> None:
    """Have ``reset(served)`` called in each forked child, for as long as the process lives.

    Nothing of the parent's can be reached any more then. ``served`` tells whether the parent has served anybody. No event
    loop runs meanwhile, and ``reset`` must not wait for anything.
    """
    _resets.append(reset)


def _address(sock: Any) -> int | bytes | None:
    """What a listener and its connections have in common: the port, or the name of a Unix socket."""
    return _key(sock.family, sock.getsockname())


def _key(family: int, name: Any) -> int | bytes | None:
    if family in (socket.AF_INET, socket.AF_INET6):
        return int(name[1])
    return os.fsencode(name) if family == socket.AF_UNIX else None


def _after_fork_in_child() -> None:
    served = bool(_addresses)
    for reset in (_let_go, *_resets):
        try:
            reset(served)
        except Exception:
            logger.exception("a forked process could not let go of what its parent serves")


def _let_go(served: bool) -> None:
    if not (served or _held or _reserved):
        return
    # first of all: until then, to stop a watcher could change what the parent's loop waits for. It is harmless if repeated
    gevent.reinit()
    _replace([*_held_descriptors(), *filter(_is_served, _open_descriptors())])
    _held.clear()
    _addresses.clear()


def _replace(descriptors: Iterable[int]) -> None:
    """Have the descriptors refer to a socket that has no other end. To write to it fails, and nothing ever arrives."""
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
    """Whether a file descriptor is a listener or a connection of this process's."""
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


def _is_reserved(name_of: Callable[[], Any]) -> bool:
    with suppress(OSError):
        name = os.fsencode(name_of())
        return any(name.startswith(prefix) for prefix in _reserved)
    return False


os.register_at_fork(after_in_child=_after_fork_in_child)
