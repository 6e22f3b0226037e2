"""The chunked transfer coding (RFC 9112 section 7.1), decoded. No I/O.

It is strict, so that two servers cannot disagree about where a request ends: lines end with CR LF, and sizes consist of
hexadecimal digits only. Trailers have to be well-formed, and are discarded.
"""

from __future__ import annotations

import re

from engineio_wsgi.errors import ChunkedError

__all__ = ["ChunkedDecoder", "ChunkedError"]

#: bytes of a line with a chunk's size: 16 digits, and an extension, which clients do not send
MAX_SIZE_LINE = 256
SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


#: bytes of all trailers
MAX_TRAILERS = 4096
TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class ChunkedDecoder:
    """Decodes the bytes of a connection to those of the body.

    ``done`` becomes true at the end of the body; ``rest`` then has the bytes behind it.
    """

    __slots__ = ("_buffer", "_left", "_trailers", "done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        #: missing bytes of the current chunk, and 2 for the line end after it; 0 between chunks
        self._left = 0
        #: bytes that the trailers may still have; ``None`` before the last chunk
        self._trailers: int | None = None
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The part of the body that ``data`` contains, in linear time.

        Raises:
            ChunkedError: the bytes are not a chunked body.
        """
        data = self._buffer + data
        self._buffer = b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            if self._trailers is not None:
                step = self._take_trailer(data, at, self._trailers)
            else:
                step = self._take_data(data, at, pieces) if self._left else self._take_size(data, at)
            if step == at:
                break
            at = step
        if self.done:
            self.rest = data[at:]
        else:
            self._buffer = data[at:]
        return b"".join(pieces)

    def _take_data(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Take the bytes of the current chunk. Returns the position behind them."""
        if self._left > 2:
            piece = data[at:at + self._left - 2]
            pieces.append(piece)
            self._left -= len(piece)
            return at + len(piece)
        end = data[at:at + 2]
        if not b"\r\n".startswith(end):
            raise ChunkedError("a chunk is longer than its size")
        if len(end) < 2:
            return at
        self._left = 0
        return at + 2

    def _take_size(self, data: bytes, at: int) -> int:
        """Take the line before a chunk. Returns the position behind it."""
        end = data.find(b"\r\n", at, at + MAX_SIZE_LINE)
        if end < 0:
            self._check_unfinished_line(data, at)
            return at
        match = SIZE_LINE.fullmatch(data, at, end)
        if match is None:
            raise ChunkedError("the size of a chunk is malformed")
        size = int(match[1], 16)
        if size:
            self._left = size + 2
        else:
            self._trailers = MAX_TRAILERS
        return end + 2

    @staticmethod
    def _check_unfinished_line(data: bytes, at: int) -> None:
        if len(data) - at >= MAX_SIZE_LINE:
            raise ChunkedError("the size of a chunk is longer than a line may be")
        if data.find(b"\n", at) >= 0:
            raise ChunkedError("a line ends without a carriage return")

    def _take_trailer(self, data: bytes, at: int, allowed: int) -> int:
        """Take a line behind the last chunk; an empty line ends the body. Returns the position behind it."""
        end = data.find(b"\r\n", at)
        size = (len(data) if end < 0 else end) - at
        if size > allowed:
            raise ChunkedError(f"the trailers are longer than {MAX_TRAILERS} bytes")
        if end < 0:
            if data.find(b"\n", at) >= 0:
                raise ChunkedError("a line ends without a carriage return")
            return at
        if size and TRAILER.fullmatch(data, at, end) is None:
            raise ChunkedError("a trailer is malformed")
        self.done = not size
        self._trailers = allowed - size
        return end + 2
