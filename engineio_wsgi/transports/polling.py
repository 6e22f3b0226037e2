"""HTTP long-polling: packets out of the bodies of POSTs, and into the answers of GETs.

Owns the one GET that may wait and the one POST that may be under way. Works in the greenlets of the HTTP requests;
it knows of HTTP what is in an environ, and nothing of how it gets on and off the wire.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import gevent
from gevent.hub import Waiter

from engineio_wsgi.errors import ErrorCode, PayloadTooLarge, ProtocolError, RequestRefused
from engineio_wsgi.handoff.client_socket import EndWatch
from engineio_wsgi.http.body import read_body
from engineio_wsgi.http.response import Response, payload
from engineio_wsgi.log import shorten
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio import v3, v4
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.transports.base import CloseReason, Transport, as_packet

__all__ = ["PollingTransport"]

logger = logging.getLogger("engine.polling")

OCTET_STREAM = "application/octet-stream"
PLAIN_TEXT = "text/plain; charset=UTF-8"
HTML = "text/html"

#: seconds for which a close packet waits for a GET that was sent before it, on another connection, and is read after it
LAST_POLL = 0.005

NOOP = Packet(PacketType.NOOP)
CLOSE = Packet(PacketType.CLOSE)


class PollingTransport(Transport):
    """A session's polling.

    Args:
        protocol: the revision, 1 to 4.
        limit: bytes that the body of a POST may have.
        binary: whether the client takes binary payloads (revisions 1–3 without ``b64=1``).
        meter: where the traffic is counted, if it is.
    """

    __slots__ = ("_binary", "_codec", "_discarded", "_limit", "_loop", "_poll", "_posting", "_protocol")

    name = "polling"
    upgrades_to = ("websocket", "flashsocket")

    def __init__(self, protocol: int, limit: int, binary: bool = True, meter: Meter | None = None) -> None:
        super().__init__(meter)
        self._protocol = protocol
        self._codec: Any = v4 if protocol == 4 else v3
        self._limit = limit
        self._binary = binary
        self._loop = gevent.get_hub().loop
        self._poll: Waiter[Any] | None = None
        self._posting = False
        #: whether the session has moved on to another transport
        self._discarded = False

    # -- GET

    def poll(self, environ: dict[str, Any]) -> Response:
        """Answer a GET: at once if anything waits, else as soon as something does. Blocks.

        Raises:
            RequestRefused: another GET is waiting; the session has been closed over it.
        """
        sink = self.sink
        if self._poll is not None:
            sink.end(CloseReason.TRANSPORT_ERROR, "a second GET while one was open")
            raise RequestRefused(ErrorCode.BAD_REQUEST, "Bad request: a second GET while one was open",
                                 {"name": "POLL_OVERLAP"}, bare=True)
        gone = not self.outbox.entries and not sink.closing and self._park(environ)
        if gone:
            sink.end(CloseReason.TRANSPORT_CLOSE, "the client gave up a poll")
        return self._answer_poll()

    def _answer_poll(self) -> Response:
        sink = self.sink
        if sink.closed:
            # a client that has said goodbye itself only wants its request back
            return self._encode([NOOP if sink.close_reason is CloseReason.TRANSPORT_CLOSE else CLOSE])
        if self._discarded:
            return self._encode([NOOP])
        entries = self.outbox.take()
        last = [CLOSE] if sink.closing else [] if entries else [NOOP]
        answer = self._encode([*map(as_packet, entries), *last])
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("> %s: a GET is answered with %d packets", shorten(sink.id), len(entries) + len(last))
        if self.meter is not None:
            self.meter.on_sent(entries)
        sink.on_written(entries)
        return answer

    def _park(self, environ: dict[str, Any]) -> bool:
        """Wait for something to answer with. Returns whether the client has gone away meanwhile."""
        self._poll = waiter = Waiter()
        watch = EndWatch(environ, lambda: waiter.switch(True))
        try:
            return bool(waiter.get())
        finally:
            self._poll = None
            watch.stop()

    def _encode(self, packets: Sequence[Packet]) -> Response:
        body: bytes = self._codec.encode_payload(packets, self._binary)
        compress = any(packet.compress for packet in packets)
        answer = self.wrap(body, self._content_type(packets), compress)
        if self.meter is not None:
            self.meter.on_bytes_out(len(answer.body))
        return answer

    def _content_type(self, packets: Sequence[Packet]) -> str:
        if self._protocol == 4 or not self._binary:
            return PLAIN_TEXT
        return OCTET_STREAM if any(type(packet.data) is bytes for packet in packets) else PLAIN_TEXT

    def wrap(self, body: bytes, content_type: str, compress: bool) -> Response:
        """The answer that carries an encoded payload."""
        return payload(body, content_type, compress)

    # -- POST

    def post(self, environ: dict[str, Any]) -> Response:
        """Take a POST's packets in. Blocks while its body arrives, and while the session's inbox is full.

        Raises:
            RequestRefused: it is not a payload, or another POST is under way; the session has been closed over it.
            PayloadTooLarge: more bytes than the limit; nothing was read.
        """
        sink = self.sink
        if self._posting:
            sink.end(CloseReason.TRANSPORT_ERROR, "a second POST while one was open")
            raise RequestRefused(ErrorCode.BAD_REQUEST, "Bad request: a second POST while one was open",
                                 {"name": "DATA_OVERLAP"}, bare=True)
        self._posting = True
        try:
            packets = self._read_packets(environ)
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("< %s: a POST with %d packets", shorten(sink.id), len(packets))
            self._take(packets)
            if sink.reading_paused:
                self._wait_for_room(environ)
        finally:
            self._posting = False
        # text/html and not text/plain: some user agents offer a plain "ok" as a download
        return payload(b"ok", HTML)

    def _wait_for_room(self, environ: dict[str, Any]) -> None:
        """Answer no sooner than the application has caught up; the client may give up meanwhile."""
        sink = self.sink
        watch = EndWatch(environ, lambda: sink.end(CloseReason.TRANSPORT_CLOSE, "the client gave up a POST"))
        try:
            sink.wait_for_room()
        finally:
            watch.stop()

    def _read_packets(self, environ: dict[str, Any]) -> list[Packet]:
        binary = environ.get("CONTENT_TYPE") == OCTET_STREAM
        if binary and self._protocol == 4:
            self.sink.end(CloseReason.TRANSPORT_ERROR, "a binary payload, which revision 4 does not have")
            raise RequestRefused(ErrorCode.BAD_REQUEST, "Bad request: a binary payload, which revision 4 does not have",
                                 {"name": "INVALID_CONTENT", "content_type": OCTET_STREAM}, bare=True)
        try:
            body = read_body(environ, self._limit)
            if self.meter is not None:
                self.meter.on_bytes_in(len(body))
            return self.unwrap(body, binary)
        except PayloadTooLarge:
            raise
        except ProtocolError as error:
            self.sink.end(CloseReason.PARSE_ERROR, error)
            raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "BAD_PAYLOAD", "error": str(error)}) from error
        except OSError as error:
            self.sink.end(CloseReason.TRANSPORT_ERROR, error)
            raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "BODY_INCOMPLETE", "error": str(error)}) from error

    def unwrap(self, body: bytes, binary: bool) -> list[Packet]:
        """The packets in the body of a POST."""
        packets: list[Packet] = self._codec.decode_payload(body, binary)
        return packets

    def _take(self, packets: list[Packet]) -> None:
        sink = self.sink
        sink.hear()
        messages: list[str | bytes] = []
        for packet in packets:
            if packet.type is PacketType.MESSAGE:
                messages.append(packet.data)
                continue
            sink.enqueue(messages)
            messages = []
            if packet.type is PacketType.CLOSE and self._poll is None:
                gevent.sleep(LAST_POLL)
            sink.on_packet(packet)
        sink.enqueue(messages)
        sink.submit_turn()

    # -- what the session asks for

    def wake(self) -> None:
        """Let the waiting GET take what there is; without one it waits for the next."""
        if self._poll is None:
            self.sink.on_stalled()
            return
        self._release()

    def wake_to_close(self) -> bool:
        """The close packet goes with the GET that is open, or with the next one."""
        self._release()
        return True

    def _release(self) -> None:
        if self._poll is not None:
            self._loop.run_callback(self._switch, self._poll)

    @staticmethod
    def _switch(waiter: Waiter[Any]) -> None:
        # several sends may have asked for the same; only the first finds somebody waiting
        if waiter.greenlet is not None:
            waiter.switch(False)

    def nudge(self) -> None:
        """Answer the waiting GET with a ``noop``."""
        self._release()

    def discard(self) -> None:
        """The session has moved on: a GET that still waits gets a ``noop``."""
        self._discarded = True
        self._release()

    def close(self, reason: str | None = None) -> None:
        """A GET that still waits gets the close packet."""
        self._release()

