"""gevent's servers: which one has accepted a connection, which application it calls, and how it adopts a connection.

gunicorn's gevent workers serve with such servers as well.
"""

from __future__ import annotations

from typing import NamedTuple
from wsgiref.types import WSGIApplication, WSGIEnvironment

from gevent import getcurrent
from gevent.baseserver import BaseServer
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer
from gevent.socket import MSG_PEEK
from gevent.socket import socket as GeventSocket

from engineio_wsgi.handoff.client_socket import client_socket
from engineio_wsgi.vendors.gevent_servers import accepted_in
from engineio_wsgi.vendors.gunicorn_workers import application_behind

__all__ = ["Accepted", "PrimedSocket", "accepted_by", "adopt", "application_of"]


class Accepted(NamedTuple):
    """The server that has accepted a connection, and the client's address as ``accept`` has returned it."""

    server: StreamServer
    address: object


class PrimedSocket(GeventSocket):  # type: ignore[misc]  # gevent has no types
    """A connection from another process, which has read some of its bytes. They are received first.

    Args:
        number: the connection's file descriptor.
        primed: bytes that the other process has read.
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

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """See ``socket.socket.recv_into``."""
        if not self.primed:
            return super().recv_into(buffer, nbytes, flags)  # type: ignore[no-any-return]
        view = memoryview(buffer)
        data = self.recv(nbytes or len(view), flags)
        view[:len(data)] = data
        return len(data)


def accepted_by(environ: WSGIEnvironment) -> Accepted | None:
    """The server that has accepted a request's connection; ``None`` if that is not certain.

    gevent's servers start a greenlet for each connection, whose arguments say what it serves. They count only if they name the
    connection that is in ``environ``: a middleware may call the application in a greenlet of its own.
    """
    accepted = accepted_in(getcurrent())
    if accepted is None:
        return None
    server, sock, address = accepted
    known = client_socket(environ)
    if known is None or known.fileno() != sock.fileno():
        return None
    return Accepted(server, address)


def application_of(server: BaseServer) -> WSGIApplication | None:
    """The WSGI application that a server calls; ``None`` if that is not known."""
    application: WSGIApplication | None = (
        # a server that was closed has no handler any more
        server.application if isinstance(server, WSGIServer) else application_behind(getattr(server, "handle", None)))
    return application


def adopt(server: StreamServer, sock: PrimedSocket, address: object) -> None:
    """Have a server serve a connection as if it had accepted it. Blocks only if its pool is full."""
    sock.setblocking(True)
    server.do_handle(sock, address)
