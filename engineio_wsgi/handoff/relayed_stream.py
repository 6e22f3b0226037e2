"""The stream of a WebTransport session whose Engine.IO session another worker has: that worker gets a WebSocket.

Owns a socket pair. The other worker gets one end, as the connection of a WebSocket that was accepted. At the other end, the
packets of the stream are converted to WebSocket messages, and back. Whatever is slower slows the other side down.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from gevent import socket as gevent_socket

from engineio_wsgi.http3.ports import PacketStream
from engineio_wsgi.protocol.engineio.stream import StreamDecoder, encode_frame
from engineio_wsgi.protocol.websocket.frames import (
    Close,
    FrameDecoder,
    Opcode,
    encode_close,
)
from engineio_wsgi.protocol.websocket.frames import (
    encode_frame as encode_websocket_frame,
)
from engineio_wsgi.runtime.connection import RECV_SIZE, Connection, detach

__all__ = ["RelayedStream", "handshake_for"]

#: the code of a normal end: of WebSocket, and of WebTransport
NORMAL, OK = 1000, 0
#: bytes of a head that masks nothing: a client's frame has one
NO_MASK = bytes(4)
MASKED = 0x80
HEAD_SIZES = {126: 4, 127: 10}


def handshake_for(environ: WSGIEnvironment, sid: str, stream: RelayedStream) -> WSGIEnvironment:
    """The environ of a request that upgrades a session to WebSocket, in the place of a WebTransport session's."""
    return {
        **environ, "QUERY_STRING": f"EIO=4&transport=websocket&sid={sid}", "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade", "HTTP_SEC_WEBSOCKET_VERSION": "13", "HTTP_SEC_WEBSOCKET_KEY": "AAAAAAAAAAAAAAAAAAAAAA==",
        "wsgi.websocket": stream,
    }


class RelayedStream:
    """See the module. It is a `Detachable`.

    Args:
        stream: behind its first packet.
        address: the client's.
        limit: bytes of the largest packet.
    """

    #: the handshake was answered, and no HTTP server has accepted the connection
    accepted = True
    listener = ("", "")
    secure = False

    def __init__(self, stream: PacketStream, address: tuple[str, int], limit: int) -> None:
        self._stream = stream
        self.address = address
        near, self.sock = gevent_socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._near = Connection(detach(near))
        self._from_client = StreamDecoder(limit)
        self._from_worker = FrameDecoder(1 << 62, masked=False)

    def as_read(self) -> bytes:
        """See `Detachable`. Nothing was read."""
        return b""

    def detach(self, pending: bytes = b"") -> Connection:
        """See `Detachable`."""
        return Connection(detach(self.sock), pending)

    def end(self, start_response: StartResponse | None) -> Iterable[bytes]:
        """See `Detachable`. The relay begins, and goes on in the hub."""
        self._near.call_when_drained(self._on_near_drained)
        self._stream.call_when_drained(self._on_stream_drained)
        self._near.watch(self._on_worker)
        self._stream.watch(self._on_client)
        return []

    def abandon(self) -> None:
        """No worker has taken it: close the socket pair. The stream stays as it is."""
        self._near.close()
        self.sock.close()

    # -- from the client to the worker

    def _on_client(self) -> None:
        try:
            data = self._stream.recv(RECV_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self._stop()
            self._near.close()
            return
        packets = self._from_client.feed(data)
        if packets:
            self._to_worker(b"".join(map(_as_message, packets)))
        error = self._from_client.error
        if not data or error is not None:
            # an error of the client's: the worker sees a WebSocket that ends with the same code
            code = NORMAL if error is None else error.close_code
            self._to_worker(_masked(encode_close(code, "" if error is None else str(error)[:100])))
            self._stop()
            self._near.linger()
            if error is not None:
                self._stream.finish(code, "")

    def _to_worker(self, data: bytes) -> None:
        try:
            self._near.write(data)
        except OSError:
            return  # the worker has gone, which reading notices
        if self._near.unsent:
            self._stream.unwatch()

    def _on_near_drained(self) -> None:
        if self._near.lost is None:
            self._stream.watch(self._on_client)

    # -- from the worker to the client

    def _on_worker(self) -> None:
        try:
            data = self._near.recv(RECV_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        items = self._from_worker.feed(data)
        self._to_client([encode_frame(item) for item in items if isinstance(item, (str, bytes))])
        closing = next((item for item in items if isinstance(item, Close)), None)
        if closing is not None or not data:
            self._stop()
            self._near.close()
            self._stream.finish(*_ending_of(closing))

    def _to_client(self, frames: list[bytes]) -> None:
        if not frames:
            return
        try:
            self._stream.write(b"".join(frames))
        except OSError:
            return  # the client has gone, which reading notices
        if self._stream.unsent:
            self._near.unwatch()

    def _on_stream_drained(self) -> None:
        if not self._stream.unsent:
            self._near.watch(self._on_worker)

    def _stop(self) -> None:
        self._stream.unwatch()
        self._near.unwatch()


def _as_message(packet: str | bytes) -> bytes:
    """A packet as the frame of a client."""
    if isinstance(packet, str):
        return _masked(encode_websocket_frame(Opcode.TEXT, packet.encode()))
    return _masked(encode_websocket_frame(Opcode.BINARY, packet))


def _masked(frame: bytes) -> bytes:
    """A client's frame, made of a server's: it is masked with zeros."""
    size = HEAD_SIZES.get(frame[1], 2)
    return frame[:1] + bytes((frame[1] | MASKED,)) + frame[2:size] + NO_MASK + frame[size:]


def _ending_of(closing: Close | None) -> tuple[int, str]:
    """The code and the reason of a session that ends with a close frame, or without one."""
    if closing is None:
        return OK, ""
    return OK if closing.code in (None, NORMAL) else closing.code, closing.reason
