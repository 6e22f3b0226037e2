"""WebTransport sessions: admitted inside the middlewares, and served once the client has sent its first packet.

Owns the way from a session of HTTP/3 to an Engine.IO session. The request opens the session of HTTP/3. Only the first packet on
its stream says whether a client wants a new session, for which the application is asked then, or to upgrade one that polls.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import TypeAlias
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.engine.admission import WEBTRANSPORT, CheckedRequest, check_packet
from engineio_wsgi.engine.handshakes import Handshakes
from engineio_wsgi.engine.refusals import Refusals
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.errors import ErrorCode, ProtocolError, RequestRefused
from engineio_wsgi.http.response import Response, error_body
from engineio_wsgi.http3.offer import SessionOffer
from engineio_wsgi.http3.ports import PacketStream, WebTransportSession
from engineio_wsgi.log import log_violation
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio.stream import StreamDecoder
from engineio_wsgi.protocol.engineio.v4 import decode_packet
from engineio_wsgi.runtime.deadline import DeadlineTimer
from engineio_wsgi.runtime.loop import Loop
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports.base import CloseReason
from engineio_wsgi.transports.connected import CLOSE_CODES
from engineio_wsgi.transports.webtransport import REFUSED, WebTransportTransport

__all__ = ["Relay", "WebTransports", "add_query"]

logger = logging.getLogger("engine.webtransport")

#: passes an upgrade on to the worker of a session, given the request, the session's id and the stream. Returns whether it did
Relay: TypeAlias = Callable[[WSGIEnvironment, str, PacketStream], bool]

#: the query that the request of any other transport has; clients send none over WebTransport
QUERY = "EIO=4&transport=webtransport"
#: bytes of the first packet
MAX_FIRST = 4096


def add_query(environ: WSGIEnvironment) -> None:
    """Give the request for a session the query that the request of any other transport has."""
    query = environ.get("QUERY_STRING", "")
    environ["QUERY_STRING"] = f"{QUERY}&{query}" if query else QUERY


class WebTransports:
    """The WebTransport sessions of one server."""

    def __init__(self, registry: Registry, handshakes: Handshakes, refusals: Refusals) -> None:
        self._relay: Relay | None = None
        self._registry = registry
        self._handshakes = handshakes
        self._refusals = refusals

    def relay_by(self, relay: Relay) -> None:
        """Have upgrades of sessions that are not here passed on by ``relay``."""
        self._relay = relay

    def admit(self, environ: WSGIEnvironment, offer: SessionOffer) -> Response:
        """Take the session of a request. Returns the response that the middlewares see.

        Raises:
            RequestRefused: the request is refused.
        """
        if WEBTRANSPORT not in self._registry.options.transports:
            raise RequestRefused(ErrorCode.TRANSPORT_UNKNOWN, context={"transport": WEBTRANSPORT})
        self._registry.check_open()
        offer.admit(partial(self.serve, environ))
        return Response("200 OK", [], b"")

    def serve(self, environ: WSGIEnvironment, session: WebTransportSession) -> None:
        """Wait for the first packet of a session that the client has been told is open. Does not block."""
        assert self._registry.hub is not None
        FirstPacket(session, environ, self._registry.hub.loop, self._registry.options.upgrade_timeout,
                    partial(self._submit, environ, session))

    def _submit(self, environ: WSGIEnvironment, session: WebTransportSession, stream: PacketStream, sid: str) -> None:
        self._registry.greenlets.submit(partial(self._greet, environ, session, stream, sid))

    def _greet(self, environ: WSGIEnvironment, session: WebTransportSession, stream: PacketStream, sid: str) -> None:
        """Open a session, or upgrade one. Blocks as long as the application does."""
        try:
            if sid and sid not in self._registry.sessions and self._relay is not None and self._relay(environ, sid, stream):
                return
            checked = check_packet(sid, self._registry.options, self._registry.sessions)
            if checked.session is None:
                self._open(environ, checked, stream)
            else:
                self._upgrade(environ, checked.session, stream)
        except RequestRefused as refusal:
            self._refusals.report(refusal, environ)
            session.close(REFUSED, error_body(refusal).decode())
        except BaseException:
            # nothing else would ever close it
            session.close(CLOSE_CODES[CloseReason.APPLICATION_ERROR], "")
            raise

    def _open(self, environ: WSGIEnvironment, checked: CheckedRequest, stream: PacketStream) -> None:
        session = self._handshakes.new_session(self._handshakes.admit(environ), checked, environ)
        transport = self._transport(stream)
        self._registry.open(session, transport)
        transport.open()
        transport.flush()

    def _upgrade(self, environ: WSGIEnvironment, session: Session, stream: PacketStream) -> None:
        on_started = partial(self._registry.observers.on_upgrade, session, environ)
        if not session.start_upgrade(self._transport(stream), on_started):
            raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "NO_UPGRADE", "to": WEBTRANSPORT})

    def _transport(self, stream: PacketStream) -> WebTransportTransport:
        registry = self._registry
        return WebTransportTransport(stream, registry.greenlets, registry.options.max_http_buffer_size,
                                     registry.observers.meter(WEBTRANSPORT))


class FirstPacket:
    """Waits for the first packet of a session, and closes the session if it does not come, or is another one than ``open``.

    Args:
        timeout: seconds to wait.
        on_open: called in the hub with the stream and the id of the session that is to be upgraded, or an empty one.
    """

    def __init__(self, session: WebTransportSession, environ: WSGIEnvironment, loop: Loop, timeout: float,
                 on_open: Callable[[PacketStream, str], object]) -> None:
        self._session = session
        self._address = environ.get("REMOTE_ADDR")
        self._on_open = on_open
        self._decoder = StreamDecoder(MAX_FIRST)
        self._stream: PacketStream | None = None
        self._timer = DeadlineTimer(loop, timeout, self._fail, f"no first packet within {timeout:g} s")
        session.on_end(self._stop)
        session.on_stream(self._on_stream)

    def _on_stream(self, stream: PacketStream) -> None:
        self._stream = stream
        stream.watch(self._on_readable)

    def _on_readable(self) -> None:
        stream = self._stream
        assert stream is not None
        packets: list[str | bytes] = []
        while not packets:
            try:
                # not a byte of the next packet
                data = stream.recv(self._decoder.missing)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(str(error))
                return
            packets = self._decoder.feed(data)
            if not data or self._decoder.error is not None:
                self._fail(str(self._decoder.error or "the stream has ended"))
                return
        self._take(stream, packets[0])

    def _take(self, stream: PacketStream, content: str | bytes) -> None:
        try:
            sid = session_id_in(decode_packet(content))
        except ProtocolError as error:
            self._fail(str(error))
            return
        self._stop()
        self._on_open(stream, sid)

    def _stop(self) -> None:
        """Wait no longer: the packet has come, or the session has ended."""
        self._session.on_end(None)
        self._timer.close()
        if self._stream is not None:
            self._stream.unwatch()

    def _fail(self, why: str) -> None:
        self._stop()
        log_violation(logger, self._address, "first packet", "< %s: a WebTransport session is closed: %s", self._address, why)
        self._session.close(REFUSED, "")


def session_id_in(packet: Packet) -> str:
    """The id of the session that a first packet names; empty if it asks for a new session.

    Raises:
        ProtocolError: it is not an open packet, or its data is no JSON object with a ``sid``.
    """
    if packet.type is not PacketType.OPEN or not isinstance(packet.data, str):
        raise ProtocolError(f"the first packet has to be an open packet, and not {packet.type.name.lower()}")
    if not packet.data:
        return ""
    try:
        sid: object = json.loads(packet.data)["sid"]
    except (ValueError, TypeError, KeyError, RecursionError):
        sid = None
    if not isinstance(sid, str) or not sid:
        raise ProtocolError('the data of an open packet is empty or {"sid":"…"}')
    return sid
