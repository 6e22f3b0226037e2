"""The WebSocket that an application finds in ``environ["wsgi.websocket"]``, with the face of gevent-websocket's.

Owns the conversation of one connection: handshake, messages, pings, the closing handshake. Knows nothing of HTTP
connections (it is given a way to take one over) and nothing of the engine, which takes the connection from it.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
from gevent.exceptions import ConcurrentObjectUseError
from gevent.hub import Waiter
from geventwebsocket.exceptions import WebSocketError

from engineio_wsgi.errors import UsageError
from engineio_wsgi.log import log_violation
from engineio_wsgi.protocol.websocket.deflate import DeflateParameters, Deflater, DeflateSettings, Inflater, negotiate
from engineio_wsgi.protocol.websocket.frames import (
    Close,
    FrameDecoder,
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
from engineio_wsgi.protocol.websocket.handshake import (
    Handshake,
    HandshakeRefused,
    check,
    choose_protocol,
    response_head,
    response_headers,
)
from engineio_wsgi.protocol.websocket.items import MAX_CONTROL
from engineio_wsgi.runtime.connection import RECV_SIZE, Connection
from engineio_wsgi.websocket.frame_writer import FrameWriter

__all__ = ["WebSocket"]

logger = logging.getLogger("engine.ws")

MAX_SIZE = 1_000_000  #: bytes of the largest message, if nothing else is said

SOCKET_DEAD = "Socket is dead"
ALREADY_CLOSED = "Connection is already closed"
CONNECTION_CLOSED = "Connection closed"


class _State(enum.Enum):
    """Where a WebSocket is: ``OFFERED → OPEN → CLOSED``, or ``OFFERED → OPEN → TAKEN``."""

    OFFERED = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()
    TAKEN = enum.auto()


class _NoApp:
    """Stands where gevent-websocket's own resources have their application."""

    def on_close(self, *args: Any) -> None:
        """Nobody wants to know."""


_NO_APP = _NoApp()


