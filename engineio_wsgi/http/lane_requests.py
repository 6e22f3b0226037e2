"""The requests of the lane: a poll or POST is recognised by its bytes, because an equal one has been accepted before.

Owns what is known of a connection's header fields, and how a request is compared with it. A request that differs in anything but
its session id, its ``t`` and the length of its body is not recognised, and nothing is decided about it here. No I/O.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from engineio_wsgi.http.query import parse_query
from engineio_wsgi.http.request_head import MAX_KEPT_FIELDS, PROXY_KEYS, HeadLimits
from engineio_wsgi.protocol.websocket.batches import accelerated

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["Accepted", "Known", "LaneRequest", "accept"]

OCTET_STREAM = "application/octet-stream"
#: keys in an environ with which a request is framed or answered in another way
ODD_KEYS = frozenset(("HTTP_EXPECT", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE", *PROXY_KEYS))
#: names in a query that the engine reads; an application's own names may come before them
OWN_NAMES = frozenset(("EIO", "b64", "j", "sid", "t", "transport"))
#: the beginning of a request up to the engine's part of its query
BEGINNING = re.compile(rb"(?:GET|POST) /[!->@-~]*\?((?:[!-%'-<>-~]+=[!-%'-~]*&)*?)(?=EIO=)")
#: the rest of the request line, as engine.io-client sends it
QUERY = re.compile(rb"EIO=([34])&transport=polling(?:&(?:t=[\w.~-]*|b64=1))*&sid=([\w.~-]+)(?:&t=[\w.~-]*)? HTTP/1\.1(?=\r\n)")
#: the protocol's revision, by its digit in the query
REVISIONS = {b"3": 3, b"4": 4}
#: the header with the length of a body, up to its value
LENGTH_HEADER = re.compile(rb"\r\nContent-Length: ?(?=[1-9])", re.IGNORECASE)
#: that length
LENGTH = re.compile(rb"[1-9]\d{0,8}(?=\r\n)")


#: a request that was recognised: the session id, the protocol's revision, and the bytes of its head and of its body
LaneRequest = tuple[str, int, int, int]


def match_in_python(data: bytes, beginning: bytes, fields: bytes, rest: bytes) -> tuple[str, int, int, int, int] | None:
    """Compare a request with an earlier one, of which ``beginning``, ``fields`` and ``rest`` are as in `Known`.

    Returns:
        The session id, the revision, the sizes of the request line, of the whole head, and of the body; ``None`` if anything else
        differs than the session id, ``t``, ``b64`` and the length of the body, or if the head is not complete.
    """
    if not data.startswith(beginning):
        return None
    line = QUERY.match(data, len(beginning))
    if line is None or not data.startswith(fields, line.end()):
        return None
    end, size = line.end() + len(fields), 0
    if rest:
        length = LENGTH.match(data, end)
        if length is None or not data.startswith(rest, length.end()):
            return None
        end, size = length.end() + len(rest), int(length[0])
    return line[2].decode("ascii"), REVISIONS[line[1]], line.end(), end, size


match = match_in_python
if not TYPE_CHECKING and accelerated:
    # a tenth of the time, which was a fifth of that of an echo
    with suppress(ImportError):  # it was not built
        from engineio_wsgi.http.c_lane_requests import match


class Known:
    """What is known of the requests of one connection with one method, because one of them has been accepted.

    The bytes contain credentials: an object lives as long as its connection at most.

    Args:
        beginning: the bytes of the request up to the engine's part of its query.
        fields: the header fields and the empty line behind them; in a POST, up to the length of the body.
        rest: what comes behind that length; empty in a GET.
        accepted: that request.
    """

    __slots__ = ("_beginning", "_count", "_fields", "_rest", "accept_encoding", "binary", "encoded_headers",
                 "headers")

    def __init__(self, beginning: bytes, fields: bytes, rest: bytes, accepted: Accepted) -> None:
        self._beginning = beginning
        self._fields = fields
        self._rest = rest
        self._count = fields.count(b"\r\n") + rest.count(b"\r\n") - 2
        #: what the client takes as Content-Encoding
        self.accept_encoding = accepted.accept_encoding
        #: whether its POSTs have a binary content type
        self.binary = accepted.is_binary
        #: the CORS headers of its responses
        self.headers = accepted.headers
        self.encoded_headers = "".join([f"{name}: {value}\r\n" for name, value in self.headers]).encode("latin-1")

    def recognise(self, data: bytes, limits: HeadLimits) -> LaneRequest | None:
        """The request that ``data`` begins with, if its whole head is there and is as it was before."""
        found = match(data, self._beginning, self._fields, self._rest)
        if found is None:
            return None
        sid, revision, line_size, head_size, size = found
        # the limits may have changed since
        if (line_size > limits.max_request_line or head_size - line_size - 4 > limits.max_header_size
                or self._count > limits.max_header_count):
            return None
        return sid, revision, head_size, size


class Accepted(NamedTuple):
    """A request that has been accepted, as far as it matters for the next. What it costs to learn from it is left for then.

    Attributes:
        head: its bytes up to the empty line behind its header fields.
        accept_encoding: the codings that its client takes.
        is_binary: whether the content type of its body is binary.
        has_body: whether it has a body.
        headers: the CORS headers of its response.
    """

    head: bytes
    accept_encoding: str
    is_binary: bool
    has_body: bool
    headers: list[tuple[str, str]]

    def learn(self) -> Known | None:
        """What is known from it; ``None`` if others like it need more than a comparison."""
        head = self.head
        beginning = BEGINNING.match(head)
        if beginning is None or not OWN_NAMES.isdisjoint(parse_query(beginning[1].decode("ascii"))):
            return None
        fields, rest = head[head.find(b"\r\n"):], b""
        is_post = head[:1] == b"P"
        if len(fields) > MAX_KEPT_FIELDS or is_post != self.has_body:
            return None
        if is_post:
            found = LENGTH_HEADER.search(fields)
            if found is None:
                return None
            fields, rest = fields[:found.end()], fields[fields.find(b"\r\n", found.end()):]
        return Known(beginning[0], fields, rest, self)


def accept(head: bytes, environ: WSGIEnvironment, headers: list[tuple[str, str]]) -> Accepted | None:
    """Note a request that has been accepted; ``None`` if nothing is to be learnt from it.

    Args:
        head: its bytes up to the empty line behind its header fields.
        environ: of the request.
        headers: the CORS headers of its response.
    """
    if not ODD_KEYS.isdisjoint(environ):
        return None
    return Accepted(head, environ.get("HTTP_ACCEPT_ENCODING", ""), environ.get("CONTENT_TYPE") == OCTET_STREAM,
                    bool(environ.get("CONTENT_LENGTH")), headers)
