"""The gevent server that has accepted a request's connection, and having it serve a connection that another process accepted.

Owns the knowledge of how gevent's ``StreamServer``, and gunicorn's gevent workers with it, serve what they accept: which server a
greenlet belongs to, which WSGI application it calls, and how bytes that have been read already get into its loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gevent import getcurrent
from gevent.baseserver import BaseServer
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer
from gevent.socket import MSG_PEEK
from gevent.socket import socket as GeventSocket

from engineio_wsgi.handoff.client_socket import client_socket
from engineio_wsgi.vendors.gevent_servers import accepted_in
from engineio_wsgi.vendors.gunicorn_workers import application_behind

__all__ = ["Accepted", "PrimedSocket", "accepted_by", "application_of", "serve_adopted"]


class Accepted(NamedTuple):
    """Who has accepted a connection: the server, and the client's address as ``accept`` returned it."""

    server: StreamServer
    address: Any


class PrimedSocket(GeventSocket):  # type: ignore[misc]
    """A connection from another process, of which some bytes have been read there: they are received first.

    Args:
        number: the connection's file descriptor.
        primed: the bytes.
        hops: how often the connection has changed its process.
    """

    def __init__(self, number: int, primed: bytes, hops: int) -> None:
        super().__init__(fileno=number)
        #: bytes that have not been received yet
        self.primed = primed
        self.hops = hops

    def recv(self, size: int, flags: int = 0) -> bytes:
        """See ``socket.socket.recv``."""
        if not self.primed:
            return super().recv(size, flags)  # type: ignore[no-any-return]
        data = self.primed[:size]
        if not flags & MSG_PEEK:
            self.primed = self.primed[size:]
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """See ``socket.socket.recv_into``."""
        if not self.primed:
            return super().recv_into(buffer, nbytes, flags)  # type: ignore[no-any-return]
        view = memoryview(buffer)
        data = self.recv(nbytes or len(view), flags)
        view[:len(data)] = data
        return len(data)


def accepted_by(environ: dict[str, Any]) -> Accepted | None:
    """The server that has accepted a request's connection; ``None`` if that is not certain.

    gevent's servers start a greenlet with each connection, whose arguments say what it serves. Certain is what the calling
    greenlet says of the very connection that is in ``environ``.
    """
    accepted = accepted_in(getcurrent())
    if accepted is None:
        return None
    server, sock, address = accepted
    known = client_socket(environ)
    if known is None or known.fileno() != sock.fileno():
        return None
    return Accepted(server, address)


def application_of(server: BaseServer) -> Any:
    """The WSGI application that a server calls; ``None`` if that is not known."""
    if isinstance(server, WSGIServer):
        return server.application
    return application_behind(server.handle)


def serve_adopted(server: StreamServer, sock: PrimedSocket, address: Any) -> None:
    """Have a server serve a connection as if it had accepted it. Blocks only if its pool is full."""
    sock.setblocking(True)
    server.do_handle(sock, address)
