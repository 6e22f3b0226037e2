"""permessage-deflate: what is agreed on, and what is compressed."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from dataclasses import dataclass

import pytest
from support.rawwebsocket import BINARY, CONTINUATION, PING, TEXT, frame_bytes

from engineio_wsgi.errors import FrameError, ProtocolError
from engineio_wsgi.protocol.websocket.deflate import DeflateParameters, Deflater, Inflater, negotiate, parse_extensions
from engineio_wsgi.protocol.websocket.frames import FrameDecoder, Ping, Violation

LIMIT = 1_000_000
RSV1 = 4


@dataclass
class Settings:
    threshold: int = 0
    level: int = 6
    memory_level: int = 5
    context_takeover: bool = True


def compress(data: bytes, bits: int = 15) -> bytes:
    """One compressed message of a client that keeps no context."""
    compressor = zlib.compressobj(wbits=-bits)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def decoder(limit: int = LIMIT, **parameters: object) -> FrameDecoder:
    return FrameDecoder(limit, inflate=Inflater(DeflateParameters(**parameters), limit))


def code_of(items: list[object]) -> int:
    assert isinstance(items[-1], Violation), items
    return items[-1].code


# -- negotiation


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        ("Permessage-Deflate", "permessage-deflate; server_max_window_bits=12"),
        (
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            'permessage-deflate;client_max_window_bits=10 ; server_max_window_bits="9"',
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
        ),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
        ),
        ('x-other; a=1; b="2", permessage-deflate', "permessage-deflate; server_max_window_bits=12"),
        # the first acceptable offer wins, the ones before it are declined
        (
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=15",
            "permessage-deflate; server_max_window_bits=12",
        ),
        *(
            ("permessage-deflate; " + declined, None)
            for declined in (
                "server_max_window_bits",
                "server_max_window_bits=16",
                "server_max_window_bits=08",
                "client_max_window_bits=7",
                "server_no_context_takeover=1",
                "client_no_context_takeover; client_no_context_takeover",
                "unknown",
            )
        ),
        ("x-webkit-deflate-frame", None),
        ("", None),
    ],
)
def test_negotiation(offer: str, answer: str | None) -> None:
    agreed = negotiate(offer, Settings())
    assert (None if agreed is None else agreed[1]) == answer


def test_parameters() -> None:
    agreed = negotiate("permessage-deflate; client_max_window_bits=9; server_no_context_takeover", Settings(level=1))
    assert agreed is not None
    assert agreed[0] == DeflateParameters(
        server_no_context_takeover=True, server_max_window_bits=12, client_max_window_bits=9, level=1, memory_level=5
    )


def test_without_context_takeover() -> None:
    agreed = negotiate("permessage-deflate", Settings(context_takeover=False))
    assert agreed is not None
    assert agreed[0].server_no_context_takeover
    assert agreed[0].client_no_context_takeover
    assert agreed[1].startswith("permessage-deflate; server_no_context_takeover; client_no_context_takeover")


@pytest.mark.parametrize(
    "header",
    [
        ",",
        ";",
        "a;",
        "a; b=",
        "a; =1",
        "a=1",
        "a b",
        'a; b="',
        'a; b="x y"',
        "a, , b",
        'a; b="1"2',
        "é",
    ],
)
def test_malformed_headers(header: str) -> None:
    with pytest.raises(ProtocolError):
        parse_extensions(header)
    with pytest.raises(ProtocolError):
        negotiate(header, Settings())


def test_long_headers_take_linear_time() -> None:
    assert len(parse_extensions('a; b=1; c="2", ' * 20_000 + "a")) == 20_001
    with pytest.raises(ProtocolError):
        parse_extensions("a; " + "b " * 200_000)


# -- compression


def test_round_trip_with_context() -> None:
    deflater = Deflater(DeflateParameters())
    inflate = zlib.decompressobj(-15)
    first, second = deflater.compress(b"hello hello " * 20), deflater.compress(b"hello hello " * 20)
    assert len(second) < len(first)
    for payload in (first, second):
        assert inflate.decompress(payload + b"\x00\x00\xff\xff") == b"hello hello " * 20


def test_round_trip_without_context() -> None:
    deflater = Deflater(DeflateParameters(server_no_context_takeover=True, server_max_window_bits=9, memory_level=1))
    first, second = deflater.compress(b"hello " * 200), deflater.compress(b"hello " * 200)
    assert first == second
    assert zlib.decompressobj(-9).decompress(first + b"\x00\x00\xff\xff") == b"hello " * 200


def test_empty_messages() -> None:
    deflater = Deflater(DeflateParameters())
    frames = decoder()
    for data in (b"", b"x", b"", b"", b"yy"):
        assert frames.feed(frame_bytes(BINARY, deflater.compress(data), rsv=RSV1)) == [data]


@pytest.mark.parametrize("takeover", [True, False])
def test_messages_in_both_forms(takeover: bool) -> None:
    frames = decoder(client_no_context_takeover=not takeover)
    compressor = zlib.compressobj(wbits=-15)
    for _ in range(3):
        if not takeover:
            compressor = zlib.compressobj(wbits=-15)
        payload = (compressor.compress(b"text " * 50) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert frames.feed(frame_bytes(TEXT, payload, rsv=RSV1) + frame_bytes(TEXT, b"plain")) == ["text " * 50, "plain"]


def test_fragments() -> None:
    payload = compress(b"fragmented " * 50)
    data = (
        frame_bytes(BINARY, payload[:5], fin=False, rsv=RSV1)
        + frame_bytes(PING, b"")
        + frame_bytes(0, b"", fin=False)
        + frame_bytes(CONTINUATION, payload[5:])
    )
    assert decoder().feed(data) == [Ping(b""), b"fragmented " * 50]
    frames = decoder()
    items = [item for position in range(len(data)) for item in frames.feed(data[position : position + 1])]
    assert items == [Ping(b""), b"fragmented " * 50]


@pytest.mark.parametrize(
    "frame",
    [
        frame_bytes(PING, b"x", rsv=RSV1),
        frame_bytes(TEXT, b"", fin=False, rsv=RSV1) + frame_bytes(CONTINUATION, b"", rsv=RSV1),
        frame_bytes(TEXT, b"x", rsv=2),
        frame_bytes(TEXT, b"x", rsv=RSV1 | 1),
    ],
    ids=["control", "continuation", "second bit", "third bit"],
)
def test_reserved_bits(frame: bytes) -> None:
    assert code_of(decoder().feed(frame)) == 1002


def test_damaged_data() -> None:
    assert code_of(decoder().feed(frame_bytes(TEXT, b"\xff" * 10, rsv=RSV1))) == 1007
    assert code_of(decoder().feed(frame_bytes(TEXT, compress(b"\xff\xfe"), rsv=RSV1))) == 1007


def test_blocks_said_to_be_the_last() -> None:
    """RFC 7692 section 7.2.3.4, and what a peer could make of it."""
    hello = bytes.fromhex("f348cdc9c90700")
    frames = decoder()
    for _ in range(2):
        assert frames.feed(frame_bytes(TEXT, hello + b"\x00", rsv=RSV1)) == ["Hello"]
    assert decoder().feed(frame_bytes(TEXT, hello * 3 + b"\x00", rsv=RSV1)) == ["Hello" * 3]
    assert code_of(decoder().feed(frame_bytes(TEXT, hello * 100, rsv=RSV1))) == 1008


def test_a_message_of_no_bytes_at_all() -> None:
    frames = decoder()
    assert frames.feed(frame_bytes(TEXT, b"", rsv=RSV1)) == [""]
    assert frames.feed(frame_bytes(TEXT, compress(b"x"), rsv=RSV1)) == ["x"]


# -- bounds


@pytest.mark.parametrize("bits", [9, 15])
def test_limit_is_exact(bits: int) -> None:
    frames = decoder(5000, client_max_window_bits=bits, client_no_context_takeover=True)
    for data in (b"x" * 5000, os.urandom(5000)):
        assert frames.feed(frame_bytes(BINARY, compress(data, bits), rsv=RSV1)) == [data]
    assert code_of(frames.feed(frame_bytes(BINARY, compress(b"x" * 5001, bits), rsv=RSV1))) == 1009


def test_fragments_together_are_limited() -> None:
    payload = compress(b"x" * 5001)
    frames = decoder(5000)
    data = frame_bytes(BINARY, payload[:3], fin=False, rsv=RSV1) + frame_bytes(CONTINUATION, payload[3:])
    assert [code_of([item]) for position in range(len(data)) for item in frames.feed(data[position : position + 1])] == [1009]


def test_what_does_not_inflate_to_anything_is_limited_too() -> None:
    empty_blocks = b"\x00\x00\x00\xff\xff" * 1000
    assert code_of(decoder(1000).feed(frame_bytes(BINARY, empty_blocks, rsv=RSV1))) == 1009


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_bomb_stays_small(opcode: int) -> None:
    bomb = compress(b"x" * 64_000_000)
    data = frame_bytes(opcode, bomb, rsv=RSV1)
    frames = decoder(LIMIT)
    tracemalloc.start()
    items = frames.feed(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert code_of(items) == 1009
    assert peak < LIMIT + 10_000_000


def test_an_inflater_gives_one_byte_too_many_at_most() -> None:
    inflater = Inflater(DeflateParameters(), 10)
    assert len(inflater.inflate(compress(b"x" * 5000))) == 11
    assert inflater.inflate(b"whatever follows") == b""
    assert inflater.finish() == b""


def test_damage_is_a_frame_error() -> None:
    with pytest.raises(FrameError, match="damaged"):
        Inflater(DeflateParameters(), 10).inflate(b"\xff" * 10)


@pytest.mark.parametrize(("parameters", "settings"), [
    (DeflateParameters(), None),
    (DeflateParameters(client_no_context_takeover=True), None),
    (DeflateParameters(server_no_context_takeover=True, server_max_window_bits=12, level=6, memory_level=5), (12, 6, 5)),
])
def test_what_the_output_depends_on_besides_the_message(parameters: DeflateParameters, settings: tuple[int, ...] | None) -> None:
    assert Deflater(parameters).settings == settings
