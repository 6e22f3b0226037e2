"""WebSocket frames (RFC 6455 section 5): bytes from a peer to messages, messages to bytes for a peer.

Owns the framing, and the data of frames that have not arrived completely. Knows no I/O, no clock, and nothing of what messages
mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:  # the C extension is not built for every platform
    from websockets.utils import apply_mask

from engineio_wsgi.errors import FrameError
from engineio_wsgi.protocol.websocket.deflate import Inflater
from engineio_wsgi.protocol.websocket.items import (
    MAX_CONTROL,
    Close,
    Item,
    Opcode,
    Ping,
    Pong,
    Violation,
    is_sendable,
    parse_close,
    wrong,
)
from engineio_wsgi.protocol.websocket.messages import IncomingMessage, MessageSnapshot

__all__ = [
    "Close",
    "DecoderSnapshot",
    "FrameDecoder",
    "Item",
    "Opcode",
    "Ping",
    "Pong",
    "Violation",
    "apply_mask",
    "encode_binary",
    "encode_close",
    "encode_frame",
    "encode_text",
    "to_utf8",
]

#: frames of one message; Autobahn's longest (9.3.1: 4 MiB by 64 bytes) has half as many, honest clients send a few
MAX_FRAGMENTS = 131_072
#: bytes of the largest frame whose beginning is held: half of what one ``recv`` takes
MAX_HELD = 32_768
#: bytes of a close frame's reason, without its code
MAX_REASON = MAX_CONTROL - 2

FINAL = 0x80
COMPRESSED = 0x40
RESERVED = 0x70
MASKED = 0x80
#: second bytes of a masked frame whose size follows in two, and in eight bytes
MASKED_16 = MASKED | 126
FINAL_TEXT = 0x81
FINAL_BINARY = 0x82
FINAL_CLOSE = 0x88

#: bytes of the size behind the first two bytes, by the second
_SIZE_LENGTHS = {126: 2, 127: 8}


class FrameDecoder:
    """The receiving half of a connection.

    Args:
        max_size: bytes of the largest message, all its frames together and decompressed.
        max_fragments: frames of the longest message.
        inflate: decompresses messages, if permessage-deflate was agreed on.
        masked: whether the peer is a client, whose frames have to be masked; a server's must not be.

    Example::

        decoder = FrameDecoder(1_000_000)
        for item in decoder.feed(data):
            if isinstance(item, str): ...
    """

    __slots__ = (
        "_inflate",
        "_is_final",
        "_is_masked",
        "_is_over",
        "_mask",
        "_max_fragments",
        "_max_size",
        "_message",
        "_remaining",
        "_tail",
        "begun",
        "plain_limit",
    )

    def __init__(
        self, max_size: int, *, max_fragments: int = MAX_FRAGMENTS, inflate: Inflater | None = None, masked: bool = True
    ) -> None:
        self._max_size = max_size
        self._max_fragments = max_fragments
        self._inflate = inflate
        self._is_masked = masked
        #: the message that has not arrived completely
        self._message: IncomingMessage | None = None
        #: of the data frame whose payload is arriving: missing bytes, mask for the next of them, whether it is the last frame
        self._remaining = 0
        self._mask = b""
        self._is_final = False
        #: the beginning of a frame whose head has not arrived completely
        self._tail = b""
        #: whether a close frame or a violation has ended the stream
        self._is_over = False
        #: bytes of data for which the fast path is tried: 0 while a frame or message is unfinished, and for unmasked frames
        self.plain_limit = max_size if masked else -1
        #: what is held of a frame, see :meth:`hold`
        self.begun = b""

    def feed(self, data: bytes) -> list[Item]:
        """Decode received bytes.

        Returns:
            The items that they complete, in order. A `Close` or a `Violation` is the last item: later bytes are ignored.
        """
        # By far the most usual: exactly one frame of a small message. Without this branch the loop of `_take_whole` needs
        # 420 ns instead of 320 for 32 bytes of text; unmasking and decoding alone take 200 (CPython 3.11).
        end = len(data)
        if not 5 < end <= self.plain_limit + 6:
            return self._resume(data)
        second = data[1]
        if end == second - 122 and second < MASKED_16:
            payload = apply_mask(data[6:], data[2:6])
        elif second == MASKED_16 and end == (data[2] << 8 | data[3]) + 8:
            payload = apply_mask(data[8:], data[4:8])
        else:
            return self._decode(data)
        first = data[0]
        if first == FINAL_TEXT:
            try:
                return [payload.decode()]
            except UnicodeDecodeError:
                # the general path finds the reason
                return self._decode(data)
        if first == FINAL_BINARY:
            return [payload]
        return self._take_close(data, payload) if first == FINAL_CLOSE else self._decode(data)

    def hold(self, data: bytes, is_new: bool) -> bytes:
        """Hold the beginning of a plain frame of 126 bytes to 32 KiB in ``begun`` until more has been received.

        The caller decodes plain frames faster than `feed`, which would take this one apart piece by piece, and with it all frames
        that are received with the next piece. An echo of 16 KiB with 16 under way then took twice as long.

        Args:
            data: what the caller has not decoded, with what was held before.
            is_new: whether another frame has been completed since the last call. No frame is held twice.

        Returns:
            ``data`` if it is to be fed; ``b""`` if it is held.
        """
        was_held, self.begun = bool(self.begun), b""
        if (was_held and not is_new) or not self._is_begun(data):
            return data
        self.begun = data
        return b""

    def _is_begun(self, data: bytes) -> bool:
        if len(data) < 8 or data[1] != MASKED_16 or data[0] not in (FINAL_TEXT, FINAL_BINARY):
            return False
        size = data[2] << 8 | data[3]
        return size <= min(self.plain_limit, MAX_HELD) and len(data) < size + 8

    def _take_close(self, data: bytes, payload: bytes) -> list[Item]:
        """Decode a close frame, the last one of most sessions. The general path reports violations, and takes twice as long."""
        if len(payload) > MAX_CONTROL:
            return self._decode(data)
        try:
            close = parse_close(payload)
        except FrameError:
            return self._decode(data)
        self._end()
        self.plain_limit = -1
        return [close]

    def _resume(self, data: bytes) -> list[Item]:
        if self._is_over:
            return []
        if self._tail:
            data, self._tail = self._tail + data, b""
        return self._decode(data)

    def _decode(self, data: bytes) -> list[Item]:
        items: list[Item] = []
        position, end = 0, len(data)
        try:
            while position < end:
                if self._message is None and self._is_masked:
                    position = self._take_whole(data, position, items)
                    if position == end:
                        break
                position = self._take_part(data, position, items)
        except FrameError as error:
            self._end()
            items.append(Violation(error.code, str(error)))
        is_idle = self._is_masked and self._message is None and not self._tail and not self._is_over
        self.plain_limit = self._max_size if is_idle else -1
        return items

    def _end(self) -> None:
        self._is_over = True
        self._message = None
        self._inflate = None

    def _take_whole(self, data: bytes, position: int, items: list[Item]) -> int:
        """Decode masked, uncompressed, unfragmented messages of less than 64 KiB, as long as there is one completely.

        Returns the position of the first frame that is anything else.
        """
        # Measured with 16 frames of 32 bytes, and 4 of 16 KiB, per call (ns a frame): this 340 and 1830. The larger
        # payloads through plain slices 340 and 2080, all of them through a memoryview 490 and 2180, heads by
        # struct.unpack_from 320 and 2090; catching IndexError instead of comparing positions 330 and 2120.
        end, limit, view = len(data), self._max_size, memoryview(data)
        while position + 6 <= end:
            source: bytes | memoryview = data
            size = data[position + 1] - MASKED
            start = position + 6
            if size == 126:
                start = position + 8
                size = data[position + 2] << 8 | data[position + 3]
                source = view
            elif not 0 <= size < 126:
                break
            stop = start + size
            if stop > end or size > limit:
                break
            first = data[position]
            if first == FINAL_TEXT:
                try:
                    items.append(apply_mask(source[start:stop], data[start - 4 : start]).decode())
                except UnicodeDecodeError:
                    break
            elif first == FINAL_BINARY:
                items.append(apply_mask(source[start:stop], data[start - 4 : start]))
            else:
                break
            position = stop
        return position

    def _take_part(self, data: bytes, position: int, items: list[Item]) -> int:
        """Use the next frame, or as much of it as there is; returns the position behind what was used."""
        if self._remaining:
            return self._take_payload(data, position, items)
        end = len(data)
        if end - position < 2:
            self._tail = data[position:]
            return end
        first, size = data[position], data[position + 1] & 0x7F
        opcode = first & 0x0F
        self._check_head(first, opcode, data[position + 1])
        size_length = _SIZE_LENGTHS.get(size, 0)
        mask_start = position + 2 + size_length
        start = mask_start + (4 if self._is_masked else 0)
        if end < start or (opcode >= Opcode.CLOSE and end < start + size):
            self._tail = data[position:]
            return end
        if size_length:
            size = int.from_bytes(data[position + 2 : mask_start], "big")
        self._mask = data[mask_start:start]
        if opcode >= Opcode.CLOSE:
            payload = data[start : start + size]
            return self._take_control(
                opcode, apply_mask(payload, self._mask) if self._is_masked else payload, items, start + size, end
            )
        self._begin(first, opcode, size)
        return self._take_payload(data, start, items)

    def _check_head(self, first: int, opcode: int, second: int) -> None:
        """Check the first two bytes of a frame."""
        reserved = first & RESERVED
        if reserved and not (reserved == COMPRESSED and self._inflate is not None and opcode in _MESSAGE_OPCODES):
            raise wrong("reserved bits are set")
        if bool(second & MASKED) is not self._is_masked:
            raise wrong("a client's frame is not masked" if self._is_masked else "a server's frame is masked")
        if opcode in _CONTROL_OPCODES:
            if not first & FINAL:
                raise wrong("a control frame is fragmented")
            if second & 0x7F > MAX_CONTROL:
                raise wrong(f"a control frame of more than {MAX_CONTROL} bytes")
        else:
            self._check_order(opcode)

    def _check_order(self, opcode: int) -> None:
        """Check that a message begins only after the end of the last one, and that only an unfinished message is continued."""
        if opcode == Opcode.CONTINUATION:
            if self._message is None:
                raise wrong("there is nothing to continue")
        elif opcode not in _MESSAGE_OPCODES:
            raise wrong(f"opcode {opcode} is reserved")
        elif self._message is not None:
            raise wrong("a message begins before the one before it has ended")

    def _begin(self, first: int, opcode: int, size: int) -> None:
        """Begin a data frame, whose head is complete."""
        message = self._message
        if message is None:
            inflater = self._inflate if first & COMPRESSED else None
            is_text = opcode == Opcode.TEXT
            message = self._message = IncomingMessage(is_text, self._max_size, self._max_fragments, inflater)
        message.announce(size)
        self._remaining = size
        self._is_final = bool(first & FINAL)

    def _take_payload(self, data: bytes, position: int, items: list[Item]) -> int:
        message = self._message
        assert message is not None
        chunk = data[position : position + self._remaining]
        size = len(chunk)
        if size:
            self._remaining -= size
            if self._is_masked:
                mask = self._mask
                message.add(apply_mask(chunk, mask))
                turn = size & 3
                self._mask = mask[turn:] + mask[:turn]
            else:
                message.add(chunk)
        if not self._remaining and self._is_final:
            items.append(message.finish())
            self._message = None
        return position + size

    def _take_control(self, opcode: int, payload: bytes, items: list[Item], position: int, end: int) -> int:
        items.append(_CONTROL_OPCODES[opcode](payload))
        if opcode != Opcode.CLOSE:
            return position
        self._end()
        return end

    # -- in another process

    @property
    def movable(self) -> bool:
        """Whether another process can receive the rest: a client's stream goes on, and nothing compressed is half received."""
        return self._is_masked and not self._is_over and (self._message is None or not self._message.compressed)

    def snapshot(self) -> DecoderSnapshot:
        """What another process needs to receive the rest of the stream, if it is :attr:`movable`."""
        message = None if self._message is None else self._message.snapshot()
        return DecoderSnapshot(self._remaining, self._mask, self._is_final, self._tail or self.begun, message)

    def restore(self, snapshot: DecoderSnapshot) -> None:
        """Go on where the decoder of another process has stopped. For a new decoder.

        Raises:
            FrameError: what has arrived is not valid here.
        """
        self._remaining, self._mask, self._is_final, self._tail = snapshot[:4]
        if snapshot.message is not None:
            self._message = IncomingMessage.restore(snapshot.message, self._max_size, self._max_fragments)
        if self._tail or self._message is not None:
            self.plain_limit = -1


