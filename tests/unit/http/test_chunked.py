"""Chunked bodies, valid and invalid ones, cut into any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.http.chunked import ChunkedDecoder, ChunkedError


def encode(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk) + b"0\r\n\r\n"


def decode(data: bytes, step: int = 1 << 20) -> tuple[bytes, ChunkedDecoder]:
    decoder = ChunkedDecoder()
    body = b""
    at = 0
    while at < len(data) and not decoder.done:
        body += decoder.feed(data[at : at + step])
        at += step
    return body, decoder


@given(st.lists(st.binary(max_size=50)), st.integers(1, 70))
def test_a_body_comes_out_whatever_its_pieces(chunks: list[bytes], step: int) -> None:
    body, decoder = decode(encode(chunks), step)
    assert body == b"".join(chunks)
    assert decoder.done
    assert decoder.rest == b""


def test_what_follows_is_left_alone() -> None:
    body, decoder = decode(encode([b"abc"]) + b"GET / HTTP/1.1\r\n")
    assert body == b"abc"
    assert decoder.rest == b"GET / HTTP/1.1\r\n"


def test_an_unfinished_body_is_not_done() -> None:
    for end in range(len(encode([b"abc"]))):
        body, decoder = decode(encode([b"abc"])[:end])
        assert b"abc".startswith(body)
        assert not decoder.done


def test_extensions_are_ignored_and_sizes_are_hexadecimal() -> None:
    assert decode(b'A;name="value"\r\n0123456789\r\n0a \r\n0123456789\r\n00;x\r\n\r\n')[0] == b"0123456789" * 2


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_trailers_are_discarded(step: int) -> None:
    trailers = b"Checksum: \xe9=\t1\r\nEmpty:\r\nContent-Length: 7\r\n"
    data = b"3\r\nabc\r\n0\r\n" + trailers + b"\r\n"
    body, decoder = decode(data, step)
    assert (body, decoder.done, decoder.rest) == (b"abc", True, b"")
    assert decode(data + b"GET /")[1].rest == b"GET /"
    for end in range(len(data)):
        assert not decode(data[:end], step)[1].done


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\na\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"1\na\n0\n\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"11111111111111111\r\n",
        b"1;" + b"x" * 300 + b"\r\na\r\n",
        b"1" * 300,
        b"1;a\x00b\r\na\r\n",
        b"0\r\n\n",
        b"0\r\nTrailer: x\n\r\n",
        b"0\r\nTrailer : x\r\n\r\n",
        b"0\r\n folded: x\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nTrailer: \x00\r\n\r\n",
        b"0\r\nTrailer: x\ry\r\n\r\n",
        b"0\r\nTrailer: " + b"x" * 4096 + b"\r\n\r\n",
        b"0\r\n" + b"T: x\r\n" * 2000 + b"\r\n",
        b"0\r\nTrailer: " + b"x" * 5000,
    ],
)
def test_what_is_not_a_chunked_body(data: bytes, step: int) -> None:
    with pytest.raises(ChunkedError):
        decode(data, step)


@given(st.binary(max_size=60), st.integers(1, 10))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes, step: int) -> None:
    try:
        body, decoder = decode(data, step)
    except ChunkedError:
        return
    assert len(body) <= len(data)
    assert decoder.done or not decoder.rest
