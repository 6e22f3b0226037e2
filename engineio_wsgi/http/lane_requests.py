"""The requests of the lane: a poll or POST is recognised by its bytes, because an equal one has been accepted before.

Owns what is known of a connection's header fields, and how a request is compared with it. A request that differs in anything but
its session id, its ``t`` and the length of its body is not recognised, and nothing is decided about it here. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from engineio_wsgi.http.query import parse_query
from engineio_wsgi.http.request_head import MAX_KEPT_FIELDS, PROXY_KEYS, HeadLimits
from engineio_wsgi.protocol.websocket.batches import accelerated

__all__ = ["Accepted", "FirstRequest", "Known", "LaneRequest", "accept", "read_first"]

OCTET_STREAM = "application/octet-stream"
#: keys in an environ with which a request is framed or answered in another way
ODD_KEYS = frozenset(("HTTP_EXPECT", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE", *PROXY_KEYS))
#: names in a query that the engine reads; an application's own names may come before them
OWN_NAMES = frozenset(("EIO", "b64", "j", "sid", "t", "transport"))
#: the beginning of a request up to the engine's part of its query
BEGINNING = re.compile(rb"(?:GET|POST) /[!->@-~]*\?((?:[!-%'-<>-~]+=[!-%'-~]*&)*?)(?=EIO=)")
#: the rest of the request line, as engine.io-client sends it
QUERY = re.compile(rb"EIO=([34])&transport=polling(?:&(?:t=[\w.~-]*|b64=1))*&sid=([\w.~-]+)(?:&t=[\w.~-]*)? HTTP/1\.1(?=\r\n)")
#: the line of a plain request, as engine.io-client sends it: of a handshake, if it has no session id
PLAIN_LINE = re.compile(rb"(GET|POST) (/[\w./~-]*)\?EIO=4&transport=polling(?:&t=[\w.~-]*)?(?:&sid=([\w.~-]+))?(?:&t=[\w.~-]*)?"
                        rb" HTTP/1\.1\r\n")
#: a field of a plain request
PLAIN_FIELD = re.compile(rb"([A-Za-z0-9-]+): *([ -~]*?) *\r\n")
#: the length of its body
PLAIN_LENGTH = re.compile(rb"[1-9]\d{0,8}")
#: names of fields that it has once at most
LOOKED_AT = (b"host", b"origin", b"content-type", b"accept-encoding", b"content-length", b"connection")
#: names of fields that it has not
ODD_NAMES = frozenset((b"expect", b"forwarded", b"proxy-connection", b"transfer-encoding", b"upgrade", b"via", b"x-forwarded-for",
                       b"x-forwarded-proto", b"x-real-ip"))
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
        self.encoded_headers = accepted.encoded_headers

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

    @property
    def encoded_headers(self) -> bytes:
        """The CORS headers as they are sent."""
        return b"" if not self.headers else "".join([f"{name}: {value}\r\n" for name, value in self.headers]).encode("latin-1")

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


def accept(head: bytes, environ: Mapping[str, str], headers: list[tuple[str, str]]) -> Accepted | None:
    """Note a request that has been accepted; ``None`` if nothing is to be learnt from it.

    Args:
        head: its bytes up to the empty line behind its header fields.
        environ: of the request, or its header fields as an environ has them.
        headers: the CORS headers of its response.
    """
    if not ODD_KEYS.isdisjoint(environ):
        return None
    return Accepted(head, environ.get("HTTP_ACCEPT_ENCODING", ""), environ.get("CONTENT_TYPE") == OCTET_STREAM,
                    bool(environ.get("CONTENT_LENGTH")), headers)


class FirstRequest(NamedTuple):
    """A request like which none has been accepted yet on its connection.

    Attributes:
        path: of its target.
        sid: the session id; empty in a handshake.
        is_post: whether it is a POST; otherwise it is a GET.
        head: its bytes up to the empty line behind its header fields.
        line_size: bytes of its line.
        field_count: of its header fields.
        size: of its body, in bytes.
        host: its ``Host``.
        origin: its ``Origin``; ``None`` without one.
        content_type: its ``Content-Type``; ``None`` without one.
        accept_encoding: its ``Accept-Encoding``; ``None`` without one.
    """

    path: str
    sid: str
    is_post: bool
    head: bytes
    line_size: int
    field_count: int
    size: int
    host: str
    origin: str | None
    content_type: str | None
    accept_encoding: str | None

    def accepted(self, headers: list[tuple[str, str]]) -> Accepted:
        """The same, after it has been accepted. ``headers`` are the CORS headers of its response."""
        return Accepted(self.head, self.accept_encoding or "", self.content_type == OCTET_STREAM, self.is_post, headers)


def read_plain_in_python(data: bytes) -> tuple[str, str, bool, bytes, int, int, int, str, *tuple[str | None, ...]] | None:
    """The fields of `FirstRequest` for the plain request that ``data`` begins with; ``None`` if it is another one.

    A plain one is such as browsers send, of revision 4. Its line is that of engine.io-client, its whole head is there and is
    printable ASCII, and its framing is ``Content-Length`` and ``keep-alive`` at most: nobody could read it differently.
    """
    line = PLAIN_LINE.match(data)
    if line is None:
        return None
    # without an end, it has no field
    end = data.find(b"\r\n\r\n", line.end() - 2)
    read = _read_plain_fields(data, line.end(), end + 2)
    if read is None:
        return None
    fields, count = read
    host, origin, content_type, accept_encoding, length, connection = map(fields.get, LOOKED_AT)
    method, path, sid = line.groups(b"")
    is_post = method == b"POST"
    if host is None or connection not in (None, b"keep-alive", b"Keep-Alive") or not _is_plain_length(length, is_post, sid):
        return None
    at = end + 2
    rest = [None if value is None else value.decode() for value in (origin, content_type, accept_encoding)]
    return path.decode(), sid.decode(), is_post, data[:at + 2], line.end() - 2, count, int(length or 0), host.decode(), *rest


def _read_plain_fields(data: bytes, at: int, end: int) -> tuple[dict[bytes, bytes], int] | None:
    """The header fields that are looked at, and the number of all; ``None`` if one of them is not plain."""
    fields: dict[bytes, bytes] = {}
    count = 0
    while at < end:
        field = PLAIN_FIELD.match(data, at)
        if field is None:
            return None
        at, count, name = field.end(), count + 1, field[1].lower()
        if name in ODD_NAMES or name in fields:
            return None
        if name in LOOKED_AT:
            fields[name] = field[2]
    return fields, count


def _is_plain_length(length: bytes | None, is_post: bool, sid: bytes) -> bool:
    """Whether a POST has a body and a session, and a GET has no body."""
    if length is None:
        return not is_post
    return is_post and bool(sid) and PLAIN_LENGTH.fullmatch(length) is not None


def read_first(data: bytes, limits: HeadLimits) -> FirstRequest | None:
    """The plain request that ``data`` begins with; ``None`` if it is another one, or beyond the limits."""
    found = read_plain(data)
    if found is None:
        return None
    # `_make` is a function in Python
    request = tuple.__new__(FirstRequest, found)
    if (request.line_size > limits.max_request_line or len(request.head) - request.line_size - 4 > limits.max_header_size
            or request.field_count > limits.max_header_count):
        return None
    return request


read_plain = read_plain_in_python
if not TYPE_CHECKING and accelerated:
    # an eighth of the time, which was a seventh of that of a handshake
    with suppress(ImportError):  # it was not built
        from engineio_wsgi.http.c_lane_requests import read_plain
