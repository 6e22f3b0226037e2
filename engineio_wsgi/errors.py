"""The error tree: whose fault an error is, and what the client is sent about it.

Owns every exception class of the package and the handshake error table. Knows no I/O and imports nothing of the
package, so that every other room may raise from here.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = [
    "BadMessage",
    "BundleTooLarge",
    "CannotListen",
    "ChunkedError",
    "ClientGone",
    "CommandFailed",
    "ConfigurationError",
    "ConnectionDetached",
    "EngineError",
    "ErrorCode",
    "Forbidden",
    "FrameError",
    "HandshakeRefused",
    "HasBinary",
    "HttpRefusal",
    "InvalidRequest",
    "MalformedPacket",
    "NoWorkers",
    "OwnerGone",
    "OwnerRefused",
    "PayloadTooLarge",
    "PeerError",
    "ProtocolError",
    "Refused",
    "RequestRefused",
    "ServerClosing",
    "SessionMoves",
    "SocketClosed",
    "UnknownSession",
    "Unreachable",
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
    session is still closing. ``sid`` is the session's id, or ``None`` where it is not known; the text does not show it.
    """

    def __init__(self, message: str = "the session is closed", reason: str | None = None, sid: str | None = None) -> None:
        super().__init__(message if reason is None else f"{message} ({reason})")
        self.reason = reason
        self.sid = sid


class WriteTimeout(UsageError, TimeoutError):
    """The write buffer stayed full for longer than the caller was willing to wait; the data was not queued."""


class BundleTooLarge(UsageError, ValueError):
    """A bundle that does not fit into an empty write buffer; it was not queued.

    Args:
        size: of the bundle, in bytes.
        limit: the option ``max_buffered``.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a bundle of {size} bytes is larger than max_buffered, which is {limit} bytes: send its messages one "
                         "by one, or raise the option")


class UnknownSession(UsageError, LookupError):
    """No worker has the session whose id was given. The text shows only its first characters."""


class ConnectionDetached(EngineError, OSError):
    """Not an error: it ends the loop of another server after its connection has become a WebSocket or moved to another worker.

    gevent's ``pywsgi`` and gunicorn's gevent workers release a connection only when an exception leaves the WSGI application.
    Because of its ``errno``, they treat it as a client that has disconnected. Configure tools that report every exception of an
    application to ignore this class.
    """


class PeerError(EngineError):
    """The client did something that the protocol forbids. Never a reason for a traceback."""


class ProtocolError(PeerError):
    """A payload, packet or frame that cannot be what the protocol describes.

    ``close_code`` is the WebSocket close code (RFC 6455 section 7.4.1) that tells the peer.
    """

    close_code: ClassVar[int] = 1002


class HttpRefusal(PeerError):
    """A request that is answered with an HTTP error.

    Args:
        status: code and reason, as in the status line.
        detail: one line that says what was wrong and what was expected.
        headers: what the response has to carry.
    """

    def __init__(self, status: str, detail: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = tuple(headers)


class PayloadTooLarge(HttpRefusal, ProtocolError):
    """More bytes than ``max_http_buffer_size`` were sent or announced: HTTP 413, or WebSocket close code 1009."""

    close_code = 1009

    def __init__(self, size: int, limit: int) -> None:
        super().__init__("413 Content Too Large",
                         f"{size} bytes were sent or announced, at most {limit} are accepted (max_http_buffer_size)")
        self.size = size
        self.limit = limit


class RequestRefused(HttpRefusal):
    """A request that is answered with a line of the error table.

    Args:
        code: the line of the table.
        message: a text instead of the table's. With code 4 the client gets it in the body; with any other code, the body has the
            table's text, and the response header ``Engineio-Reason`` explains it.
        context: what lets an operator find the cause; goes to ``connection_error`` and the log, never to the client.
        bare: whether the response has no body. The reference server sends none if its polling transport refuses a request.
        status: of the response; ``None`` for the code's.
        headers: what the response has to carry.
    """

    def __init__(self, code: ErrorCode, message: str | None = None, context: Mapping[str, object] | None = None, *,
                 bare: bool = False, status: str | None = None, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(status or code.status, message or code.message, headers)
        self.code = code
        self.bare = bare
        self.message = message or code.message
        self.context: dict[str, Any] = dict(context or {})  # each key has a type of its own
        #: the ``werkzeug.wrappers.Request`` that was refused; set before ``connection_error`` is emitted
        self.request: Any = None  # a framework's integration sets its own request

    def attach_request(self, request: object) -> None:
        """Tell the listeners of ``connection_error`` which request was refused: werkzeug's, or a framework's."""
        self.request = request

    @property
    def public_message(self) -> str:
        """The message in the response's body: the table's text, except for code 4."""
        return self.message if self.code is ErrorCode.FORBIDDEN else self.code.message

    @property
    def explanation(self) -> str:
        """What :attr:`message` says beyond :attr:`public_message`; may be empty."""
        return "" if self.message == self.public_message else self.message.removeprefix(f"{self.code.message}: ")


class HandshakeRefused(RequestRefused):
    """A request that asks for a WebSocket and is not a valid handshake (RFC 6455 section 4.2): code 3.

    ``detail`` names what is missing or wrong. ``status`` is 426 for another version of the protocol, else 400 or 405.
    """

    def __init__(self, status: str, detail: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        context = {"name": "TRANSPORT_HANDSHAKE_ERROR", "error": detail}
        super().__init__(ErrorCode.BAD_REQUEST, f"Bad request: {detail}", context, status=status, headers=headers)
        self.detail = detail


class ServerClosing(RequestRefused):
    """A handshake that came while the server was shutting down: HTTP 503, so that balancers try another one.

    Args:
        retry_after: seconds after which the client may try again.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(ErrorCode.BAD_REQUEST, "Bad request: the server is shutting down", {"name": "SERVER_CLOSING"},
                         status="503 Service Unavailable", headers=[("Retry-After", str(retry_after))])


