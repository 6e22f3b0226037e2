"""Frames of all kinds, right and wrong, cut anywhere; and the same frames read by another implementation."""

from __future__ import annotations

import zlib
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.protocol import SERVER, Protocol

from engineio_wsgi.protocol.websocket.deflate import DeflateParameters, Deflater, Inflater
from engineio_wsgi.protocol.websocket.frames import (
    Close,
    FrameDecoder,
    Ping,
    Pong,
    Violation,
    encode_binary,
    encode_frame,
    encode_text,
)

LIMIT = 300
ITEMS = (str, bytes, Ping, Pong, Close, Violation)


def frame(first: int, payload: bytes, mask: bytes = b"\x12\x00\xab\xff", masked: bool = True) -> bytes:
    """One frame of a client; ``first`` is its first byte."""
    size, flag = len(payload), 0x80 if masked else 0
    length = bytes([flag | size]) if size < 126 else bytes([flag | 126]) + size.to_bytes(2, "big")
    if not masked:
        return bytes([first]) + length + payload
    return bytes([first]) + length + mask + bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))


def compress(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


texts = st.text(max_size=90).map(str.encode)
payloads = st.one_of(
    st.binary(max_size=40),
    texts,
    st.sampled_from([0, 124, 125, 126, 127, 130, 299, 300, 301, 400]).map(lambda size: b"x" * size),
)
closes = st.builds(
    lambda code, reason: code.to_bytes(2, "big") + reason,
    st.one_of(st.sampled_from([999, 1000, 1004, 1005, 1015, 3000, 4999, 5000]), st.integers(0, 65_535)),
    st.one_of(texts, st.binary(max_size=20)),
)
valid_firsts = st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x80, 0x00, 0x89, 0x8A])
frames = st.one_of(
    st.builds(frame, valid_firsts, payloads, st.binary(min_size=4, max_size=4)),
    st.builds(frame, st.sampled_from([0x81, 0x82]), payloads),
    st.builds(frame, st.sampled_from([0xC1, 0xC2, 0x41, 0x42]), payloads.map(compress)),
    st.builds(frame, st.just(0x88), st.one_of(closes, payloads)),
    st.builds(frame, st.integers(0, 255), payloads, masked=st.booleans()),
)
streams = st.one_of(
    st.binary(max_size=200),
    st.lists(frames, max_size=6).map(b"".join),
    st.builds(lambda parts, rest: b"".join(parts) + rest, st.lists(frames, max_size=4), st.binary(max_size=30)),
)


def compressed_message(opcode: int, payload: bytes, cut: int) -> bytes:
    """A compressed message; in two frames if ``cut`` is not 0."""
    data = compress(payload)
    if not cut:
        return frame(0xC0 | opcode, data)
    return frame(0x40 | opcode, data[:cut]) + frame(0x89, b"between") + frame(0x80, data[cut:])


#: What is compressed in here is so correctly: damage is found by zlib, in its own time. And nothing is as large as
#: allowed: ``websockets`` refuses some messages that are one byte smaller.
compressed_streams = st.lists(
    st.one_of(
        st.builds(
            compressed_message,
            st.sampled_from([1, 2]),
            payloads.filter(lambda data: not 200 < len(data) <= LIMIT),
            st.integers(0, 9),
        ),
        st.builds(frame, st.sampled_from([0x81, 0x82, 0x89, 0x88]), payloads),
    ),
    max_size=6,
).map(b"".join)


def decoder(deflate: bool, masked: bool = True) -> FrameDecoder:
    inflate = Inflater(DeflateParameters(), LIMIT) if deflate else None
    return FrameDecoder(LIMIT, inflate=inflate, masked=masked)


def without_reason(items: list[Any]) -> list[Any]:
    """The items, violations by their code alone."""
    return [("violation", item.code) if isinstance(item, Violation) else item for item in items]


@settings(max_examples=600)
@given(streams, st.booleans(), st.booleans())
def test_any_bytes(data: bytes, deflate: bool, masked: bool) -> None:
    items = decoder(deflate, masked).feed(data)
    assert all(type(item) in ITEMS for item in items)
    assert not any(isinstance(item, (Close, Violation)) for item in items[:-1])
    assert all(len(item) <= LIMIT for item in items if isinstance(item, (str, bytes)))


