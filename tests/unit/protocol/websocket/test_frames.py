"""Frames, one rule of RFC 6455 at a time."""

from __future__ import annotations

import tracemalloc

import pytest
from support.rawwebsocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame_bytes
from websockets.frames import CloseCode

from engineio_wsgi.protocol.websocket.frames import (
    Close,
    FrameDecoder,
    Opcode,
    Ping,
    Pong,
    Violation,
    encode_binary,
    encode_close,
    encode_frame,
    encode_text,
    to_utf8,
)
from engineio_wsgi.protocol.websocket.items import is_sendable

LIMIT = 200_000


def decode(data: bytes, *, limit: int = LIMIT, **options: object) -> list[object]:
    """What ``data`` contains, fed at once."""
    return list(FrameDecoder(limit, **options).feed(data))


def code_of(items: list[object]) -> int:
    """The close code of the violation that has to be the last item."""
    assert isinstance(items[-1], Violation), items
    return items[-1].code


# -- messages


@pytest.mark.parametrize("size", [0, 1, 119, 120, 125, 126, 127, 132, 65_535, 65_536, 100_000])
@pytest.mark.parametrize(("opcode", "message"), [(TEXT, "x"), (BINARY, b"x")])
def test_one_message(size: int, opcode: int, message: str | bytes) -> None:
    payload = b"x" * size
    assert decode(frame_bytes(opcode, payload)) == [message * size]
    assert decode(frame_bytes(opcode, payload) * 3) == [message * size] * 3


def test_types_are_exact() -> None:
    text, binary = decode(frame_bytes(TEXT, b"a") + frame_bytes(BINARY, b"b"))
    assert type(text) is str
    assert type(binary) is bytes
    long_text, long_binary = decode(frame_bytes(TEXT, b"a" * 70_000) + frame_bytes(BINARY, b"b" * 70_000))
    assert type(long_text) is str
    assert type(long_binary) is bytes


def test_text_is_kept_as_it_is() -> None:
    text = "\r\n\n\r\u2028\x00\ufeff é€😀"
    frame = frame_bytes(TEXT, text.encode())
    assert decode(frame) == [text]
    assert decode(frame_bytes(TEXT, text.encode()[:7], fin=False) + frame_bytes(CONTINUATION, text.encode()[7:])) == [text]


def test_many_in_one_feed() -> None:
    data = frame_bytes(TEXT, b"a") + frame_bytes(PING, b"p") + frame_bytes(BINARY, b"b" * 300) + frame_bytes(PONG, b"")
    assert decode(data + frame_bytes(TEXT, b"c")) == ["a", Ping(b"p"), b"b" * 300, Pong(b""), "c"]


def test_nothing() -> None:
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(b"") == []
    assert decoder.feed(frame_bytes(TEXT, b"a")) == ["a"]


@pytest.mark.parametrize(("size", "taken", "held"), [
    (200, 8, True), (200, 207, True), (200, 208, False), (200, 7, False), (32_768, 9000, True), (32_769, 9000, False),
    (100, 50, False), (70_000, 20, False),
])
def test_the_beginning_of_a_plain_frame_is_held(size: int, taken: int, held: bool) -> None:
    decoder = FrameDecoder(LIMIT)
    data = frame_bytes(BINARY, bytes(size))[:taken]
    assert decoder.hold(data, True) == (b"" if held else data)
    assert decoder.begun == (data if held else b"")


def test_a_frame_is_held_once_and_then_fed() -> None:
    decoder = FrameDecoder(LIMIT)
    frame = frame_bytes(TEXT, b"x" * 3000)
    assert decoder.hold(frame[:1000], False) == b""
    assert decoder.hold(frame[:1000], True) == b"", "it is another frame"
    assert decoder.hold(frame[:2000], False) == frame[:2000]
    assert (decoder.begun, decoder.feed(frame[:2000]), decoder.hold(frame[2000:], False)) == (b"", [], frame[2000:])
    assert decoder.feed(frame[2000:]) == ["x" * 3000]


@pytest.mark.parametrize("data", [
    frame_bytes(CONTINUATION, bytes(200))[:50], frame_bytes(TEXT, bytes(200), fin=False)[:50], encode_binary(bytes(200))[:50],
    b"", frame_bytes(TEXT, bytes(200), rsv=4)[:50],
], ids=["continuation", "fragment", "unmasked", "nothing", "compressed"])
def test_nothing_else_is_held(data: bytes) -> None:
    assert FrameDecoder(LIMIT).hold(data, True) == data


