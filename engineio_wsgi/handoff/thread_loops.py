"""The loops of servers that answer each request in a plain thread, and whose connections can become WebSockets nevertheless.

Owns the knowledge of these servers: werkzeug's (``flask run``), wsgiref's, Django's ``runserver``, and gunicorn's ``sync`` and
``gthread`` workers. The connection's descriptor is duplicated for the hub. The server keeps its own descriptor, which then
refers to a socket without another end: what the server still does with it, such as a shutdown, has no effect.
"""

from __future__ import annotations

import _socket
import errno
import os
import ssl
from collections.abc import Iterable
from io import BufferedReader
from socket import socket as StandardSocket
from typing import TYPE_CHECKING

from gevent.socket import socket as GeventSocket

from engineio_wsgi.errors import ConnectionDetached
from engineio_wsgi.handoff.client_socket import client_socket
from engineio_wsgi.handoff.server_loops import DETACHED, HANDED_OVER, ServerLoop, read_ahead
from engineio_wsgi.runtime.connection import Connection
from engineio_wsgi.vendors import gunicorn_workers
from engineio_wsgi.vendors.django_servers import reader_behind

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["ThreadLoop", "kind_of_thread_loop"]


class ThreadLoop(ServerLoop):
    """The loop over one connection, in a thread that waits until the handshake has been answered.

    All but :meth:`leave` is called in the hub.

    Args:
        environ: of a request that asks for a WebSocket.
    """

    def __init__(self, environ: WSGIEnvironment) -> None:
        super().__init__(environ)
        self._status = HANDED_OVER

    def read_ahead(self) -> bytes:
        """What the buffered reader of a server that is built on ``http.server`` has read from its socket."""
        reader = reader_behind(self._environ["wsgi.input"])
        return read_ahead(reader, self.sock) if isinstance(reader, BufferedReader) else b""

    def detach(self, pending: bytes = b"") -> Connection:
        """See `Detachable`."""
        number = self.sock.fileno()
        raw = _socket.socket(fileno=os.dup(number))
        raw.setblocking(False)
        peer, mute = _socket.socketpair()
        peer.close()
        os.dup2(mute.fileno(), number, inheritable=False)
        mute.close()
        self._detached = Connection(raw, pending)
        return self._detached

    def end(self, start_response: StartResponse | None, status: str = HANDED_OVER) -> Iterable[bytes]:
        """See `Detachable`. The rest is for :meth:`leave`."""
        self._status = status
        return []

    @property
    def has_left(self) -> bool:
        """Whether the connection was detached."""
        return self._detached is not None

    def leave(self, start_response: StartResponse) -> Iterable[bytes]:
        """In the thread, after :meth:`detach`: end the server's loop without a line in its error log.

        Raises:
            ConnectionDetached: where only an exception does that. It is for the loop.
        """
        # wsgiref allows no "Connection: close"; the server finds the end of its connection by itself
        start_response(self._status, [])
        return []

    def _is_untouched(self) -> bool:
        # the handshake of a WebSocket has no body
        return True


class GunicornThreadLoop(ThreadLoop):
    """The loop of gunicorn's ``sync`` and ``gthread`` workers, whose parser reads ahead."""

    def read_ahead(self) -> bytes:
        """What the parser has read from its socket."""
        return gunicorn_workers.read_ahead(self._environ["wsgi.input"])

    def leave(self, start_response: StartResponse) -> Iterable[bytes]:
        """See `ThreadLoop`. With a response, the worker would wait for the connection's next request."""
        raise ConnectionDetached(errno.ENOTCONN, DETACHED)


def kind_of_thread_loop(environ: WSGIEnvironment) -> type[ThreadLoop] | None:
    """The class for the server that a request came through; ``None`` if its connections cannot become WebSockets."""
    body, sock = environ.get("wsgi.input"), client_socket(environ)
    if not isinstance(sock, StandardSocket) or isinstance(sock, (GeventSocket, ssl.SSLSocket)):
        return None
    if not environ["SERVER_PROTOCOL"].startswith("HTTP/1"):
        return None
    if gunicorn_workers.is_gunicorn_input(body):
        return GunicornThreadLoop
    return ThreadLoop if isinstance(reader_behind(body), BufferedReader) else None
