"""The HTTP server on a listener: gevent's, with our handler, our errors, and a graceful stop.

Knows nothing of the engine: what closes the sessions is passed in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias
from wsgiref.types import WSGIApplication

import gevent
from gevent.pywsgi import WSGIServer
from gevent.socket import socket as GeventSocket

from engineio_wsgi.errors import CannotListen
from engineio_wsgi.http.arrivals import arrivals_of
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.roster import ConnectionRoster, RosteredHandler
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.forks import serve

__all__ = ["Address", "HttpServer", "StoppableServer", "TlsGate", "stop_all"]

logger = logging.getLogger("engine")

#: a port, ``(host, port)``, ``"host:port"`` or a listening socket
Address: TypeAlias = int | str | tuple[str, int] | GeventSocket


class HttpServer(WSGIServer):  # type: ignore[misc]
    """gevent's server with our handler. A client that fails in its TLS handshake is logged without a traceback.

    In a turn of the event loop it accepts few connections, and none while many wait for their first request to be served: the
    kernel keeps the others, or gives them to another worker.
    """

    #: connections that are accepted in a turn of the event loop at most; gevent's is 100
    max_accept = 16
    #: the same with TLS, whose handshake takes 1 ms and more
    max_accept_tls = 2

    def __init__(self, listener: Address, application: WSGIApplication, **options: object) -> None:
        options.setdefault("handler_class", WebSocketHandler)
        options.setdefault("log", None)
        self._given_address = listener
        self._arrivals = arrivals_of(gevent.get_hub())
        super().__init__(("", listener) if isinstance(listener, int) else listener, application, **options)
        if self.ssl_enabled:
            self.max_accept = min(self.max_accept, self.max_accept_tls)

    def do_read(self) -> object:
        """Called by gevent to accept a connection. Returns ``None`` if none waits, or it has to wait."""
        return None if self._arrivals.is_full else super().do_read()

    def listen(self) -> None:
        """Bind the address, and start to accept connections. Does not block.

        Raises:
            CannotListen: the address cannot be used; an ``OSError``.
        """
        try:
            self.start()
        except OSError as error:
            raise CannotListen(error, self._given_address) from None

    def start_accepting(self) -> None:
        """Called by gevent when the server starts."""
        serve(self.socket)
        super().start_accepting()

    def wrap_socket_and_handle(self, client_socket: GeventSocket, address: object) -> object:
        """Called by gevent for each TLS connection."""
        return TlsGate(super().wrap_socket_and_handle)(client_socket, address)


class TlsGate:
    """Calls a server's handler of TLS connections. A client that fails in its handshake is no error of the server."""

    def __init__(self, handle: Callable[[GeventSocket, object], object]) -> None:
        self._handle = handle

    def __call__(self, sock: GeventSocket, address: object) -> object:
        try:
            return self._handle(sock, address)
        except OSError as error:
            logger.debug("= %s: no TLS connection: %s", address, error)
            return None


class StoppableServer(HttpServer):
    """An HTTP server that knows which of its connections wait for a request, and ends without cutting off another.

    Its ``roster`` has the connections.
    """

    def __init__(self, listener: Address, application: WSGIApplication, **options: object) -> None:
        self.roster = ConnectionRoster()
        options.setdefault("handler_class", RosteredHandler)
        super().__init__(listener, application, **options)

    def stop_gracefully(self, timeout: float, close_sessions: Callable[[float], None]) -> None:
        """Close the sessions, accept no more connections, and wait for the requests that are being answered. Blocks.

        Args:
            timeout: seconds for all of it.
            close_sessions: called with the seconds that sessions have to fetch what waits for them.
        """
        stop_all([self], timeout, close_sessions)


def stop_all(servers: Sequence[StoppableServer], timeout: float, close_sessions: Callable[[float], None]) -> None:
    """As :meth:`StoppableServer.stop_gracefully`, for several servers of the same sessions. Blocks."""
    deadline = monotonic() + timeout
    # clients that poll may have to connect again before it is their session's turn
    close_sessions(timeout)
    for server in servers:
        server.close()
    left = max(0.0, deadline - monotonic())
    for server in servers:
        server.roster.stop(left)
    for server in servers:
        server.roster.wait(max(0.0, deadline - monotonic()))
