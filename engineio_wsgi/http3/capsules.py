"""Capsules on the stream of a session's request: the one that closes the session is used, all others are skipped. No I/O.

Source: RFC 9297 section 3.2; draft-ietf-webtrans-http3-02 section 5.
"""

from __future__ import annotations

from engineio_wsgi.errors import ProtocolError

__all__ = ["CapsuleReader", "encode_close"]

CLOSE_SESSION = 0x2843
#: bytes of a reason
MAX_REASON = 1024
#: bytes of the code before it
CODE_SIZE = 4


def encode_close(code: int, reason: str) -> bytes:
    """The capsule that closes a session. A long reason is cut."""
    text = reason.encode("utf-8", "replace")[:MAX_REASON]
    content = code.to_bytes(CODE_SIZE, "big") + text.decode("utf-8", "ignore").encode()
    return _encode_number(CLOSE_SESSION) + _encode_number(len(content)) + content


def _encode_number(number: int) -> bytes:
    """A variable-length integer (RFC 9000 section 16) of 2 bytes."""
    return (0x4000 | number).to_bytes(2, "big")


class CapsuleReader:
    """Reads the capsules of one session, and keeps no more than one that closes it may have."""

    __slots__ = ("_buffer", "_skip")

    def __init__(self) -> None:
        self._buffer = b""
        #: bytes of an unknown capsule that are still to come
        self._skip = 0

    @property
    def kept(self) -> int:
        """Bytes that are kept, because they are the beginning of a capsule."""
        return len(self._buffer)

    def feed(self, data: bytes) -> tuple[int, str] | None:
        """Take what was received. Returns the code and the reason if the session was closed.

        Raises:
            ProtocolError: the capsule that closes the session is longer or shorter than one may be.
        """
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._buffer += data[skipped:]
        while (head := _read_head(self._buffer)) is not None:
            kind, size, start = head
            if kind == CLOSE_SESSION:
                return self._read_close(start, size)
            self._skip = max(0, start + size - len(self._buffer))
            self._buffer = self._buffer[start + size:]
        return None

    def _read_close(self, start: int, size: int) -> tuple[int, str] | None:
        if not CODE_SIZE <= size <= CODE_SIZE + MAX_REASON:
            raise ProtocolError(f"a capsule that closes a session has {CODE_SIZE} to {CODE_SIZE + MAX_REASON} bytes, not {size}")
        content = self._buffer[start:start + size]
        if len(content) < size:
            return None
        return int.from_bytes(content[:CODE_SIZE], "big"), content[CODE_SIZE:].decode("utf-8", "replace")


def _read_head(data: bytes) -> tuple[int, int, int] | None:
    """The type and the size of the first capsule, and where its content begins; ``None`` if they have not arrived."""
    kind = _read_number(data, 0)
    size = None if kind is None else _read_number(data, kind[1])
    return None if kind is None or size is None else (kind[0], *size)


def _read_number(data: bytes, position: int) -> tuple[int, int] | None:
    """The variable-length integer at a position, and the position behind it."""
    if position >= len(data):
        return None
    size = 1 << (data[position] >> 6)
    if position + size > len(data):
        return None
    number = int.from_bytes(data[position:position + size], "big") & ((1 << (8 * size - 2)) - 1)
    return number, position + size
