"""The WSGI middleware: requests under the server's path go to the server, all others to the application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.http.lane import keeps_lane
from engineio_wsgi.options.options import Options

__all__ = ["Middleware", "WrappingServer", "not_implemented"]


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
        return self.application(environ, start_response)


def not_implemented(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application of a server that serves nothing but the engine: 501."""
    body = b"Not Implemented: only the engine is served here\n"
    start_response("501 Not Implemented", [("Content-Type", "text/plain; charset=UTF-8"),
                                           ("Content-Length", str(len(body)))])
    return [body]