def test_a_frame_that_is_too_large_is_not_held() -> None:
    data = frame_bytes(TEXT, bytes(200))[:50]
    assert FrameDecoder(199).hold(data, True) == data
    assert FrameDecoder(200).hold(data, True) == b""


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 65_536])
def test_in_pieces(step: int) -> None:
    data = (
        frame_bytes(TEXT, "ß€😀".encode() * 50)
        + frame_bytes(PING, b"x" * 125)
        + frame_bytes(BINARY, b"", fin=False)
        + frame_bytes(CONTINUATION, b"y" * 200, fin=False)
        + frame_bytes(PONG, b"!")
        + frame_bytes(CONTINUATION, b"z")
        + frame_bytes(TEXT, b"x" * 66_000)
        + frame_bytes(CLOSE, b"\x03\xe8bye")
    )
    decoder = FrameDecoder(LIMIT)
    items = [item for start in range(0, len(data), step) for item in decoder.feed(data[start : start + step])]
    assert items == ["ß€😀" * 50, Ping(b"x" * 125), Pong(b"!"), b"y" * 200 + b"z", "x" * 66_000, Close(1000, "bye")]


def test_the_quick_way_is_found_again() -> None:
    decoder = FrameDecoder(LIMIT)
    frame = frame_bytes(TEXT, b"hello")
    assert decoder.feed(frame[:4]) == []
    assert decoder.feed(frame[4:] + frame[:9]) == ["hello"]
    assert decoder.feed(frame[9:]) == ["hello"]
    assert decoder.feed(frame) == ["hello"]


def test_fragments_with_control_frames_in_between() -> None:
    data = frame_bytes(TEXT, b"a", fin=False) + frame_bytes(PING, b"1") + frame_bytes(CONTINUATION, b"b", fin=False)
    assert decode(data + frame_bytes(CONTINUATION, b"")) == [Ping(b"1"), "ab"]


def test_frames_of_a_server() -> None:
    decoder = FrameDecoder(LIMIT, masked=False)
    data = encode_text("a") + encode_binary(b"b" * 70_000) + encode_frame(Opcode.PING, b"p") + encode_close(1001, "bye")
    items = [item for start in range(0, len(data), 1000) for item in decoder.feed(data[start : start + 1000])]
    assert items == ["a", b"b" * 70_000, Ping(b"p"), Close(1001, "bye")]
    assert code_of(decode(frame_bytes(TEXT, b"a"), masked=False)) == 1002


# -- violations


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(frame_bytes(TEXT, b"x", masked=False), id="unmasked"),
        *(pytest.param(frame_bytes(TEXT, b"x", rsv=rsv), id=f"rsv {rsv}") for rsv in range(1, 8)),
        *(pytest.param(frame_bytes(PING, b"x", rsv=rsv), id=f"ping rsv {rsv}") for rsv in range(1, 8)),
        *(pytest.param(frame_bytes(opcode, b"x"), id=f"opcode {opcode}") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        pytest.param(frame_bytes(PING, b"", fin=False), id="fragmented ping"),
        pytest.param(frame_bytes(CLOSE, b"", fin=False), id="fragmented close"),
        pytest.param(frame_bytes(PONG, b"x" * 126), id="long pong"),
        pytest.param(frame_bytes(CONTINUATION, b"x"), id="nothing to continue"),
        pytest.param(frame_bytes(TEXT, b"x", fin=False) + frame_bytes(TEXT, b"y"), id="text in a message"),
        pytest.param(frame_bytes(BINARY, b"x", fin=False) + frame_bytes(BINARY, b"y"), id="binary in a message"),
        pytest.param(frame_bytes(CLOSE, b"x"), id="close of one byte"),
    ],
)
def test_protocol_errors(frame: bytes) -> None:
    # what came before is delivered, what comes after is not
    assert [
        decode(frame_bytes(TEXT, b"before") + frame + frame_bytes(TEXT, b"after"))[0],
        code_of(decode(frame + frame_bytes(TEXT, b"after"))),
    ] == ["before", 1002]


def test_two_bytes_are_enough_to_refuse() -> None:
    assert code_of(decode(frame_bytes(TEXT, b"x", masked=False)[:2])) == 1002
    assert code_of(decode(frame_bytes(3, b"x")[:2])) == 1002
    assert code_of(decode(frame_bytes(PING, b"x" * 300)[:2])) == 1002


