"""The WSGI middleware: requests under the server's path go to the server, all others to the application."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.http.lane import keeps_lane
from engineio_wsgi.log import Throttle
from engineio_wsgi.options.options import Options
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["Middleware", "WrappingServer", "not_implemented"]

logger = logging.getLogger("engine")
_throttle = Throttle()


class WrappingServer(Protocol):
    """What a middleware needs of its server."""

    _worker: Worker

    @property
    def options(self) -> Options:
        """The options."""
        ...

    def handle_request(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request under the server's path."""
        ...


class Middleware:
    """A WSGI application that serves ``server`` under its path and ``application`` everywhere else.

    Example::

        app = Middleware(flask_app, server)
    """

    def __init__(self, application: WSGIApplication, server: WrappingServer) -> None:
        self.application = application
        self.server = server
        self._worker = server._worker
        self._resource = server.options.resource
        self._upgrade_timeout = server.options.destroy_upgrade_timeout if server.options.destroy_upgrade else None
        #: whether it does nothing with the requests of sessions but to pass them on
        self.lane = keeps_lane(type(self), Middleware, frozenset(("__call__",)))
        #: the same for handshakes and the first requests of connections
        self.first_lane = keeps_lane(type(self), Middleware, frozenset(("__call__",)), "first_lane")
        self._worker.on_wrapped(self)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if environ.get("PATH_INFO", "").startswith(self._resource):
            return self.server.handle_request(environ, start_response)
        if environ.get("SERVER_PORT") != self._worker.port:
            self._worker.note_listener(environ)
        if "HTTP_UPGRADE" in environ and self._upgrade_timeout is not None:
            start_response = self._limit_upgrade(environ, start_response, self._upgrade_timeout)
        return self.application(environ, start_response)

    def _limit_upgrade(self, environ: WSGIEnvironment, start_response: StartResponse, timeout: float) -> StartResponse:
        """Have a WebSocket handshake ended that the application does not answer, where the server is one of ours.

        Returns:
            The ``start_response`` for the application.
        """
        handler = environ.get("engineio.handler")
        if handler is None:
            return start_response
        handler.limit_upgrade(timeout, partial(_log_overdue, environ.get("PATH_INFO", ""), timeout))

        def start_in_time(*args: Any) -> Callable[[bytes], object]:  # as `StartResponse`
            # a middleware in between may keep the response until it is complete
            handler.lift_limit()
            return start_response(*args)

        return start_in_time


def _log_overdue(path: str, timeout: float) -> None:
    if _throttle.passes(_log_overdue, monotonic()):
        logger.warning("> a WebSocket handshake for %.80r was answered with 503: the application had neither answered it nor "
                       "taken the WebSocket after %g s (destroy_upgrade_timeout); with destroy_upgrade=False it may take any "
                       "time", path, timeout)


def not_implemented(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application of a server that serves nothing but the engine: 501."""
    body = b"Not Implemented: only the engine is served here\n"
    start_response("501 Not Implemented", [("Content-Type", "text/plain; charset=UTF-8"),
                                           ("Content-Length", str(len(body)))])
    return [body]
