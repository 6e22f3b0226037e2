"""The WebTransport transport: converts between the bytes of a session's stream and packets, one batch at a time.

Owns the stream of a session that uses WebTransport. Does not know HTTP/3: the stream is a `PacketStream`.
"""

from __future__ import annotations

import logging

from engineio_wsgi.errors import ProtocolError, RequestRefused
from engineio_wsgi.http.response import error_body
from engineio_wsgi.http3.ports import PacketStream
from engineio_wsgi.log import log_violation, shorten
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio.stream import StreamDecoder, encode_frame, frame_head, message_head
from engineio_wsgi.protocol.engineio.v4 import decode_packet, encode_packet
from engineio_wsgi.protocol.websocket.items import Item, Violation
from engineio_wsgi.runtime.connection import RECV_SIZE
from engineio_wsgi.runtime.greenlet_pool import GreenletPool
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.transports.base import ClientClose, CloseReason, Entry, Prepared, as_packets, count_beyond
from engineio_wsgi.transports.connected import CLOSE_CODES, ConnectedTransport

__all__ = ["REFUSED", "WebTransportTransport"]

logger = logging.getLogger("engine.webtransport")

#: the key of the bytes of a broadcast that every session over WebTransport gets
FORM = ("webtransport",)
#: the code with which the session of a refused handshake is closed
REFUSED = 1008


