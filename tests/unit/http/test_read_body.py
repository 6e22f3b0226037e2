"""Request bodies: read within a limit, whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.errors import PayloadTooLarge, ProtocolError
from engineio_wsgi.http.body import CHUNK, copy_body, read_body


class Input:
    """A ``wsgi.input`` that gives at most ``at_once`` bytes; ``asked`` is what it was asked for."""

    def __init__(self, data: bytes, at_once: int = 1 << 30) -> None:
        self._data = data
        self._at_once = at_once
        self.asked: list[int] = []

    def read(self, size: int) -> bytes:
        """As much as there is, within ``size``."""
        self.asked.append(size)
        taken, self._data = self._data[:min(size, self._at_once)], self._data[min(size, self._at_once):]
        return taken


class Unreadable:
    """A ``wsgi.input`` that must not be read."""

    def read(self, size: int) -> bytes:
        """Never."""
        raise AssertionError("it was read")


def body(source: Any, limit: int = 100, length: str | None = None, terminated: bool = False) -> bytes:
    """The body of a request."""
    environ: dict[str, Any] = {"wsgi.input": source}
    if length is not None:
        environ["CONTENT_LENGTH"] = length
    if terminated:
        environ["wsgi.input_terminated"] = True
    return read_body(environ, limit)


# -- of a length that is announced


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_a_body_within_the_limit(size: int) -> None:
    assert body(Input(b"x" * size), length=str(size)) == b"x" * size


def test_no_more_is_read_than_was_announced() -> None:
    source = Input(b"abcdef")
    assert body(source, length="3") == b"abc"
    assert source.asked == [3]


def test_a_length_beyond_the_limit_is_refused_before_anything_is_read() -> None:
    with pytest.raises(PayloadTooLarge) as refused:
        body(Unreadable(), length="101")
    assert (refused.value.size, refused.value.limit) == (101, 100)


@pytest.mark.parametrize("length", ["-1", "+1", "1.0", "0x1", "1e3", " 1", "1 ", "1,1", "one", "²", "١", "1_0", "-"])
def test_an_invalid_content_length_is_refused(length: str) -> None:
    with pytest.raises(ProtocolError, match="is not a number"):
        body(Unreadable(), length=length)


def test_the_error_of_a_wrong_length_is_cut_short() -> None:
    with pytest.raises(ProtocolError) as refused:
        body(Unreadable(), length="x" * 9000)
    assert str(refused.value) == f"the Content-Length {'x' * 40!r} is not a number"


def test_leading_zeros_are_digits() -> None:
    assert body(Input(b"abc"), length="0003") == b"abc"


@pytest.mark.parametrize("arrived", [b"", b"abc"])
def test_a_body_that_ends_early(arrived: bytes) -> None:
    with pytest.raises(ConnectionAbortedError, match=f"{len(arrived)} of 7 bytes arrived before the client went away"):
        body(Input(arrived), length="7")


# -- of a length that is not


@pytest.mark.parametrize("length", [None, ""])
def test_without_a_length_there_is_no_body(length: str | None) -> None:
    assert body(Unreadable(), length=length) == b""


@pytest.mark.parametrize("at_once", [1, 7, 1000])
@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_a_body_whose_end_the_server_finds(size: int, at_once: int) -> None:
    assert body(Input(b"x" * size, at_once), terminated=True) == b"x" * size


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_an_endless_body_is_refused_with_the_first_byte_too_many(at_once: int) -> None:
    source = Input(b"x" * 10_000, at_once)
    with pytest.raises(PayloadTooLarge) as refused:
        body(source, terminated=True)
    assert (refused.value.size, refused.value.limit) == (101, 100)
    assert len(source.asked) <= 101


def test_a_large_body_is_read_in_pieces() -> None:
    source = Input(b"x" * 3 * CHUNK)
    assert len(body(source, limit=10 * CHUNK, terminated=True)) == 3 * CHUNK
    assert max(source.asked) == CHUNK


@given(data=st.binary(max_size=40), limit=st.integers(0, 40), at_once=st.integers(1, 9), announced=st.booleans())
def test_whole_or_refused(data: bytes, limit: int, at_once: int, announced: bool) -> None:
    source = Input(data, 1 << 30 if announced else at_once)
    try:
        read = body(source, limit, str(len(data)) if announced else None, not announced)
    except PayloadTooLarge:
        assert len(data) > limit
    else:
        assert read == data
        assert len(data) <= limit


# -- for another thread or process


@given(data=st.binary(max_size=12), limit=st.integers(0, 12),
       length=st.one_of(st.none(), st.integers(0, 14).map(str), st.just("1e3")), terminated=st.booleans())
def test_a_copy_is_read_as_the_original_would_be(data: bytes, limit: int, length: str | None, terminated: bool) -> None:
    def outcome(source: Input, length: str | None) -> bytes | type[Exception]:
        try:
            return body(source, limit, length, terminated)
        except Exception as error:
            return type(error)

    environ: dict[str, Any] = {"wsgi.input": Input(data), "wsgi.input_terminated": terminated}
    if length is not None:
        environ["CONTENT_LENGTH"] = length
    copied_length, copied = copy_body(environ, limit)
    assert len(copied) <= limit
    assert outcome(Input(copied), copied_length) == outcome(Input(data), length)


def test_the_copy_of_a_body_that_breaks_off_breaks_off() -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise ConnectionResetError

    length, copied = copy_body({"wsgi.input": Broken(), "wsgi.input_terminated": True}, 100)
    with pytest.raises(ConnectionAbortedError):
        body(Input(copied), length=length)
