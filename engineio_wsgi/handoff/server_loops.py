"""The server loops that a connection can be taken out of: each implements `Detachable`.

Owns the knowledge of how a loop lets go of a connection: where it keeps the socket, what it has read ahead, and how it ends
without another byte, a shutdown or a line in a log. The loops are those of our own handler, of gevent's pywsgi (and gunicorn's
``-k gevent_pywsgi``), of gunicorn's ``-k gevent``, and of gevent-websocket.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from functools import cached_property
from io import BufferedReader
from typing import NoReturn
from wsgiref.types import StartResponse, WSGIEnvironment

from gevent.socket import socket as GeventSocket
from geventwebsocket.websocket import WebSocket as PlainWebSocket

from engineio_wsgi.errors import ConnectionDetached
from engineio_wsgi.handoff.client_socket import client_socket, primed
from engineio_wsgi.handoff.listening import accepted_by
from engineio_wsgi.handoff.rebuilt_head import rebuild_head
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.protocol.websocket.handshake import asks_for_websocket
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.vendors import gevent_servers, geventwebsocket_sockets, gunicorn_workers
from engineio_wsgi.vendors.gevent_sockets import is_tls

__all__ = ["DETACHED", "HANDED_OVER", "NO_NAMES", "THREAD_LOOP", "OwnLoop", "PlainWebSocketLoop", "ServerLoop", "kind_of_loop",
           "loop_of", "read_ahead"]

#: the names of a server that is not known
NO_NAMES = ("", "")
#: the status in the access log of a loop whose request is answered elsewhere
HANDED_OVER = "000 Handed over"
#: the head of a handshake for a WebSocket: the environ goes beside it to the other worker, so only the form matters
HANDSHAKE = b"GET / HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
#: in the environ of a request that came in a plain thread and asks for a WebSocket: its loop
THREAD_LOOP = "engineio.thread_loop"
DETACHED = "the connection was taken from this server's loop, which ends here; this is no error"


def read_ahead(reader: BufferedReader, sock: GeventSocket) -> bytes:
    """The bytes that a buffered reader has read from its socket and not returned yet. They stay there. Does not block."""
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        return bytes(reader.peek(1)) + primed(sock)
    except OSError:
        return b""
    finally:
        sock.settimeout(timeout)


class OwnLoop:
    """The loop of our own handler, which has kept the request's bytes.

    Args:
        handler: that has read the request.
        request: its bytes, and those that were read after it.
        listener: see `Detachable`.
    """

    accepted = False

    def __init__(self, handler: WebSocketHandler, request: bytes, listener: tuple[str, str]) -> None:
        self._handler = handler
        self._request = request
        self.listener = listener
        self.sock = handler.socket
        self.secure = is_tls(handler.socket)
        # the client of a Unix socket has no address
        self.address = handler.client_address if isinstance(handler.client_address, tuple) else ""

    def as_read(self) -> bytes:
        """See `Detachable`."""
        return self._request

    def detach(self, pending: bytes = b"") -> Connection:
        """See `Detachable`."""
        return self._handler.detach(pending)

    def end(self, start_response: StartResponse | None) -> Iterable[bytes]:
        """See `Detachable`. The handler knows that it has nothing to send, and waits for a TLS connection to close."""
        return []


class ServerLoop:
    """A loop that keeps only the environ of a request's head.

    Args:
        environ: of the request.
        listener: see `Detachable`.
    """

    accepted = False

    def __init__(self, environ: WSGIEnvironment, listener: tuple[str, str] = NO_NAMES) -> None:
        self._environ = environ
        self._detached: Connection | None = None
        self.listener = listener
        self.sock = client_socket(environ)
        self.secure = is_tls(self.sock)

    @property
    def address(self) -> object:
        """The client's address: the one that ``accept`` returned, whatever a middleware has put into the environ."""
        accepted = accepted_by(self._environ)
        return accepted.address if accepted is not None and isinstance(accepted.address, tuple) else ""

    @property
    def is_whole(self) -> bool:
        """Whether the request can be handed over: its head can be rebuilt, and its body has not been read."""
        return self._is_untouched() and self._head is not None

    @cached_property
    def _head(self) -> bytes | None:
        return HANDSHAKE if asks_for_websocket(self._environ) else rebuild_head(self._environ)

    def as_read(self) -> bytes:
        """See `Detachable`. Only where the request :attr:`is_whole`."""
        assert self._head is not None
        return self._head + self.read_ahead()

    def detach(self, pending: bytes = b"") -> Connection:
        """See `Detachable`."""
        connection = self._detached = Connection(detach(self.sock), pending)
        for key in ("gunicorn.socket", "gunicorn.sock"):
            self._environ.pop(key, None)
        return connection

    def end(self, start_response: StartResponse | None, status: str = HANDED_OVER) -> Iterable[bytes]:
        """See `Detachable`.

        Args:
            status: for the access log.

        Raises:
            ConnectionDetached: in the loops of gevent's servers, always. It is for the loop.
        """
        assert start_response is not None
        if self._detached is not None and self._detached.secure:
            self._detached.wait_closed()
        self._end(start_response, status)

    def read_ahead(self) -> bytes:
        """What the loop has read from the connection after the head of the request. It stays where it is."""
        raise NotImplementedError

    def _is_untouched(self) -> bool:
        """Whether all of the request's body is still on the connection or in :meth:`read_ahead`, and it is not in chunks."""
        raise NotImplementedError

    def _end(self, start_response: StartResponse, status: str) -> NoReturn:
        """Raise the exception that ends the loop without a line in a log."""
        raise NotImplementedError