class WebTransportTransport(ConnectedTransport):
    """The stream of one session.

    Args:
        wire: the stream, behind its first packet.
        greenlets: where it is read, and listeners run.
        limit: bytes of the largest packet.
        meter: the counters of the traffic, if it is counted.
    """

    __slots__ = ("_decoder",)

    name = "webtransport"
    title = "WebTransport stream"
    logger = logger
    over_http = False

    wire: PacketStream

    def __init__(self, wire: PacketStream, greenlets: GreenletPool, limit: int, meter: Meter | None = None) -> None:
        super().__init__(wire, greenlets, meter)
        self._decoder = StreamDecoder(limit)

    # -- reading

    def _on_readable(self) -> None:
        self.wire.unwatch()  # until it was read
        super()._on_readable()

    def read(self, now: float) -> None:
        """Read once and deliver the packets. Called in a greenlet of the pool, or in the one that called ``receive``."""
        try:
            data = self.wire.recv(RECV_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._on_lost(error)
            return
        finally:
            if not self._paused and not self.sink.closed:
                self.wire.watch(self._on_readable)
        if not data:
            self._on_lost(None)
            return
        if self.meter is not None:
            self.meter.on_bytes_in(len(data))
        items = self.feed(data)
        if len(items) == 1 and (message := _message_of(items[0])) is not None:
            # most traffic: one message, which need not be queued
            self.inbox.deliver(message, now)
            return
        self.inbox.hear()
        self.take(items)
        self.inbox.run_turn()

    def feed(self, data: bytes) -> list[Item]:
        """Decode what was received: the contents of packets, and the violation if there is one."""
        items: list[Item] = list(self._decoder.feed(data))
        error = self._decoder.error
        return items if error is None else [*items, Violation(error.close_code, str(error))]

    def decode(self, item: str | bytes) -> Packet | None:
        """The packet of which this is the content; ``None`` if it is none."""
        try:
            return decode_packet(item)
        except ProtocolError:
            return None

    def take(self, items: list[Item]) -> None:
        """Queue the messages among decoded ``items``, and process the others, in order. Runs no listener."""
        messages = [message for message in map(_message_of, items) if message is not None]
        if len(messages) == len(items):
            self.inbox.enqueue(messages)
            return
        for item in items:
            if isinstance(item, Violation):
                self._on_violation(item.code, item.reason)
            elif isinstance(item, (str, bytes)):
                self._on_content(item)

    def _on_content(self, content: str | bytes) -> None:
        """Process the content of a packet."""
        try:
            packet = decode_packet(content)
        except ProtocolError as error:
            self._on_violation(error.close_code, str(error))
            return
        if packet.type is PacketType.MESSAGE:
            self.inbox.enqueue([packet.data])
        else:
            self.sink.on_packet(packet)

    def _on_violation(self, code: int, reason: str) -> None:
        if self.sink.closed:
            return
        log_violation(logger, self.sink.remote_address, code, "< violation: %s (close code %d)", reason, code)
        self._close_code = code
        self.sink.end(CloseReason.PARSE_ERROR, ProtocolError(reason))

    def _on_lost(self, error: OSError | None) -> None:
        """The client has closed the session or ended its stream, or the connection is lost."""
        self._end(error)
        self.inbox.run_turn()

    def _end(self, error: OSError | None) -> None:
        self._close_code = 0
        goodbye = self.wire.goodbye
        self.sink.end(CloseReason.TRANSPORT_CLOSE, error if goodbye is None else ClientClose(goodbye[0] or None, goodbye[1]))

    # -- writing

    def flush(self) -> None:
        """Write all entries of the write buffer. If the client does not take them as fast, the next ones wait."""
        self._scheduled = self.corked = False
        if self.wire.unsent or not self.outbox.entries or self.sink.closed:
            return
        entries = self.outbox.take()
        frames = [_frame(entry) for entry in entries]
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        try:
            self.wire.write(data)
        except OSError as error:
            self.outbox.put_back(entries)
            self._on_lost_writing(error)
            return
        if self.meter is not None:
            self.meter.on_batch(len(data), entries)
            self.meter.on_more_sent(count_beyond(entries))
        if self.wire.unsent:
            self._in_flight = (entries, frames)
            self.sink.on_stalled(entries)
        elif self.outbox.watched:
            self.sink.on_written(entries)

    def send_now(self, packet: Packet) -> None:
        """Write one packet without the write buffer: the answer to an upgrade's probe."""
        data = encode_frame(encode_packet(packet))
        if self.meter is not None:
            self.meter.on_bytes_out(len(data))
        try:
            self.wire.write(data)
        except OSError as error:
            self._on_lost_writing(error)

    def _on_lost_writing(self, error: OSError) -> None:
        self._end(error)
        self.inbox.submit_turn()

    def _on_drained(self) -> None:
        if self.wire.unsent:
            return  # the stream is lost, which is noticed when it is read
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            self.sink.on_written(in_flight[0])
        self.flush()

    def unsent_entries(self) -> list[Entry]:
        """The entries of the batch under way whose last byte the stream has not accepted."""
        if self._in_flight is None:
            return []
        entries, frames = self._in_flight
        taken = sum(map(len, frames)) - self.wire.unsent
        for index, frame in enumerate(frames):
            taken -= len(frame)
            if taken < 0:
                return entries[index:]
        return []

    # -- the end

    def obstacle(self, is_local: bool = False) -> str | None:
        """Why it cannot go on in another process."""
        return "its QUIC connection ends in this process"

    def refuse(self, refusal: RequestRefused) -> None:
        """Close the session of a handshake that was refused, with the JSON of the error as the reason."""
        self.wire.finish(REFUSED, error_body(refusal).decode())

    def close(self, reason: str | None = None) -> None:
        """Close the session in the background, once the client has received what was sent; at once if the connection was lost."""
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("= %s: its WebTransport session is closed", shorten(self.sink.id))
        if self._close_code == 0:
            self.wire.close()
            return
        code = CLOSE_CODES.get(reason, 0) if self._close_code is None else self._close_code
        # no reason beside a code for the client's own error, as with WebSocket; the log has the details
        self.wire.finish(code, str(reason) if reason is not None and self._close_code is None else "")


def _message_of(item: Item) -> str | bytes | None:
    """The message in the content of a packet; ``None`` if it is another packet, a message in base64, or a violation."""
    if type(item) is bytes:
        return item
    return item[1:] if type(item) is str and item[:1] == "4" else None


def _frame(entry: Entry) -> bytes:
    """The bytes of an entry."""
    if type(entry) is str and entry.isascii():
        return message_head(len(entry)) + entry.encode()
    if type(entry) is bytes and entry:
        return frame_head(len(entry), True) + entry
    if not isinstance(entry, Prepared):
        return _frames([entry])
    frames = entry.forms.get(FORM)
    if frames is None:
        frames = entry.forms[FORM] = _frames([entry])
    return frames


def _frames(entries: list[Entry]) -> bytes:
    return b"".join([encode_frame(encode_packet(packet)) for packet in as_packets(entries)])
