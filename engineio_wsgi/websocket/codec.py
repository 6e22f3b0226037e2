"""The frames of one application's WebSocket, with the compression that was agreed on. No I/O."""

from __future__ import annotations

from engineio_wsgi.protocol.websocket.deflate import DeflateParameters, Deflater, Inflater
from engineio_wsgi.protocol.websocket.frames import FrameDecoder, Item, Opcode, encode_frame

__all__ = ["FrameCodec"]


class FrameCodec:
    """Encodes a server's frames, and decodes a client's. Its decoder and its deflater are made when they are first used.

    Args:
        max_size: bytes of the largest message that is decoded.
        parameters: of the compression that was agreed on; ``None`` without compression.
        threshold: bytes from which a message is compressed.
    """

    __slots__ = ("_decoder", "_deflater", "_max_size", "_threshold", "parameters")

    def __init__(self, max_size: int, parameters: DeflateParameters | None = None, threshold: int = 0) -> None:
        self._max_size = max_size
        self.parameters = parameters
        self._threshold = threshold
        self._decoder: FrameDecoder | None = None
        self._deflater: Deflater | None = None

    @property
    def has_decoded(self) -> bool:
        """Whether :meth:`decode` has been called."""
        return self._decoder is not None

    def decode(self, data: bytes) -> list[Item]:
        """The messages, control frames and violations that ``data`` completes."""
        if self._decoder is None:
            parameters = self.parameters
            inflater = None if parameters is None else Inflater(parameters, self._max_size)
            self._decoder = FrameDecoder(self._max_size, inflate=inflater)
        return self._decoder.feed(data)

    def encode(self, opcode: int, payload: bytes) -> bytes:
        """One frame; a message is compressed if that was agreed on and is worth it."""
        is_message = opcode in (Opcode.TEXT, Opcode.BINARY)
        if self.parameters is None or not is_message or len(payload) < self._threshold:
            return encode_frame(opcode, payload)
        if self._deflater is None:
            self._deflater = Deflater(self.parameters)
        return encode_frame(opcode, self._deflater.compress(payload), compressed=True)
