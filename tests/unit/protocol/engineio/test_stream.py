"""protocol/engineio/stream.py: the packets of a WebTransport stream."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.errors import PayloadTooLarge, ProtocolError
from engineio_wsgi.protocol.engineio.stream import StreamDecoder, encode_frame, frame_head, message_head

contents = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.binary(), st.sampled_from(
    ["4" + "x" * size for size in (0, 123, 124, 125, 126, 65534, 65535)]), st.sampled_from(
    [bytes(size) for size in (125, 126, 127, 65535, 65536)]))  # fmt: skip


@pytest.mark.parametrize(("content", "frame"), [
    ("4hello", b"\x064hello"),
    ("2", b"\x012"),
    (b"\x01\x02\x03", b"\x83\x01\x02\x03"),
    ("4€", b"\x044\xe2\x82\xac"),
    ("4" + "x" * 125, b"\x7e\x00\x7e4" + b"x" * 125),
    (bytes(125), b"\xfd" + bytes(125)),
    (bytes(126), b"\xfe\x00\x7e" + bytes(126)),
    (bytes(65535), b"\xfe\xff\xff" + bytes(65535)),
    (bytes(1_000_000), b"\xff\x00\x00\x00\x00\x00\x0f\x42\x40" + bytes(1_000_000)),
    (b"", b"\x01b"),
    ("4\ud800", b"\x044\xef\xbf\xbd"),
], ids=lambda value: f"{type(value).__name__}-{len(value)}")  # fmt: skip
def test_frames(content: str | bytes, frame: bytes) -> None:
    assert encode_frame(content) == frame


@pytest.mark.parametrize("size", [0, 1, 123, 124, 125, 126, 127, 65534, 65535, 65536])
def test_the_head_of_a_message(size: int) -> None:
    assert message_head(size) + b"x" * size == encode_frame("4" + "x" * size)


@given(st.lists(contents), st.data())
def test_what_is_encoded_is_decoded_however_it_is_cut(packets: list[str | bytes], data: st.DataObject) -> None:
    stream = b"".join(map(encode_frame, packets))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder = StreamDecoder(1_000_000)
    decoded: list[str | bytes] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        decoded += decoder.feed(stream[begin:end])
    assert decoded == [content if content != b"" else "b" for content in packets]
    assert decoder.error is None
    assert decoder.missing == 1


@given(st.lists(contents, min_size=1))
def test_a_reader_that_takes_what_is_missing_takes_nothing_of_the_next_packet(packets: list[str | bytes]) -> None:
    stream = b"".join(map(encode_frame, packets))
    position = 0
    for content in packets:
        decoder = StreamDecoder(1_000_000)
        decoded: list[str | bytes] = []
        while not decoded:
            size = decoder.missing
            decoded = decoder.feed(stream[position:position + size])
            position += size
        assert decoded == [content if content != b"" else "b"]
    assert position == len(stream)


@given(st.binary(), st.integers(0, 300))
def test_any_bytes_give_packets_or_one_error(stream: bytes, limit: int) -> None:
    decoder = StreamDecoder(limit)
    whole = decoder.feed(stream)
    pieces = StreamDecoder(limit)
    assert [packet for byte in stream for packet in pieces.feed(bytes((byte,)))] == whole
    assert str(pieces.error) == str(decoder.error)
    assert all(len(packet) <= limit for packet in whole)
    if decoder.error is not None:
        assert decoder.feed(encode_frame("4more")) == []


def test_an_empty_binary_message() -> None:
    assert StreamDecoder(10).feed(b"\x80\x80\x83abc") == [b"", b"", b"abc"]


@pytest.mark.parametrize("size", [11, 200, 70_000, 1 << 40, (1 << 64) - 1])
def test_a_large_packet_is_refused_by_its_head(size: int) -> None:
    decoder = StreamDecoder(10)
    assert decoder.feed(encode_frame("4ok") + frame_head(size, False)) == ["4ok"]
    assert isinstance(decoder.error, PayloadTooLarge)
    assert (decoder.error.size, decoder.error.limit) == (size, 10)


def test_text_that_is_no_utf_8() -> None:
    decoder = StreamDecoder(10)
    assert decoder.feed(b"\x024a\x024\xff\x024b") == ["4a"]
    assert isinstance(decoder.error, ProtocolError)
    assert "UTF-8" in str(decoder.error)


def test_a_packet_in_many_pieces_is_copied_once() -> None:
    decoder = StreamDecoder(1 << 24)
    decoder.feed(frame_head(1 << 24, True))
    piece = bytes(1024)
    for _ in range((1 << 14) - 1):
        assert decoder.feed(piece) == []
    tracemalloc.start()
    decoded = decoder.feed(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(packet) for packet in decoded] == [1 << 24]
    assert peak < 3 << 24