@settings(max_examples=600)
@given(streams, st.booleans(), st.lists(st.integers(1, 60), max_size=10))
def test_cuts_make_no_difference(data: bytes, deflate: bool, cuts: list[int]) -> None:
    expected = without_reason(decoder(deflate).feed(data))
    bytewise = decoder(deflate)
    assert without_reason([item for byte in data for item in bytewise.feed(bytes([byte]))]) == expected
    pieces, position, items = decoder(deflate), 0, []
    for size in [*cuts, len(data)]:
        items += pieces.feed(data[position : position + size])
        position += size
    assert without_reason(items) == expected


def read_by_websockets(data: bytes, deflate: bool) -> tuple[list[Any], int | None]:
    """The same by the ``websockets`` library: items, and the close code if it found fault with the rest."""
    protocol = Protocol(SERVER, max_size=LIMIT)
    if deflate:
        protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
    protocol.receive_data(data)
    items: list[Any] = []
    kind, parts = None, b""
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in _CONTROL:
            items.append(_CONTROL[event.opcode](event))
            continue
        if event.opcode is not TheirOpcode.CONT:
            kind, parts = event.opcode, b""
        parts += event.data
        if event.fin:
            try:
                items.append(parts.decode() if kind is TheirOpcode.TEXT else parts)
            except UnicodeDecodeError:
                # it leaves this to its user, who cannot read on either
                return items, 1007
    failure = protocol.close_sent.code if protocol.parser_exc is not None and protocol.close_sent is not None else None
    return items, failure


def _their_close(event: Frame) -> Close:
    data = bytes(event.data)
    return Close(int.from_bytes(data[:2], "big"), data[2:].decode()) if data else Close(None, "")


_CONTROL = {
    TheirOpcode.PING: lambda event: Ping(bytes(event.data)),
    TheirOpcode.PONG: lambda event: Pong(bytes(event.data)),
    TheirOpcode.CLOSE: _their_close,
}


@settings(max_examples=1000)
@given(st.one_of(st.tuples(streams, st.just(False)), st.tuples(compressed_streams, st.just(True))))
@example((frame(1, b"x" * LIMIT) + frame(0x89, b"1"), False))
def test_websockets_reads_the_same(stream: tuple[bytes, bool]) -> None:
    data, deflate = stream
    ours = decoder(deflate).feed(data)
    theirs, failure = read_by_websockets(data, deflate)
    if ours and isinstance(ours[-1], Violation):
        *messages, violation = ours
        assert theirs[: len(messages)] == messages
        # it validates text only once all of a message is there
        assert violation.code == 1007 or theirs == messages
        # it may still be waiting for the rest of what we have refused already
        assert failure in (None, violation.code) or (failure, violation.code) in DIFFERENCES
    elif failure == 1009:
        # it refuses a frame whose mask has not arrived, and counts a control frame as a part of the message around it
        assert theirs == ours[: len(theirs)]
        assert all(isinstance(item, (Ping, Pong, Close)) for item in ours[len(theirs) : len(theirs) + 1])
    elif failure is not None:
        # it does not let a peer close before the end of a message, which section 5.4 allows
        assert (*theirs, failure) == (*ours[:-1], 1002)
        assert isinstance(ours[-1], Close)
    else:
        assert theirs == ours


#: its close code and ours for what has two faults, of which it looks for another one first
DIFFERENCES = {(1002, 1007), (1007, 1002), (1009, 1007), (1009, 1002)}


@given(st.one_of(st.text(), st.binary()), st.booleans())
def test_what_we_write_can_be_read(message: str | bytes, compressed: bool) -> None:
    payload = message.encode() if isinstance(message, str) else message
    whole = encode_text(message) if isinstance(message, str) else encode_binary(message)
    inflater = None
    if compressed:
        whole = encode_frame(
            whole[0] & 0x0F, Deflater(DeflateParameters(server_max_window_bits=9)).compress(payload), compressed=True
        )
        inflater = Inflater(DeflateParameters(), 100_000)
    assert FrameDecoder(100_000, inflate=inflater, masked=False).feed(whole) == [message]
