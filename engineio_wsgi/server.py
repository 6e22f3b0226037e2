"""`Server`: the engine with its ways in. Owns the HTTP servers that it listens on; everything else is `Engine`'s."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.socket import MSG_PEEK

from engineio_wsgi.cluster.router import Cluster
from engineio_wsgi.deadline import Deadline
from engineio_wsgi.emitter import Emitter
from engineio_wsgi.engine.engine import Engine
from engineio_wsgi.engine.middleware import Application, Middleware, not_implemented
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.options.options import from_environ
from engineio_wsgi.runtime.forks import serve
from engineio_wsgi.transports.flashsocket import POLICY_FILE, POLICY_REQUEST

__all__ = ["HttpServer", "Server", "attach", "listen"]

logger = logging.getLogger("engine")

#: seconds that a connection which began like a policy request has for the rest of it
POLICY_TIMEOUT = 5.0


class HttpServer(WSGIServer):  # type: ignore[misc]
    """gevent's server, with our handler, and without a traceback for each client that fails in its TLS handshake."""

    def __init__(self, listener: Any, application: Application, **options: Any) -> None:
        options.setdefault("handler_class", WebSocketHandler)
        options.setdefault("log", None)
        super().__init__(listener, application, **options)

    def start_accepting(self) -> None:
        """What gevent calls when the server starts."""
        serve(self.socket)
        super().start_accepting()

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> object:
        """What gevent calls for each TLS connection."""
        return _TlsGate(super().wrap_socket_and_handle)(client_socket, address)


class _TlsGate:
    """A server's handler of TLS connections. A client that fails in its handshake is no failure of the server's."""

    def __init__(self, handle: Callable[[Any, Any], object]) -> None:
        self._handle = handle

    def __call__(self, sock: Any, address: Any) -> object:
        try:
            return self._handle(sock, address)
        except OSError as error:
            logger.debug("= %s: no TLS connection: %s", address, error)
            return None


