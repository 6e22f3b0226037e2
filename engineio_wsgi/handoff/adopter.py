"""Connections that another server loop or another process has accepted, served by our own handler.

Owns the greenlets of such connections. Knows nothing of where a connection comes from, and nothing of the engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from wsgiref.types import WSGIApplication, WSGIEnvironment

import gevent
from gevent import socket as gevent_socket
from gevent.pywsgi import LoggingLogAdapter, SecureEnviron

from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.roster import ConnectionRoster, RosteredHandler
from engineio_wsgi.runtime.forks import hold, serve
from engineio_wsgi.runtime.loop import IoLoop

__all__ = ["Adopter", "ConnectionAdopter"]


class _AdoptedHandler(RosteredHandler):
    """Serves one adopted connection. For the arguments see :meth:`ConnectionAdopter.adopt`."""

    #: what it adds to an environ is the same for all requests of the connection
    lane = True

    def __init__(self, sock: gevent_socket.socket, address: object, adopter: ConnectionAdopter, *, read_ahead: bytes,
                 origin: Mapping[str, object], instead: WSGIApplication | None) -> None:
        super().__init__(sock, address, adopter)
        self.read_ahead = read_ahead
        #: values that the environs of its requests have instead of the server's
        self.origin = origin
        self._instead = instead

    def get_environ(self) -> WSGIEnvironment:
        """The environ of a request, as the server that has accepted the connection would have made it."""
        environ = super().get_environ()
        environ.update(self.origin)
        return environ

    def run_application(self) -> None:
        """Have the request answered."""
        if self._instead is not None:
            self.application = self._instead
            self.close_connection = True
        super().run_application()


class ConnectionAdopter:
    """Adopts connections; a subclass has the attributes that a handler reads from its ``WSGIServer``.

    Args:
        handler_class: a subclass of :class:`WebSocketHandler`, to set other limits or another log format.
    """

    def __init__(self, handler_class: type[WebSocketHandler]) -> None:
        self.roster = ConnectionRoster()
        self._handler_class: type[_AdoptedHandler] = type("AdoptedHandler", (_AdoptedHandler, handler_class), {})

    def adopt(self, sock: gevent_socket.socket | int, address: object, *, read_ahead: bytes = b"",
              environ: Mapping[str, object] | None = None, instead: WSGIApplication | None = None) -> gevent.Greenlet:
        """Serve a connection until it ends, in a greenlet of its own. Does not block.

        Args:
            sock: a connected gevent or standard-library socket (not a TLS one), or the number of its file descriptor.
                It belongs to this object from now on.
            address: the client's address, as ``accept`` has returned it.
            read_ahead: bytes that have been read from the connection already.
            environ: values that the environs of this connection's requests have instead of this server's:
                ``wsgi.url_scheme``, ``SERVER_NAME``, ``SERVER_PORT``.
            instead: answers the first request in the place of the server's application. The connection ends with it.
        """
        number = sock if isinstance(sock, int) else sock.detach()
        connection = gevent_socket.socket(fileno=number)
        serve(connection)
        if connection.family == gevent_socket.AF_UNIX:
            hold(connection)  # it may be one of a pair
        handler = self._handler_class(connection, address, self, read_ahead=read_ahead, origin=environ or {}, instead=instead)
        # counted from now on, not only when the greenlet runs
        self.roster.begin(handler)
        return self._spawn(handler.handle)

    def _spawn(self, function: Callable[[], object]) -> gevent.Greenlet:
        return gevent.spawn(function)

    def close(self, timeout: float) -> bool:
        """Adopt nothing more, close idle connections, and let the requests that are under way be answered.

        Blocks for ``timeout`` seconds at most. Returns whether all connections have ended.
        """
        self.roster.stop(timeout)
        return self.roster.wait(timeout)


class Adopter(ConnectionAdopter):
    """A server without a listener: connections are given to it.

    It takes the place of the ``WSGIServer`` that the handler expects.

    Args:
        application: the WSGI application, middlewares included.
        log: where access-log lines go: something with ``write``, a ``logging.Logger``, or ``None`` for nowhere.
        error_log: the same for failures of the application; ``None`` for stderr.
        environ: values that the environ of every request has.
        handler_class: a subclass of :class:`WebSocketHandler`, to set other limits or another log format.
        limit: number of connections at a time; a session's WebSocket does not count.

    Example::

        adopter = Adopter(application, limit=1000)
        adopter.adopt(sock, ("203.0.113.9", 5021), read_ahead=b"GET / HTTP/1.1", environ={"SERVER_NAME": "example.org"})
    """

    environ_class = dict
    secure_environ_class = SecureEnviron

    def __init__(self, application: WSGIApplication, *, log: object = None, error_log: object = None,
                 environ: Mapping[str, object] | None = None, handler_class: type[WebSocketHandler] = WebSocketHandler,
                 limit: int | None = None) -> None:
        super().__init__(handler_class)
        self.application = application
        self.log = _as_stream(log)
        self.error_log = sys.stderr if error_log is None else _as_stream(error_log)
        self._limit = limit
        self._environ = {
            "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.errors": self.error_log, "wsgi.multithread": False,
            "wsgi.multiprocess": True, "wsgi.run_once": False, "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_SOFTWARE": "engineio-wsgi", "SERVER_NAME": "", "SERVER_PORT": "", "SCRIPT_NAME": "",
            **(environ or {}),
        }  # fmt: skip

    @property
    def loop(self) -> IoLoop:
        """The event loop, to which the handler reports failures of the application."""
        loop: IoLoop = gevent.get_hub().loop
        return loop

    @property
    def full(self) -> bool:
        """Whether no more connections are taken: there are too many, or it is closing."""
        return self.roster.stopping or (self._limit is not None and len(self.roster) >= self._limit)

    def get_environ(self) -> WSGIEnvironment:
        """The environ that every request starts with."""
        return dict(self._environ)


def _as_stream(log: object) -> object:
    """A log as something with ``write``, or ``None``."""
    return LoggingLogAdapter(log) if hasattr(log, "log") and not hasattr(log, "write") else log
