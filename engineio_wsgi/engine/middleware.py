"""The fork in the road: requests under the engine's path go to the engine, all others to the application."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from engineio_wsgi.engine.engine import Engine

__all__ = ["Middleware", "not_implemented"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Middleware:
    """A WSGI application that serves ``server`` under its path and ``application`` everywhere else.

    Example::

        app = Middleware(flask_app, server)
    """

    def __init__(self, application: Application, server: Engine) -> None:
        self.application = application
        self.server = server
        self._resource = server.options.resource
        server.on_wrapped(self)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        if environ.get("PATH_INFO", "").startswith(self._resource):
            return self.server.handle_request(environ, start_response)
        if environ.get("SERVER_PORT") != self.server.port:
            self.server.note_listener(environ)
        return self.application(environ, start_response)


def not_implemented(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What a server that does nothing but the engine answers to everything else: 501."""
    body = b"Not Implemented: only the engine is served here\n"
    start_response("501 Not Implemented", [("Content-Type", "text/plain; charset=UTF-8"),
                                           ("Content-Length", str(len(body)))])
    return [body]
