"""What is fuzzed: for each part that reads what a peer sends, a function of bytes that fails where a promise is broken.

The promises: nothing but the part's own refusals is raised; what is accepted does not depend on how it was cut; what is
remembered says the same the second time; nothing that could end a header, a frame or a script comes out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from engineio_wsgi import Cors
from engineio_wsgi.errors import FrameError, ProtocolError, RequestRefused
from engineio_wsgi.http.chunked import ChunkedDecoder, ChunkedError
from engineio_wsgi.http.policies.compression import choose_coding
from engineio_wsgi.http.policies.cors import OriginPolicy
from engineio_wsgi.http.query import parse_query
from engineio_wsgi.http.request_head import InvalidRequest, check_partial_head, fill_environ, parse_head
from engineio_wsgi.http3.capsules import CapsuleReader
from engineio_wsgi.options.values import Deflate
from engineio_wsgi.protocol.engineio import jsonp, v3, v4
from engineio_wsgi.protocol.engineio.stream import StreamDecoder, encode_frame
from engineio_wsgi.protocol.websocket import handshake
from engineio_wsgi.protocol.websocket.deflate import DeflateParameters, Inflater, negotiate
from engineio_wsgi.protocol.websocket.frames import Close, FrameDecoder, Violation

#: bytes of the largest message or body
LIMIT = 1_000
#: cuts of a head that are looked at
CUTS = 400


class Limits:
    """The bounds of a request head."""

    max_request_line = 1_000
    max_header_size = 2_000
    max_header_count = 20


POLICIES = [
    OriginPolicy(None),
    OriginPolicy(Cors(origins="*")),
    OriginPolicy(Cors(origins=["https://a.example", "http://b.example:8000"], credentials=True, max_age=5)),
]


def head(data: bytes) -> None:
    """A request's head."""
    end = data.find(b"\r\n\r\n")
    data = data + b"\r\n\r\n" if end < 0 else data[:end + 4]
    try:
        first = parse_head(data, Limits)  # type: ignore[arg-type]
    except InvalidRequest:
        return
    again = parse_head(data, Limits)  # type: ignore[arg-type]
    environ: dict[str, Any] = {}
    fill_environ(environ, first)
    for name in first.__slots__:
        assert getattr(first, name) == getattr(again, name), name
    for name, value in environ.items():
        assert isinstance(value, str) and not set("\r\n\0") & set(value), name
        assert name.replace("_", "").isalnum() or name.startswith("HTTP_"), name
    for cut in range(1, min(len(data), CUTS)):
        check_partial_head(data[:cut], Limits)  # type: ignore[arg-type]


def frames(data: bytes) -> None:
    """What a WebSocket client sends; the first byte says whether it may be compressed."""
    parameters = DeflateParameters() if data[:1] > b"\x7f" else None
    data = data[1:]

    def decoder() -> FrameDecoder:
        return FrameDecoder(LIMIT, max_fragments=8, inflate=parameters and Inflater(parameters, LIMIT))

    whole = decoder().feed(data)
    bytewise = decoder()
    cut = [item for index in range(len(data)) for item in bytewise.feed(data[index:index + 1])]
    assert list(map(_told, whole)) == list(map(_told, cut))
    for item in whole[:-1]:
        assert not isinstance(item, (Close, Violation))
    for item in whole:
        if isinstance(item, (str, bytes)):
            assert len(item) <= LIMIT


def _told(item: Any) -> str:
    """An item as the peer and the application are told of it; which of two faults in one piece is named may differ."""
    return f"violation {item.code}" if isinstance(item, Violation) else repr(item)


def payload(data: bytes) -> None:
    """The body of a POST, revision 4."""
    _payload(v4, data, False)


def payload3(data: bytes) -> None:
    """The body of a POST, revisions 1 to 3; the first byte says whether it claims to be binary."""
    _payload(v3, data[1:], data[:1] > b"\x7f")


def stream(data: bytes) -> None:
    """The packets of a WebTransport stream; the first byte says how it is cut."""
    size, data = data[0] + 1 if data else 1, data[1:]
    whole, pieces = StreamDecoder(LIMIT), StreamDecoder(LIMIT)
    packets = whole.feed(data)
    assert [packet for begin in range(0, len(data), size) for packet in pieces.feed(data[begin:begin + size])] == packets
    assert str(whole.error) == str(pieces.error)
    assert all(len(packet) <= LIMIT for packet in packets)
    assert _one_at_a_time(data) == (packets, str(whole.error))
    again = StreamDecoder(LIMIT).feed(b"".join(map(encode_frame, packets)))
    # an empty binary message is sent as base64
    assert [packet if packet != b"" else "b" for packet in packets] == again
    with suppress(ProtocolError):
        CapsuleReader().feed(data)


