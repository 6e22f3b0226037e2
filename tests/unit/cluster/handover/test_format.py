"""The bytes of a session that moves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engineio_wsgi.cluster.handover.format import FORMAT, decode, encode
from engineio_wsgi.errors import BadMessage
from engineio_wsgi.protocol.websocket.frames import DecoderSnapshot
from engineio_wsgi.protocol.websocket.messages import MessageSnapshot
from engineio_wsgi.runtime.connection import ConnectionSnapshot
from engineio_wsgi.session.heartbeat import HeartbeatSnapshot
from engineio_wsgi.session.movable import SessionSnapshot
from engineio_wsgi.transports.entries import EntrySnapshot
from engineio_wsgi.transports.movable_websocket import WebSocketSnapshot
from engineio_wsgi.transports.polling import PollingSnapshot

POLLING = SessionSnapshot(
    "abcd1234", 4, None, False, 0.0, HeartbeatSnapshot(1.5, 0.0, 26.5), ("text", b"\x00\xff", "\ud800", ""),
    (EntrySnapshot(-1, ("a", b"b"), True, True, "key"), EntrySnapshot(2, ("",), False, True, None)), ("lobby",),
    {"REQUEST_METHOD": "GET", "wsgi.multithread": True, "number": 7, "real": 1.5, "bytes": 3, "nothing": None},
    '{"room": 1}', PollingSnapshot(False, True), None)
WEBSOCKET = POLLING._replace(polling=None, websocket=WebSocketSnapshot(
    "websocket", True, "chat", (1, 1, 12, 12, -1, 8), 1024, ConnectionSnapshot(b"ahead", b"x" * 100_000),
    DecoderSnapshot(5, b"mask", True, b"", MessageSnapshot(True, 7, 900, b"half")), ()))


@pytest.mark.parametrize("snapshot", [POLLING, WEBSOCKET], ids=["polling", "websocket"])
def test_a_snapshot_comes_back_as_it_was(snapshot: SessionSnapshot) -> None:
    decoded = decode(encode(snapshot))
    assert decoded == snapshot
    assert type(decoded.heartbeat) is HeartbeatSnapshot


def test_bytes_are_not_converted_to_text() -> None:
    assert len(encode(WEBSOCKET)) < 102_000


def changed(**fields: Any) -> bytes:
    """A snapshot whose fields have other values, which need not be valid."""
    return encode(POLLING._replace(**fields))


@pytest.mark.parametrize("data", [
    b"", b"\x01", encode(POLLING)[:-1], encode(POLLING) + b"x", encode(POLLING)[:40], bytes([FORMAT]) + b"\xff\xff\xff\xff{}",
    bytes([FORMAT]) + (2).to_bytes(4, "big") + b"[]", bytes([FORMAT]) + (1).to_bytes(4, "big") + b"{",
    changed(sid=7), changed(sid=b"bytes"), changed(protocol="4"), changed(protocol=True), changed(upgraded=1),
    changed(messages=("text", 7)), changed(messages=None), changed(environ={"a": ["list"]}), changed(environ=[]),
    changed(heartbeat=(1.0, 2.0)), changed(polling=(True,)), changed(groups=("a", None)), changed(data=None),
])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(data)


def test_another_version_is_refused_by_its_number() -> None:
    data = bytearray(encode(POLLING))
    data[0] = FORMAT + 1
    with pytest.raises(BadMessage, match=f"in the format {FORMAT + 1}, and this worker reads {FORMAT}"):
        decode(bytes(data))


def test_an_object_that_looks_like_bytes_does_not_read_beyond_the_end() -> None:
    text = json.dumps([{"bytes": 1_000_000}]).encode()
    with pytest.raises(BadMessage):
        decode(bytes([FORMAT]) + len(text).to_bytes(4, "big") + text)
