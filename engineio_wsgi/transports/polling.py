"""HTTP long-polling: packets from the bodies of POSTs, and to the responses of GETs.

Owns the one GET that may wait and the one POST that may be under way. A request comes as a WSGI environ, in a greenlet that may
block, or over the lane (`http.lane`), without either. Does not know how requests are read and responses are written.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import gevent
from gevent.hub import Waiter

from engineio_wsgi.errors import ErrorCode, PayloadTooLarge, ProtocolError, RequestRefused
from engineio_wsgi.handoff.client_socket import EndWatch
from engineio_wsgi.http.body import read_body
from engineio_wsgi.http.response import Response, payload, posted
from engineio_wsgi.log import shorten
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio.codec import codec_of
from engineio_wsgi.protocol.engineio.v4 import encode_text
from engineio_wsgi.runtime.loop import Timer
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.transports.base import CloseReason, Entry, Transport, as_packets, count_beyond

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["PollingSnapshot", "PollingTransport"]

logger = logging.getLogger("engine.polling")

OCTET_STREAM = "application/octet-stream"
PLAIN_TEXT = "text/plain; charset=UTF-8"

#: seconds that a close packet waits for a GET that was sent before it on another connection, and is read after it
LAST_POLL = 0.005

NOOP = Packet(PacketType.NOOP)
CLOSE = Packet(PacketType.CLOSE)


class WaitingPoll(Protocol):
    """A GET that waits."""

    def resume(self) -> None:
        """In the hub: there is an answer now. Called once at most; must not block."""
        ...


class _WaitingGreenlet(Waiter):  # type: ignore[misc]  # gevent has no types
    """The greenlet of a GET that waits."""

    def resume(self) -> None:
        """Let it go on."""
        # its client may have gone meanwhile
        if self.greenlet is not None:
            self.switch(False)


class PollingTransport(Transport):
    """HTTP long-polling of one session.

    Args:
        protocol: the revision, 1 to 4.
        limit: the maximum size of a POST's body, in bytes.
        binary: whether the client accepts binary payloads (revisions 1–3 without ``b64=1``).
        meter: the counters of the traffic, if it is counted.
    """

    __slots__ = ("_binary", "_codec", "_discarded", "_goodbye", "_limit", "_loop", "_poll", "_posting", "_protocol", "_released")

    name = "polling"
    #: whether responses are scripts
    is_jsonp = False
    upgrades_to = ("websocket", "webtransport", "flashsocket")

    def __init__(self, protocol: int, limit: int, binary: bool = True, meter: Meter | None = None) -> None:
        super().__init__(meter)
        self._protocol = protocol
        self._codec = codec_of(protocol)
        self._limit = limit
        self._binary = binary
        self._loop = gevent.get_hub().loop
        self._poll: WaitingPoll | None = None
        #: whether that GET is about to be answered
        self._released = False
        self._posting = False
        #: whether the session uses another transport now
        self._discarded = False
        #: runs when the client has sent a close packet
        self._goodbye: Timer | None = None

    # -- GET

    def poll(self, environ: WSGIEnvironment) -> Response:
        """Answer a GET: at once if packets wait, else as soon as one is sent. Blocks.

        Raises:
            RequestRefused: another GET is waiting. The session has been closed.
        """
        sink = self.sink
        if self._poll is not None:
            sink.end(CloseReason.TRANSPORT_ERROR, "a second GET while one was open")
            raise RequestRefused(ErrorCode.BAD_REQUEST, "Bad request: a second GET while one was open",
                                 {"name": "POLL_OVERLAP"}, bare=True)
        if not self.has_answer and self._wait(environ):
            self.give_up()
        return self._answer_poll()

    @property
    def polled(self) -> bool:
        """Whether a GET waits."""
        return self._poll is not None

    @property
    def has_answer(self) -> bool:
        """Whether a GET need not wait."""
        return bool(self.outbox.entries) or self.sink.closing

    def park(self, poll: WaitingPoll) -> None:
        """Have a GET wait for an answer; no other may be waiting. When it is resumed, :meth:`answer` returns what to send."""
        self._poll = poll
        self._released = False

    def unpark(self) -> None:
        """No GET waits any more."""
        self._poll = None

    def answer(self) -> Response:
        """The answer to a GET that does not wait, or no more. Does not block."""
        self._poll = None
        return self._answer_poll()

    def give_up(self) -> None:
        """The client of the GET that waits has closed its connection."""
        self.sink.end(CloseReason.TRANSPORT_CLOSE, "the client gave up a poll")

    def _answer_poll(self) -> Response:
        sink = self.sink
        if self._discarded:
            # also if the session has ended or moved since
            return self._encode([NOOP])
        if sink.closed:
            # a client that has closed the session itself needs a response only
            return self._encode([NOOP if sink.close_reason is CloseReason.TRANSPORT_CLOSE else CLOSE])
        entries = self.outbox.take()
        last = [CLOSE] if sink.closing else [] if entries else [NOOP]
        answer = self._encode_entries(entries, last)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("> %s: a GET is answered with %d packets", shorten(sink.id), len(entries) + len(last))
        if self.meter is not None:
            self.meter.on_sent(entries)
            self.meter.on_more_sent(count_beyond(entries))
        sink.on_written(entries)
        return answer

    def _wait(self, environ: WSGIEnvironment) -> bool:
        """Wait for a packet. Returns whether the client has closed its connection meanwhile."""
        greenlet = _WaitingGreenlet()
        self.park(greenlet)
        watch = EndWatch(environ, lambda: greenlet.switch(True))
        try:
            return bool(greenlet.get())
        finally:
            self.unpark()
            watch.stop()

    def _encode_entries(self, entries: list[Entry], last: list[Packet]) -> Response:
        """The answer with ``entries`` of the write buffer, and the packets ``last`` behind them."""
        if len(entries) == 1 and not last and self._protocol == 4:
            entry = entries[0]
            if type(entry) is str:
                # most answers: it saves a packet, and 1.5 µs
                return self._finish(encode_text(entry), PLAIN_TEXT, True)
            if type(entry) is Packet:
                # those of handshakes
                return self._finish(self._codec.encode_payload([entry], self._binary), PLAIN_TEXT, entry.compress)
        return self._encode([*as_packets(entries), *last])

    def _encode(self, packets: Sequence[Packet]) -> Response:
        body = self._codec.encode_payload(packets, self._binary)
        return self._finish(body, self._content_type(packets), any(packet.compress for packet in packets))

    def _finish(self, body: bytes, content_type: str, compress: bool) -> Response:
        answer = self.wrap(body, content_type, compress)
        if self.meter is not None:
            self.meter.on_bytes_out(len(answer.body))
        return answer

    def _content_type(self, packets: Sequence[Packet]) -> str:
        if self._protocol == 4 or not self._binary:
            return PLAIN_TEXT
        return OCTET_STREAM if any(type(packet.data) is bytes for packet in packets) else PLAIN_TEXT

    def wrap(self, body: bytes, content_type: str, compress: bool) -> Response:
        """The response with an encoded payload."""
        return payload(body, content_type, compress)

    # -- POST

    def post(self, environ: WSGIEnvironment) -> Response:
        """Process the packets of a POST. Blocks while its body arrives, and while the inbox is full.

        Raises:
            RequestRefused: the body is not a payload, or another POST is under way. The session has been closed.
            PayloadTooLarge: the body is larger than the limit; nothing was read.
        """
        sink = self.sink
        if self._posting:
            sink.end(CloseReason.TRANSPORT_ERROR, "a second POST while one was open")
            raise RequestRefused(ErrorCode.BAD_REQUEST, "Bad request: a second POST while one was open",
                                 {"name": "DATA_OVERLAP"}, bare=True)
        self._posting = True
        try:
            self._take(self._read_packets(environ))
            if self.inbox.reading_paused:
                self._wait_for_room(environ)
        finally:
            self._posting = False
        return posted()

    def decode(self, body: bytes, binary: bool) -> list[Packet] | None:
        """The packets of a POST that is complete; ``None`` if it has to go through :meth:`post`, which refuses it.

        Args:
            body: all of it.
            binary: whether its content type says that it is binary.
        """
        if self._posting or len(body) > self._limit or (binary and self._protocol == 4):
            return None
        try:
            return self.unwrap(body, binary)
        except ProtocolError:
            return None

    def receive(self, packets: list[Packet], size: int) -> bool:
        """Process the packets of a POST, which :meth:`decode` has returned. Does not block.

        Args:
            packets: of the POST.
            size: of its body, in bytes.

        Returns:
            Whether the POST can be answered; otherwise only after :meth:`finish_post`, because the inbox is full.
        """
        if self.meter is not None:
            self.meter.on_bytes_in(size)
        self._posting = True
        try:
            self._take(packets)
        finally:
            self._posting = self.inbox.reading_paused
        return not self._posting

    def finish_post(self, environ: WSGIEnvironment) -> None:
        """Wait until the inbox has room, or the session has ended. Blocks.

        Args:
            environ: with the keys that :class:`EndWatch` needs.
        """
        try:
            self._wait_for_room(environ)
        finally:
            self._posting = False

    def _wait_for_room(self, environ: WSGIEnvironment) -> None:
        """Wait until the inbox has room; the session ends if the client closes its connection meanwhile."""
        sink = self.sink
        watch = EndWatch(environ, lambda: sink.end(CloseReason.TRANSPORT_CLOSE, "the client gave up a POST"))
        try:
            sink.wait_for_room()
        finally:
            watch.stop()

    def _read_packets(self, environ: WSGIEnvironment) -> list[Packet]:
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
        return self._codec.decode_payload(body, binary)

    def _take(self, packets: list[Packet]) -> None:
        sink = self.sink
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("< %s: a POST with %d packets", shorten(sink.id), len(packets))
        self.inbox.hear()
        messages: list[str | bytes] = []
        has_messages = False
        for packet in packets:
            if packet.type is PacketType.MESSAGE:
                messages.append(packet.data)
                has_messages = True
                continue
            if messages:
                self.inbox.enqueue(messages)
                messages = []
            if packet.type is PacketType.CLOSE and self._poll is None:
                self._close_soon()
                break
            sink.on_packet(packet)
        if has_messages:
            self.inbox.enqueue(messages)
            self.inbox.submit_turn()

    def _close_soon(self) -> None:
        """The client has closed the session, and no GET waits: end it when one that was sent before can have been read."""
        if self._goodbye is None:
            self._goodbye = self._loop.timer(LAST_POLL)
            self._goodbye.start(self._on_goodbye)

    def _on_goodbye(self) -> None:
        assert self._goodbye is not None
        self._goodbye.close()
        self._goodbye = None
        self.sink.on_packet(CLOSE)

    # -- for the session

    def wake(self) -> None:
        """Answer the GET that waits; without one, the entries wait for the next GET."""
        if self._poll is None:
            self.sink.on_stalled()
            return
        self._release()

    def wake_to_close(self) -> bool:
        """Answer the GET that waits with a close packet, or else the next one."""
        self._release()
        return True

    def _release(self) -> None:
        # once: several sends in a row make one answer
        if self._poll is not None and not self._released:
            self._released = True
            self._loop.run_callback(self._resume, self._poll)

    def _resume(self, poll: WaitingPoll) -> None:
        if self._poll is poll:
            poll.resume()

    def nudge(self) -> None:
        """Answer the waiting GET with a ``noop``."""
        self._release()

    def discard(self) -> None:
        """The session uses another transport now: answer the waiting GET with a ``noop``."""
        self._discarded = True
        self._release()

    def close(self, reason: str | None = None) -> None:
        """Answer the waiting GET with a close packet."""
        self._release()

    # -- in another process

    @property
    def busy(self) -> bool:
        """Whether a request is under way, or the client's close packet."""
        return self._poll is not None or self._posting or self._goodbye is not None

    def snapshot(self) -> PollingSnapshot:
        """What another process needs, if it is not :attr:`busy`."""
        return PollingSnapshot(self.is_jsonp, self._binary)


class PollingSnapshot(NamedTuple):
    """A polling transport between two requests.

    Attributes:
        is_jsonp: whether responses are scripts.
        binary: whether the client accepts binary payloads.
    """

    is_jsonp: bool
    binary: bool

