"""The WebSocket that an application finds in ``environ["wsgi.websocket"]``, with the methods of gevent-websocket's.

Owns the protocol on one connection: handshake, messages, pings, the closing handshake. Knows nothing of HTTP connections (it is
given a function that detaches one) and nothing of the engine, which takes the connection from it.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from geventwebsocket.exceptions import WebSocketError

from engineio_wsgi.errors import HandshakeRefused, UsageError
from engineio_wsgi.log import log_violation
from engineio_wsgi.protocol.websocket.deflate import DeflateParameters, DeflateSettings, negotiate
from engineio_wsgi.protocol.websocket.frames import (
    Close,
    Item,
    Opcode,
    Ping,
    Pong,
    Violation,
    encode_binary,
    encode_close,
    encode_frame,
    encode_text,
    to_utf8,
)
from engineio_wsgi.protocol.websocket.handshake import Handshake, check, choose_protocol, response_head
from engineio_wsgi.protocol.websocket.items import MAX_CONTROL
from engineio_wsgi.runtime.connection import RECV_SIZE, Connection
from engineio_wsgi.runtime.reader import ReadWaiter
from engineio_wsgi.websocket.codec import FrameCodec
from engineio_wsgi.websocket.compatibility import RequestAttributes
from engineio_wsgi.websocket.frame_writer import FrameWriter

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["WebSocket"]

logger = logging.getLogger("engine.ws")

#: of an invalid request
NO_HANDSHAKE = Handshake("")
MAX_SIZE = 1_000_000  #: bytes of the largest message, by default

SOCKET_DEAD = "Socket is dead"
ALREADY_CLOSED = "Connection is already closed"
CONNECTION_CLOSED = "Connection closed"


class _State(enum.Enum):
    """The state of a WebSocket: ``OFFERED → OPEN → CLOSED``, or ``OFFERED → OPEN → DETACHED``."""

    OFFERED = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()
    DETACHED = enum.auto()


class WebSocket(RequestAttributes):
    """A WebSocket connection, for any number of greenlets that send and one that receives; not for other threads.

    The handshake is answered when the application first uses the object, even if it only reads ``closed``. Until then it may
    answer with an ordinary response.

    Args:
        environ: the WSGI environ of the handshake.
        answer_handshake: takes the bytes of the 101 response and whether more is written at once, sends them, and returns the
            connection.
        handler: the HTTP handler, for applications that use it.
        max_size: bytes of the largest message that is received; beyond it the connection is closed with 1009.
        deflate: how to compress, if the client supports it; ``None`` for no compression.
        protocols: the sub-protocols that the application speaks.

    Example::

        def app(environ, start_response):
            websocket = environ["wsgi.websocket"]
            while (message := websocket.receive()) is not None:
                websocket.send(message)
            return []
    """

    __slots__ = (
        "__weakref__", "_answer_handshake", "_codec", "_connection", "_deflate", "_handshake", "_items", "_max_size",
        "_protocol", "_protocols", "_reader", "_state", "_writer", "refusal",
    )  # fmt: skip

    # these are set when the application accepts: the engine, which takes the connection, has its own
    _connection: Connection
    _writer: FrameWriter
    _codec: FrameCodec
    _items: deque[Item]
    _reader: ReadWaiter

    def __init__(
        self,
        environ: WSGIEnvironment,
        answer_handshake: Callable[[bytes, bool], Connection],
        *,
        handler: Any = None,  # gevent's handler has no types
        max_size: int = MAX_SIZE,
        deflate: DeflateSettings | None = None,
        protocols: Sequence[str] = (),
    ) -> None:
        super().__init__(environ, handler)
        #: why the handshake is not valid; ``None`` if it is valid
        self.refusal: HandshakeRefused | None = None
        self._answer_handshake = answer_handshake
        self._max_size = max_size
        self._deflate = deflate
        self._protocols = protocols
        self._protocol: str | None = None
        self._state = _State.OFFERED
        self._handshake = NO_HANDSHAKE
        try:
            self._handshake = check(environ)
        except HandshakeRefused as refusal:
            self.refusal = refusal

    # -- state

    @property
    def accepted(self) -> bool:
        """Whether the handshake has been answered with 101. Reading it does not answer the handshake."""
        return self._state is not _State.OFFERED

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent or received any more. Answers the handshake, as every use does.

        Raises:
            HandshakeRefused: the handshake is not valid.
        """
        self.accept()
        return self._state is not _State.OPEN

    @property
    def protocol(self) -> str | None:
        """The sub-protocol that was agreed on; else the header with those that the client offers."""
        return self._protocol or self.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")

    @property
    def offered_protocols(self) -> tuple[str, ...]:
        """The sub-protocols that the client offers, most wanted first."""
        return self._handshake.protocols

    @property
    def agreed_protocol(self) -> str | None:
        """The sub-protocol that was agreed on, if there is one."""
        return self._protocol

    # -- the handshake

    def accept(self, headers: Iterable[tuple[str, str]] = (), protocol: str | None = None) -> None:
        """Answer the handshake with 101, if that has not been done. Does not block.

        Args:
            headers: more headers for the response.
            protocol: one of the offered sub-protocols, instead of the first of ``protocols`` that is offered.

        Raises:
            HandshakeRefused: the handshake is not valid; answer it with the exception's ``status`` and ``headers``.
            WebSocketError: the client has gone.
            ValueError: a header holds a line break, or the sub-protocol was not offered.
        """
        if self._state is not _State.OFFERED:
            return
        deflate = self._deflate
        self._connection, parameters = self._answer(headers, protocol, deflate)
        self._writer = FrameWriter(self._connection, self._lose)
        self._codec = FrameCodec(self._max_size, parameters, 0 if deflate is None else deflate.threshold)
        self._items = deque()
        self._reader = ReadWaiter()
        self._state = _State.OPEN

    def _answer(self, headers: Iterable[tuple[str, str]], protocol: str | None, deflate: DeflateSettings | None,
                more: bool = False) -> tuple[Connection, DeflateParameters | None]:
        """Send the response to the handshake. Returns the connection, and how messages are compressed."""
        if self.refusal is not None:
            raise self.refusal
        handshake = self._handshake
        if protocol is None:
            protocol = choose_protocol(handshake.protocols, self._protocols)
        elif protocol not in handshake.protocols:
            raise ValueError(f"the sub-protocol {protocol!r} was not offered, only {', '.join(handshake.protocols) or 'none'}")
        agreed = None if deflate is None else negotiate(handshake.extensions, deflate)
        parameters, extensions = agreed or (None, None)
        head = response_head(handshake, protocol=protocol, extensions=extensions, extra=headers)
        self._protocol = protocol
        try:
            return self._answer_handshake(head, more), parameters
        except OSError as error:
            self._state = _State.CLOSED
            raise WebSocketError(SOCKET_DEAD) from error

    def detach(self, headers: Iterable[tuple[str, str]], deflate: DeflateSettings | None, protocol: str | None = None,
               more: bool = False) -> tuple[Connection, DeflateParameters | None]:
        """Accept, and give the connection to the caller. This object cannot be used any more.

        Args:
            headers: more headers for the response, if the handshake is not answered yet.
            deflate: how to compress, if the handshake is not answered yet.
            protocol: the sub-protocol, if the handshake is not answered yet.
            more: whether the caller writes something at once, which can be sent together with the response.

        Raises:
            HandshakeRefused, WebSocketError: as ``accept`` does.
            UsageError: it is closed, or messages have been received from it.
        """
        if self._state is _State.OFFERED:
            answered = self._answer(headers, protocol, deflate, more)
            self._state = _State.DETACHED
            return answered
        if self._state is not _State.OPEN or self._codec.has_decoded:
            raise UsageError("the WebSocket is closed, or the application has received from it")
        self._writer.end()
        self._state = _State.DETACHED
        return self._connection, self._codec.parameters

    # -- receiving

    def receive(self) -> str | bytes | None:
        """The next message: ``str`` for text, ``bytes`` for binary; ``None`` when the connection has ended. Blocks.

        Pings are answered meanwhile. ``None`` says that the client has closed the connection, has gone away, or has violated the
        protocol; the closing handshake is done then, as far as possible.

        Raises:
            WebSocketError: the connection was closed before.
            HandshakeRefused: the handshake is not valid.
        """
        self._require_open()
        items = self._items
        while True:
            while items:
                item = items.popleft()
                if type(item) is str or type(item) is bytes:
                    return item
                _ACTIONS[type(item)](self, item)
                if self._state is not _State.OPEN:
                    return None
            data = self._read()
            if not data:
                self._lose()
                return None
            items.extend(self._codec.decode(data))

    def _require_open(self) -> None:
        self.accept()
        if self._state is not _State.OPEN:
            self.current_app.on_close(ALREADY_CLOSED)
            raise WebSocketError(ALREADY_CLOSED)

    def _read(self) -> bytes:
        """Wait for bytes; ``b""`` at the end of the connection."""
        connection = self._connection
        while True:
            try:
                self._writer.flush()
                self._reader.wait(connection)
                if self._state is not _State.OPEN:
                    return b""
                return connection.recv(RECV_SIZE)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    def _on_ping(self, ping: Ping) -> None:
        # a client that reads nothing gets no answer (RFC 6455 section 5.5.3 requires one for the last ping only)
        if not self._writer.is_behind:
            self._writer.hold(encode_frame(Opcode.PONG, ping.payload))

    def _on_pong(self, pong: Pong) -> None:
        """Ignore it: nothing waits for a pong."""

    def _on_close(self, close: Close) -> None:
        self._finish(encode_close(close.code))

    def _on_violation(self, violation: Violation) -> None:
        address = self.environ.get("REMOTE_ADDR")
        log_violation(logger, address, violation.code, "< violation: %s (close code %d)", violation.reason, violation.code)
        self._finish(encode_close(violation.code, violation.reason))

    # -- sending

    def send(self, message: object, binary: bool | None = None) -> None:
        """Send one message. Blocks while the client is far behind.

        Args:
            message: text or bytes.
            binary: whether to send a binary message; ``None`` to decide by the type of ``message``.

        Raises:
            WebSocketError: the connection is closed or lost.
            TypeError: ``message`` is neither text nor bytes.
            UnicodeDecodeError: bytes to be sent as text that are not UTF-8.
        """
        if binary is None and self._state is _State.OPEN and self._codec.parameters is None:
            # the usual case, without further checks
            if type(message) is str:
                self._write(encode_text(message))
                return
            if type(message) is bytes:
                self._write(encode_binary(message))
                return
        if binary is None:
            binary = not isinstance(message, str)
        self.send_frame(message, Opcode.BINARY if binary else Opcode.TEXT)

    def send_frame(self, message: object, opcode: int) -> None:
        """Send one frame: a whole message (``OPCODE_TEXT``, ``OPCODE_BINARY``), a ping or a pong. Blocks as ``send`` does.

        Raises:
            WebSocketError, TypeError, UnicodeDecodeError: as ``send`` does.
            ValueError: another opcode, or more than 125 bytes in a ping or pong.
        """
        self._require_open()
        payload = _to_bytes(message)
        if opcode in (Opcode.PING, Opcode.PONG):
            if len(payload) > MAX_CONTROL:
                raise ValueError(f"{len(payload)} bytes in a ping or pong; there is room for {MAX_CONTROL}")
        elif opcode not in (Opcode.TEXT, Opcode.BINARY):
            raise ValueError(f"opcode {opcode!r} cannot be sent as a frame of its own")
        elif opcode == Opcode.TEXT and not isinstance(message, str):
            payload.decode()
        self._write(self._codec.encode(opcode, payload))

    def _write(self, frame: bytes) -> None:
        writer = self._writer
        if self._items and not writer.is_behind:
            # messages that arrived together are answered together
            writer.hold(frame)
            return
        try:
            writer.write(frame)
        except OSError as error:
            self._lose()
            raise WebSocketError(SOCKET_DEAD) from error

    # -- the end

    def close(self, code: int = 1000, message: str | bytes = b"") -> None:
        """Send a close frame, and wait for the client's in the background. Does not block.

        Args:
            code: a close code that RFC 6455 section 7.4 allows in a frame.
            message: the reason; it is cut off after 123 bytes.

        Raises:
            ValueError: ``code`` must not be sent.
        """
        self.accept()
        if self._state is not _State.OPEN:
            self.current_app.on_close(ALREADY_CLOSED)
            return
        reason = message if isinstance(message, str) else bytes(message or b"").decode("utf-8", "replace")
        self._finish(encode_close(code, reason))

    def finish(self, code: int = 1000) -> None:
        """Close the connection if it is open and not detached, because the application has returned. Does not block."""
        if self._state is _State.OPEN:
            self.close(code)

    def _finish(self, close_frame: bytes) -> None:
        """Send the last frame, and close the connection in the background."""
        try:
            self._writer.finish(close_frame)
        except OSError:
            self._lose()
            return
        self._state = _State.CLOSED
        self._wake_reader()

    def _lose(self) -> None:
        """The connection is lost: close it."""
        if self._state is _State.OPEN:
            self._state = _State.CLOSED
            self._writer.end()
            self._connection.close()
            self._wake_reader()
            self.current_app.on_close(CONNECTION_CLOSED)

    def _wake_reader(self) -> None:
        """Wake the greenlet that receives; it finds the connection closed."""
        self._items.clear()
        self._reader.wake_soon()


#: each takes an item of the type under which it stands, which ``Callable`` cannot express
_ACTIONS: dict[type, Callable[[WebSocket, Any], None]] = {
    Ping: WebSocket._on_ping,
    Pong: WebSocket._on_pong,
    Close: WebSocket._on_close,
    Violation: WebSocket._on_violation,
}


def _to_bytes(message: object) -> bytes:
    if isinstance(message, str):
        return to_utf8(message)
    if isinstance(message, (bytes, bytearray, memoryview)):
        return bytes(message)
    raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
