"""The WebSocket transport: converts between the bytes of a connection, frames and packets, one batch at a time.

Owns the connection of a session. Knows no handshakes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from engineio_wsgi.errors import ProtocolError, RequestRefused
from engineio_wsgi.http.response import error_body
from engineio_wsgi.log import log_violation, shorten
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio.codec import codec_of
from engineio_wsgi.protocol.websocket.batches import (
    accelerated,
    decode_messages,
    encode_messages,
    receive_messages,
    send_messages,
)
from engineio_wsgi.protocol.websocket.deflate import Deflater
from engineio_wsgi.protocol.websocket.frames import (
    Close,
    FrameDecoder,
    Item,
    Opcode,
    Ping,
    Violation,
    encode_binary,
    encode_close,
    encode_frame,
    to_utf8,
)
from engineio_wsgi.protocol.websocket.items import CONTROL
from engineio_wsgi.runtime.connection import RECV_SIZE, Connection
from engineio_wsgi.runtime.greenlet_pool import GreenletPool
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.transports.base import ClientClose, CloseReason, Entry, Prepared, as_packets, count_beyond
from engineio_wsgi.transports.connected import CLOSE_CODES
from engineio_wsgi.transports.frame_forms import PING_FRAME, count_taken, is_pong, shared_form, text_parts
from engineio_wsgi.transports.movable_websocket import MovableWebSocket

__all__ = ["WebSocketTransport"]

logger = logging.getLogger("engine.ws")

#: bytes of pongs that may wait for a client that does not read; further pings are not answered (RFC 6455 section 5.5.3)
MAX_UNSENT_PONGS = 65_536
PONG = Packet(PacketType.PONG)


class WebSocketTransport(MovableWebSocket):
    """The WebSocket of one session.

    Args:
        wire: the connection, after its handshake.
        decoder: the frame decoder, with its limits.
        protocol: the revision, 1 to 4.
        binary: whether the client accepts binary frames (revisions 1–3 without ``b64=1``).
        deflater: compresses messages of ``deflate_threshold`` bytes and more, if that was negotiated.
        meter: the counters of the traffic, if it is counted.
        subprotocol: the sub-protocol that was negotiated, if one was.
    """

    __slots__ = ("_binary", "_binary_prefix", "_codec", "_decoder", "_deflate_threshold", "_deflater", "_takes_batches",
                 "_writes_batches", "shared_form", "subprotocol")

    name = "websocket"
    title = "WebSocket"
    logger = logger

    def __init__(self, wire: Connection, greenlets: GreenletPool, decoder: FrameDecoder, protocol: int,
                 binary: bool = True, deflater: Deflater | None = None, deflate_threshold: int = 0,
                 meter: Meter | None = None, subprotocol: str | None = None) -> None:
        super().__init__(wire, greenlets, meter)
        self.subprotocol = subprotocol
        self._decoder = decoder
        self._takes_batches = accelerated and protocol == 4
        self._writes_batches = self._takes_batches and binary and deflater is None
        self._codec = codec_of(protocol)
        self._binary, self._binary_prefix = binary, 0 if protocol == 4 else 1
        self._deflater = deflater
        self._deflate_threshold = deflate_threshold
        #: the key of the frame of a broadcast that other transports can write as well; ``None`` if there is none
        self.shared_form = shared_form(binary, self._binary_prefix, deflater, deflate_threshold)

    # -- reading

    def read(self, now: float) -> None:
        """Read once and deliver the packets. Called in a greenlet of the pool, or in the one that called ``receive``."""
        messages: list[str | bytes] = []
        decoder = self._decoder
        try:
            fd = self.wire.recv_fd
            if fd >= 0 and self._takes_batches:
                size, rest = receive_messages(fd, decoder.plain_limit, messages, decoder.begun)
            else:
                size, rest = self._receive(messages)
        except BlockingIOError:
            return
        except OSError as error:
            self._on_lost(error)
            return
        if not size:
            self._on_lost(None)
            return
        if self.meter is not None:
            self.meter.on_bytes_in(size)
        if len(messages) == 1 and not rest and not decoder.begun:
            # most traffic: one message, which need not be queued
            self.inbox.deliver(messages[0], now)
        else:
            self._take_received(messages, rest, now)

    def _take_received(self, messages: list[str | bytes], rest: bytes, now: float) -> None:
        """Deliver plain ``messages``, and then what is in the frames behind them."""
        if (rest or self._decoder.begun) and self._takes_batches:
            rest = self._decoder.hold(rest, bool(messages))
        if messages:
            self.inbox.hear()
            self.inbox.enqueue(messages)
            if rest:
                self.take(self._decoder.feed(rest))
            self.inbox.run_turn()
        elif is_pong(rest) and self._decoder.plain_limit > 0:
            self._take_pong()
        else:
            self._read_items(self._decoder.feed(rest), now)

    def feed(self, data: bytes) -> list[Item]:
        """Decode what was received: for an upgrade, which reads the candidate itself."""
        return self._decoder.feed(data)

    def _read_items(self, items: list[Item], now: float) -> None:
        """Deliver decoded ``items``."""
        # most traffic: one message, which need not be queued
        item = items[0] if len(items) == 1 else None
        if type(item) is str and item[:1] == "4":
            self.inbox.deliver(item[1:], now)
        elif type(item) is bytes and not self._binary_prefix:
            self.inbox.deliver(item, now)
        else:
            self._read_batch(items)

    def _receive(self, messages: list[str | bytes]) -> tuple[int, bytes]:
        """As ``receive_messages``, over TLS, without the part in C, and of other revisions."""
        data = self.wire.recv(RECV_SIZE)
        if not self._takes_batches:
            return len(data), data
        known = self._decoder.begun + data
        return len(data), known[decode_messages(known, self._decoder.plain_limit, messages):]

    def _take_pong(self) -> None:
        self.inbox.hear()
        self.sink.on_packet(PONG)

    def _read_batch(self, items: list[Item]) -> None:
        """Deliver what one ``recv`` contained, if it was not exactly one message."""
        if items == ["3"]:
            self._take_pong()
            return
        self.inbox.hear()
        self.take(items)
        self.inbox.run_turn()

    def take(self, items: list[Item]) -> None:
        """Queue the messages among decoded ``items``, and process the others, in order. Runs no listener."""
        messages: list[str | bytes] = [item[1:] for item in items if type(item) is str and item[:1] == "4"]
        if len(messages) == len(items):
            self.inbox.enqueue(messages)
            return
        for item in items:
            self._take_one(item)
        self._take_control([item for item in items if type(item) in CONTROL])

    def _take_one(self, item: Item) -> None:
        if type(item) is str and item[:1] == "4":
            self.inbox.enqueue((item[1:],))
        elif type(item) is bytes and not self._binary_prefix:
            self.inbox.enqueue((item,))
        else:
            self._on_other(item)

    def _take_control(self, frames: list[Item]) -> None:
        """Answer pings, unless the client has sent more control frames than it may."""
        if frames and self.inbox.count_control(len(frames)):
            self._answer_pings([frame for frame in frames if type(frame) is Ping])

    def _answer_pings(self, pings: list[Ping]) -> None:
        if pings and self.wire.unsent < MAX_UNSENT_PONGS and not self.wire.closed:
            self._write(b"".join([encode_frame(Opcode.PONG, ping.payload) for ping in pings]))

    def _on_other(self, item: Item) -> None:
        """Process an item that is no plain message."""
        if type(item) in CONTROL or self.sink.closed:
            return
        if type(item) is Close:
            self._close_code = item.code or 1000
            self.sink.end(CloseReason.TRANSPORT_CLOSE, ClientClose(item.code, item.reason))
        elif type(item) is Violation:
            address = self.sink.remote_address
            log_violation(logger, address, item.code, "< violation: %s (close code %d)", item.reason, item.code)
            self._close_code = item.code
            self.sink.end(CloseReason.TRANSPORT_ERROR, ProtocolError(item.reason))
        elif isinstance(item, (str, bytes)):
            self._on_packet(item)

    def _on_packet(self, frame: str | bytes) -> None:
        try:
            packet = self._codec.decode_packet(frame)
        except ProtocolError as error:
            self._close_code = error.close_code
            self.sink.end(CloseReason.PARSE_ERROR, error)
            return
        if packet.type is PacketType.MESSAGE:
            self.inbox.enqueue([packet.data])
        else:
            self.sink.on_packet(packet)

    def decode(self, item: str | bytes) -> Packet | None:
        """The packet in a frame; ``None`` if there is none."""
        with suppress(ProtocolError):
            return self._codec.decode_packet(item)
        return None

    def _on_lost(self, error: OSError | None) -> None:
        """The connection was lost without a closing handshake."""
        self._close_code = 0
        self.sink.end(CloseReason.TRANSPORT_CLOSE, error)
        self.inbox.run_turn()

    # -- writing

    def flush(self) -> None:
        """Write all entries of the write buffer with one ``send``. The rest, if the kernel does not accept all, follows later."""
        self._scheduled = self.corked = False
        outbox = self.outbox
        wire = self.wire
        fd = wire.send_fd
        # the connection of a closed session lends no descriptor: only without one is the session asked, which takes 50 ns
        if wire.unsent or not outbox.entries or (fd < 0 and self.sink.closed):
            return
        entries = outbox.take()
        try:
            size, frames = self._write_entries(entries, fd)
        except OSError as error:
            wire.lose(error)
            outbox.put_back(entries)
            self._on_lost_writing(error)
            return
        if self.meter is not None:
            self.meter.on_batch(size, entries)
            if frames:
                self.meter.on_more_sent(count_beyond(entries))
        if wire.unsent or outbox.watched:
            self._account_for(entries, frames)

    def _write_entries(self, entries: list[Entry], fd: int) -> tuple[int, list[bytes]]:
        """Write entries of any kind to the connection, or to ``fd`` if it has lent that.

        Returns:
            The size of their frames, and the frames if there is a list.
        """
        sent = send_messages(fd, entries) if fd >= 0 and self._writes_batches else None
        if sent is None:
            return self._write_mixed(entries)
        size, rest = sent
        if rest:
            self.wire.keep(rest)
        return size, []

    def _write_mixed(self, entries: list[Entry]) -> tuple[int, list[bytes]]:
        """As :meth:`_write_entries`, for entries of any kind and any connection."""
        frames: list[bytes] = []
        data = encode_messages(entries) if self._writes_batches else None
        if data is None:
            frames = self._frames(entries)
            data = b"".join(frames)
        self.wire.write(data)
        return len(data), frames

    def _frames(self, entries: list[Entry]) -> list[bytes]:
        """The frames of ``entries``, each in two parts, so that the bytes of a message are copied once, by ``join``."""
        if self._deflater is not None:
            return [part for entry in entries for part in (b"", self._frame(entry))]
        parts: list[bytes] = []
        for entry in entries:
            parts += text_parts(entry) if type(entry) is str else (b"", self._frame(entry))
        return parts

    @staticmethod
    def write_to_all(transports: Sequence[WebSocketTransport], message: Prepared) -> None:
        """Write a broadcast at once, with one ``send`` for each transport.

        Args:
            transports: some for which nothing waits to be written, and whose ``shared_form`` is the same.
            message: the message, which has not been put into their write buffers.
        """
        frame = transports[0]._frame(message)
        all_written = Connection.write_to_all([transport.wire for transport in transports], frame)
        reached = transports if all_written else [each for each in transports if each._on_partly_written(message, frame)]
        meter = transports[0].meter
        if meter is not None:
            meter.on_broadcast([transport.meter for transport in reached], len(frame), len(message.messages))

    def _on_partly_written(self, message: Prepared, frame: bytes) -> bool:
        """Account for what the kernel has not taken of a broadcast. Returns whether the connection is alive."""
        wire = self.wire
        if wire.lost is not None:
            self.outbox.put_back([message])
            self._on_lost_writing(wire.lost)
            return False
        if wire.unsent:
            self._in_flight = ([message], [b"", frame])
            self.sink.on_stalled([message])
        return True

    def _account_for(self, entries: list[Entry], frames: list[bytes]) -> None:
        if self.wire.unsent:
            # a batch that was encoded in one step has no frames yet; they are the same if they are made again
            self._in_flight = (entries, frames or self._frames(entries))
            self.sink.on_stalled(entries)
        else:
            self.sink.on_written(entries)

    def ping(self) -> bool:
        """Write a ping at once if nothing waits to be written; ``False`` if the ping has to be queued."""
        if self.wire.unsent or self.corked or self.outbox.entries:
            return False
        self._write(PING_FRAME)
        return True

    @staticmethod
    def ping_all(transports: Sequence[WebSocketTransport]) -> None:
        """Write a ping at once, with one ``send`` for each transport. Nothing waits to be written for any of them."""
        meter = transports[0].meter
        if meter is not None:
            meter.on_broadcast([transport.meter for transport in transports], len(PING_FRAME), 0)
        if not Connection.write_to_all([transport.wire for transport in transports], PING_FRAME):
            for transport in transports:
                if transport.wire.lost is not None:
                    transport._on_lost_writing(transport.wire.lost)

    def send_now(self, packet: Packet) -> None:
        """Write one packet without the write buffer: the answer to an upgrade's probe."""
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
        self.inbox.submit_turn()

    def _on_drained(self) -> None:
        if self.wire.lost is not None:
            self._on_lost_writing(self.wire.lost)
            return
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            self.sink.on_written(in_flight[0])
        self.flush()

    def unsent_entries(self) -> list[Entry]:
        """The entries of the batch under way whose last byte the kernel has not accepted."""
        if self._in_flight is None:
            return []
        entries, frames = self._in_flight
        return entries[count_taken(frames, sum(map(len, frames)) - self.wire.unsent):]

    def _frame(self, entry: Entry) -> bytes:
        """The frame of an entry that is not plain text."""
        if type(entry) is bytes and self._binary and not self._binary_prefix and self._deflater is None:
            return encode_binary(entry)
        if type(entry) is Prepared and self.shared_form is not None:
            return self._shared_frames(entry, self.shared_form)
        return self._general_frames(entry)

    def _shared_frames(self, entry: Prepared, form: tuple[object, ...]) -> bytes:
        frames = entry.forms.get(form)
        if frames is None:
            frames = entry.forms[form] = self._general_frames(entry)
        return frames

    def _general_frames(self, entry: Entry) -> bytes:
        """The frame of an entry; of a bundle, the frames of its messages."""
        return b"".join(map(self._general_frame, as_packets([entry])))

    def _general_frame(self, packet: Packet) -> bytes:
        data = self._codec.encode_packet(packet, self._binary)
        opcode = Opcode.TEXT if isinstance(data, str) else Opcode.BINARY
        payload = to_utf8(data) if isinstance(data, str) else data
        if self._deflater is None or not packet.compress or len(payload) < self._deflate_threshold:
            return encode_frame(opcode, payload)
        return encode_frame(opcode, self._deflater.compress(payload), compressed=True)

    # -- the end

    def refuse(self, refusal: RequestRefused) -> None:
        """Close an accepted WebSocket that was refused, with the JSON of the error as the reason."""
        self._finish(1008, error_body(refusal).decode())

    def close(self, reason: str | None = None) -> None:
        """Start the closing handshake of RFC 6455, in the background; close at once if the connection was lost."""
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("= %s: its WebSocket is closed", shorten(self.sink.id))
        if self._close_code == 0:
            self.wire.close()
            return
        code = self._close_code or CLOSE_CODES.get(reason, 1000)
        # no reason beside a code for the client's own error, as the reference server; the log has the details
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
