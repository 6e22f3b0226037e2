"""Request bodies: ``wsgi.input``, and reading a whole body within a limit.

Owns the input stream of PEP 3333, which reads from the connection when the application reads, and ``Expect: 100-continue``. It
never reads past the end of the body, and keeps no more of it than one ``recv``.
"""

from __future__ import annotations

from collections.abc import Iterator
from sys import maxsize
from typing import TYPE_CHECKING

from engineio_wsgi.errors import PayloadTooLarge, ProtocolError
from engineio_wsgi.http.chunked import ChunkedDecoder, ChunkedError
from engineio_wsgi.http.connection import RECV_SIZE, HttpConnection
from engineio_wsgi.http.request_head import CHUNKED, InvalidRequest

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["NO_BODY", "Body", "copy_body", "open_body", "read_body"]

#: bytes of one read of a body whose length is not announced
CHUNK = 65_536

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Body:
    """The input stream of a request; this base class has no bytes.

    All methods block while the client sends, and raise :class:`InvalidRequest` (an ``OSError``) if the body is malformed, stops
    arriving, or ends too soon.
    """

    __slots__ = ()

    #: whether no byte of the body has been read from the connection
    untouched = True

    def read(self, size: int | None = -1) -> bytes:
        """``size`` bytes, fewer only at the end of the body; the whole rest if ``size`` is negative or ``None``."""
        return b""

    @property
    def complete(self) -> bool:
        """Whether nothing of it is left on the connection."""
        return True

    def readline(self, size: int | None = -1) -> bytes:
        """The bytes up to and including the next line feed, at most ``size``."""
        return b""

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """All lines, or as many as have ``hint`` bytes."""
        lines: list[bytes] = []
        size = 0
        for line in self:
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def discard(self, limit: int) -> bool:
        """Read and drop the rest, if it has ``limit`` bytes at most. Returns whether nothing is left."""
        return True

    def stop_waiting(self) -> bool:
        """Send no "100 Continue" any more, because the response begins.

        Returns whether the client still waits for one. It may send the body or not, so the connection has to be closed.
        """
        return False


#: for every request without a body
NO_BODY = Body()