class Forbidden(RequestRefused):
    """Raise it in ``allow_request`` to refuse a handshake: code 4, HTTP 403, and ``why`` as the message.

    Example::

        def allow(request):
            if "user" not in request.cookies:
                raise Forbidden("log in first")
            return True
    """

    def __init__(self, why: str | None = None, context: Mapping[str, object] | None = None) -> None:
        super().__init__(ErrorCode.FORBIDDEN, why, context)


class FrameError(ProtocolError):
    """The peer's frames are not what RFC 6455 or 7692 allow, or more than is accepted.

    ``code`` is the close code that is sent to the peer.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class InvalidRequest(HttpRefusal, OSError):
    """A request that is not valid HTTP, or beyond the HTTP server's limits. The connection is closed after the response.

    It is an ``OSError`` because reading ``wsgi.input`` may raise it, and frameworks expect an ``OSError`` there.
    """


class ChunkedError(PeerError, ValueError):
    """The bytes are not a chunked body."""


class BadMessage(PeerError):
    """What arrived is no message, or one of another version."""


class ClientGone(PeerError):
    """The client has left, so the answer is not needed any more."""


class OwnerGone(EngineError):
    """The other worker does not exist, or does not answer. The text says which."""


class OwnerRefused(EngineError):
    """The other worker does not take a request or a connection. The text says why.

    Attributes:
        is_full: whether it only takes no further connection: a request can still be relayed to it.
    """

    def __init__(self, reason: str, is_full: bool = False) -> None:
        super().__init__(reason)
        self.is_full = is_full


class SessionMoves(OwnerRefused):
    """The session is moving to another worker: ask again.

    Attributes:
        is_at_former: whether to ask the process that had the worker's name before.
    """

    def __init__(self, reason: str, is_at_former: bool) -> None:
        super().__init__(reason)
        self.is_at_former = is_at_former


class CannotListen(EngineError, OSError):
    """An address that ``Server.listen`` was given cannot be used. The text says which, and why.

    Args:
        cause: the system's error, with its number.
        address: as it was given.
    """

    def __init__(self, cause: OSError, address: object) -> None:
        # gevent appends the address
        reason = (cause.strerror or str(cause)).partition(": (")[0]
        where = f"port {address}" if isinstance(address, int) else str(address)
        if isinstance(address, tuple):
            host, port = address[:2]
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.strerror: str
        super().__init__(cause.errno, f"cannot listen on {where}: {reason}")


class NoWorkers(EngineError, ConnectionError):
    """An emitter's cluster has no workers. The text says which clusters there are."""


class Unreachable(EngineError):
    """No server was found. The text says where, and why."""


class Refused(EngineError):
    """A handshake or another request was refused.

    Attributes:
        status: of HTTP, such as 403.
        code: of the protocol's error table; ``None`` if the answer is not the engine's.
        message: what the answer says.
    """

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.code: int | None = None
        self.message = body.decode("utf-8", "replace")
        try:
            answer = json.loads(body)
            self.code, self.message = answer["code"], answer["message"]
        except (ValueError, TypeError, KeyError):
            pass
        super().__init__(f"{status}: {self.message[:200]}" + ("" if self.code is None else f" (code {self.code})"))


class CommandFailed(EngineError):
    """A command line cannot be carried out. The text is one line for the user; ``status`` is the exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class MalformedPacket(ProtocolError, ValueError):
    """A client has sent something that is no Socket.IO packet, or comes at the wrong time."""


class HasBinary(EngineError):
    """What is to be encoded as JSON contains bytes, which travel as attachments of their own."""
