"""Input streams: reads of any size, both framings, and ``Expect: 100-continue``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.http.body import NO_BODY, Body, open_body
from engineio_wsgi.http.connection import HttpConnection
from engineio_wsgi.http.request_head import CHUNKED, InvalidRequest

TEXT = b"first\nsecond line\n\nlast"
CHUNKED_TEXT = b"3\r\nfir\r\n9\r\nst\nsecond\r\nb\r\n line\n\nlast\r\n0\r\n\r\n"
FRAMINGS = {"sized": (len(TEXT), TEXT), "chunked": (CHUNKED, CHUNKED_TEXT)}


class Pair:
    """A client's socket, and the server's connection."""

    def __init__(self) -> None:
        self.client, self.socket = socket.socketpair()
        self.connection = HttpConnection(self.socket)

    def body(self, length: int, *, timeout: float = 5.0, **variables: str) -> Body:
        return open_body(self.connection, length, timeout, {"SERVER_PROTOCOL": "HTTP/1.1", **variables})

    def close(self) -> None:
        self.connection.close_watchers()
        self.client.close()
        self.socket.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture(params=FRAMINGS)
def body(request: pytest.FixtureRequest, pair: Pair) -> Body:
    length, data = FRAMINGS[request.param]
    pair.client.sendall(data + b"NEXT")
    return pair.body(length)


def test_all_of_it(body: Body, pair: Pair) -> None:
    assert body.read() == TEXT
    assert body.read() == body.read(5) == body.readline() == b""
    rest = pair.connection.buffer or pair.connection.receive(5)
    assert rest == b"NEXT"


def test_in_pieces(body: Body) -> None:
    assert body.read(0) == b""
    assert [body.read(10), body.read(10), body.read(10), body.read(10)] == [TEXT[:10], TEXT[10:20], TEXT[20:], b""]


def test_line_by_line(body: Body) -> None:
    assert body.readline() == b"first\n"
    assert body.readline(3) == b"sec"
    assert body.readline(0) == b""
    assert body.readline(100) == b"ond line\n"
    assert body.readline(-1) == b"\n"
    assert body.readline(None) == b"last"
    assert body.readline() == b""


def test_as_lines(body: Body) -> None:
    assert list(body) == TEXT.splitlines(keepends=True)


def test_with_a_hint(body: Body) -> None:
    assert body.readlines(7) == [b"first\n", b"second line\n"]
    assert body.readlines() == [b"\n", b"last"]


def test_lines_and_bytes_may_be_mixed(body: Body) -> None:
    assert body.readline() == b"first\n"
    assert body.read(6) == b"second"
    assert body.readline() == b" line\n"
    assert body.read(None) == b"\nlast"


def test_what_is_left_can_be_discarded(body: Body, pair: Pair) -> None:
    assert body.read(3) == b"fir"
    assert body.discard(100)
    assert (pair.connection.buffer or pair.connection.receive(5)) == b"NEXT"


def test_too_much_is_not_discarded(pair: Pair) -> None:
    assert not pair.body(1000).discard(999)
    assert pair.connection.buffer == b""
    pair.client.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
    assert not pair.body(CHUNKED).discard(1000)


def test_there_is_nothing_where_there_is_no_body() -> None:
    assert NO_BODY.read() == NO_BODY.read(3) == NO_BODY.readline() == b""
    assert NO_BODY.readlines() == list(NO_BODY) == []
    assert NO_BODY.discard(0)
    assert not NO_BODY.stop_waiting()


def test_no_length_no_body(pair: Pair) -> None:
    assert open_body(pair.connection, None, 1, {}) is NO_BODY
    assert open_body(pair.connection, 0, 1, {}) is NO_BODY


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_client_that_goes_away(framing: str, pair: Pair) -> None:
    length, data = FRAMINGS[framing]
    pair.client.sendall(data[:12])
    pair.client.shutdown(socket.SHUT_WR)
    body = pair.body(length)
    with pytest.raises(InvalidRequest) as caught:
        body.read()
    assert caught.value.status == "400 Bad Request"
    assert isinstance(caught.value, OSError)
    with pytest.raises(InvalidRequest):
        body.read()
    assert not body.discard(1000)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_client_that_stops(framing: str, pair: Pair) -> None:
    length, data = FRAMINGS[framing]
    pair.client.sendall(data[:12])
    with pytest.raises(InvalidRequest) as caught:
        pair.body(length, timeout=0.01).read()
    assert caught.value.status == "408 Request Timeout"


def test_a_broken_chunk(pair: Pair) -> None:
    pair.client.sendall(b"3\r\nabc\r\nnonsense\r\n")
    body = pair.body(CHUNKED)
    assert body.read(0) == b""
    with pytest.raises(InvalidRequest) as caught:
        body.read()
    assert caught.value.status == "400 Bad Request"


def test_a_client_that_waits_is_told_once(pair: Pair) -> None:
    body = pair.body(4, HTTP_EXPECT="100-Continue")
    reading = gevent.spawn(body.read)
    assert pair.client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    pair.client.sendall(b"ab")
    pair.client.sendall(b"cd")
    assert reading.get(timeout=60) == b"abcd"
    assert not body.stop_waiting()


def test_a_client_that_did_not_wait_is_not_told(pair: Pair) -> None:
    pair.connection.buffer = b"abcd"
    assert pair.body(4, HTTP_EXPECT="100-continue").read() == b"abcd"
    pair.socket.sendall(b"end")
    assert pair.client.recv(100) == b"end"


def test_no_100_continue_after_the_response_has_begun(pair: Pair) -> None:
    body = pair.body(4, HTTP_EXPECT="100-continue")
    assert body.stop_waiting()
    with pytest.raises(InvalidRequest):
        body.read()
    assert not body.discard(100)


@given(st.binary(max_size=300), st.lists(st.tuples(st.booleans(), st.integers(1, 100)), max_size=20), st.booleans())
def test_any_mixture_of_reads_gives_the_body_once(data: bytes, reads: list[tuple[bool, int]], chunked: bool) -> None:
    pair = Pair()
    try:
        coded = b"".join(b"%x\r\n%b\r\n" % (len(data[i : i + 7]), data[i : i + 7]) for i in range(0, len(data), 7))
        pair.client.sendall(coded + b"0\r\n\r\n" if chunked else data)
        body: Any = pair.body(CHUNKED if chunked else len(data))
        pieces = [body.readline(size) if by_line else body.read(size) for by_line, size in reads]
        assert b"".join(pieces) + body.read() == data
    finally:
        pair.close()
