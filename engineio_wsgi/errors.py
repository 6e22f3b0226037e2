"""The error tree: whose fault it was, and what the wire is told.

Owns every exception class of the package and the handshake error table. Knows no I/O and imports nothing of the
package, so that every other room may raise from here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = [
    "ConfigurationError",
    "EngineError",
    "ErrorCode",
    "Forbidden",
    "PayloadTooLarge",
    "PeerError",
    "ProtocolError",
    "RequestRefused",
    "ServerClosing",
    "SocketClosed",
    "UpgradeInvalid",
    "UsageError",
    "WriteTimeout",
]


class ErrorCode(enum.IntEnum):
    """The refusals that the Engine.IO protocol knows, with their numbers on the wire."""

    TRANSPORT_UNKNOWN = 0
    SESSION_UNKNOWN = 1
    BAD_HANDSHAKE_METHOD = 2
    BAD_REQUEST = 3
    FORBIDDEN = 4
    UNSUPPORTED_PROTOCOL_VERSION = 5

    @property
    def message(self) -> str:
        """The text that goes with the number."""
        return _MESSAGES[self]

    @property
    def status(self) -> str:
        """The HTTP status line's code and reason of a response that carries this error."""
        return "403 Forbidden" if self is ErrorCode.FORBIDDEN else "400 Bad Request"


_MESSAGES = {
    ErrorCode.TRANSPORT_UNKNOWN: "Transport unknown",
    ErrorCode.SESSION_UNKNOWN: "Session ID unknown",
    ErrorCode.BAD_HANDSHAKE_METHOD: "Bad handshake method",
    ErrorCode.BAD_REQUEST: "Bad request",
    ErrorCode.FORBIDDEN: "Forbidden",
    ErrorCode.UNSUPPORTED_PROTOCOL_VERSION: "Unsupported protocol version",
}


class EngineError(Exception):
    """The root of everything that this package raises on purpose."""


class ConfigurationError(EngineError, ValueError):
    """An option that does not exist, has the wrong type or an impossible value. The text names all three."""


class UsageError(EngineError):
    """The application asked for something that the session's state does not allow."""


class SocketClosed(UsageError):
    """The session is closing or closed; nothing more can be sent or received.

    ``reason`` is the close reason (see :attr:`Socket.close_reason <engineio_wsgi.Socket>`), or ``None`` while the
    session is still closing.
    """

    def __init__(self, message: str = "the session is closed", reason: str | None = None) -> None:
        super().__init__(message if reason is None else f"{message} ({reason})")
        self.reason = reason


class WriteTimeout(UsageError, TimeoutError):
    """The write buffer stayed full for longer than the caller was willing to wait; the data was not queued."""


class PeerError(EngineError):
    """The client did something that the protocol forbids. Never a reason for a traceback."""


class ProtocolError(PeerError):
    """A payload, packet or frame that cannot be what the protocol describes.

    ``close_code`` is the WebSocket close code (RFC 6455 section 7.4.1) that tells the peer.
    """

    close_code: ClassVar[int] = 1002


class PayloadTooLarge(ProtocolError):
    """More bytes than ``max_http_buffer_size`` were sent or announced: HTTP 413, or WebSocket close code 1009."""

    close_code = 1009

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes were sent or announced, at most {limit} are accepted (max_http_buffer_size)")
        self.size = size
        self.limit = limit


class RequestRefused(PeerError):
    """A request that is answered with a line of the error table.

    Args:
        code: the line of the table.
        message: replaces the table's text in the response body.
        context: what lets an operator find the cause; goes to ``connection_error`` and the log, never to the client.
    """

    def __init__(self, code: ErrorCode, message: str | None = None, context: Mapping[str, Any] | None = None) -> None:
        super().__init__(message or code.message)
        self.code = code
        self.message = message or code.message
        self.context = dict(context or {})
        #: headers that the response has to have
        self.headers: tuple[tuple[str, str], ...] = ()
        #: the ``werkzeug.wrappers.Request`` that was refused; set before ``connection_error`` is emitted
        self.request: Any = None

    @property
    def status(self) -> str:
        """The HTTP status line's code and reason of the response."""
        return self.code.status


class UpgradeInvalid(RequestRefused):
    """A WebSocket handshake that RFC 6455 does not allow: code 3, with the status and headers that the RFC asks for."""

    def __init__(self, status: str, why: str, headers: Sequence[tuple[str, str]]) -> None:
        context = {"name": "TRANSPORT_HANDSHAKE_ERROR", "error": why}
        super().__init__(ErrorCode.BAD_REQUEST, f"Bad request: {why}", context)
        self.headers = tuple(headers)
        self._status = status

    @property
    def status(self) -> str:
        """426 for another version of the protocol, else 400 or 405."""
        return self._status


class ServerClosing(RequestRefused):
    """A handshake that came while the server was shutting down: HTTP 503, so that balancers try another one."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.BAD_REQUEST, "Bad request: the server is shutting down", {"name": "SERVER_CLOSING"})

    @property
    def status(self) -> str:
        """503, whatever the code."""
        return "503 Service Unavailable"


class Forbidden(RequestRefused):
    """Raise it in ``allow_request`` to refuse a handshake: code 4, HTTP 403, and ``why`` as the message.

    Example::

        def allow(request):
            if "user" not in request.cookies:
                raise Forbidden("log in first")
            return True
    """

    def __init__(self, why: str | None = None, context: Mapping[str, Any] | None = None) -> None:
        super().__init__(ErrorCode.FORBIDDEN, why, context)
