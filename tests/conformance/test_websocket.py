"""The WebSocket transport: messages, limits, garbage, the closing handshake."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from support.clients import WebSocketSession
from support.rawwebsocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Closed, frame_bytes

SIZES = [0, 1, 125, 126, 65535, 65536, 900_000]
TEXTS = ["", "hello", "\U0001f600 é", "\u2028\u2029", "\n", "\\n", "\x00"]


def websocket(served: Any, eio: int = 4) -> WebSocketSession:
    return WebSocketSession(served, eio).open()


# -- messages


@pytest.mark.parametrize("size", SIZES)
def test_binary(serve: Any, eio: int, size: int) -> None:
    session = websocket(serve(), eio)
    data = bytes(i * 7 & 0xFF for i in range(size))
    session.say(data)
    assert session.hear() == data


@pytest.mark.parametrize("size", SIZES)
def test_text(serve: Any, eio: int, size: int) -> None:
    session = websocket(serve(), eio)
    session.say("x" * size)
    assert session.hear() == "x" * size


def test_texts(serve: Any, eio: int) -> None:
    session = websocket(serve(), eio)
    session.say(*TEXTS)
    assert session.hear_many(len(TEXTS)) == TEXTS


def test_many_in_one_segment(serve: Any, eio: int) -> None:
    session = websocket(serve(), eio)
    session.ws.http.send(b"".join(frame_bytes(TEXT, b"4%d" % i) for i in range(2000)))
    assert session.hear_many(2000) == [str(i) for i in range(2000)]


@pytest.mark.parametrize("size", [1_000, 16_000, 40_000])
def test_many_large_messages(serve: Any, eio: int, size: int) -> None:
    """Most of them are received in two or more pieces."""
    session = websocket(serve(), eio)
    texts = [f"{number:05}" * (size // 5) for number in range(30)]
    data = b"".join(frame_bytes(TEXT, b"4" + text.encode()) for text in texts)
    heard: list[str | bytes] = []
    for start in range(0, len(data), 150_000):
        session.ws.http.send(data[start:start + 150_000])
        heard += session.hear_many((min(start + 150_000, len(data)) * 30) // len(data) - len(heard))
    assert heard == texts


def test_a_large_message_in_pieces(serve: Any) -> None:
    session = websocket(serve())
    frame = frame_bytes(TEXT, b"4" + "äx".encode() * 2_000)
    for start, end in ((0, 100), (100, 101), (101, 3_000), (3_000, len(frame))):
        session.ws.http.send(frame[start:end])
        session.served.settle()
    assert session.hear() == "äx" * 2_000


def test_a_large_message_is_closed_in_its_middle(serve: Any) -> None:
    served = serve()
    session = websocket(served)
    session.ws.http.send(frame_bytes(TEXT, b"4" + b"x" * 2_000)[:1_000])
    served.settle()
    session.ws.http.close()
    assert served.events.wait("close")["reason"] == "transport close"


def test_a_message_in_one_segment_with_a_pong(serve: Any) -> None:
    session = websocket(serve())
    session.ws.http.send(frame_bytes(TEXT, b"4hello") + frame_bytes(TEXT, b"3"))
    assert session.hear() == "hello"


def test_byte_by_byte(serve: Any) -> None:
    session = websocket(serve())
    for byte in frame_bytes(TEXT, "4\U0001f600".encode()) + frame_bytes(BINARY, b"\x01"):
        session.ws.http.send(bytes([byte]))
        session.served.settle()
    assert session.hear_many(2) == ["\U0001f600", b"\x01"]


def test_fragments_with_a_ping_between(serve: Any) -> None:
    session = websocket(serve())
    ws = session.ws
    ws.send_frame(TEXT, b"4one ", fin=False)
    ws.send_frame(PING, b"are you there")
    ws.send_frame(CONTINUATION, b"two ", fin=False)
    ws.send_frame(CONTINUATION, b"three")
    pong = ws.read_frame()
    assert (pong.opcode, pong.payload) == (PONG, b"are you there")
    assert session.hear() == "one two three"


def test_an_unasked_pong_is_ignored(serve: Any) -> None:
    session = websocket(serve())
    session.ws.send_frame(PONG, b"x")
    session.say("x")
    assert session.hear() == "x"


@pytest.mark.differs("loses what comes before its open packet")
def test_the_first_message_with_the_handshake(serve: Any) -> None:
    served = serve()
    http = served.connect()
    request = http.head(
        "GET",
        f"{served.path}?EIO=4&transport=websocket",
        [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
    )
    http.send(request + frame_bytes(TEXT, b"4early"))
    assert http.response().header("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    received = http.read_until(b"4early")
    assert b'0{"sid":"' in received


# -- limits and garbage


def test_a_message_as_large_as_allowed(serve: Any) -> None:
    session = websocket(serve(max_http_buffer_size=1000))
    session.say("x" * 999)
    assert len(session.hear()) == 999


TOO_LARGE = {
    "announced": b"\x82\xff" + struct.pack("!Q", 2**62) + b"mask",
    "announced 16": b"\x81\xfe" + struct.pack("!H", 1001) + b"mask",
    "fragments": frame_bytes(BINARY, b"x" * 600, fin=False) + frame_bytes(CONTINUATION, b"x" * 600, fin=False),
}
GARBAGE = {
    "unmasked": (frame_bytes(TEXT, b"4x", masked=False), 1002),
    "reserved bit": (frame_bytes(TEXT, b"4x", rsv=4), 1002),
    "reserved opcode": (frame_bytes(3, b"4x"), 1002),
    "reserved control opcode": (frame_bytes(11, b""), 1002),
    "fragmented ping": (frame_bytes(PING, b"", fin=False), 1002),
    "long ping": (frame_bytes(PING, b"x" * 126), 1002),
    "nothing to continue": (frame_bytes(CONTINUATION, b"x"), 1002),
    "message in a message": (frame_bytes(TEXT, b"4", fin=False) + frame_bytes(TEXT, b"4"), 1002),
    "not UTF-8": (frame_bytes(TEXT, b"4\xff\xfe"), 1007),
    "half a character": (frame_bytes(TEXT, b"4\xf0\x9f"), 1007),
    "surrogate": (frame_bytes(TEXT, b"4\xed\xa0\x80"), 1007),
    "close with one byte": (frame_bytes(CLOSE, b"\x03"), 1002),
    "close with a code that is none": (frame_bytes(CLOSE, struct.pack("!H", 1005)), 1002),
    "close with a code too small": (frame_bytes(CLOSE, struct.pack("!H", 999)), 1002),
    "close with a bad reason": (frame_bytes(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
    **{f"too large: {name}": (data, 1009) for name, data in TOO_LARGE.items()},
}


@pytest.mark.parametrize(("data", "code"), GARBAGE.values(), ids=GARBAGE)
def test_garbage(serve: Any, data: bytes, code: int) -> None:
    served = serve(max_http_buffer_size=1000)
    other = websocket(served)
    session = websocket(served)
    session.ws.http.send(data)
    assert session.ws.wait_closed().code == code
    assert served.events.wait("close")["reason"] == "transport error"
    other.say("unharmed")
    assert other.hear() == "unharmed"


@pytest.mark.ours
def test_what_came_before_the_garbage_is_delivered(serve: Any) -> None:
    received: list[str] = []
    served = serve(app=None)
    served.server.on("connection", lambda socket: socket.on("message", received.append))
    session = websocket(served)
    session.ws.http.send(frame_bytes(TEXT, b"4one") + frame_bytes(TEXT, b"4two") + frame_bytes(TEXT, b"4\xff"))
    assert session.ws.wait_closed().code == 1007
    served.events.wait("close")
    assert received == ["one", "two"]


@pytest.mark.parametrize("data", ["x", "", "7", "b4"], ids=repr)
@pytest.mark.differs("closes without a code")
def test_a_frame_that_is_no_packet(serve: Any, data: str) -> None:
    session = websocket(serve())
    session.ws.send(data)
    assert session.ws.wait_closed().code == 1002
    assert session.served.events.wait("close")["reason"] == "parse error"


# -- the closing handshake


@pytest.mark.parametrize("code", [None, 1000, 1001, 1011, 3000, 4999])
def test_the_client_closes(serve: Any, code: int | None) -> None:
    session = websocket(serve())
    session.ws.close(code, "" if code is None else "bye")
    assert session.ws.wait_closed().code in ((1000, 1005) if code is None else (code,))
    assert session.ws.http.read_to_end() == b""
    session.vanish()
    assert session.served.events.wait("close")["reason"] == "transport close"


@pytest.mark.differs("ignores the packet")
def test_the_client_sends_a_close_packet(serve: Any, eio: int) -> None:
    session = websocket(serve(), eio)
    session.send("1")
    assert session.ws.wait_closed().code in (1000, 1005)
    assert session.served.events.wait("close")["reason"] == "transport close"


def test_the_server_closes(serve: Any, eio: int) -> None:
    session = websocket(serve(app="told"), eio)
    session.send('4["then_close", ["one", "two"]]')
    assert session.hear_many(2) == ["one", "two"]
    assert session.ws.wait_closed().code in (1000, 1005)
    assert session.ws.http.read_to_end() == b""
    session.vanish()
    assert session.served.events.wait("close")["reason"] == "forced close"


@pytest.mark.parametrize("end", ["close", "reset", "finish"])
def test_the_connection_ends_without_a_word(serve: Any, end: str) -> None:
    session = websocket(serve())
    getattr(session.ws.http, end)()
    assert session.served.events.wait("close")["reason"] in ("transport close", "transport error")


@pytest.mark.ours
def test_the_server_says_1001_when_it_goes(serve: Any) -> None:
    session = websocket(serve())
    session.served.server.close(timeout=1)
    assert session.ws.wait_closed() == Closed(1001, "server shutting down")
    assert session.served.events.wait("close")["reason"] == "server shutting down"


@pytest.mark.ours
def test_tls(serve: Any, certificate: dict[str, str], transport: str) -> None:
    import gevent.ssl
    from support.clients import open_session

    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate["certfile"])
    served = serve(tls=certificate)
    connect = served.connect
    served.connect = lambda: connect(tls=context)
    session = open_session(served, transport)
    for size in (1, 70_000, 500_000):
        session.say("x" * size)
        assert session.hear() == "x" * size