class DecoderSnapshot(NamedTuple):
    """A decoder between two calls of :meth:`FrameDecoder.feed`.

    Attributes:
        remaining: bytes that the payload of the present data frame still lacks.
        mask: for the next of them.
        is_final: whether it is the last frame of its message.
        tail: the beginning of a frame that has not been decoded.
        message: the one that has not arrived completely.
    """

    remaining: int
    mask: bytes
    is_final: bool
    tail: bytes
    message: MessageSnapshot | None


_MESSAGE_OPCODES = frozenset({int(Opcode.TEXT), int(Opcode.BINARY)})
_CONTROL_OPCODES: dict[int, Callable[[bytes], Ping | Pong | Close]] = {
    int(Opcode.CLOSE): parse_close,
    int(Opcode.PING): Ping,
    int(Opcode.PONG): Pong,
}

_TEXT_HEADS = tuple(bytes((FINAL_TEXT, size)) for size in range(126))
_BINARY_HEADS = tuple(bytes((FINAL_BINARY, size)) for size in range(126))


def to_utf8(text: str) -> bytes:
    """``text`` as UTF-8, with U+FFFD for lone halves of surrogate pairs, as in browsers."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        # two halves that belong together become one character
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def encode_text(text: str) -> bytes:
    """The frame of a server's text message."""
    try:
        payload = text.encode()
    except UnicodeEncodeError:
        payload = to_utf8(text)
    size = len(payload)
    if size < 126:
        return _TEXT_HEADS[size] + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def encode_binary(data: bytes) -> bytes:
    """The frame of a server's binary message."""
    size = len(data)
    if size < 126:
        return _BINARY_HEADS[size] + data
    if size < 65_536:
        return b"\x82\x7e" + size.to_bytes(2, "big") + data
    return b"\x82\x7f" + size.to_bytes(8, "big") + data


def encode_frame(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """One final, unmasked frame: a server's.

    Args:
        compressed: whether ``payload`` is the result of `Deflater.compress`.
    """
    first = bytes((FINAL | (COMPRESSED if compressed else 0) | opcode,))
    size = len(payload)
    if size < 126:
        return first + size.to_bytes(1, "big") + payload
    if size < 65_536:
        return first + b"\x7e" + size.to_bytes(2, "big") + payload
    return first + b"\x7f" + size.to_bytes(8, "big") + payload


def encode_close(code: int | None = 1000, reason: str = "") -> bytes:
    """A server's close frame. ``reason`` is cut off after 123 bytes; with ``None`` as ``code``, the frame is empty.

    Raises:
        ValueError: ``code`` must not be sent.
    """
    if code is None:
        return encode_frame(Opcode.CLOSE, b"")
    if not is_sendable(code):
        raise ValueError(f"close code {code!r} must not be sent; 1000 to 1003, 1007 to 1014 and 3000 to 4999 may")
    text = to_utf8(reason)[:MAX_REASON].decode("utf-8", "ignore").encode()
    return encode_frame(Opcode.CLOSE, code.to_bytes(2, "big") + text)