def _one_at_a_time(data: bytes) -> tuple[list[str | bytes], str]:
    """The packets of a stream that is read as the first packet is: not a byte beyond one that is not complete."""
    decoder = StreamDecoder(LIMIT)
    packets: list[str | bytes] = []
    position = 0
    while position < len(data) and decoder.error is None:
        assert 0 < decoder.missing <= LIMIT
        read = data[position:position + decoder.missing]
        position += len(read)
        found = decoder.feed(read)
        assert len(found) <= 1
        packets += found
    return packets, str(decoder.error)


def _payload(codec: Any, data: bytes, binary: bool) -> None:
    try:
        packets = codec.decode_payload(data, binary)
    except ProtocolError:
        return
    # revision 3 writes a payload as text where it can
    binary = any(isinstance(packet.data, bytes) for packet in packets)
    again = codec.decode_payload(codec.encode_payload(packets), codec is v3 and binary)
    assert [(packet.type, packet.data) for packet in packets] == [(packet.type, packet.data) for packet in again]


def chunked(data: bytes) -> None:
    """A chunked body and what comes after it."""
    results = []
    for pieces in ([data], [data[index:index + 1] for index in range(len(data))]):
        decoder, body, rest = ChunkedDecoder(), b"", b""
        try:
            for piece in pieces:
                if decoder.done:
                    rest += piece
                else:
                    body += decoder.feed(piece)
            results.append((decoder.done, body, decoder.rest + rest))
        except ChunkedError:
            results.append((False, b"", b"refused"))
    assert results[0] == results[1]


def inflate(data: bytes) -> None:
    """A compressed message, cut where its first byte says."""
    inflater = Inflater(DeflateParameters(), LIMIT)
    cut = data[0] if data else 0
    try:
        output = inflater.inflate(data[1:cut]) + inflater.inflate(data[max(cut, 1):]) + inflater.finish()
    except FrameError:
        return
    assert len(output) <= LIMIT + 1


def websocket_handshake(data: bytes) -> None:
    """The headers of a WebSocket handshake, one a line."""
    names = ("HTTP_UPGRADE", "HTTP_CONNECTION", "HTTP_SEC_WEBSOCKET_VERSION", "HTTP_SEC_WEBSOCKET_KEY",
             "HTTP_SEC_WEBSOCKET_PROTOCOL", "HTTP_SEC_WEBSOCKET_EXTENSIONS")
    environ = dict(zip(names, data.decode("latin-1").split("\n"), strict=False), REQUEST_METHOD="GET")
    try:
        asked = handshake.check(environ)
    except handshake.HandshakeRefused as refusal:
        assert "\n" not in str(refusal)
        return
    agreed = negotiate(asked.extensions, Deflate())
    head = handshake.response_head(asked, protocol=next(iter(asked.protocols), None),
                                   extensions=None if agreed is None else agreed[1])
    assert head.count(b"\n") == 5 + bool(asked.protocols) + (agreed is not None)


def request(data: bytes) -> None:
    """What the engine reads of a request beside its body: query, origin, host, accepted codings; one a line."""
    query, origin, host, codings, asked = [*data.decode("latin-1").split("\n"), "", "", "", "", ""][:5]
    assert all(isinstance(value, str) for value in parse_query(query).values())
    assert choose_coding(codings) in (None, "gzip", "deflate")
    environ = {"HTTP_ORIGIN": origin, "HTTP_HOST": host, "wsgi.url_scheme": "http",
               "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": asked}
    for policy in POLICIES:
        try:
            policy.check(environ)
        except RequestRefused:
            continue
        for _, value in policy.headers(environ) + policy.preflight(environ)[1]:
            assert not set("\r\n\0") & set(value)


def jsonp_form(data: bytes) -> None:
    """A JSONP form, and the same bytes as a payload for a script."""
    with suppress(ProtocolError):
        jsonp.decode_body(data)
    try:
        data.decode()
    except UnicodeDecodeError:
        return
    script = jsonp.encode_response(data, 7)
    assert script.isascii() and script.startswith(b"___eio[7](") and script.endswith(b");")
    assert json.loads(script[len("___eio[7]("):-2]).encode() == data
    assert not set(b"<>&\r\n") & set(script)


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (head, frames, payload, payload3, stream, chunked, inflate, websocket_handshake, request, jsonp_form)
}
