"""What is inside gevent's sockets and hubs.

Relies on: ``socket._sock`` (the C socket), ``socket._detach_socket``, ``SSLSocket._sslobj`` (OpenSSL's object; also of the
standard library), ``gevent._hub_local.get_hub_if_exists``, the C socket's ``_accept``, as gevent's servers do, and that gevent's
loop with libev leaves an epoll registration to the kernel.
"""

from __future__ import annotations

import os
from _socket import socket as CSocket
from typing import TYPE_CHECKING, Protocol

import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from gevent.socket import socket as GeventSocket

if TYPE_CHECKING:
    from select import epoll

__all__ = ["TlsObject", "accept_c_socket", "c_socket", "forget_descriptor", "has_hub", "is_tls", "take_c_socket", "tls_object"]


class TlsObject(Protocol):
    """What is used of OpenSSL's object."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes."""
        ...

    def write(self, data: bytes | memoryview, /) -> int:
        """Send what the kernel takes; returns how many bytes."""
        ...

    def shutdown(self) -> object:
        """End the sending side."""
        ...


class _EpollLoop(Protocol):
    """What is used of gevent's loop with libev."""

    backend: str

    def fileno(self) -> int:
        """The descriptor of its epoll."""
        ...


def c_socket(sock: CSocket) -> CSocket:
    """The C socket inside a gevent socket, whose methods never switch to another greenlet; ``sock`` itself if it is one."""
    return getattr(sock, "_sock", sock)


def accept_c_socket(listener: CSocket) -> tuple[CSocket, object] | None:
    """Accept a connection as a non-blocking C socket, with the client's address; ``None`` if none waits. Never blocks.

    Raises:
        OSError: of ``accept``.
    """
    try:
        number, address = listener._accept()  # type: ignore[attr-defined]
    except BlockingIOError:
        return None
    # without the family, Python would ask the kernel for it
    sock = CSocket(listener.family, listener.type, listener.proto, number)
    sock.setblocking(False)
    return sock, address


def take_c_socket(sock: CSocket) -> CSocket | None:
    """Take the C socket out of a gevent socket, which is of no use afterwards; ``None`` for any other socket.

    It does what gevent's ``detach`` does. A C socket that is made of the number which that returns costs four system calls.
    """
    inner: CSocket | None = getattr(sock, "_sock", None)
    take = getattr(sock, "_detach_socket", None)
    if inner is None or take is None:
        return None
    take("detached")
    sock.close()
    return inner


def tls_object(sock: object) -> TlsObject | None:
    """OpenSSL's object of a TLS socket, with ``read``, ``write`` and ``shutdown``; ``None`` for any other socket."""
    if type(sock) is GeventSocket:
        # it would look for the attribute in the C socket as well, and raise an exception twice
        return None
    return getattr(sock, "_sslobj", None)


def is_tls(sock: object) -> bool:
    """Whether a socket is a TLS socket."""
    return tls_object(sock) is not None


def has_hub() -> bool:
    """Whether the calling thread has a gevent hub, which any wait outside of gevent would stop. Does not make one."""
    return get_hub_if_exists() is not None


def _epoll() -> type[epoll]:
    """``select.epoll``, which monkey-patching removes from its module, and which other platforms do not have."""
    original: type[epoll] = monkey.get_original("select", "epoll")
    return original


def forget_descriptor(number: int) -> None:
    """Unregister a file descriptor, which is about to be closed, from the event loop's epoll.

    libev never does: it counts on the kernel, which forgets a file when its last descriptor is closed. Where another process
    has a descriptor of the same file, the next event on it makes libev build its whole set anew.
    """
    loop: _EpollLoop = gevent.get_hub().loop
    if loop.backend != "epoll":
        return
    try:
        # the object closes its descriptor when it is collected, and the loop needs its own
        watched = _epoll().fromfd(os.dup(loop.fileno()))
    except OSError:
        # no file can be opened: the loop is slower once, and nothing else happens
        return
    try:
        watched.unregister(number)
    except OSError:
        # the loop has never watched it
        return
    finally:
        watched.close()