def test_nothing_after_the_end() -> None:
    decoder = FrameDecoder(LIMIT)
    assert code_of(decoder.feed(frame_bytes(3, b""))) == 1002
    assert decoder.feed(frame_bytes(TEXT, b"x")) == []
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(frame_bytes(CLOSE, b"") + frame_bytes(3, b"")) == [Close(None, "")]
    assert decoder.feed(frame_bytes(TEXT, b"x")) == []


# -- UTF-8

BAD_TEXTS = {
    "lone byte": b"\x80",
    "overlong": b"\xc0\xaf",
    "overlong of three": b"\xe0\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "ff": b"\xff",
}


@pytest.mark.parametrize("bad", BAD_TEXTS.values(), ids=BAD_TEXTS)
@pytest.mark.parametrize("before", [b"", "κόσμε".encode(), b"x" * 300], ids=["first", "after text", "long"])
def test_bad_utf8(bad: bytes, before: bytes) -> None:
    assert code_of(decode(frame_bytes(TEXT, before + bad))) == 1007
    assert code_of(decode(frame_bytes(TEXT, b"ok") + frame_bytes(TEXT, before + bad) + frame_bytes(TEXT, b"x"))) == 1007
    assert code_of(decode(frame_bytes(TEXT, before, fin=False) + frame_bytes(CONTINUATION, bad))) == 1007
    # it makes no difference to binary messages
    assert decode(frame_bytes(BINARY, before + bad)) == [before + bad]


