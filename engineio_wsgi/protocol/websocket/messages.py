"""A message that is still arriving: its pieces, its limits, and its validity so far.

Owns the data of an unfinished message. Knows nothing of how frames are encoded.
"""

from __future__ import annotations

import codecs
from io import BytesIO
from typing import NamedTuple, Self

from websockets.frames import CloseCode

from engineio_wsgi.errors import FrameError
from engineio_wsgi.protocol.websocket.deflate import Inflater

__all__ = ["IncomingMessage", "MessageSnapshot"]

#: the first two bytes of an encoded surrogate, which is invalid in UTF-8; Python's decoder waits for the third
SURROGATE = b"\xed\xa0"
SURROGATE_END = b"\xee"

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class IncomingMessage:
    """One text or binary message, from its first frame to the end of its last one.

    Args:
        is_text: whether it has to be UTF-8.
        max_size: bytes that it may have, decompressed.
        max_fragments: frames that it may have, including empty ones.
        inflater: decompresses it, if it is compressed.

    The methods raise a `FrameError` as soon as the byte that makes the message invalid has arrived.
    """

    __slots__ = ("_buffer", "_decoder", "_fragments", "_inflater", "_max_announced", "_max_fragments", "_max_size", "_room")

    def __init__(self, is_text: bool, max_size: int, max_fragments: int, inflater: Inflater | None) -> None:
        # It is compact for small pieces, and its bytes object becomes a binary message. A StringIO for text would decode once
        # instead of twice (7 % for 16 KiB), but keeps each piece as an object.
        self._buffer = BytesIO()
        self._decoder = _Utf8Decoder() if is_text else None
        self._fragments = max_fragments
        self._max_fragments = max_fragments
        self._inflater = inflater
        self._max_size = max_size
        self._room = max_size
        self._max_announced = max_size
        if inflater is not None:
            inflater.start()
            # incompressible data grows: by an eighth with zlib's smallest blocks
            self._max_announced += (max_size >> 3) + 1024

    def announce(self, size: int) -> None:
        """A frame with ``size`` bytes of payload begins."""
        self._fragments -= 1
        if self._fragments < 0:
            reason = f"a message of more than {self._max_fragments} fragments"
            raise FrameError(CloseCode.POLICY_VIOLATION, reason)
        self._max_announced -= size
        if self._max_announced < 0:
            raise self._too_large()

    def add(self, chunk: bytes) -> None:
        """The next bytes of its payload, unmasked."""
        self._keep(chunk if self._inflater is None else self._inflater.inflate(chunk))

    def finish(self) -> str | bytes:
        """Return the message, which has arrived completely."""
        if self._inflater is not None:
            self._keep(self._inflater.finish())
        self._validate(b"", is_all=True)
        data = self._buffer.getvalue()
        return data if self._decoder is None else data.decode()

    def _keep(self, data: bytes) -> None:
        room = self._room = self._room - len(data)
        if room < 0:
            # an earlier fault comes first
            self._validate(data[:room])
            raise self._too_large()
        self._validate(data)
        self._buffer.write(data)

    def _validate(self, data: bytes, is_all: bool = False) -> None:
        if self._decoder is None:
            return
        try:
            self._decoder.decode(data, is_all)
        except UnicodeDecodeError as error:
            raise _not_utf8(error.reason) from None
        pending = self._decoder.getstate()[0]
        if len(pending) == 2 and SURROGATE <= pending < SURROGATE_END:
            raise _not_utf8("a surrogate")

    def _too_large(self) -> FrameError:
        return FrameError(CloseCode.MESSAGE_TOO_BIG, f"a message of more than {self._max_size} bytes")

    # -- in another process

    @property
    def compressed(self) -> bool:
        """Whether it is compressed. What zlib keeps of it cannot be taken out."""
        return self._inflater is not None

    def snapshot(self) -> MessageSnapshot:
        """What another process needs to receive the rest. Not for a message that is :attr:`compressed`."""
        return MessageSnapshot(self._decoder is not None, self._fragments, self._max_announced, self._buffer.getvalue())

    @classmethod
    def restore(cls, snapshot: MessageSnapshot, max_size: int, max_fragments: int) -> Self:
        """The message of another process, with the limits of this one.

        Raises:
            FrameError: it is not valid here.
        """
        message = cls(snapshot.is_text, max_size, max_fragments, None)
        message._fragments, message._max_announced = snapshot.fragments, snapshot.announced
        message._keep(snapshot.data)
        return message


class MessageSnapshot(NamedTuple):
    """A message that has not arrived completely.

    Attributes:
        is_text: whether it has to be UTF-8.
        fragments: frames that may still begin.
        announced: bytes that further frames may have.
        data: what has arrived.
    """

    is_text: bool
    fragments: int
    announced: int
    data: bytes


def _not_utf8(why: str) -> FrameError:
    return FrameError(CloseCode.INVALID_DATA, f"a text message is not UTF-8: {why}")
