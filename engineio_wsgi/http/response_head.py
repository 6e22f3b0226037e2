"""Response heads: the arguments of ``start_response`` are checked, framed and encoded.

Owns the checks of PEP 3333 on statuses and headers, so that no value can add a header or a second response, and the framing of
the body. No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from time import time

__all__ = ["ResponseHead", "date_line", "keep_header"]

#: statuses whose responses have no body (RFC 9110 sections 15.2, 15.3.5, 15.4.5)
BODILESS = (204, 304)
SWITCHING_PROTOCOLS = 101

_date = (0, b"")


def date_line() -> bytes:
    """The line of the Date header for now. Formatted once a second."""
    global _date
    now = int(time())
    second, line = _date
    if second != now:
        line = b"Date: " + formatdate(now, usegmt=True).encode() + b"\r\n"
        _date = now, line
    return line


class ResponseHead:
    """Status and headers of one response.

    Args:
        status: code and reason.
        headers: the application's. A Transfer-Encoding is left out, because the server frames the body.

    Raises:
        TypeError: a header's name or value, or the status, is not a ``str``.
        ValueError: a line break in one of them; characters beyond Latin-1; a status without a number.
    """

    __slots__ = ("_lines", "chunked", "close", "code", "has_date", "left")

    _lines: bytes
    #: the status, as a number
    code: int
    #: whether the application has set a Date header
    has_date: bool
    #: bytes of the body that may still be sent; ``None`` without an announced length
    left: int | None
    #: whether the application, or the framing, requires that the connection is closed
    close: bool | None

    def __init__(self, status: str, headers: Sequence[tuple[str, str]]) -> None:
        #: whether the body goes out in chunks
        self.chunked = False
        self._lines, self.code, self.has_date, self.left, self.close = _compose(status, headers)

    @property
    def bodiless(self) -> bool:
        """Whether a response with this status has no body."""
        return self.code in BODILESS or self.code < 200

    def frame(self, length: int | None, version: str, close: bool, is_head: bool) -> bytes:
        """Decide how the body is framed, and encode the head.

        Args:
            length: bytes of the whole body, if it is known.
            version: of the request.
            close: whether the connection is closed afterwards.
            is_head: whether the request's method was HEAD, which has a response without a body.
        """
        if self.code == SWITCHING_PROTOCOLS:
            # what follows is not HTTP
            self.close = True
            return self._lines + b"\r\n"
        extra = b"" if self.has_date else date_line()
        bodiless = self.bodiless
        if self.left is None and not bodiless:
            extra += self._delimit(length, version, is_head)
        if close or version == "HTTP/1.0":
            extra += self._connection(close)
        self.close = self.close or close
        if is_head or bodiless:
            self.left = 0
            self.chunked = False
        return self._lines + extra + b"\r\n"

    def cut(self, data: bytes) -> bytes:
        """As much of ``data``, the next bytes of the body, as the response has announced. Counts it."""
        left = self.left
        if left is None:
            return data
        if len(data) > left:
            data = data[:left]
        self.left = left - len(data)
        return data

    def _connection(self, close: bool) -> bytes:
        """The line of the Connection header, unless the application has set one."""
        if self.close is not None:
            return b""
        return b"Connection: close\r\n" if close else b"Connection: keep-alive\r\n"

    def _delimit(self, length: int | None, version: str, is_head: bool) -> bytes:
        if length is not None:
            if is_head and not length:
                # the length of the response to a GET is not known
                return b""
            self.left = length
            return b"Content-Length: %d\r\n" % length
        if version == "HTTP/1.0":
            # the body ends with the connection
            is_told = self.close is not None
            self.close = True
            return b"" if is_told else b"Connection: close\r\n"
        self.chunked = True
        return b"Transfer-Encoding: chunked\r\n"


#: status and headers, encoded; code; whether there is a date; Content-Length; whether Connection says close
Composed = tuple[bytes, int, bool, int | None, bool | None]

#: heads that were sent before and have no other headers than SHAREABLE, whose values belong to no single client
_KNOWN: dict[tuple[object, ...], Composed] = {}
SHAREABLE = frozenset(("cache-control", "connection", "content-encoding", "content-length", "content-type", "vary",
                       "x-content-type-options"))
#: further headers that may be kept, because they come from the configuration
_configured: set[tuple[str, str]] = set()
MAX_KNOWN = 256
MAX_KNOWN_SIZE = 512


def keep_header(name: str, value: str) -> None:
    """Allow that heads with this header and value are kept, because it comes from the configuration."""
    _configured.add((name, value))


def _is_shareable(headers: Sequence[tuple[str, str]]) -> bool:
    return all(header[0].lower() in SHAREABLE or header in _configured for header in headers)


def _compose(status: str, headers: Sequence[tuple[str, str]]) -> Composed:
    """Check and encode a head, or return an equal one that was encoded before, which saves 1.2 µs.

    A head with ``Set-Cookie``, ``Location``, ``ETag`` or any other header that may be a secret of one client is never kept.
    """
    key = (status, *headers)
    try:
        known = _KNOWN.get(key)
    except TypeError:
        return _compose_new(status, headers)  # a header that is a list
    if known is None:
        known = _compose_new(status, headers)
        if len(known[0]) <= MAX_KNOWN_SIZE and _is_shareable(headers):
            if len(_KNOWN) >= MAX_KNOWN:
                _KNOWN.clear()
            _KNOWN[key] = known
    return known


def _compose_new(status: str, headers: Sequence[tuple[str, str]]) -> Composed:
    names = {name.lower(): value for name, value in headers}
    if "transfer-encoding" in names:
        headers = [header for header in headers if header[0].lower() != "transfer-encoding"]
    left = _to_length(names["content-length"]) if "content-length" in names else None
    close = "close" in names["connection"].lower() if "connection" in names else None
    # raises TypeError for anything but strings
    text = "\r\n".join(["HTTP/1.1 " + status, *map(": ".join, headers), ""])
    if text.count("\n") != len(headers) + 1 or text.count("\r") != len(headers) + 1:
        raise ValueError("a line break in the status or in a header")
    return text.encode("latin-1"), int(status[:3]), "date" in names, left, close


def _to_length(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"the Content-Length {value!r} is not a number")
    return int(value)