class Server(Engine):
    """An Engine.IO server.

    Args:
        options: see the option table of the documentation; every one can be read back from ``server.options``.

    Raises:
        ConfigurationError: an unknown option, a wrong type, an impossible value.

    Example::

        server = Server(ping_interval=25, ping_timeout=20)

        @server.on("connection")
        def connected(socket):
            socket.send("hello")

        app = server.wrap(flask_app)
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._http: WSGIServer | None = None
        self._ended = Event()

    def start_anew(self, served: bool) -> None:
        """See :class:`Registry`. What :meth:`listen` has started is the parent's."""
        super().start_anew(served)
        self._http = None
        self._ended = Event()

    @classmethod
    def from_environ(cls, **defaults: Any) -> Self:
        """A server whose options come from ``ENGINEIO_…`` environment variables; ``defaults`` hold where there is none.

        Raises:
            ConfigurationError: a variable that is no option, or whose text is no value of it.
        """
        return cls(**{**defaults, **from_environ(os.environ)})

    @property
    def cluster(self) -> Cluster | Emitter | None:
        """This worker and the others; ``None`` without the option.

        In a greenlet, this process is a worker from now on. In a plain thread before the first request, and in a process that
        was forked from a worker, it is none: an :class:`Emitter` then, which reaches the workers from outside and keeps nothing
        open.
        """
        reached = self._reach()
        assert reached is None or isinstance(reached, (Cluster, Emitter))
        return reached

    def _join(self, group: str) -> Cluster:
        return Cluster(self, group)

    def _outside(self, group: str) -> Emitter:
        return Emitter(group, self.options.path)

    def wrap(self, application: Application) -> Middleware:
        """``application``, with the engine in front of it: a WSGI application for any server of gevent's."""
        return Middleware(application, self)

    def attach(self, http_server: WSGIServer) -> Server:
        """Serve the engine's path on a server that exists already, before or after it was started.

        Its handler becomes :class:`WebSocketHandler`, unless it has one of gevent-websocket's already.
        """
        http_server.application = self.wrap(http_server.application)
        if not hasattr(http_server.handler_class, "upgrade_websocket"):
            http_server.handler_class = WebSocketHandler
        if not isinstance(http_server, HttpServer):
            http_server.wrap_socket_and_handle = _TlsGate(http_server.wrap_socket_and_handle)
        if self.options.policy_file:
            http_server.set_handle(_PolicyGate(self, http_server.handle))
        return self

    def listen(self, address: Any, **server_options: Any) -> Server:
        """Listen on ``address`` (a port, ``(host, port)``, ``"host:port"`` or a listening socket) and start.

        Requests outside of the path get 501. ``server_options`` (``ssl_context``, ``spawn``, …) are gevent's.

        Raises:
            OSError: the address cannot be used.
        """
        address = ("", address) if isinstance(address, int) else address
        self._http = HttpServer(address, not_implemented, **server_options)
        self.attach(self._http)
        self._enter_hub()
        self._http.start()
        return self

    @property
    def address(self) -> Any:
        """The address that :meth:`listen` got, with the port that was chosen if it was 0; ``None`` before."""
        return None if self._http is None else self._http.address

    def serve_forever(self) -> None:
        """Block until :meth:`close` has been called and is done.

        Raises:
            RuntimeError: :meth:`listen` was not called.
        """
        if self._http is None:
            raise RuntimeError("nothing to serve: call listen(address) first")
        self._http.serve_forever()
        # it returns as soon as nothing is accepted any more; the sessions still have something to fetch
        self._ended.wait()

    def _close_all(self, timeout: float) -> None:
        """An HTTP server that :meth:`listen` started stops accepting first, and ends last."""
        if self._http is not None:
            self._http.close()
        super()._close_all(timeout)
        if self._http is not None:
            self._http.stop(timeout=1.0)
        self._ended.set()

    def handle_socket(self, sock: Any) -> bool:
        """Answer a Flash policy request on a raw TCP socket, if it is one and ``policy_file`` is set.

        Looks at the first bytes without taking them. Blocks until they have arrived. Returns whether it was one; the
        connection is then done with.
        """
        if not self.options.policy_file or not _starts_like_policy_request(sock):
            return False
        if _receive(sock, len(POLICY_REQUEST)) == POLICY_REQUEST:
            with suppress(TimeoutError):
                sock.sendall(POLICY_FILE)
        return True


class _PolicyGate:
    """A server's connection handler, behind the engine's look at the first bytes."""

    def __init__(self, server: Server, handle: Callable[[Any, Any], object]) -> None:
        self._server = server
        self._handle = handle

    def __call__(self, sock: Any, address: Any) -> object:
        try:
            if self._server.handle_socket(sock):
                return None
        except OSError as error:
            logger.debug("= %s left: %s", address, error)
            return None
        return self._handle(sock, address)


def _starts_like_policy_request(sock: Any) -> bool:
    """No HTTP method starts with ``<``, so one byte tells."""
    return bool(sock.recv(1, MSG_PEEK) == POLICY_REQUEST[:1])


def _receive(sock: Any, size: int) -> bytes:
    """The next ``size`` bytes, or those that come in time. The socket keeps the timeout."""
    received = b""
    deadline = Deadline(POLICY_TIMEOUT)
    while len(received) < size and not deadline.has_passed():
        sock.settimeout(deadline.left or POLICY_TIMEOUT)
        with suppress(TimeoutError):
            chunk = sock.recv(size - len(received))
            if not chunk:
                break
            received += chunk
    return received


def listen(address: Any, **options: Any) -> Server:
    """The smallest server: listens on ``address``, answers 501 to everything outside of the path."""
    return Server(**options).listen(address)


def attach(http_server: WSGIServer, **options: Any) -> Server:
    """A new :class:`Server` on an HTTP server that exists already."""
    return Server(**options).attach(http_server)