class WebSocket:
    """A WebSocket connection, for any number of greenlets that send and one that receives; not for other threads.

    The handshake is answered when the application first uses the object, be it to ask whether it is ``closed``. Until
    then it may answer with an ordinary response.

    Args:
        environ: the WSGI environ of the handshake.
        answer_handshake: takes the bytes of the 101 response, sends them, and gives the connection away.
        handler: the HTTP handler, for those who want to get at it.
        max_size: bytes of the largest message that is received; with more the connection is closed with 1009.
        deflate: how to compress, if the client can; ``None`` for not at all.
        protocols: the sub-protocols that the application speaks.

    Example::

        def app(environ, start_response):
            websocket = environ["wsgi.websocket"]
            while (message := websocket.receive()) is not None:
                websocket.send(message)
            return []
    """

    __slots__ = (
        "__weakref__", "_answer_handshake", "_decoder", "_deflate", "_deflater", "_handshake", "_items", "_max_size",
        "_parameters", "_protocol", "_protocols", "_reader", "_state", "_wire", "_writer", "environ", "handler", "refusal",
    )  # fmt: skip

    OPCODE_CONTINUATION = 0x00
    OPCODE_TEXT = 0x01
    OPCODE_BINARY = 0x02
    OPCODE_CLOSE = 0x08
    OPCODE_PING = 0x09
    OPCODE_PONG = 0x0A

    def __init__(
        self,
        environ: dict[str, Any],
        answer_handshake: Callable[[bytes], Connection],
        *,
        handler: Any = None,
        max_size: int = MAX_SIZE,
        deflate: DeflateSettings | None = None,
        protocols: Sequence[str] = (),
    ) -> None:
        self.environ = environ
        self.handler = handler
        #: why the handshake is not a valid one; ``None`` if it is
        self.refusal: HandshakeRefused | None = None
        self._answer_handshake = answer_handshake
        self._max_size = max_size
        self._deflate = deflate
        self._protocols = protocols
        self._protocol: str | None = None
        self._state = _State.OFFERED
        self._wire: Connection = None  # type: ignore[assignment]
        self._writer: FrameWriter = None  # type: ignore[assignment]
        self._parameters: DeflateParameters | None = None
        self._deflater: Deflater | None = None
        self._decoder: FrameDecoder | None = None
        self._items: deque[Item] = deque()
        self._reader: Any = None
        self._handshake = Handshake("")
        try:
            self._handshake = check(environ)
        except HandshakeRefused as refusal:
            self.refusal = refusal

    # -- what is known of it

    @property
    def accepted(self) -> bool:
        """Whether the handshake has been answered with 101. Asking does not answer it."""
        return self._state is not _State.OFFERED

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent or received any more. Accepts the handshake, as every use does.

        Raises:
            HandshakeRefused: it is not valid.
        """
        self.accept()
        return self._state is not _State.OPEN

    @property
    def origin(self) -> str | None:
        """The ``Origin`` header."""
        return self.environ.get("HTTP_ORIGIN")

    @property
    def protocol(self) -> str | None:
        """The sub-protocol that was agreed on; else those that the client offers, as it wrote them."""
        return self._protocol or self.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")

    @property
    def offered_protocols(self) -> tuple[str, ...]:
        """The sub-protocols that the client offers, most wanted first."""
        return self._handshake.protocols

    @property
    def agreed_protocol(self) -> str | None:
        """The sub-protocol that was agreed on, if there is one."""
        return self._protocol

    @property
    def version(self) -> str | None:
        """The version of the WebSocket protocol: ``"13"``."""
        return self.environ.get("HTTP_SEC_WEBSOCKET_VERSION")

    @property
    def path(self) -> str | None:
        """The path of the request."""
        return self.environ.get("PATH_INFO")

    @property
    def logger(self) -> Any:
        """The HTTP handler's logger."""
        return logger if self.handler is None else self.handler.logger

    @property
    def current_app(self) -> Any:
        """The application that gevent-websocket's ``Resource`` has chosen, or something that has an ``on_close`` too."""
        application = getattr(getattr(self.handler, "server", None), "application", None)
        return getattr(application, "current_app", _NO_APP)

    # -- the handshake

    def accept(self, headers: Iterable[tuple[str, str]] = (), protocol: str | None = None) -> None:
        """Answer the handshake with 101, if that has not been done. Does not block.

        Args:
            headers: more headers for the response.
            protocol: one of the offered sub-protocols, instead of the first of ``protocols`` that is offered.

        Raises:
            HandshakeRefused: it is not a valid one; its ``status`` says with what it is to be answered.
            WebSocketError: the client has gone.
            ValueError: a header holds a line break, or the sub-protocol was not offered.
        """
        if self._state is _State.OFFERED:
            self._accept(headers, protocol, self._deflate)

    def _accept(self, headers: Iterable[tuple[str, str]], protocol: str | None, deflate: DeflateSettings | None) -> None:
        if self.refusal is not None:
            raise self.refusal
        handshake = self._handshake
        if protocol is None:
            protocol = choose_protocol(handshake.protocols, self._protocols)
        elif protocol not in handshake.protocols:
            raise ValueError(f"the sub-protocol {protocol!r} was not offered, only {', '.join(handshake.protocols) or 'none'}")
        agreed = None if deflate is None else negotiate(handshake.extensions, deflate)
        extensions = None
        if agreed is not None:
            self._parameters, extensions = agreed
        head = response_head(response_headers(handshake, protocol=protocol, extensions=extensions, extra=headers))
        self._protocol = protocol
        self._deflate = deflate
        try:
            self._wire = self._answer_handshake(head)
        except OSError as error:
            self._state = _State.CLOSED
            raise WebSocketError(SOCKET_DEAD) from error
        self._writer = FrameWriter(self._wire, self._lose)
        self._state = _State.OPEN

    def detach(self, headers: Iterable[tuple[str, str]], deflate: DeflateSettings | None,
               protocol: str | None = None) -> tuple[Connection, DeflateParameters | None]:
        """Accept, and give the connection away: from now on it is the caller's, and this object is spent.

        Args:
            headers: more headers for the response, if there has been none.
            deflate: how to compress, if that was not negotiated yet.
            protocol: the sub-protocol, if there has been no response.

        Raises:
            HandshakeRefused, WebSocketError: as ``accept`` does.
            UsageError: it has been closed, or somebody has begun to read from it.
        """
        if self._state is _State.OFFERED:
            self._accept(headers, protocol, deflate)
        if self._state is not _State.OPEN or self._decoder is not None:
            raise UsageError("the WebSocket is in use, or was")
        self._writer.end()
        self._state = _State.TAKEN
        return self._wire, self._parameters

    # -- receiving

    def receive(self) -> str | bytes | None:
        """The next message: ``str`` for text, ``bytes`` for binary; ``None`` once there is no more. Blocks.

        Pings are answered meanwhile. ``None`` says that the client has closed the connection, has gone, or has sent what
        is not allowed; the closing handshake has been done as far as it can be.

        Raises:
            WebSocketError: the connection was closed before.
            HandshakeRefused: the handshake is not a valid one.
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
            items.extend(self._decode(data))

    def _require_open(self) -> None:
        self.accept()
        if self._state is not _State.OPEN:
            self.current_app.on_close(ALREADY_CLOSED)
            raise WebSocketError(ALREADY_CLOSED)

    def _decode(self, data: bytes) -> list[Item]:
        if self._decoder is None:
            parameters = self._parameters
            inflater = None if parameters is None else Inflater(parameters, self._max_size)
            self._decoder = FrameDecoder(self._max_size, inflate=inflater)
        return self._decoder.feed(data)

    def _read(self) -> bytes:
        """Wait for bytes; ``b""`` when none will come."""
        wire = self._wire
        while True:
            try:
                self._writer.flush()
                self._wait_readable()
                if self._state is not _State.OPEN:
                    return b""
                return wire.recv(RECV_SIZE)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    def _wait_readable(self) -> None:
        if self._reader is not None:
            raise ConcurrentObjectUseError("another greenlet is receiving from this WebSocket already")
        waiter = self._reader = Waiter()
        try:
            self._wire.watch(self._wake)
            waiter.get()
        finally:
            self._reader = None
            if self._state is _State.OPEN:
                self._wire.unwatch()

    def _wake(self) -> None:
        """In the hub: whoever receives has something to do."""
        if self._reader is not None:
            self._reader.switch(None)

    def _on_ping(self, ping: Ping) -> None:
        # a client that reads nothing is not answered either (RFC 6455 section 5.5.3 asks for the last ping only)
        if not self._writer.is_behind:
            self._writer.hold(encode_frame(Opcode.PONG, ping.payload))

    def _on_pong(self, pong: Pong) -> None:
        """Nothing waits for one."""

    def _on_close(self, close: Close) -> None:
        self._finish(encode_close(close.code))

    def _on_violation(self, violation: Violation) -> None:
        address = self.environ.get("REMOTE_ADDR")
        log_violation(logger, address, violation.code, "< violation: %s (close code %d)", violation.reason, violation.code)
        self._finish(encode_close(violation.code, violation.reason))

    # -- sending

    def send(self, message: Any, binary: bool | None = None) -> None:
        """Send one message. Blocks while the client is far behind.

        Args:
            message: text or bytes.
            binary: whether it goes as a binary message; ``None`` for what its type says.

        Raises:
            WebSocketError: the connection is closed or lost.
            TypeError: ``message`` is neither text nor bytes.
            UnicodeDecodeError: bytes to be sent as text that are not UTF-8.
        """
        if self._parameters is None and binary is None and self._state is _State.OPEN:
            # the usual case, without the detours
            if type(message) is str:
                self._write(encode_text(message))
                return
            if type(message) is bytes:
                self._write(encode_binary(message))
                return
        if binary is None:
            binary = not isinstance(message, str)
        self.send_frame(message, Opcode.BINARY if binary else Opcode.TEXT)

    def send_frame(self, message: Any, opcode: int) -> None:
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
        self._write(self._encode(opcode, payload))

    def _encode(self, opcode: int, payload: bytes) -> bytes:
        settings, parameters = self._deflate, self._parameters
        is_message = opcode in (Opcode.TEXT, Opcode.BINARY)
        if parameters is None or settings is None or not is_message or len(payload) < settings.threshold:
            return encode_frame(opcode, payload)
        if self._deflater is None:
            self._deflater = Deflater(parameters)
        return encode_frame(opcode, self._deflater.compress(payload), compressed=True)

    def _write(self, frame: bytes) -> None:
        writer = self._writer
        if self._items and not writer.is_behind:
            # of a batch that arrived together: so are the answers sent
            writer.hold(frame)
            return
        try:
            writer.write(frame)
        except OSError as error:
            self._lose()
            raise WebSocketError(SOCKET_DEAD) from error

    # -- the end

    def close(self, code: int = 1000, message: str | bytes = b"") -> None:
        """Close the connection: say so to the client, and let its answer come in the background. Does not block.

        Args:
            code: what RFC 6455 section 7.4 allows to be sent.
            message: the reason; what is more than 123 bytes is cut off.

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
        """The application has returned: close the connection if it is open and still here. Never accepts, never blocks."""
        if self._state is _State.OPEN:
            self.close(code)

    def _finish(self, close_frame: bytes) -> None:
        """The last frame, and a polite end in the background."""
        try:
            self._writer.finish(close_frame)
        except OSError:
            self._lose()
            return
        self._state = _State.CLOSED
        self._wake_reader()

    def _lose(self) -> None:
        """The connection is of no use any more."""
        if self._state is _State.OPEN:
            self._state = _State.CLOSED
            self._writer.end()
            self._wire.close()
            self._wake_reader()
            self.current_app.on_close(CONNECTION_CLOSED)

    def _wake_reader(self) -> None:
        """Whoever receives finds the connection closed."""
        self._items.clear()
        if self._reader is not None:
            gevent.get_hub().loop.run_callback(self._wake)


_ACTIONS: dict[type, Callable[[WebSocket, Any], None]] = {
    Ping: WebSocket._on_ping,
    Pong: WebSocket._on_pong,
    Close: WebSocket._on_close,
    Violation: WebSocket._on_violation,
}


def _to_bytes(message: Any) -> bytes:
    if isinstance(message, str):
        return to_utf8(message)
    if isinstance(message, (bytes, bytearray, memoryview)):
        return bytes(message)
    raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
