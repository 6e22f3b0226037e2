"""The WebSocket transport: packets out of frames out of a `Connection`, and back, one batch at a time.

Owns the connection of a session that uses WebSocket. Reading happens in the greenlet that then runs the listeners;
writing happens only in ``flush``. Knows nothing of handshakes and of how sessions are found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent

from engineio_wsgi.errors import ProtocolError, RequestRefused
from engineio_wsgi.http.response import error_body
from engineio_wsgi.log import shorten, tell_of_client
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio import v3, v4
from engineio_wsgi.protocol.websocket.deflate import Deflater
from engineio_wsgi.protocol.websocket.frames import (
    Close,
    FrameDecoder,
    Opcode,
    Ping,
    Pong,
    Violation,
    encode_binary,
    encode_close,
    encode_frame,
    encode_text,
    to_utf8,
)
from engineio_wsgi.runtime.connection import RECV_SIZE, Connection
from engineio_wsgi.runtime.greenlet_pool import GreenletPool
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.transports.base import CloseReason, Entry, Prepared, Transport, as_packet

__all__ = ["WebSocketTransport"]

logger = logging.getLogger("engine.ws")

#: bytes of answers to pings that wait for a client that does not read; more are not answered (RFC 6455 section 5.5.3)
MAX_UNSENT_PONGS = 65_536
PONG = Packet(PacketType.PONG)
PING_FRAME = encode_text("2")
#: by the bytes of a message, the head of its text frame and the packet type: RFC 6455 section 5.2
MESSAGE_HEADS = [encode_text("4" + "x" * size)[:-size or None] for size in range(125)]
#: close codes by close reason (RFC 6455 section 7.4.1); 1000 where the reason is nobody's fault
CLOSE_CODES: dict[str | None, int] = {
    CloseReason.SERVER_SHUTTING_DOWN: 1001,
    CloseReason.APPLICATION_ERROR: 1011,
    CloseReason.CLIENT_TOO_SLOW: 1008,
    CloseReason.TRANSPORT_ERROR: 1002,
    CloseReason.PARSE_ERROR: 1002,
}


class WebSocketTransport(Transport):
    """A session's WebSocket.

    Args:
        wire: the connection, its handshake done.
        decoder: its frame decoder, with the limits that hold for it.
        protocol: the revision, 1 to 4.
        binary: whether the client takes binary frames (revisions 1–3 without ``b64=1``).
        deflater: compresses messages of ``deflate_threshold`` bytes and more, if that was negotiated.
        meter: where the traffic is counted, if it is.
        subprotocol: what was agreed on in the handshake.
    """

    __slots__ = ("_binary", "_binary_prefix", "_close_code", "_codec", "_deflate_threshold", "_deflater", "_greenlets",
                 "_in_flight", "_loop", "_paused", "_scheduled", "feed", "subprotocol", "wire")

    name = "websocket"
    handles_upgrades = True

    def __init__(self, wire: Connection, greenlets: GreenletPool, decoder: FrameDecoder, protocol: int,
                 binary: bool = True, deflater: Deflater | None = None, deflate_threshold: int = 0,
                 meter: Meter | None = None, subprotocol: str | None = None) -> None:
        super().__init__(meter)
        self.wire = wire
        #: the WebSocket's sub-protocol, if one was agreed on
        self.subprotocol = subprotocol
        self._greenlets = greenlets
        self._loop = gevent.get_hub().loop
        #: from bytes to what they contain: see ``FrameDecoder.feed``
        self.feed: Callable[[bytes], list[Any]] = decoder.feed
        self._codec: Any = v4 if protocol == 4 else v3
        self._binary = binary
        self._binary_prefix = 0 if protocol == 4 else 1
        self._deflater = deflater
        self._deflate_threshold = deflate_threshold
        self._in_flight: tuple[list[Entry], list[bytes]] | None = None
        self._scheduled = False
        self._paused = False
        self._close_code: int | None = None

    @property
    def unsent(self) -> int:
        """Bytes, framing included, that the kernel has not taken yet."""
        return self.wire.unsent

    # -- reading

    def open(self) -> None:
        """Start to read: the session is ready for what comes."""
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("= %s: its WebSocket is read", shorten(self.sink.id))
        self.wire.call_when_drained(self._on_drained)
        self.wire.watch(self._on_readable)

    def pause(self) -> None:
        """Leave what arrives with the kernel, whose window then slows the client down."""
        self._paused = True
        self.wire.unwatch()

    def resume(self) -> None:
        """Go on reading."""
        if self._paused:
            self._paused = False
            self.wire.watch(self._on_readable)

    def _on_readable(self) -> None:
        """In the hub: one batch, in the greenlet that waits for it or in one of the pool; what it wrote goes out in one send."""
        self.corked = True
        sink = self.sink
        if sink.receiver is None:
            self._greenlets.attend(self)
            return
        try:
            sink.take_receiver().switch(True)
        finally:
            self.uncork()

    def uncork(self) -> None:
        """Write what was sent meanwhile."""
        self.corked = False
        if self.outbox.entries:
            self.flush()

    def read(self) -> None:
        """Read once and hand over what it contained. For a greenlet of the pool, or the one that called ``receive``."""
        try:
            data = self.wire.recv(RECV_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._on_lost(error)
            return
        if not data:
            self._on_lost(None)
            return
        if self.meter is not None:
            self.meter.on_bytes_in(len(data))
        items = self.feed(data)
        if len(items) == 1:
            # the bulk of real traffic: one message a recv, which need not be queued
            item = items[0]
            if type(item) is str and item[:1] == "4":
                self.sink.deliver(item[1:])
                return
            if type(item) is bytes and not self._binary_prefix:
                self.sink.deliver(item)
                return
        self.sink.hear()
        if items == ["3"]:
            # what idle sessions consist of
            self.sink.on_packet(PONG)
            return
        self.take(items)
        self.sink.run_turn()

    def take(self, items: list[Any]) -> None:
        """Queue the messages among decoded ``items`` and act on the rest, all in order. Runs no listener."""
        sink = self.sink
        messages: list[str | bytes] = [item[1:] for item in items if type(item) is str and item[:1] == "4"]
        if len(messages) == len(items):
            sink.enqueue(messages)
            return
        for item in items:
            self._take_one(item)
        self._answer_pings([item for item in items if type(item) is Ping])

    def _take_one(self, item: Any) -> None:
        if type(item) is str and item[:1] == "4":
            self.sink.enqueue((item[1:],))
        elif type(item) is bytes and not self._binary_prefix:
            self.sink.enqueue((item,))
        else:
            self._on_other(item)

    def _answer_pings(self, pings: list[Ping]) -> None:
        if pings and self.wire.unsent < MAX_UNSENT_PONGS and not self.wire.closed:
            self._write(b"".join([encode_frame(Opcode.PONG, ping.payload) for ping in pings]))

    def _on_other(self, item: Any) -> None:
        """A frame that is no plain message."""
        if type(item) is Ping or type(item) is Pong or self.sink.closed:
            return
        if type(item) is Close:
            self._close_code = item.code or 1000
            self.sink.end(CloseReason.TRANSPORT_CLOSE, item.reason or None)
        elif type(item) is Violation:
            address = self.sink.remote_address
            tell_of_client(logger, address, item.code, "< violation: %s (close code %d)", item.reason, item.code)
            self._close_code = item.code
            self.sink.end(CloseReason.TRANSPORT_ERROR, ProtocolError(item.reason))
        else:
            self._on_packet(item)

    def _on_packet(self, frame: str | bytes) -> None:
        try:
            packet: Packet = self._codec.decode_packet(frame)
        except ProtocolError as error:
            self._close_code = error.close_code
            self.sink.end(CloseReason.PARSE_ERROR, error)
            return
        if packet.type is PacketType.MESSAGE:
            self.sink.enqueue([packet.data])
        else:
            self.sink.on_packet(packet)

    def decode(self, item: str | bytes) -> Packet | None:
        """The packet in a frame; ``None`` if it holds none."""
        try:
            packet: Packet = self._codec.decode_packet(item)
        except ProtocolError:
            return None
        return packet

    def _on_lost(self, error: OSError | None) -> None:
        """The peer is gone without a closing handshake, which says nothing of whose fault it was."""
        self._close_code = 0
        self.sink.end(CloseReason.TRANSPORT_CLOSE, error)
        self.sink.run_turn()

    # -- writing

    def wake(self) -> None:
        """Write soon: what the running greenlet still sends goes out with it."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.run_callback(self.flush)

    def wake_to_close(self) -> bool:
        """Write what is left; ``False`` if nothing is."""
        if self.outbox.entries:
            self.wake()
            return True
        return bool(self.wire.unsent)

    def flush(self) -> None:
        """Write all that the write buffer holds, with one ``send``; what the kernel refuses follows when it can."""
        self._scheduled = False
        outbox = self.outbox
        wire = self.wire
        if wire.unsent or not outbox.entries or self.sink.closed:
            return
        entries = outbox.take()
        frames = self._frames(entries)
        try:
            wire.write(data := b"".join(frames))
        except OSError as error:
            outbox.put_back(entries)
            self._on_lost_writing(error)
            return
        if self.meter is not None:
            self.meter.on_batch(len(data), entries)
        if wire.unsent or outbox.watched:
            self._account_for(entries, frames)

    def _frames(self, entries: list[Entry]) -> list[bytes]:
        """The frames of ``entries``, each in two parts, so that the bytes of a message are copied once, by the join."""
        if self._deflater is not None:
            return [part for entry in entries for part in (b"", self._general_frame(as_packet(entry)))]
        parts: list[bytes] = []
        for entry in entries:
            if type(entry) is str:
                payload = entry.encode() if entry.isascii() else to_utf8(entry)
                size = len(payload)
                # the head, with the packet type that comes first in the payload: 16 messages a batch cost a fifth less
                parts.append(MESSAGE_HEADS[size] if size < len(MESSAGE_HEADS) else message_head(size))
                parts.append(payload)
            else:
                parts.append(b"")
                parts.append(self._frame(entry))
        return parts

    def _account_for(self, entries: list[Entry], frames: list[bytes]) -> None:
        if self.wire.unsent:
            self._in_flight = (entries, frames)
            self.sink.on_stalled(entries)
        else:
            self.sink.on_written(entries)

    def ping(self) -> bool:
        """Write a ping at once, if nothing is under way that it would have to wait for."""
        if self.wire.unsent or self.corked or self.outbox.entries:
            return False
        self._write(PING_FRAME)
        return True

    def send_now(self, packet: Packet) -> None:
        """Write one packet past the write buffer: what an upgrade's probe needs before it has a session."""
        self._write(self._frame(packet))

    def _write(self, data: bytes) -> None:
        if self.meter is not None:
            self.meter.on_bytes_out(len(data))
        try:
            self.wire.write(data)
        except OSError as error:
            self._on_lost_writing(error)

    def _on_lost_writing(self, error: OSError) -> None:
        self._close_code = 0
        self.sink.end(CloseReason.TRANSPORT_CLOSE, error)
        self.sink.submit_turn()

    def _on_drained(self) -> None:
        if self.wire.lost is not None:
            self._on_lost_writing(self.wire.lost)
            return
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            self.sink.on_written(in_flight[0])
        self.flush()

    def unsent_entries(self) -> list[Entry]:
        """The entries of the batch under way whose last byte the kernel has not taken."""
        if self._in_flight is None:
            return []
        entries, frames = self._in_flight
        taken = sum(map(len, frames)) - self.wire.unsent
        for index in range(len(entries)):
            taken -= len(frames[2 * index]) + len(frames[2 * index + 1])
            if taken < 0:
                return entries[index:]
        return []

    def _frame(self, entry: Entry) -> bytes:
        """One frame, for entries that are not plain text."""
        if type(entry) is bytes and self._binary and not self._binary_prefix:
            return encode_binary(entry)
        if type(entry) is Prepared and self._deflater is None:
            return self._shared_frame(entry)
        return self._general_frame(as_packet(entry))

    def _shared_frame(self, entry: Prepared) -> bytes:
        key = ("frame", self._binary, self._binary_prefix)
        frame = entry.forms.get(key)
        if frame is None:
            frame = entry.forms[key] = self._general_frame(as_packet(entry))
        return frame

    def _general_frame(self, packet: Packet) -> bytes:
        data: str | bytes = self._codec.encode_packet(packet, self._binary)
        opcode = Opcode.TEXT if isinstance(data, str) else Opcode.BINARY
        payload: bytes = to_utf8(data) if isinstance(data, str) else data
        if self._deflater is None or not packet.compress or len(payload) < self._deflate_threshold:
            return encode_frame(opcode, payload)
        return encode_frame(opcode, self._deflater.compress(payload), compressed=True)

    # -- the end

    def refuse(self, refusal: RequestRefused) -> None:
        """Close an accepted WebSocket that the engine does not want, with the error table's line as the reason."""
        self._finish(1008, error_body(refusal).decode())

    def close(self, reason: str | None = None) -> None:
        """Say goodbye as RFC 6455 has it, in the background; a peer that is gone already is only let go."""
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("= %s: its WebSocket is closed", shorten(self.sink.id))
        if self._close_code == 0:
            self.wire.close()
            return
        code = self._close_code or CLOSE_CODES.get(reason, 1000)
        # a code that the client has brought about says enough, as the reference server's; what was wrong is in the log
        told = reason is not None and self._close_code in (None, 1000)
        self._finish(code, str(reason) if told else "")

    def _finish(self, code: int, reason: str) -> None:
        wire = self.wire
        if wire.closed:
            return
        try:
            wire.write(encode_close(code, reason))
        except OSError:
            wire.close()
            return
        wire.linger()


def message_head(size: int) -> bytes:
    """The head of the text frame of a message with ``size`` bytes (125 and more), and the packet type."""
    if size < 65535:
        return b"\x81\x7e%b4" % (size + 1).to_bytes(2)
    return b"\x81\x7f%b4" % (size + 1).to_bytes(8)