@pytest.mark.parametrize("half", [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98"])
def test_half_a_character(half: bytes) -> None:
    assert code_of(decode(frame_bytes(TEXT, half))) == 1007
    start = frame_bytes(TEXT, half, fin=False)
    assert decode(start) == []
    assert code_of(decode(start + frame_bytes(CONTINUATION, b""))) == 1007


#: the bytes up to the first that cannot be right
FIRST_BAD_BYTES = [b"\xf4\x90", b"\xed\xa0", b"\xed\xbf", b"\xe0\x9f", b"\xf0\x8f", b"\xf5", b"\xc1", b"\x80", b"\xe2\x82e"]


@pytest.mark.parametrize("bad", FIRST_BAD_BYTES)
def test_text_is_refused_at_the_first_bad_byte(bad: bytes) -> None:
    """Autobahn 6.4.1 to 6.4.4, strictly: by frames, and by bytes of a frame that has not arrived."""
    valid, rest = "κόσμε".encode(), b"\x80\x80edited"
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(frame_bytes(TEXT, valid, fin=False)) == []
    assert code_of(decoder.feed(frame_bytes(CONTINUATION, bad, fin=False))) == 1007
    decoder = FrameDecoder(LIMIT)
    frame = frame_bytes(TEXT, valid + bad + rest)
    end = len(frame) - len(rest)
    for position in range(end - 1):
        assert decoder.feed(frame[position : position + 1]) == []
    assert code_of(decoder.feed(frame[end - 1 : end])) == 1007


# -- sizes


def test_size_is_checked_on_the_announcement() -> None:
    for size in (200, 70_000):
        head = frame_bytes(BINARY, b"x" * size)[:14]
        assert code_of(decode(head, limit=size - 1)) == 1009
        assert decode(head, limit=size) == []
    eight_gib = b"\x82\xff" + (8 << 30).to_bytes(8, "big") + b"mask"
    assert code_of(decode(eight_gib)) == 1009
    assert code_of(decode(b"\x82\xff" + b"\xff" * 8 + b"mask")) == 1009


@pytest.mark.parametrize("size", [5, 125, 126, 1000, 70_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_limit_is_exact(size: int, opcode: int) -> None:
    frame = frame_bytes(opcode, b"x" * size)
    for data in (frame, frame + frame):
        assert len(decode(data, limit=size)) == len(data) // len(frame)
        assert code_of(decode(data, limit=size - 1)) == 1009
    halves = frame_bytes(opcode, b"x" * (size - 1), fin=False) + frame_bytes(CONTINUATION, b"x")
    assert len(decode(halves, limit=size)) == 1
    assert code_of(decode(halves, limit=size - 1)) == 1009


def test_limit_is_one_of_messages_not_of_connections() -> None:
    halves = frame_bytes(TEXT, b"x" * 60, fin=False) + frame_bytes(CONTINUATION, b"x" * 40)
    assert decode(halves * 5, limit=100) == ["x" * 100] * 5


def test_fragments_are_counted() -> None:
    start, more, last = (frame_bytes(opcode, b"", fin=fin) for opcode, fin in ((TEXT, False), (0, False), (0, True)))
    assert decode(start + more * 98 + last, max_fragments=100) == [""]
    assert code_of(decode(start + more * 99 + last, max_fragments=100)) == 1008
    assert decode(start + more * 16_382 + last) == [""]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fragment", [2, 60_000])
def test_memory_is_bounded(opcode: int, fragment: int) -> None:
    size = 120_000 if fragment == 2 else 4_200_000
    count = size // fragment
    frames = [frame_bytes(opcode, b"ab" * (fragment // 2), fin=False)]
    frames += [frame_bytes(CONTINUATION, b"ab" * (fragment // 2), fin=n == count - 2) for n in range(count - 1)]
    decoder = FrameDecoder(size)
    tracemalloc.start()
    items = [item for frame in frames for item in decoder.feed(frame)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(items[0]) == size
    # an eighth is the buffer's room to grow; text is decoded once it is complete
    assert peak < size * (2.2 if opcode == TEXT else 1.2) + 6 * fragment + 50_000


def test_an_idle_decoder_is_small() -> None:
    tracemalloc.start()
    decoders = [FrameDecoder(LIMIT) for _ in range(100)]
    for decoder in decoders:
        decoder.feed(frame_bytes(TEXT, b"x" * 500, fin=False) + frame_bytes(CONTINUATION, b"x"))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / 100 < 250


# -- the closing handshake


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999])
def test_close_codes(code: int) -> None:
    assert is_sendable(code)
    assert decode(frame_bytes(CLOSE, code.to_bytes(2, "big") + "añ".encode())) == [Close(code, "añ")]
    assert encode_close(code, "añ")[2:] == code.to_bytes(2, "big") + "añ".encode()


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])
def test_invalid_close_codes(code: int) -> None:
    assert code_of(decode(frame_bytes(CLOSE, code.to_bytes(2, "big")))) == 1002
    with pytest.raises(ValueError, match="must not be sent"):
        encode_close(code)


def test_close_without_a_code() -> None:
    assert decode(frame_bytes(CLOSE, b"")) == [Close(None, "")]
    assert encode_close(None) == b"\x88\x00"


def test_close_reason() -> None:
    assert code_of(decode(frame_bytes(CLOSE, b"\x03\xe8\xff"))) == 1007
    assert decode(frame_bytes(CLOSE, b"\x03\xe8" + b"x" * 123)) == [Close(1000, "x" * 123)]
    frame = encode_close(1000, "x" * 122 + "€")
    assert frame == b"\x88\x7c\x03\xe8" + b"x" * 122
    assert encode_close() == b"\x88\x02\x03\xe8"


def test_close_codes_of_our_own_may_be_sent() -> None:
    codes = (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.POLICY_VIOLATION, CloseCode.MESSAGE_TOO_BIG)
    assert all(map(is_sendable, codes))


# -- encoding


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x00"),
        (125, b"\x7d"),
        (126, b"\x7e\x00\x7e"),
        (65_535, b"\x7e\xff\xff"),
        (65_536, b"\x7f" + b"\x00" * 5 + b"\x01\x00\x00"),
    ],
)
def test_encoding(size: int, head: bytes) -> None:
    payload = b"x" * size
    assert encode_text("x" * size) == b"\x81" + head + payload
    assert encode_binary(payload) == b"\x82" + head + payload
    assert encode_frame(Opcode.BINARY, payload) == b"\x82" + head + payload
    assert encode_frame(Opcode.TEXT, payload, compressed=True) == b"\xc1" + head + payload
    assert encode_frame(Opcode.PONG, payload[:125])[0] == 0x8A


def test_halves_of_surrogate_pairs() -> None:
    assert to_utf8("a\ud83db") == "a\ufffdb".encode()
    assert to_utf8("\udc00\ud83d\ude00") == "\ufffd😀".encode()
    assert encode_text("\ud800") == b"\x81\x03" + "\ufffd".encode()


def test_what_is_held_moves_to_another_process() -> None:
    decoder, other = FrameDecoder(LIMIT), FrameDecoder(LIMIT)
    frame = frame_bytes(TEXT, b"x" * 3000)
    assert decoder.hold(frame[:1000], True) == b""
    other.restore(decoder.snapshot())
    assert other.feed(frame[1000:]) == ["x" * 3000]
