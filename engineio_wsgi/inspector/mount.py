"""Puts an application under a path, in front of another one, and keeps the fast lane of the engine there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from engineio_wsgi.engine.worker import note_front
from engineio_wsgi.errors import ConfigurationError

__all__ = ["Mount"]

PATH = re.compile(r"(?:/[\w.~-]+)+")


class Mount:
    """A WSGI application that sends the requests under one path to ``mounted``, and all others to ``application``.

    Any dispatcher would work. The engine knows this one, so it serves polls on the fast lane and hands connections over to other
    workers, although an application is in front of it.

    Args:
        application: what is behind it.
        path: such as ``/inspector``.
        mounted: a WSGI application, for which ``path`` is the ``SCRIPT_NAME``.

    Raises:
        ConfigurationError: ``path`` is no path.
    """

    #: tells the engine that requests of sessions pass through unchanged
    lane = True
    #: the server of an engine's application; this is none
    server: object = None

    def __init__(self, application: WSGIApplication, path: str, mounted: WSGIApplication) -> None:
        if not PATH.fullmatch(path):
            raise ConfigurationError(f"the path of the inspector: expected one such as '/inspector'; got {path!r}")
        self.application = application
        self._path = path
        self._below = path + "/"
        self._mounted = mounted
        note_front(self)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        path = environ.get("PATH_INFO", "")
        if path != self._path and not path.startswith(self._below):
            return self.application(environ, start_response)
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + self._path
        environ["PATH_INFO"] = path.removeprefix(self._path)
        return self._mounted(environ, start_response)
