"""The items of a stream of frames besides messages: control frames, and the violation that ends it; opcodes and close codes.

Owns the meaning of a control frame's payload. Knows nothing of how frames are encoded.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from websockets.frames import EXTERNAL_CLOSE_CODES, CloseCode

from engineio_wsgi.errors import FrameError

__all__ = ["CONTROL", "MAX_CONTROL", "Close", "Item", "Opcode", "Ping", "Pong", "Violation", "is_sendable", "parse_close",
           "wrong"]

#: bytes of a control frame's payload
MAX_CONTROL = 125


class Opcode(enum.IntEnum):
    """The kind of a frame (RFC 6455 section 11.8)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered with a pong of the same ``payload``, at most 125 bytes."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping with that ``payload``, or unsolicited."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's close frame. ``code`` is ``None`` if it has none."""

    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer has violated the protocol or a limit: close the connection with ``code``. ``reason`` is for the log."""

    code: int
    reason: str


#: the output of a decoder; ``str`` and ``bytes`` are text and binary messages
Item = str | bytes | Ping | Pong | Close | Violation
#: frames that an honest client sends now and then
CONTROL = (Ping, Pong)


def is_sendable(code: int) -> bool:
    """Whether a close frame may carry ``code`` (RFC 6455 section 7.4): a registered code, or 3000 to 4999."""
    return code in EXTERNAL_CLOSE_CODES or 3000 <= code <= 4999


def parse_close(payload: bytes) -> Close:
    """The content of a close frame.

    Raises:
        FrameError: its code must not be sent, or its reason is not UTF-8.
    """
    if not payload:
        return Close(None, "")
    if len(payload) == 1:
        raise wrong("a close frame of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable(code):
        raise wrong(f"close code {code} must not be sent")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise FrameError(CloseCode.INVALID_DATA, "the reason of a close frame is not UTF-8") from None


def wrong(reason: str) -> FrameError:
    """The error for frames that RFC 6455 does not allow (close code 1002)."""
    return FrameError(CloseCode.PROTOCOL_ERROR, reason)
