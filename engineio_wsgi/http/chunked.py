"""The chunked transfer coding (RFC 9112 section 7.1), decoded. No I/O.

Strict, because every leniency here is a way to have two servers disagree about where a request ends: lines end with
CR LF, sizes are hexadecimal digits and nothing else, and trailers are refused.
"""

from __future__ import annotations

import re

__all__ = ["ChunkedDecoder", "ChunkedError"]

#: bytes of a line with a chunk's size: 16 digits and an extension, which nobody uses
MAX_SIZE_LINE = 256
SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class ChunkedError(ValueError):
    """The bytes are not a chunked body."""


class ChunkedDecoder:
    """Takes the bytes of a connection, gives those of the body.

    ``done`` becomes true at the end of the body; ``rest`` is then what came after it.
    """

    __slots__ = ("_buffer", "_left", "done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        #: bytes of the current chunk that have not come, and 2 for the line end after it; 0 between chunks
        self._left = 0
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The part of the body that ``data`` contains; takes time in proportion to it.

        Raises:
            ChunkedError: what came is not a chunked body, or has trailers.
        """
        data = self._buffer + data
        self._buffer = b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
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
        """Take what there is of the current chunk. Returns where the next thing begins."""
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
        """Take the line before a chunk, with the last one the end of the body. Returns where the next thing begins."""
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
            return end + 2
        return self._take_end(data, at, end + 2)

    @staticmethod
    def _check_unfinished_line(data: bytes, at: int) -> None:
        if len(data) - at >= MAX_SIZE_LINE:
            raise ChunkedError("the size of a chunk is longer than a line may be")
        if data.find(b"\n", at) >= 0:
            raise ChunkedError("a line ends without a carriage return")

    def _take_end(self, data: bytes, at: int, end: int) -> int:
        empty_line = data[end:end + 2]
        if not b"\r\n".startswith(empty_line):
            raise ChunkedError("trailers are not accepted")
        if len(empty_line) < 2:
            return at
        self.done = True
        return end + 2
