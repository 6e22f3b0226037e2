"""permessage-deflate as the engine uses it; the codec itself is tested elsewhere."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from support.clients import WebSocketSession
from support.rawwebsocket import TEXT

from engineio_wsgi import Bundle

OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]
LONG = "compressible " * 200


def inflate(payload: bytes) -> bytes:
    """One compressed message."""
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


def deflate(data: bytes) -> bytes:
    """The payload of a compressed message."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compressed_session(serve: Any, **options: Any) -> WebSocketSession:
    """A session that has negotiated compression."""
    served = serve(**{"per_message_deflate": True, **options})
    session = WebSocketSession(served, 4, OFFER).open()
    assert (session.ws.response.header("Sec-WebSocket-Extensions") or "").startswith("permessage-deflate")
    return session


# gevent-websocket's handler accepts without extensions
pytestmark = [pytest.mark.ours, pytest.mark.own_handler]


def test_off_by_default(serve: Any) -> None:
    session = WebSocketSession(serve(), 4, OFFER).open()
    assert session.ws.response.header("Sec-WebSocket-Extensions") is None
    session.say(LONG)
    assert session.hear() == LONG


def test_not_offered(serve: Any) -> None:
    session = WebSocketSession(serve(per_message_deflate=True)).open()
    assert session.ws.response.header("Sec-WebSocket-Extensions") is None
    session.say(LONG)
    assert session.hear() == LONG


def test_both_directions(serve: Any) -> None:
    session = compressed_session(serve)
    session.ws.send_frame(TEXT, deflate(b"4" + LONG.encode()), rsv=4)
    frame = session.ws.read_frame()
    assert frame.rsv == 4
    assert len(frame.payload) < 200
    assert inflate(frame.payload).decode() == "4" + LONG


def test_the_messages_of_a_bundle_are_compressed_one_by_one(serve: Any) -> None:
    session = compressed_session(serve)
    session.served.socket(session.sid).send(Bundle("short", LONG))
    session.served.socket(session.sid).send(Bundle("short", LONG), compress=False)
    frames = [session.ws.read_frame() for _ in range(4)]
    assert [frame.rsv for frame in frames] == [0, 4, 0, 0]
    assert inflate(frames[1].payload).decode() == "4" + LONG
    assert [frames[each].payload for each in (0, 2, 3)] == [b"4short", b"4short", b"4" + LONG.encode()]


def test_short_messages_go_as_they_are(serve: Any) -> None:
    session = compressed_session(serve)
    session.say("short")
    frame = session.ws.read_frame()
    assert (frame.rsv, frame.payload) == (0, b"4short")


def test_threshold(serve: Any) -> None:
    import engineio_wsgi

    session = compressed_session(serve, per_message_deflate=engineio_wsgi.Deflate(threshold=3))
    session.say("short")
    assert session.ws.read_frame().rsv == 4


def test_a_message_may_be_sent_uncompressed(serve: Any) -> None:
    session = compressed_session(serve, app="silent")
    session.served.socket(session.sid).send(LONG, compress=False)
    assert session.ws.read_frame().rsv == 0


@pytest.mark.parametrize("size", [100_001, 50_000_000])
def test_what_inflates_beyond_the_limit(serve: Any, size: int) -> None:
    session = compressed_session(serve, max_http_buffer_size=100_000)
    payload = deflate(b"4" * size)
    assert len(payload) < 100_000
    session.ws.send_frame(TEXT, payload, rsv=4)
    assert session.ws.wait_closed().code == 1009
    assert session.served.events.wait("close")["reason"] == "transport error"


def test_what_does_not_inflate(serve: Any) -> None:
    session = compressed_session(serve)
    session.ws.send_frame(TEXT, b"\xff\xff\xff\xff", rsv=4)
    assert session.ws.wait_closed().code in (1002, 1007)
    assert session.served.events.wait("close")["reason"] == "transport error"


def compressions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each compressor that the engine makes."""
    made: list[int] = []
    original = zlib.compressobj

    def compressobj(*arguments: Any) -> Any:
        made.append(len(made))
        return original(*arguments)

    monkeypatch.setattr(zlib, "compressobj", compressobj)
    return made


def offering(parameters: str) -> list[tuple[str, str]]:
    """A request field that offers compression."""
    return [("Sec-WebSocket-Extensions", f"permessage-deflate{parameters}")]


def test_a_broadcast_is_compressed_once_where_messages_are_compressed_by_themselves(
        serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import engineio_wsgi

    made = compressions(monkeypatch)
    served = serve(app="silent", per_message_deflate=engineio_wsgi.Deflate(context_takeover=False))
    offers = [("", 20), ("; server_no_context_takeover; client_max_window_bits", 20), ("; server_max_window_bits=10", 5)]
    sessions = [WebSocketSession(served, 4, offering(offer)).open() for offer, count in offers for _ in range(count)]
    data = [f"{number} {LONG}"[:1024] for number in range(3)]
    for number in range(3):
        served.server.broadcast(data[number])
    for session in sessions:
        for number in range(3):
            frame = session.ws.read_frame()
            assert (frame.rsv, inflate(frame.payload).decode()) == (4, f"4{data[number]}")
    assert len(made) == 3 * 2, "once for each message and each size of the window"


def test_a_broadcast_to_a_client_whose_messages_refer_to_earlier_ones(serve: Any) -> None:
    sessions = [WebSocketSession(served, 4, OFFER).open() for served in [serve(app="silent", per_message_deflate=True)]
                for _ in range(2)]
    sessions[0].served.socket(sessions[0].sid).send(LONG)
    for _ in range(2):
        sessions[0].served.server.broadcast(LONG)
    for session, count in zip(sessions, (3, 2), strict=True):
        inflating = zlib.decompressobj(-15)
        for _ in range(count):
            payload = session.ws.read_frame().payload
            assert inflating.decompress(payload + b"\x00\x00\xff\xff").decode() == f"4{LONG}"
