"""The packets of a WebTransport stream: each has a head with its size, and whether it is binary. No I/O.

A head is one byte: bit 7 is set for a binary message, and the other bits are the size of what follows. 126 and 127 say that the
size is in the next 2 or 8 bytes (big-endian).

Source: the Engine.IO protocol, revision 4, section "WebTransport".
"""

from __future__ import annotations

from engineio_wsgi.errors import PayloadTooLarge, ProtocolError

__all__ = ["StreamDecoder", "encode_frame", "frame_head", "message_head"]

BINARY = 0x80
SIZE_BITS = 0x7F
#: values of the seven bits that say that the size is in the 2 or 8 bytes behind them
SIZE_16, SIZE_64 = 126, 127


def frame_head(size: int, binary: bool) -> bytes:
    """The head of a packet of ``size`` bytes."""
    mark = BINARY if binary else 0
    if size < SIZE_16:
        return bytes((mark | size,))
    if size < 1 << 16:
        return bytes((mark | SIZE_16,)) + size.to_bytes(2, "big")
    return bytes((mark | SIZE_64,)) + size.to_bytes(8, "big")


#: by the size of a text message: its head, and its packet type
_SHORT_HEADS = [frame_head(size + 1, False) + b"4" for size in range(SIZE_16 - 1)]


def message_head(size: int) -> bytes:
    """The head of a text message of ``size`` bytes, its packet type included."""
    return _SHORT_HEADS[size] if size < len(_SHORT_HEADS) else frame_head(size + 1, False) + b"4"


def encode_frame(content: str | bytes) -> bytes:
    """A packet with its head, of the content that a WebSocket frame would have.

    An empty binary message is sent as base64, in text: the clients' decoder takes a size of 0 for an error. Lone surrogates,
    which UTF-8 cannot express, become U+FFFD, as in a browser.
    """
    if isinstance(content, bytes) and content:
        return frame_head(len(content), True) + content
    text = content if isinstance(content, str) else "b"
    payload = _to_utf8(text)
    return frame_head(len(payload), False) + payload


def _to_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


class StreamDecoder:
    """Cuts the bytes of a stream into packets.

    Args:
        limit: bytes of the largest packet. A larger one is refused when its head has arrived.
    """

    __slots__ = ("_chunks", "_limit", "_missing", "error")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: what has arrived of a packet that is not complete
        self._chunks: list[bytes] = []
        #: bytes without which that packet is not complete
        self._missing = 1
        #: why nothing more is decoded; ``None`` as long as the bytes were packets
        self.error: ProtocolError | None = None

    @property
    def missing(self) -> int:
        """Bytes without which the next packet cannot be complete; more may be missing when they have arrived."""
        return self._missing

    def feed(self, data: bytes) -> list[str | bytes]:
        """Decode the packets that ``data`` completes: text, with its packet type, or a binary message.

        If the bytes are no packets, or one is too large, ``error`` says so, and the packets before it are returned.
        """
        if self.error is not None:
            return []
        if self._chunks:
            self._chunks.append(data)
            if len(data) < self._missing:
                self._missing -= len(data)
                return []
            data = b"".join(self._chunks)
        packets: list[str | bytes] = []
        try:
            position = self._decode(data, packets)
        except ProtocolError as error:
            self.error = error
            self._chunks = []
            return packets
        self._chunks = [data[position:]] if position < len(data) else []
        return packets

    def _decode(self, data: bytes, packets: list[str | bytes]) -> int:
        """Decode the complete packets in ``data``. Returns where the first incomplete one begins."""
        position, end, limit = 0, len(data), self._limit
        while position < end:
            head = data[position]
            size = head & SIZE_BITS
            start = position + 1
            if size >= SIZE_16:
                start += 2 if size == SIZE_16 else 8
                if start > end:
                    self._missing = start - end
                    return position
                size = int.from_bytes(data[position + 1:start], "big")
            if size > limit:
                raise PayloadTooLarge(size, limit)
            stop = start + size
            if stop > end:
                self._missing = stop - end
                return position
            payload = data[start:stop]
            packets.append(payload if head & BINARY else _to_text(payload))
            position = stop
        self._missing = 1
        return position


def _to_text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a packet is not UTF-8: {error.reason} at byte {error.start}") from None