class _StreamedBody(Body):
    """What both framings share: reads of any size out of the pieces that arrive."""

    __slots__ = ("_at", "_connection", "_expected", "_failed", "_piece", "_timeout", "untouched")

    def __init__(self, connection: HttpConnection, timeout: float, expected: bool) -> None:
        self._connection = connection
        self._timeout = timeout
        #: whether the client waits for "100 Continue"
        self._expected = expected
        self._failed = False
        self.untouched = True
        self._piece = b""
        self._at = 0

    def read(self, size: int | None = -1) -> bytes:
        """``size`` bytes, fewer only at the end of the body; the whole rest if ``size`` is negative or ``None``."""
        wanted = maxsize if size is None or size < 0 else size
        pieces: list[bytes] = []
        while wanted > 0 and (piece := self._take(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size: int | None = -1) -> bytes:
        """The bytes up to and including the next line feed, at most ``size``."""
        wanted = maxsize if size is None or size < 0 else size
        pieces: list[bytes] = []
        while wanted > 0 and (self._at < len(self._piece) or self._refill()):
            end = self._piece.find(b"\n", self._at) + 1 or len(self._piece)
            piece = self._take(min(end - self._at, wanted))
            pieces.append(piece)
            wanted -= len(piece)
            if piece.endswith(b"\n"):
                break
        return b"".join(pieces)

    def _take(self, size: int) -> bytes:
        """Up to ``size`` bytes of the current piece, or of the next; ``b""`` at the end."""
        if self._at == len(self._piece) and not self._refill():
            return b""
        begin, piece = self._at, self._piece
        self._at = end = min(begin + size, len(piece))
        return piece[begin:end]

    def _refill(self) -> bool:
        self._piece = b""
        self._at = 0
        if self._failed:
            raise InvalidRequest("400 Bad Request", "the rest of the request's body cannot be read")
        self._failed = True
        self._piece = self._fetch()
        self._failed = False
        return bool(self._piece)

    def _fetch(self) -> bytes:
        """The next bytes of the body, as many as have arrived; ``b""`` at its end."""
        raise NotImplementedError

    def _receive(self, size: int) -> bytes:
        """At most ``size`` bytes from the connection, and at least one."""
        connection = self._connection
        self.untouched = False
        if connection.buffer:
            return connection.take(size)
        if self._expected:
            self._expected = False
            self._connection.send_all(CONTINUE, self._timeout)
        try:
            data = connection.receive(self._timeout, min(size, RECV_SIZE))
        except TimeoutError as error:
            raise InvalidRequest("408 Request Timeout", f"the request's body stopped: {error}") from error
        if not data:
            raise InvalidRequest("400 Bad Request", "the client went away before the request's body was complete")
        return data

    def stop_waiting(self) -> bool:
        """Send no "100 Continue" any more, because the response begins."""
        if self._expected:
            self._failed = True
        return self._expected

    @property
    def complete(self) -> bool:
        """Whether nothing of it is left on the connection."""
        raise NotImplementedError

    def discard(self, limit: int) -> bool:
        """Read and drop the rest, if it has ``limit`` bytes at most. Returns whether nothing is left."""
        if self._failed or self._expected:
            # a client that still waits may send the body or not
            return False
        while not self.complete and limit > 0:
            if not self._refill():
                break
            limit -= len(self._piece)
        return self.complete


class _SizedBody(_StreamedBody):
    """A body with a Content-Length."""

    __slots__ = ("_left",)

    def __init__(self, connection: HttpConnection, timeout: float, expected: bool, length: int) -> None:
        super().__init__(connection, timeout, expected)
        self._left = length

    def _fetch(self) -> bytes:
        if not self._left:
            return b""
        data = self._receive(self._left)
        self._left -= len(data)
        return data

    @property
    def complete(self) -> bool:
        """Whether nothing of it is left on the connection."""
        return not self._left

    def discard(self, limit: int) -> bool:
        """Read and drop the rest, if it has ``limit`` bytes at most. Returns whether nothing is left."""
        return self._left <= limit and super().discard(limit)


class _ChunkedBody(_StreamedBody):
    """A body in chunks."""

    __slots__ = ("_decoder",)

    def __init__(self, connection: HttpConnection, timeout: float, expected: bool) -> None:
        super().__init__(connection, timeout, expected)
        self._decoder = ChunkedDecoder()

    def _fetch(self) -> bytes:
        decoder = self._decoder
        piece = b""
        while not piece and not decoder.done:
            try:
                piece = decoder.feed(self._receive(RECV_SIZE))
            except ChunkedError as error:
                raise InvalidRequest("400 Bad Request", f"the request's body: {error}") from error
            if decoder.done:
                self._connection.keep(decoder.rest + self._connection.buffer)
        return piece

    @property
    def complete(self) -> bool:
        """Whether nothing of it is left on the connection."""
        return self._decoder.done


def open_body(connection: HttpConnection, length: int | None, timeout: float, environ: WSGIEnvironment) -> Body:
    """The input stream of a request whose head has just been read.

    Args:
        length: :attr:`RequestHead.length`.
        timeout: seconds that the client may pause.
        environ: the request's.
    """
    if not length:
        return NO_BODY
    expected = environ.get("HTTP_EXPECT", "").lower() == "100-continue" and environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    if expected and connection.buffer:
        # the client did not wait for it
        expected = False
    if length == CHUNKED:
        return _ChunkedBody(connection, timeout, expected)
    return _SizedBody(connection, timeout, expected, length)


# -- reading a whole body, from the input stream of any server


def read_body(environ: WSGIEnvironment, limit: int) -> bytes:
    """The whole body of a request. Blocks while it arrives.

    Raises:
        PayloadTooLarge: more than ``limit`` bytes; where the length is announced, before anything is read.
        ProtocolError: a length that is no number.
        OSError: the client went away before the body was complete.
    """
    announced = environ.get("CONTENT_LENGTH")
    if announced:
        return _read_exactly(environ, _parse_length(announced), limit)
    if not environ.get("wsgi.input_terminated"):
        return b""
    return _read_to_end(environ, limit)


def copy_body(environ: WSGIEnvironment, limit: int) -> tuple[str, bytes]:
    """The body for a copy of the request that another thread or process answers, and its ``CONTENT_LENGTH``.

    :func:`read_body` of the copy raises what it would raise for the original. Blocks while the body arrives; reads no more than
    ``limit`` bytes.
    """
    announced: str = environ.get("CONTENT_LENGTH") or ""
    if not announced and not environ.get("wsgi.input_terminated"):
        return "", b""
    try:
        body = read_body(environ, limit)
    except PayloadTooLarge as error:
        return str(error.size), b""
    except ProtocolError:
        return announced, b""
    except OSError:
        # the copy has a shorter body than announced
        return announced or "1", b""
    return str(len(body)), body


def _parse_length(announced: str) -> int:
    if not (announced.isascii() and announced.isdigit()):
        raise ProtocolError(f"the Content-Length {announced[:40]!r} is not a number")
    return int(announced)


def _read_exactly(environ: WSGIEnvironment, length: int, limit: int) -> bytes:
    if length > limit:
        raise PayloadTooLarge(length, limit)
    body: bytes = environ["wsgi.input"].read(length)
    if len(body) < length:
        raise ConnectionAbortedError(f"{len(body)} of {length} bytes arrived before the client went away")
    return body


def _read_to_end(environ: WSGIEnvironment, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := environ["wsgi.input"].read(min(CHUNK, limit + 1 - size)):
        size += len(chunk)
        if size > limit:
            raise PayloadTooLarge(size, limit)
        chunks.append(chunk)
    return b"".join(chunks)
