"""Batches of plain messages: what the part in C does is what the one in Python does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engineio_wsgi.protocol.websocket import batches
from engineio_wsgi.protocol.websocket.frames import FrameDecoder, apply_mask

Decode = Callable[[bytes, int, list[Any]], int]
Encode = Callable[[list[Any]], bytes | None]

#: tox's `sanitize` asks for more than the usual
MANY = settings(max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")), deadline=None,
                suppress_health_check=[HealthCheck.too_slow])
#: what this installation uses, and the reference
DECODERS = [batches.decode_messages, batches.decode_in_python]
ENCODERS = [batches.encode_messages, batches.encode_in_python]


def client_frame(payload: bytes, first: int = 0x81, mask: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    """A frame as a client sends it, whatever is in it."""
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2, "big")
    return head + mask + apply_mask(payload, mask)


masks = st.binary(min_size=4, max_size=4)
payloads = st.one_of(
    st.text(max_size=300).map(lambda text: b"4" + text.encode("utf-8", "replace")),
    st.binary(max_size=300),
    st.sampled_from([b"", b"4", b"2", b"2probe", b"4\xff", b"4" + "äöü€😀".encode() * 40, b"4" + b"x" * 65_000]),
)
frames = st.builds(client_frame, payloads, st.sampled_from([0x81, 0x82, 0x82, 0x81, 0x01, 0x80, 0x88, 0x89, 0xC1]), masks)
streams = st.one_of(
    st.lists(frames, max_size=8).map(b"".join),
    st.tuples(st.lists(frames, max_size=4).map(b"".join), st.binary(max_size=12)).map(b"".join),
    st.binary(max_size=64),
)


@MANY
@given(streams, st.integers(0, 70_000))
@example(client_frame(b"4hello")[:-1], 100)
@example(client_frame(b"4" + b"x" * 200)[:7], 1000)
def test_decoding_is_that_of_the_reference(data: bytes, limit: int) -> None:
    expected: list[Any] = []
    found: list[Any] = []
    assert batches.decode_messages(data, limit, found) == batches.decode_in_python(data, limit, expected)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@MANY
@given(streams)
def test_a_decoder_finds_the_same_messages(data: bytes) -> None:
    """What is taken is what the frames' decoder would have found first."""
    messages: list[Any] = []
    position = batches.decode_messages(data, 100_000, messages)
    items = FrameDecoder(100_000).feed(data)
    plain = [item[1:] if isinstance(item, str) else item for item in items[: len(messages)]]
    assert plain == messages
    assert FrameDecoder(100_000).feed(data[position:]) == items[len(messages):]


texts = st.text(st.characters(), max_size=300)
large = st.sampled_from(["x" * 70_000, b"y" * 66_000, "ä" * 40_000])
messages = st.lists(st.one_of(texts, st.binary(max_size=300), large), max_size=6)


@MANY
@given(messages)
def test_encoding_is_that_of_the_reference(given_messages: list[Any]) -> None:
    assert batches.encode_messages(given_messages) == batches.encode_in_python(given_messages)


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 65_534, 65_535, 65_536])
def test_sizes_are_written_as_the_protocol_has_them(encode: Encode, size: int) -> None:
    text, binary = "x" * size, b"\x00" * size
    encoded = encode([text, binary])
    assert encoded is not None
    decoder = FrameDecoder(100_000, masked=False)
    assert decoder.feed(encoded) == ["4" + text, binary]


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("odd", [None, 1, bytearray(b"x"), "\ud800", type("Text", (str,), {})("x")])
def test_what_is_not_plain_is_left_to_others(encode: Encode, odd: object) -> None:
    assert encode(["before", odd]) is None
    assert encode(["before", "after"]) == b"\x81\x074before\x81\x064after"


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(("payload", "limit", "taken"), [(b"4abc", 4, True), (b"4abc", 3, False), (b"2probe", 100, False)])
def test_a_frame_that_is_no_plain_message_ends_the_batch(decode: Decode, payload: bytes, limit: int, taken: bool) -> None:
    first, second = client_frame(b"4"), client_frame(payload)
    messages: list[Any] = []
    position = decode(first + second, limit, messages)
    assert messages == (["", "abc"] if taken else [""])
    assert position == (len(first + second) if taken else len(first))


@pytest.mark.skipif(not batches.accelerated, reason="it is about the part in C, which test_ci_has_the_part_in_c asks for")
def test_wrong_arguments_are_refused() -> None:
    for arguments in [(), (b"", 1), ("", 1, []), (b"", "1", []), (b"", 1, ())]:
        with pytest.raises(TypeError):
            batches.decode_messages(*arguments)
    with pytest.raises(TypeError):
        batches.encode_messages(3)  # type: ignore[arg-type]


@pytest.mark.skipif(os.environ.get("ENGINEIO_PURE") == "1", reason="the environment asks for Python")
def test_ci_has_the_part_in_c() -> None:
    assert batches.accelerated or not os.environ.get("CI")


@pytest.mark.parametrize(("value", "pure"), [("1", True), ("0", False), ("", False)])
def test_the_environment_can_ask_for_python(value: str, pure: bool) -> None:
    program = "import engineio_wsgi; print(engineio_wsgi.accelerated)"
    result = subprocess.run([sys.executable, "-c", program], env={**os.environ, "ENGINEIO_PURE": value}, capture_output=True,
                            text=True, check=True)
    built = subprocess.run([sys.executable, "-c", "import engineio_wsgi.protocol.websocket.c_batches"], capture_output=True,
                           check=False).returncode == 0
    assert result.stdout.strip() == str(built and not pure)