class PywsgiLoop(ServerLoop):
    """The loop of gevent's pywsgi, which gunicorn's ``-k gevent_pywsgi`` has as well."""

    def read_ahead(self) -> bytes:
        """What the buffered reader has read from its socket."""
        return read_ahead(gevent_servers.buffered_reader(self._environ["wsgi.input"]), self.sock)

    def _is_untouched(self) -> bool:
        return gevent_servers.is_untouched(self._environ["wsgi.input"])

    def _end(self, start_response: StartResponse, status: str) -> NoReturn:
        gevent_servers.skip_body(self._environ["wsgi.input"])
        # without a status it could not write its access log
        start_response(status, [])
        raise ConnectionDetached(errno.ECONNRESET, DETACHED)


class GunicornLoop(ServerLoop):
    """The loop of gunicorn's ``-k gevent``, whose parser reads ahead."""

    def read_ahead(self) -> bytes:
        """What the parser has read from its socket."""
        return gunicorn_workers.read_ahead(self._environ["wsgi.input"]) + primed(self.sock)

    def _is_untouched(self) -> bool:
        return gunicorn_workers.is_untouched(self._environ["wsgi.input"], int(self._environ.get("CONTENT_LENGTH") or 0))

    def _end(self, start_response: StartResponse, status: str) -> NoReturn:
        raise ConnectionDetached(errno.ENOTCONN, DETACHED)


class PlainWebSocketLoop:
    """The loop of gevent-websocket's handler, which has accepted a WebSocket.

    Args:
        websocket: gevent-websocket's.
    """

    accepted = True
    listener = NO_NAMES
    #: gevent-websocket's handler does not pass it on
    address = ""

    def __init__(self, websocket: PlainWebSocket) -> None:
        self._websocket = websocket
        self._detached: Connection | None = None
        self.sock = geventwebsocket_sockets.socket_of(websocket)
        self.secure = is_tls(self.sock)

    def as_read(self) -> bytes:
        """See `Detachable`. The handshake has been answered: only what came after it."""
        return read_ahead(geventwebsocket_sockets.reader_of(self._websocket), self.sock)

    def detach(self, pending: bytes = b"") -> Connection:
        """See `Detachable`."""
        geventwebsocket_sockets.mark_closed(self._websocket)
        self._detached = Connection(detach(self.sock), pending)
        return self._detached

    def end(self, start_response: StartResponse | None = None) -> Iterable[bytes]:
        """See `Detachable`. The handler sees a WebSocket that is closed."""
        if self._detached is not None and self._detached.secure:
            self._detached.wait_closed()
        return []


def loop_of(environ: WSGIEnvironment, names: tuple[str, str] = NO_NAMES) -> ServerLoop | None:
    """The loop that a request of a server without WebSockets came through; ``None`` if it cannot detach a connection."""
    if THREAD_LOOP in environ:
        loop: ServerLoop = environ[THREAD_LOOP]
        return loop
    kind = kind_of_loop(environ)
    return None if kind is None else kind(environ, names)


def kind_of_loop(environ: WSGIEnvironment) -> type[ServerLoop] | None:
    """The class of what :func:`loop_of` returns."""
    if not isinstance(client_socket(environ), GeventSocket) or not environ["SERVER_PROTOCOL"].startswith("HTTP/1"):
        return None
    body = environ["wsgi.input"]
    if gevent_servers.is_pywsgi_input(body, environ["SERVER_SOFTWARE"]):
        return PywsgiLoop
    return GunicornLoop if gunicorn_workers.is_gunicorn_input(body) else None
