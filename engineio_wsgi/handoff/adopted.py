"""Connections that another loop or another process has accepted, served by our own handler.

Owns the greenlets of such connections. Knows nothing of where a connection comes from, and nothing of the engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gevent
from gevent import socket as gevent_socket
from gevent.pywsgi import LoggingLogAdapter, SecureEnviron

from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.roster import ConnectionRoster, RosteredHandler
from engineio_wsgi.runtime.forks import hold, serve

__all__ = ["Adopter", "ConnectionAdopter"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _AdoptedHandler(RosteredHandler):
    """Serves one adopted connection."""

    #: what the environ of its requests holds instead of the server's
    origin: Mapping[str, Any]
    #: what answers the one request of this connection, if it is not the server's application
    instead: Application | None = None

    def get_environ(self) -> dict[str, Any]:
        """The environ of a request, as if it had been accepted here."""
        environ = super().get_environ()
        environ.update(self.origin)
        return environ

    def run_application(self) -> None:
        """Have the request answered."""
        if self.instead is not None:
            self.application = self.instead
            self.close_connection = True
        super().run_application()


class ConnectionAdopter:
    """What an :class:`Adopter` is, but for what it serves: a subclass has what a handler looks for on its ``WSGIServer``.

    Args:
        handler_class: a subclass of :class:`WebSocketHandler`, to set other limits or another log format.
    """

    def __init__(self, handler_class: type[WebSocketHandler]) -> None:
        self.roster = ConnectionRoster()
        self._handler_class: type[_AdoptedHandler] = type("AdoptedHandler", (_AdoptedHandler, handler_class), {})

    def adopt(self, sock: Any, address: Any, *, read_ahead: bytes = b"", environ: Mapping[str, Any] | None = None,
              instead: Application | None = None) -> gevent.Greenlet:
        """Serve a connection until it ends, in a greenlet of its own. Does not block.

        Args:
            sock: a connected gevent or stdlib socket (not a TLS one), or the number of its file descriptor. It belongs to
                this object from now on.
            address: the client's, as ``accept`` would have returned it.
            read_ahead: what has been read from the connection already.
            environ: what the environs of this connection's requests hold instead of this server's: ``wsgi.url_scheme``,
                ``SERVER_NAME``, ``SERVER_PORT``.
            instead: answers the first request in the place of the server's application. The connection ends with it.
        """
        number = sock if isinstance(sock, int) else sock.detach()
        connection = gevent_socket.socket(fileno=number)
        serve(connection)
        if connection.family == gevent_socket.AF_UNIX:
            hold(connection)  # it may be one of a pair
        handler = self._handler_class(connection, address, self)
        handler.read_ahead = read_ahead
        handler.origin = environ or {}
        handler.instead = instead
        # counted from now on, not only when the greenlet runs
        self.roster.begin(handler)
        return self._spawn(handler.handle)

    def _spawn(self, function: Callable[[], object]) -> gevent.Greenlet:
        return gevent.spawn(function)

    def close(self, timeout: float) -> bool:
        """Adopt nothing more, end waiting connections, and let the requests that are under way be answered.

        Blocks for ``timeout`` seconds at most. Returns whether all connections have ended.
        """
        self.roster.stop(timeout)
        return self.roster.wait(timeout)


class Adopter(ConnectionAdopter):
    """A server without a listener: connections are given to it.

    It stands where the handler expects its ``WSGIServer``, and a handler sees nothing that is different.

    Args:
        application: the WSGI application, middlewares and all.
        log: where access-log lines go: something with ``write``, a ``logging.Logger``, or ``None`` for nowhere.
        error_log: the same for what is wrong with an application; ``None`` for stderr.
        environ: what every request's environ holds beside what is the request's own.
        handler_class: a subclass of :class:`WebSocketHandler`, to set other limits or another log format.
        limit: connections at a time; a WebSocket that was handed to its session does not count.

    Example::

        adopter = Adopter(application, limit=1000)
        adopter.adopt(sock, ("203.0.113.9", 5021), read_ahead=b"GET / HTTP/1.1", environ={"SERVER_NAME": "example.org"})
    """

    environ_class = dict
    secure_environ_class = SecureEnviron

    def __init__(self, application: Application, *, log: Any = None, error_log: Any = None,
                 environ: Mapping[str, Any] | None = None, handler_class: type[WebSocketHandler] = WebSocketHandler,
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
    def loop(self) -> Any:
        """The event loop; the handler reports failures of the application to it."""
        return gevent.get_hub().loop

    @property
    def full(self) -> bool:
        """Whether another connection would be one too many, or come too late."""
        return self.roster.stopping or (self._limit is not None and len(self.roster) >= self._limit)

    def get_environ(self) -> dict[str, Any]:
        """What a request's environ starts from."""
        return dict(self._environ)


def _as_stream(log: Any) -> Any:
    """Something with ``write``, or ``None``."""
    return LoggingLogAdapter(log) if hasattr(log, "log") and not hasattr(log, "write") else log
