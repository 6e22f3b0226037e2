"""Requests that two servers could read differently: refused, closed, and what follows never read as a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.plain import PlainServer, records_of

pytestmark = pytest.mark.ours

HOST = b"Host: host\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: host\r\n\r\n"
SIZE = b"%d" % len(HIDDEN)
CHUNK = b"%x" % len(HIDDEN)
POST = b"POST /open HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"

CASES = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": CHUNKED + b"Content-Length: " + SIZE + b"\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: " + SIZE + b"\r\n\r\n",
    "the same length twice": POST + b"Content-Length: " + SIZE + b"\r\nContent-Length: " + SIZE + b"\r\n\r\n",
    "a list of lengths": POST + b"Content-Length: 0, " + SIZE + b"\r\n\r\n",
    "a signed length": POST + b"Content-Length: +" + SIZE + b"\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\n",
    "a hexadecimal length": POST + b"Content-Length: 0x10\r\n\r\n",
    "an empty length": POST + b"Content-Length: \r\n\r\n",
    "a length in another line's fold": POST + b"X: y\r\n Content-Length: " + SIZE + b"\r\n\r\n",
    "chunked in a fold": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked is not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding before chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a quoted coding": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a vertical tab before the coding": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a space before the first header": b"POST /open HTTP/1.1\r\n Transfer-Encoding: chunked\r\n"
    + HOST
    + b"\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /open HTTP/1.0\r\nConnection: keep-alive\r\n"
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed before the request": b"\nGET /open HTTP/1.1\r\nHost: host\r\n\r\n",
    "a bare line feed between headers": b"GET /open HTTP/1.1\r\nHost: host\nX: y\r\n\r\n",
    "a bare line feed after the request line": b"GET /open HTTP/1.1\nHost: host\r\n\r\n",
    "bare line feeds only": b"GET /open HTTP/1.1\nHost: host\n\n",
    "an empty line of one line feed": b"GET /open HTTP/1.1\r\nHost: host\r\n\n",
    "a bare carriage return in a value": b"GET /open HTTP/1.1\r\nHost: host\r\nX: y\rZ: z\r\n\r\n",
    "a null in a value": b"GET /open HTTP/1.1\r\nHost: host\r\nX: y\x00\r\n\r\n",
    "an upgrade to a WebSocket with a body": b"GET /open HTTP/1.1\r\n"
    + HOST
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: "
    + SIZE
    + b"\r\n\r\n",
    "an upgrade to a WebSocket among others, with a body": POST
    + b"Connection: Upgrade\r\nUpgrade: h2c, WebSocket\r\nContent-Length: "
    + SIZE
    + b"\r\n\r\n",
    "an upgrade to a WebSocket with a chunked body": CHUNKED
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    + CHUNK
    + b"\r\n",
    "a HEAD with a body": b"HEAD /open HTTP/1.1\r\n" + HOST + b"Content-Length: " + SIZE + b"\r\n\r\n",
    "two hosts": b"GET /open HTTP/1.1\r\n" + HOST + b"Host: other\r\n\r\n",
    "a trailer that ends with a bare line feed": CHUNKED + b"\r\n0\r\nX: y\n\r\n",
    "a trailer with a space before the colon": CHUNKED + b"\r\n0\r\nX : y\r\n\r\n",
    "a request for a trailer": CHUNKED + b"\r\n0\r\n" + HIDDEN,
    "a chunk longer than its size": CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n",
    "a chunk's size that is signed": CHUNKED + b"\r\n-1\r\n\r\n",
    "a chunk's size with a prefix": CHUNKED + b"\r\n0x0\r\n\r\n",
    "a chunk's size that overflows": CHUNKED + b"\r\n10000000000000000\r\n\r\n",
    "an empty chunk size": CHUNKED + b"\r\n\r\n",
    "a bare line feed after a size": CHUNKED + b"\r\n0\n\r\n",
    "a bare line feed after a chunk": CHUNKED + b"\r\n1\r\na\n0\r\n\r\n",
    "a bare line feed in an extension": CHUNKED + b"\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
    "a bare line feed at the end": CHUNKED + b"\r\n0\r\n\n",
}


class Application:
    """Reads all bodies, and keeps the paths."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.paths.append(environ["PATH_INFO"])
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def server(application: Application) -> Iterator[PlainServer]:
    running = PlainServer(application)
    yield running
    running.stop()


@pytest.mark.parametrize("request_bytes", CASES.values(), ids=CASES)
def test_refused_and_closed(server: PlainServer, application: Application, request_bytes: bytes) -> None:
    with records_of("engine.http") as records:
        answer = server.exchange(request_bytes + HIDDEN)
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 501")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert "/hidden" not in application.paths
    assert [record.levelname for record in records] == ["INFO"]
    assert records[0].exc_info is None
    assert server.errors.text == ""


@pytest.mark.parametrize("request_bytes", CASES.values(), ids=CASES)
def test_the_same_when_it_comes_byte_by_byte(
    server: PlainServer, application: Application, request_bytes: bytes
) -> None:
    connection = server.connect()
    try:
        for byte in request_bytes + HIDDEN:
            connection.send(bytes([byte]))
    except OSError:
        pass
    assert connection.read_to_end()[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 501", b"")
    assert "/hidden" not in application.paths


def test_the_proof_proves_something(server: PlainServer, application: Application) -> None:
    body = POST + b"Content-Length: 3\r\n\r\nabc"
    connection = server.connect(body + HIDDEN)
    assert [connection.response().body, connection.response().body] == [b"ok", b"ok"]
    assert application.paths == ["/open", "/hidden"]


def test_a_body_that_looks_like_a_request_is_a_body(server: PlainServer, application: Application) -> None:
    for request in (
        POST + b"Content-Length: " + SIZE + b"\r\n\r\n" + HIDDEN,
        CHUNKED + b"\r\n" + CHUNK + b"\r\n" + HIDDEN + b"\r\n0\r\n\r\n",
    ):
        assert server.connect(request).response().status == 200
    assert application.paths == ["/open", "/open"]


def test_a_body_that_nobody_reads_is_not_the_next_request() -> None:
    paths: list[str] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        paths.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    server = PlainServer(application, max_discarded_body=100)
    connection = server.connect(
        POST + b"Content-Length: " + SIZE + b"\r\n\r\n" + HIDDEN + b"GET /next HTTP/1.0\r\n\r\n"
    )
    assert connection.read_to_end().count(b"HTTP/1.1 200") == 2
    assert paths == ["/open", "/next"]
    filler = b"x" * 200
    answer = server.exchange(POST + b"Content-Length: %d\r\n\r\n" % (len(filler) + len(HIDDEN)) + filler + HIDDEN)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert "/hidden" not in paths
    server.stop()


def test_what_follows_a_refused_handshake_is_not_a_request(server: PlainServer, application: Application) -> None:
    handshake = b"GET /open HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    answer = server.exchange(handshake + HIDDEN)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert application.paths == ["/open"]
