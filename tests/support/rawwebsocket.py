"""A WebSocket client that writes its frames itself, so that it can also send invalid ones."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Any

from websockets.frames import apply_mask

from support.rawhttp import ConnectionEnded, Headers, HttpConnection, Response

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Refused(Exception):
    """The server answered the handshake with an ordinary response."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status} {response.reason}: {response.body[:200]!r}")
        self.response = response


@dataclass(frozen=True)
class Closed(Exception):
    """The server sent a close frame; code 1005 if it carried none, 1006 if the connection just ended."""

    code: int
    reason: str = ""


@dataclass(frozen=True)
class Frame:
    """One frame, as it was received."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int


def handshake_headers(key: str, extra: Headers = ()) -> list[tuple[str, str]]:
    """The headers of an opening handshake."""
    return [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
        *extra,
    ]


def frame_bytes(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """One frame of a client."""
    head = bytearray([(0x80 if fin else 0) | rsv << 4 | opcode])
    flag, size = (0x80 if masked else 0), len(payload)
    if size < 126:
        head.append(flag | size)
    elif size < 65536:
        head += struct.pack("!BH", flag | 126, size)
    else:
        head += struct.pack("!BQ", flag | 127, size)
    if not masked:
        return bytes(head) + payload
    mask = os.urandom(4)
    return bytes(head) + mask + apply_mask(payload, mask)


class WebSocketClient:
    """An open WebSocket. Answers pings of the server by itself."""

    def __init__(self, http: HttpConnection, response: Response) -> None:
        self.http = http
        self.response = response
        self.closed_by_us = False

    @classmethod
    def open(cls, http: HttpConnection, target: str, headers: Headers = ()) -> WebSocketClient:
        """Shake hands; raises `Refused` if the server answers with anything but a correct 101."""
        key = base64.b64encode(os.urandom(16)).decode()
        response = http.request("GET", target, handshake_headers(key, headers))
        if response.status != 101:
            raise Refused(response)
        expected = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        assert response.header("Sec-WebSocket-Accept") == expected
        assert response.tokens("Upgrade") == {"websocket"}
        assert "upgrade" in response.tokens("Connection")
        return cls(http, response)

    # -- out

    def send(self, data: str | bytes) -> None:
        """Send one message."""
        if isinstance(data, str):
            self.send_frame(TEXT, data.encode())
        else:
            self.send_frame(BINARY, data)

    def send_frame(self, opcode: int, payload: bytes = b"", **bits: Any) -> None:
        """Send one frame, valid or not; see `frame_bytes` for the bits."""
        self.http.send(frame_bytes(opcode, payload, **bits))

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a close frame."""
        self.closed_by_us = True
        self.send_frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())

    # -- in

    def read_frame(self) -> Frame:
        """The next frame; the server's must not be masked."""
        first, second = self.http.read(2)
        assert not second & 0x80, "a server must not mask its frames"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.http.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.http.read(8))
        return Frame(first & 0x0F, self.http.read(size), bool(first & 0x80), first >> 4 & 0x7)

    def recv(self) -> str | bytes:
        """The next message; raises `Closed` when there is none."""
        while True:
            try:
                frame = self.read_frame()
            except (ConnectionEnded, ConnectionError):
                raise Closed(1006) from None
            if frame.opcode == PING:
                self.send_frame(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                raise self._closed(frame.payload)
            elif frame.opcode != PONG:
                return self._message(frame)

    def _message(self, frame: Frame) -> str | bytes:
        kind, parts = frame.opcode, [frame.payload]
        while not frame.fin:
            frame = self.read_frame()
            assert frame.opcode == CONTINUATION
            parts.append(frame.payload)
        data = b"".join(parts)
        return data.decode() if kind == TEXT else data

    def _closed(self, payload: bytes) -> Closed:
        if not self.closed_by_us:
            with contextlib.suppress(OSError):
                self.send_frame(CLOSE, payload)
        if not payload:
            return Closed(1005)
        return Closed(struct.unpack("!H", payload[:2])[0], payload[2:].decode())

    def wait_closed(self) -> Closed:
        """Read and drop everything until the server closes."""
        while True:
            try:
                self.recv()
            except Closed as closed:
                return closed
