"""Connections that somebody else has accepted, another loop or another process, served by our own handler.

Owns the greenlets of such connections, their number, and how a server's connections end without a request being cut off.
Knows nothing of where a connection comes from, and nothing of the engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gevent
from gevent import socket as gevent_socket
from gevent.event import Event
from gevent.pywsgi import LoggingLogAdapter, SecureEnviron

from engineio_wsgi.clock import monotonic
from engineio_wsgi.deadline import Deadline, DeadlineTimer
from engineio_wsgi.http.connection import HttpConnection
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.runtime.forks import hold, serve

__all__ = ["Adopter", "ConnectionAdopter", "ConnectionRoster", "RosteredHandler"]

#: seconds for which a connection is kept for another request, when its server stops: whoever sends one so soon after the last
#: answer, or after connecting, has not seen yet that the connection ends
KEPT_PERIOD = 1.0

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class ConnectionRoster:
    """The HTTP connections of one server: which wait for a request, and which are answering one.

    A connection that became a session's WebSocket is not here any more, except for a TLS one.
    """

    def __init__(self) -> None:
        #: since when they have waited, on the monotonic clock
        self._idle: dict[RosteredHandler, float] = {}
        self._busy: set[RosteredHandler] = set()
        self._left = Event()
        #: whether a connection ends with the response that is under way
        self.stopping = False
        self._kept_period = KEPT_PERIOD

    def __len__(self) -> int:
        return len(self._idle) + len(self._busy)

    def enter(self, handler: RosteredHandler) -> None:
        """A connection has been accepted, or waits for its next request."""
        self._busy.discard(handler)
        self._idle[handler] = monotonic()
        if self.stopping:
            self._end_after(self._kept_period, handler)

    def begin(self, handler: RosteredHandler) -> None:
        """A request has been read."""
        self._idle.pop(handler, None)
        self._busy.add(handler)

    def leave(self, handler: RosteredHandler) -> None:
        """A connection is done with."""
        self._idle.pop(handler, None)
        self._busy.discard(handler)
        self._left.set()

    def stop(self, timeout: float) -> None:
        """End each connection with its next response, or when none is asked for. Does not block.

        A connection on which no request has begun is closed when it has been idle for :data:`KEPT_PERIOD`. A request that
        has arrived by then, even in part, is answered.

        Args:
            timeout: seconds that the server has to end. Connections are kept for half of it at most.
        """
        self.stopping = True
        self._kept_period = min(KEPT_PERIOD, timeout / 2)
        now = monotonic()
        for handler, since in list(self._idle.items()):
            self._end_after(since + self._kept_period - now, handler)

    def _end_after(self, seconds: float, handler: RosteredHandler) -> None:
        DeadlineTimer(gevent.get_hub().loop, seconds, self._end, handler)

    def _end(self, handler: RosteredHandler) -> None:
        if handler in self._idle:
            handler.hang_up()

    def wait(self, timeout: float) -> bool:
        """Block until no connection is left; ``False`` when ``timeout`` seconds passed first."""
        deadline = Deadline(timeout)
        while len(self) and not deadline.has_passed():
            self._left.clear()
            self._left.wait(deadline.left)
        return not len(self)


class RosteredHandler(WebSocketHandler):
    """A handler whose server has a ``roster``, and can therefore be stopped gracefully."""

    def handle(self) -> None:
        """Serve the connection until it ends. Blocks."""
        roster: ConnectionRoster = self.server.roster
        roster.enter(self)
        try:
            super().handle()
        finally:
            roster.leave(self)

    def handle_one_response(self) -> None:
        """Answer one request."""
        roster: ConnectionRoster = self.server.roster
        roster.begin(self)
        super().handle_one_response()
        if roster.stopping:
            self.close_connection = True
        elif not self.close_connection:
            roster.enter(self)

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        """PEP 3333's ``start_response``. Only now is it known whether the server is about to stop."""
        if self.server.roster.stopping:
            self.close_connection = True
        return super().start_response(status, headers, exc_info)

    def _leave(self, connection: HttpConnection) -> None:
        """The greenlet ends, once the client has got what was written last: it does not wait for a request any more."""
        self.server.roster.begin(self)
        super()._leave(connection)

    def hang_up(self) -> None:
        """End the wait for a request; one that has arrived already, or has begun to, is still answered."""
        self._connection.stop_waiting()


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
