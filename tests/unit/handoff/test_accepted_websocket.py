"""Detaching a WebSocket's connection: nothing that was read is lost, and the former owner does not use it any more."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.queue import Queue
from gevent.socket import wait_read
from geventwebsocket.websocket import Stream
from geventwebsocket.websocket import WebSocket as PlainWebSocket
from support.rawwebsocket import TEXT, frame_bytes

from engineio_wsgi.handoff.accepted_websocket import check_handshake, close_accepted, detach_websocket
from engineio_wsgi.handoff.server_loops import read_ahead
from engineio_wsgi.protocol.websocket.frames import Close, FrameDecoder, encode_binary, encode_close, encode_text
from engineio_wsgi.protocol.websocket.handshake import HandshakeRefused
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.websocket.websocket import WebSocket

ENVIRON = {
    "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==", "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


class Pair:
    """A connection: ``near`` is the server's end, ``far`` the client's."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.far.settimeout(60)
        self.reader = self.near.makefile("rb", -1)

    def plain(self) -> Any:
        """gevent-websocket's WebSocket."""
        server = SimpleNamespace(application=None)
        handler = SimpleNamespace(socket=self.near, rfile=self.reader, server=server, logger=logging.getLogger("plain"))
        return PlainWebSocket({}, Stream(handler), handler)

    def close(self) -> None:
        """All of it."""
        self.reader.close()
        self.near.close()
        self.far.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connection for the time of the test."""
    made = Pair()
    yield made
    made.close()


class Duck:
    """Anything with ``receive``, ``send`` and ``close``."""

    def __init__(self) -> None:
        self.incoming: Queue = Queue()
        self.calls: Queue = Queue()

    def receive(self) -> Any:
        """What a test has put there, which may be an exception."""
        message = self.incoming.get()
        if isinstance(message, Exception):
            raise message
        return message

    def send(self, message: str | bytes, binary: bool) -> None:
        """Write it down."""
        self.calls.put(("send", message, binary))

    def close(self, code: int, message: str) -> None:
        """Write it down."""
        self.calls.put(("close", code, message))


def read_all(wire: Connection, size: int = 1 << 30) -> bytes:
    """What comes out of a wire: ``size`` bytes, or all up to its end."""
    data = b""
    while len(data) < size:
        try:
            piece = wire.recv(size - len(data))
        except BlockingIOError:
            wait_read(wire.fileno())
            continue
        if not piece:
            break
        data += piece
    return data


# -- the handshake


def test_an_invalid_handshake_is_refused_with_the_status_of_the_rfc() -> None:
    websocket = WebSocket({**ENVIRON, "HTTP_SEC_WEBSOCKET_VERSION": "8"}, lambda first: None)  # type: ignore[arg-type, return-value]
    websocket.refusal = HandshakeRefused("426 Upgrade Required", "version 8", [("Sec-WebSocket-Version", "13")])
    with pytest.raises(HandshakeRefused) as refused:
        check_handshake(websocket)
    assert refused.value.status == "426 Upgrade Required"
    assert refused.value.message == "Bad request: version 8"
    assert refused.value.headers == (("Sec-WebSocket-Version", "13"),)


def test_websockets_of_other_libraries_are_not_checked(pair: Pair) -> None:
    check_handshake(SimpleNamespace(refusal="none of ours"))
    check_handshake(pair.plain())
    check_handshake(WebSocket(dict(ENVIRON), lambda first: None))  # type: ignore[arg-type, return-value]


# -- our own


def test_our_websocket_is_accepted_with_the_headers(pair: Pair) -> None:
    wires: list[Connection] = []

    def answer_handshake(first: bytes, more: bool) -> Connection:
        wires.append(Connection(detach(pair.near)))
        wires[0].write(first)
        return wires[0]

    connection = detach_websocket(WebSocket(dict(ENVIRON), answer_handshake), [("X-Cookie", "io")], None)
    assert (connection.wire, connection.deflate, connection.masked, connection.wait) == (wires[0], None, True, None)
    head = pair.far.recv(1000)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nX-Cookie: io\r\n" in head
    connection.wire.close()


# -- gevent-websocket's


def test_gevent_websockets_keeps_what_was_read_ahead(pair: Pair) -> None:
    pair.far.sendall(b"abcdef")
    assert pair.reader.read(2) == b"ab"
    pair.far.sendall(b"ghi")
    connection = detach_websocket(pair.plain(), [], None)
    assert (connection.deflate, connection.masked, connection.wait) == (None, True, None)
    pair.far.shutdown(socket.SHUT_WR)
    assert read_all(connection.wire) == b"cdefghi"
    connection.wire.close()


def test_gevent_websockets_handler_has_nothing_left_to_close(pair: Pair) -> None:
    websocket = pair.plain()
    connection = detach_websocket(websocket, [], None)
    assert websocket.closed
    websocket.close()
    pair.near.close()
    connection.wire.write(b"still there")
    assert pair.far.recv(100) == b"still there"
    connection.wire.close()
    assert pair.far.recv(100) == b""


# -- what a reader has read ahead


@pytest.mark.parametrize("timeout", [None, 7.0])
def test_nothing_was_read_ahead(pair: Pair, timeout: float | None) -> None:
    pair.near.settimeout(timeout)
    with gevent.Timeout(60):
        assert read_ahead(pair.reader, pair.near) == b""
    assert pair.near.gettimeout() == timeout


def test_what_was_read_ahead(pair: Pair) -> None:
    pair.far.sendall(b"abcdef")
    assert pair.reader.read(2) == b"ab"
    with gevent.Timeout(60):
        assert read_ahead(pair.reader, pair.near) == b"cdef"


def test_a_reader_of_a_client_that_is_gone(pair: Pair) -> None:
    pair.far.close()
    assert read_ahead(pair.reader, pair.near) == b""


@pytest.mark.parametrize("timeout", [None, 7.0])
def test_a_reader_of_a_connection_that_was_reset(pair: Pair, timeout: float | None) -> None:
    pair.near.settimeout(timeout)
    pair.near.sendall(b"it does not read this")
    pair.far.close()
    assert read_ahead(pair.reader, pair.near) == b""
    assert pair.near.gettimeout() == timeout


# -- anything else is pumped


class Pumped:
    """A duck that was taken over, and the greenlet of whoever accepted it."""

    def __init__(self) -> None:
        self.duck = Duck()
        self.connection = detach_websocket(self.duck, [], None)
        assert self.connection.wait is not None
        self.owner = gevent.spawn(self.connection.wait)

    def end(self) -> None:
        """The session closes its side; nothing is left of the pump then."""
        self.connection.wire.close()
        self.owner.get(timeout=60)


@pytest.fixture
def pumped() -> Pumped:
    """A duck."""
    return Pumped()


def test_messages_become_frames(pumped: Pumped) -> None:
    for message in ("text", b"bytes", bytearray(b"array"), ""):
        pumped.duck.incoming.put(message)
    frames = encode_text("text") + encode_binary(b"bytes") + encode_binary(b"array") + encode_text("")
    assert read_all(pumped.connection.wire, len(frames)) == frames
    assert pumped.connection.masked is False
    pumped.duck.incoming.put(None)
    assert read_all(pumped.connection.wire) == encode_close(1000, "")
    gevent.sleep(0)
    assert not pumped.owner.ready(), "the session may have something left to say"
    pumped.end()


def test_frames_become_messages(pumped: Pumped) -> None:
    pumped.connection.wire.write(encode_text("text") + encode_binary(b"bytes") + encode_text("2"))
    assert [pumped.duck.calls.get(timeout=60) for _ in range(3)] == [
        ("send", "text", False), ("send", b"bytes", True), ("send", "2", False)]
    pumped.duck.incoming.put(None)
    read_all(pumped.connection.wire)
    pumped.end()


@pytest.mark.parametrize(("frame", "call"), [
    (encode_close(1008, "why"), ("close", 1008, "why")),
    (b"\x88\x00", ("close", 1000, "")),
    (frame_bytes(TEXT, b"masked"), ("close", 1002)),
], ids=["with a code", "without", "a violation"])
def test_a_close_frame_closes_it(pumped: Pumped, frame: bytes, call: tuple[Any, ...]) -> None:
    pumped.connection.wire.write(frame)
    assert pumped.duck.calls.get(timeout=60)[:len(call)] == call
    assert read_all(pumped.connection.wire) == b"", "nothing more comes of it"
    assert pumped.duck.calls.empty()
    pumped.owner.kill()
    pumped.connection.wire.close()


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), RuntimeError("its own affair")])
def test_the_session_learns_of_any_end_of_the_websocket(pumped: Pumped, error: Exception) -> None:
    pumped.duck.incoming.put(error)
    assert read_all(pumped.connection.wire) == b""
    pumped.end()


# -- closing what was accepted


def test_closing_gevent_websockets_with_a_code(pair: Pair) -> None:
    close_accepted(pair.plain(), 1008, "unwanted")
    (closed,) = FrameDecoder(1000, masked=False).feed(pair.far.recv(1000))
    assert closed == Close(1008, "unwanted")
    assert pair.far.recv(1000) == b""
    pair.far.close()
    for _ in range(5):
        gevent.sleep(0.001)  # the wire finds the end


def test_closing_a_websocket_whose_client_is_gone(pair: Pair) -> None:
    pair.far.close()
    close_accepted(pair.plain(), 1008, "unwanted")
