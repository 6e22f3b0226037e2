"""http3/capsules.py: what a client sends behind the request for a session."""

from __future__ import annotations

import pytest
from aioquic.buffer import Buffer, encode_uint_var
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.http3.capsules import CapsuleReader, encode_close


def capsule(kind: int, content: bytes, size: int | None = None) -> bytes:
    """A capsule, as aioquic would encode it."""
    return encode_uint_var(kind) + encode_uint_var(len(content) if size is None else size) + content


CLOSE = capsule(0x2843, b"\x00\x00\x0f\xa0bye")


def test_encode_close() -> None:
    buffer = Buffer(data=encode_close(4000, "bye"))
    assert (buffer.pull_uint_var(), buffer.pull_uint_var()) == (0x2843, 7)
    assert buffer.pull_bytes(7) == b"\x00\x00\x0f\xa0bye"
    assert CapsuleReader().feed(encode_close(0, "")) == (0, "")


def test_a_long_reason_is_cut_between_two_characters() -> None:
    told = CapsuleReader().feed(encode_close(1, "€" * 1000))
    assert told == (1, "€" * 341)


@given(st.lists(st.tuples(st.integers(0, (1 << 62) - 1).filter(lambda kind: kind != 0x2843), st.binary()), max_size=5), st.data())
def test_other_capsules_are_skipped(others: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(capsule(*other) for other in others) + CLOSE
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = CapsuleReader()
    told = [reader.feed(stream[begin:end]) for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [each for each in told if each is not None][:1] == [(4000, "bye")]


def test_nothing_is_kept_of_a_capsule_that_is_skipped() -> None:
    reader = CapsuleReader()
    reader.feed(capsule(0x1234, b"", 1 << 60))
    for _ in range(1000):
        assert reader.feed(bytes(1000)) is None
    assert reader.kept == 0


@pytest.mark.parametrize("size", [0, 3, 1029, 1 << 60])
def test_a_close_capsule_of_another_size(size: int) -> None:
    with pytest.raises(ProtocolError, match="4 to 1028 bytes"):
        CapsuleReader().feed(capsule(0x2843, b"", size))


def test_a_reason_that_is_no_utf_8() -> None:
    assert CapsuleReader().feed(capsule(0x2843, bytes(4) + b"\xff")) == (0, "\ufffd")


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    reader = CapsuleReader()
    try:
        reader.feed(data)
    except ProtocolError:
        return
    assert reader.kept <= 1044
