"""The attributes of gevent-websocket's ``WebSocket`` that say something of the request, and do nothing.

Applications and gevent-websocket's own ``Resource`` look for them. Knows no connection.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["RequestAttributes"]

logger = logging.getLogger("engine.ws")


class _NoApp:
    """The application where gevent-websocket's ``Resource`` has chosen none."""

    def on_close(self, *args: object) -> None:
        """Do nothing."""


_NO_APP = _NoApp()


class RequestAttributes:
    """What a WebSocket says of its request.

    Args:
        environ: the WSGI environ of the handshake.
        handler: the HTTP handler, or ``None``.
    """

    __slots__ = ("environ", "handler")

    OPCODE_CONTINUATION = 0x00
    OPCODE_TEXT = 0x01
    OPCODE_BINARY = 0x02
    OPCODE_CLOSE = 0x08
    OPCODE_PING = 0x09
    OPCODE_PONG = 0x0A

    def __init__(self, environ: WSGIEnvironment, handler: Any = None) -> None:  # gevent's handler has no types
        self.environ = environ
        self.handler = handler

    @property
    def origin(self) -> str | None:
        """The ``Origin`` header."""
        return self.environ.get("HTTP_ORIGIN")

    @property
    def version(self) -> str | None:
        """The version of the WebSocket protocol: ``"13"``."""
        return self.environ.get("HTTP_SEC_WEBSOCKET_VERSION")

    @property
    def path(self) -> str | None:
        """The path of the request."""
        return self.environ.get("PATH_INFO")

    @property
    def logger(self) -> logging.Logger:
        """The HTTP handler's logger."""
        return logger if self.handler is None else self.handler.logger

    @property
    def current_app(self) -> Any:  # any object with an ``on_close`` method
        """The application that gevent-websocket's ``Resource`` has chosen, or an object whose ``on_close`` does nothing."""
        application = getattr(getattr(self.handler, "server", None), "application", None)
        return getattr(application, "current_app", _NO_APP)
