"""Taking a client's connection out of the loop of a server that knows no WebSockets.

Owns the knowledge of how gevent's pywsgi and gunicorn's gevent worker let go of a connection: where they keep it, what they
have read ahead, and which exception ends their loop without another byte, a shutdown or a line in a log.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from io import BufferedReader
from typing import Any, NoReturn

from gevent.pywsgi import Input
from gevent.socket import socket as GeventSocket

from engineio_wsgi.errors import ConnectionDetached
from engineio_wsgi.handoff.accepted_websocket import read_ahead
from engineio_wsgi.handoff.client_socket import client_socket, primed
from engineio_wsgi.http.response import Response
from engineio_wsgi.http.response_head import ResponseHead
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.protocol.websocket.handshake import asks_for_websocket
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.vendors.gevent_servers import buffered_reader
from engineio_wsgi.websocket.websocket import WebSocket

__all__ = ["Release", "can_upgrade", "loop_of", "release_of"]

#: in the environ of a request whose WebSockets come another way, by ``handle_upgrade``: whether they do
WEBSOCKETS = "engineio.websockets"

#: how gevent's server, and gunicorn with it, begin to name themselves
PYWSGI = "gevent/"
TAKEN = "the connection was taken from this server's loop, which ends here; this is no error"


def can_upgrade(environ: dict[str, Any]) -> bool:
    """Whether the server that a request came through can carry WebSockets, its own or ours."""
    stated = environ.get(WEBSOCKETS)
    if stated is not None:
        return bool(stated)
    return "engineio.socket" in environ or "wsgi.websocket" in environ or _kind_of(environ) is not None


def release_of(environ: dict[str, Any]) -> Release | None:
    """The way to the connection of a request that asks for a WebSocket, where its server has none to offer."""
    return loop_of(environ) if asks_for_websocket(environ) else None


def loop_of(environ: dict[str, Any]) -> Release | None:
    """The way to the connection of any request; ``None`` where it is not to be had."""
    kind = _kind_of(environ)
    return None if kind is None else kind(environ)


class Release:
    """One connection that can be taken from its server's loop."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ
        self._taken: Connection | None = None

    def serve(self, application: Callable[..., Iterable[bytes]], start_response: Callable[..., Any]) -> NoReturn:
        """Have the request answered by ``application``, which finds a WebSocket in its environ and may accept it.

        Raises:
            ConnectionDetached: in the end, always. It is for the server's loop, which it ends.
        """
        websocket = self._environ["wsgi.websocket"] = WebSocket(self._environ, self._open)
        answered = call(application, self._environ)
        status = "101 Switching Protocols"
        if not websocket.accepted:
            status = answered.status
            self._refuse(answered)
        self.end(status, start_response)

    def end(self, status: str, start_response: Callable[..., Any]) -> NoReturn:
        """End the loop whose connection was taken. Blocks until a TLS connection is closed.

        Raises:
            ConnectionDetached: always. It is for the loop.
        """
        if self._taken is not None and self._taken.secure:
            self._taken.wait_closed()
        self._end_loop(status, start_response)

    def _refuse(self, response: Response) -> None:
        """Answer with an ordinary response instead, and end the connection: nobody knows what the client sends next."""
        head = ResponseHead(response.status, response.headers)
        top = head.frame(len(response.body), "HTTP/1.1", True, False)
        try:
            wire = self._open(top + response.body)
        except OSError:
            # it is gone, and was not told
            return
        wire.linger()

    def _open(self, first: bytes) -> Connection:
        """Take the connection, and write ``first``."""
        wire = self.take(self.read_ahead())
        try:
            wire.write(first)
        except OSError:
            wire.close()
            raise
        return wire

    def take(self, pending: bytes = b"") -> Connection:
        """Take the connection. Nothing but ``pending`` comes out of it of what has been read already."""
        wire = self._taken = Connection(detach(client_socket(self._environ)), pending)
        for key in ("gunicorn.socket", "gunicorn.sock"):
            self._environ.pop(key, None)
        return wire

    def read_ahead(self) -> bytes:
        """What the loop has read from the connection behind the head of the request. It stays where it is."""
        raise NotImplementedError

    @property
    def untouched(self) -> bool:
        """Whether the request's body is still on the connection and in :meth:`read_ahead`, all of it, and not in chunks."""
        raise NotImplementedError

    def _end_loop(self, status: str, start_response: Callable[..., Any]) -> NoReturn:
        raise NotImplementedError


class _PywsgiRelease(Release):
    """gevent's pywsgi, and what is made of it: ``-k gevent_pywsgi``."""

    def read_ahead(self) -> bytes:
        """What the buffered reader has taken from its socket."""
        return read_ahead(buffered_reader(self._environ["wsgi.input"]), client_socket(self._environ))

    @property
    def untouched(self) -> bool:
        """Whether the request's body has not been read."""
        body = self._environ["wsgi.input"]
        return type(body) is not Input or not (body.position or body.chunked_input)

    def _end_loop(self, status: str, start_response: Callable[..., Any]) -> NoReturn:
        body = self._environ["wsgi.input"]
        if type(body) is Input:
            # it would look for the rest, to discard it
            body.content_length = body.position
        # without a status it could not write its access log
        start_response(status, [])
        raise ConnectionDetached(errno.ECONNRESET, TAKEN)


class _GunicornRelease(Release):
    """gunicorn's ``-k gevent``, whose parser has read ahead."""

    def read_ahead(self) -> bytes:
        """What the parser has taken from its socket."""
        unreader = self._environ["wsgi.input"].reader.unreader
        pending: bytes = unreader.buf.getvalue()
        return pending + primed(client_socket(self._environ))

    @property
    def untouched(self) -> bool:
        """Whether the request's body has not been read."""
        body = self._environ["wsgi.input"]
        left = getattr(body.reader, "length", None)
        return left is not None and not body.buf.getvalue() and left == int(self._environ.get("CONTENT_LENGTH") or 0)

    def _end_loop(self, status: str, start_response: Callable[..., Any]) -> NoReturn:
        raise ConnectionDetached(errno.ENOTCONN, TAKEN)


def _kind_of(environ: dict[str, Any]) -> type[Release] | None:
    """Which of the loops that can let go a request came through."""
    if not isinstance(client_socket(environ), GeventSocket) or not environ["SERVER_PROTOCOL"].startswith("HTTP/1"):
        return None
    body = environ["wsgi.input"]
    # of an upgrade, pywsgi's input is its reader; werkzeug's and wsgiref's always are
    if type(body) is Input or (type(body) is BufferedReader and environ["SERVER_SOFTWARE"].startswith(PYWSGI)):
        return _PywsgiRelease
    return _GunicornRelease if hasattr(getattr(body, "reader", None), "unreader") else None
