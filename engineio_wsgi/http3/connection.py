"""One QUIC connection: passes datagrams to aioquic, and what comes of them to sessions and streams. It has one timer.

Owns the limits of a connection: its windows, streams and sessions, the size of an unfinished request, and the time until it has a
session. For the hub's thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from aioquic.h3.connection import ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    ProtocolNegotiated,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from engineio_wsgi.http3.offer import SessionOffer
from engineio_wsgi.http3.requests import environ_of, is_session_request
from engineio_wsgi.http3.session import Session
from engineio_wsgi.http3.stream import STREAM_WINDOW, SessionStream
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.deadline import DeadlineTimer
from engineio_wsgi.runtime.loop import Loop, Timer
from engineio_wsgi.vendors.aioquic_connections import PacedConnection, StaticHeadersConnection, undecoded

if TYPE_CHECKING:
    from aioquic.quic.connection import NetworkAddress

__all__ = ["CONNECTION_WINDOW", "FIRST_WINDOW", "MAX_STREAMS", "Http3Connection", "Owner"]

logger = logging.getLogger("engine.webtransport")

#: bytes that a client may send on all streams before they are read
CONNECTION_WINDOW = 1_048_576
#: bytes that a client may send on a stream that is no session's: requests and the streams of HTTP/3 are shorter
FIRST_WINDOW = 65_536
#: bytes of an unfinished frame of HTTP/3
MAX_UNDECODED = 16_384
#: bidirectional streams that a client may have open: a session has two. As many unidirectional ones
MAX_STREAMS = 16
#: sessions that a connection may have at a time
MAX_SESSIONS = 4
#: bytes of the header fields of a request, after decompression
MAX_HEADERS = 16_384
#: seconds that a connection stays open after its last session, so that the client gets the session's end
LINGER = 2.0
#: the error code for a stream that is not taken: WEBTRANSPORT_BUFFERED_STREAM_REJECTED
STREAM_REJECTED = 0x3994BD84


class Owner(Protocol):
    """What a connection needs of its listener."""

    def send_to(self, data: bytes, address: NetworkAddress) -> None:
        """Send a datagram."""
        ...

    def on_id(self, connection: Http3Connection, identifier: bytes) -> None:
        """Datagrams for this connection id are the connection's."""
        ...

    def on_id_retired(self, identifier: bytes) -> None:
        """They are not any more."""
        ...

    def on_connected(self, connection: Http3Connection) -> None:
        """The handshake is complete: the client's address is its own."""
        ...

    def on_request(self, session: Session) -> None:
        """A client asks for a session: have its request answered."""
        ...

    def on_ended(self, connection: Http3Connection) -> None:
        """The connection has ended."""
        ...


