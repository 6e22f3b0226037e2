"""The HTTP server on a listener: gevent's, with our handler, our errors, and a graceful stop.

Knows nothing of the engine: what closes the sessions is passed in.
"""

from __future__ import annotations

import logging
from _socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_NODELAY, socket
from collections.abc import Callable, Sequence
from typing import TypeAlias
from wsgiref.types import WSGIApplication

import gevent
from gevent.pywsgi import WSGIServer
from gevent.socket import socket as GeventSocket

from engineio_wsgi.errors import CannotListen
from engineio_wsgi.http.arrivals import arrivals_of
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.lane_handler import begins_in_hub
from engineio_wsgi.http.lane_ports import LaneEngine
from engineio_wsgi.http.roster import ConnectionRoster, RosteredHandler
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.forks import serve
from engineio_wsgi.vendors.gevent_sockets import accept_c_socket

__all__ = ["Address", "HttpServer", "StoppableServer", "TlsGate", "stop_all"]

logger = logging.getLogger("engine")

#: the families of listeners whose connections may be served in the hub: a forked child tells them by their address
INET = (AF_INET, AF_INET6)

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
        self._has_own_spawn = "spawn" in options
        #: whether new connections need no greenlet as long as their requests go over the lane
        self._begins_in_hub = False
        #: an engine, and the application through which its requests have reached it without passing anything else
        self._reached: tuple[WSGIApplication, LaneEngine] | None = None
        super().__init__(("", listener) if isinstance(listener, int) else listener, application, **options)
        if self.ssl_enabled:
            self.max_accept = min(self.max_accept, self.max_accept_tls)

    def listen(self) -> None:
        """Bind the address, and start to accept connections. Does not block.

        Raises:
            CannotListen: the address cannot be used; an ``OSError``.
        """
        try:
            self.start()
        except OSError as error:
            raise CannotListen(error, self._given_address) from None

    def note_engine(self, engine: LaneEngine) -> None:
        """A request has reached ``engine`` and passed nothing else: the first ones of other connections may go over the lane."""
        self._reached = self.application, engine
        # nothing may have to know the greenlet of each connection
        self._begins_in_hub = (not self._has_own_spawn and not self.ssl_enabled and "handle" not in vars(self)
                               and not self.closed and self.socket.family in INET
                               and begins_in_hub(self.handler_class, self.log))

    @property
    def lane_engine(self) -> LaneEngine | None:
        """That engine; ``None`` if there is none, or the application is another one now."""
        if self._reached is None or self._reached[0] is not self.application:
            return None
        return self._reached[1]

    def do_read(self) -> tuple[socket, object] | None:
        """Called by gevent to accept a connection. Returns its socket, and the client's address; ``None`` if none is to be served
        now.
        """
        if self._arrivals.is_full:
            return None
        if self._begins_in_hub and self.lane_engine is not None:
            return accept_c_socket(self.socket)
        accepted: tuple[socket, object] | None = super().do_read()
        return accepted

    def do_handle(self, sock: socket, address: object) -> None:
        """Called by gevent with an accepted connection."""
        if isinstance(sock, GeventSocket):
            super().do_handle(sock, address)
            return
        handler: WebSocketHandler = self.handler_class(None, address, self)
        # the application gets the greenlets that it would have got
        handler.begin_in_hub(sock, self._spawn or gevent.spawn)

    def start_accepting(self) -> None:
        """Called by gevent when the server starts."""
        serve(self.socket)
        if self.socket.family in INET:
            # accepted sockets inherit it
            self.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
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