class Http3Connection:
    """See the module.

    Args:
        owner: its listener.
        quic: aioquic's connection.
        loop: the event loop.
        server: the address that the client has sent to.
        timeout: seconds until the client has opened a session.
    """

    def __init__(self, owner: Owner, quic: PacedConnection, loop: Loop, server: tuple[str, int], timeout: float) -> None:
        self._owner = owner
        self._quic = quic
        self.loop = loop
        self._server = server
        self._http: H3Connection | None = None
        self._sessions: dict[int, Session] = {}
        self._streams: dict[int, SessionStream] = {}
        #: the streams that wait for acknowledgements
        self._attended: set[SessionStream] = set()
        self._consumed = 0
        self._is_woken = False
        self._timer: Timer | None = None
        self._timer_at = 0.0
        #: ends a connection without a session
        self._patience: DeadlineTimer | None = DeadlineTimer(loop, timeout, self.close)
        self.ended = False

    # -- datagrams

    def receive(self, data: bytes, address: NetworkAddress, now: float) -> None:
        """Take a datagram. The caller calls :meth:`settle` when it has no more."""
        self._quic.receive_datagram(data, address, now)

    def wake(self) -> None:
        """Send what there is to send, soon."""
        if not self._is_woken:
            self._is_woken = True
            self.loop.run_callback(self.settle)

    def settle(self) -> None:
        """Process what has arrived, send what there is to send, and set the timer."""
        self._is_woken = False
        if self.ended:
            return
        try:
            self._settle(monotonic())
        except Exception:
            # it is the edge of what a client can cause in aioquic
            logger.exception("a QUIC connection failed and is dropped")
            self._end(ConnectionAbortedError("the QUIC connection failed"))

    def _settle(self, now: float) -> None:
        while (event := self._quic.next_event()) is not None:
            self._on_event(event)
            if self.ended:
                return
        ending = self._quic.ending
        if ending is not None:
            # the event comes after three round trips, so that late datagrams are recognised
            self._lose_sessions(ending)
        elif self._attended:
            for stream in list(self._attended):
                stream.on_progress()
        self._send_datagrams(now)
        self._set_timer(now)

    def _send_datagrams(self, now: float) -> None:
        for data, address in self._quic.datagrams_to_send(now):
            self._owner.send_to(data, address)

    def flush(self) -> None:
        """Send what there is to send now: the process may end before the loop runs again."""
        if not self.ended:
            self._send_datagrams(monotonic())

    def _set_timer(self, now: float) -> None:
        due = self._quic.get_timer()
        if due is None or (self._timer is not None and self._timer_at <= due):
            # a timer that fires too early is set anew
            return
        if self._timer is not None:
            self._timer.close()
        self._timer_at = due
        self._timer = self.loop.timer(max(0.0, due - now))
        self._timer.start(self._on_timer)

    def _on_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()
        due = self._quic.get_timer()
        now = monotonic()
        if due is not None and now >= due:
            self._quic.handle_timer(now)
        self.settle()

    # -- events

    def _on_event(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self._on_data(event)
        elif isinstance(event, (StreamReset, StopSendingReceived)):
            if self._http is not None:
                self._http.handle_event(event)
            self._on_stream_refused(event.stream_id)
        elif isinstance(event, ConnectionTerminated):
            self._end(_error_of(event))
        else:
            self._on_handshake_event(event)

    def _on_handshake_event(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionIdIssued):
            self._owner.on_id(self, event.connection_id)
        elif isinstance(event, ConnectionIdRetired):
            self._owner.on_id_retired(event.connection_id)
        elif isinstance(event, ProtocolNegotiated):
            # before the client has finished its handshake, so that it gets the settings with the server's part
            self._http = StaticHeadersConnection(self._quic)
        elif isinstance(event, HandshakeCompleted):
            self._owner.on_connected(self)

    def _on_data(self, event: StreamDataReceived) -> None:
        if event.stream_id not in self._streams:
            self._on_consumed(len(event.data))
        http = self._http
        if http is None:
            return
        for http_event in http.handle_event(event):
            self._on_http_event(http_event)
        if undecoded(http, event.stream_id) > MAX_UNDECODED:
            self._quic.close(ErrorCode.H3_EXCESSIVE_LOAD, reason_phrase="an unfinished frame is too long")

    def _on_http_event(self, event: H3Event) -> None:
        if isinstance(event, WebTransportStreamDataReceived):
            self._on_stream_data(event)
        elif isinstance(event, DataReceived):
            session = self._sessions.get(event.stream_id)
            if session is not None:
                session.on_capsules(event.data, event.stream_ended)
        elif isinstance(event, HeadersReceived) and event.stream_id not in self._sessions:
            self._on_request(event)

    def _on_stream_data(self, event: WebTransportStreamDataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            session = self._sessions.get(event.session_id)
            # bit 1 is set for a unidirectional stream
            if session is None or event.stream_id & 2 or session.stream is not None:
                self.refuse_stream(event.stream_id)
                return
            stream = self._streams[event.stream_id] = SessionStream(self, event.stream_id)
            # what came with the stream's head was counted as read
            self._consumed -= len(event.data)
            self._quic.open_stream_window(event.stream_id, len(event.data), STREAM_WINDOW)
            stream.on_data(event.data, event.stream_ended)
            session.on_new_stream(stream)
            return
        stream.on_data(event.data, event.stream_ended)

    def _on_stream_refused(self, stream_id: int) -> None:
        """The client has reset a stream, or takes nothing more of it."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.on_lost(ConnectionResetError("the client has reset the stream"))
        elif stream_id in self._sessions:
            self._sessions[stream_id].on_goodbye(0, "")

    def _on_request(self, event: HeadersReceived) -> None:
        stream_id = event.stream_id
        if not is_session_request(event.headers) or event.stream_ended:
            self.send_headers(stream_id, [(b":status", b"404")], True)
        elif len(self._sessions) >= MAX_SESSIONS:
            self.send_headers(stream_id, [(b":status", b"429")], True)
        elif sum(len(name) + len(value) for name, value in event.headers) > MAX_HEADERS:
            self.send_headers(stream_id, [(b":status", b"431")], True)
        else:
            offer = SessionOffer()
            address = self._quic.get_peer_address() or ("", 0)
            environ = environ_of(event.headers, offer, address, self._server)
            session = self._sessions[stream_id] = Session(self, stream_id, environ, offer)
            self._stop_patience()
            self._owner.on_request(session)

    # -- for streams

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Pass bytes on, to be sent soon."""
        self._quic.send_stream_data(stream_id, data, end)
        self.wake()

    def unacknowledged(self, stream_id: int) -> int:
        """Bytes that were passed on, and that the client has not acknowledged."""
        return self._quic.unacknowledged(stream_id)

    def is_delivered(self, stream_id: int) -> bool:
        """Whether the client has acknowledged all bytes and the end, or has refused them."""
        return self._quic.is_delivered(stream_id)

    def can_send(self, stream_id: int) -> bool:
        """Whether the client still takes bytes."""
        return not self.ended and self._quic.can_send(stream_id)

    def on_read(self, stream_id: int, size: int, held: int) -> None:
        """``size`` bytes were read, and ``held`` bytes wait to be read: the client may send more."""
        self._quic.open_stream_window(stream_id, held, STREAM_WINDOW)
        self._on_consumed(size)
        self.wake()

    def _on_consumed(self, size: int) -> None:
        self._consumed += size
        self._quic.open_window(self._consumed, CONNECTION_WINDOW)

    def attend(self, stream: SessionStream) -> None:
        """Call ``stream.on_progress()`` whenever the client may have acknowledged something."""
        self._attended.add(stream)

    def neglect(self, stream: SessionStream) -> None:
        """Do not call it any more."""
        self._attended.discard(stream)

    def close_session(self, stream_id: int, code: int, reason: str) -> None:
        """Close the session of a stream."""
        for session in list(self._sessions.values()):
            if session.stream is not None and session.stream.number == stream_id:
                session.close(code, reason)

    # -- for sessions

    def send_headers(self, stream_id: int, headers: list[tuple[bytes, bytes]], end: bool) -> None:
        """Answer a request."""
        self._send(stream_id, lambda http: http.send_headers(stream_id, headers, end))

    def send_data(self, stream_id: int, data: bytes, end: bool) -> None:
        """Send a part of the response's body."""
        self._send(stream_id, lambda http: http.send_data(stream_id, data, end))

    def _send(self, stream_id: int, send: Callable[[H3Connection], object]) -> None:
        if self._http is not None and self.can_send(stream_id):
            send(self._http)
            self.wake()

    def refuse_stream(self, stream_id: int) -> None:
        """Take nothing of a stream, and send nothing on it."""
        if self._quic.can_receive(stream_id):
            self._quic.stop_stream(stream_id, STREAM_REJECTED)
        if not stream_id & 2 and not self.ended and self._quic.can_reset(stream_id):
            # also behind the end: what the client has not acknowledged is kept otherwise
            self._quic.reset_stream(stream_id, STREAM_REJECTED)
        self.wake()

    def on_session_closed(self, session: Session) -> None:
        """The session has ended, on either side. Without another one, the connection ends soon."""
        self._sessions.pop(session.number, None)
        if session.stream is not None:
            self._streams.pop(session.stream.number, None)
            self.refuse_stream(session.stream.number)
        if not self._sessions and not self.ended:
            self._stop_patience()
            self._patience = DeadlineTimer(self.loop, LINGER, self.close)

    # -- the end

    def close(self, code: int = ErrorCode.H3_NO_ERROR, reason: str = "") -> None:
        """Close the connection, and with it its sessions. Harmless if repeated."""
        self._stop_patience()
        if not self.ended:
            self._quic.close(code, reason_phrase=reason)
            self.wake()

    def abort(self) -> None:
        """End at once, without a word to the client."""
        self._end(ConnectionAbortedError("the QUIC connection was dropped"))

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.close()
            self._patience = None

    def _lose_sessions(self, ending: ConnectionTerminated) -> None:
        error = _error_of(ending)
        for session in list(self._sessions.values()):
            if ending.error_code == ErrorCode.H3_NO_ERROR:
                session.on_goodbye(0, ending.reason_phrase)
            else:
                session.on_lost(error)
        self._stop_patience()

    def _end(self, error: OSError) -> None:
        if self.ended:
            return
        self.ended = True
        self._stop_patience()
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._owner.on_ended(self)
        for session in list(self._sessions.values()):
            session.on_lost(error)
        self._attended.clear()


def _error_of(event: ConnectionTerminated) -> OSError:
    reason = event.reason_phrase or f"code {event.error_code:#x}"
    return ConnectionResetError(f"the QUIC connection has ended: {reason}")
