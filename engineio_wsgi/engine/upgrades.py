"""WebSocket handshakes: admitted inside the middlewares, carried out outside of them.

Owns the way from an admitted WebSocket to a session's transport. A new session begins on it; a session that polls tries it as the
candidate of an upgrade.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from wsgiref.types import StartResponse, WSGIEnvironment

from geventwebsocket.exceptions import WebSocketError

from engineio_wsgi.engine.admission import CheckedRequest
from engineio_wsgi.engine.handshakes import Handshakes
from engineio_wsgi.engine.hooks import Hooks
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.errors import ErrorCode, RequestRefused
from engineio_wsgi.handoff.accepted_websocket import (
    AnyWebSocket,
    DetachedWebSocket,
    check_handshake,
    close_accepted,
    detach_websocket,
    offered_subprotocols,
)
from engineio_wsgi.http.response import Response
from engineio_wsgi.http.subprotocols import SUBPROTOCOL, choose_subprotocol, take_subprotocol
from engineio_wsgi.log import log_violation
from engineio_wsgi.protocol.websocket.deflate import Deflater, DeflateSettings, Inflater
from engineio_wsgi.protocol.websocket.frames import FrameDecoder
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports import transports
from engineio_wsgi.transports.websocket import WebSocketTransport

__all__ = ["Upgrades"]

logger = logging.getLogger("engine")

#: key of an environ: an admitted WebSocket handshake, which the middlewares can still refuse
ADMITTED = "engineio.admitted"
SWITCHING = "101 Switching Protocols"


class Upgrades:
    """The WebSocket handshakes of one server."""

    def __init__(self, registry: Registry, handshakes: Handshakes, hooks: Hooks) -> None:
        self._registry = registry
        self._handshakes = handshakes
        self._hooks = hooks

    def admit(self, environ: WSGIEnvironment, checked: CheckedRequest, websocket: object) -> Response:
        """Decide about a WebSocket handshake. Returns the response that the middlewares see.

        Raises:
            RequestRefused: the handshake is refused.
        """
        check_handshake(websocket)
        headers: list[tuple[str, str]] = []
        sid = ""
        if checked.session is None:
            sid = self._handshakes.admit(environ)
            headers = self._handshakes.cookies(sid)
        # a WebSocket that was accepted already offers no subprotocols any more
        offered = offered_subprotocols(websocket)
        if offered:
            subprotocol = choose_subprotocol(self._registry.options.subprotocols, offered,
                                             lambda: self._hooks.request_of(environ))
            if subprotocol is not None:
                headers.append((SUBPROTOCOL, subprotocol))
        environ[ADMITTED] = (checked, sid)
        return Response(SWITCHING, headers, b"")

    def carry_out(self, answered: Response, environ: WSGIEnvironment, start_response: StartResponse | None) -> Iterable[bytes]:
        """Do what the middlewares have answered to a WebSocket handshake: switch, or refuse.

        Blocks until the WebSocket is closed, unless its connection can be taken over.

        Args:
            start_response: ``None`` where no response can be sent, because the WebSocket was accepted already.
        """
        websocket: AnyWebSocket = environ["wsgi.websocket"]
        admitted = environ.pop(ADMITTED, None)
        if admitted is None or answered.status != SWITCHING:
            return _refuse(websocket, start_response, answered)
        self._switch(websocket, answered.headers, environ, *admitted)
        return []

    def _switch(self, websocket: AnyWebSocket, headers: list[tuple[str, str]], environ: WSGIEnvironment, checked: CheckedRequest,
                sid: str) -> None:
        """Take the WebSocket's connection, and give it to the session."""
        subprotocol = None
        if headers:
            headers, subprotocol = take_subprotocol(headers, offered_subprotocols(websocket))
        try:
            connection = detach_websocket(websocket, headers, self._deflate, subprotocol, more=checked.session is None)
        except (OSError, WebSocketError) as error:
            address = environ.get("REMOTE_ADDR")
            log_violation(logger, address, "left", "< a client left during its WebSocket handshake: %s", error)
            return
        transport = self._transport(connection, checked)
        if checked.session is None:
            self._open(self._handshakes.new_session(sid, checked, environ), transport)
        elif not checked.session.start_upgrade(transport, partial(self._registry.observers.on_upgrade, checked.session, environ)):
            transport.refuse(RequestRefused(ErrorCode.BAD_REQUEST))
        if connection.wait is not None:
            connection.wait()

    @property
    def _deflate(self) -> DeflateSettings | None:
        """How messages are compressed. What zlib keeps of earlier ones cannot move to another process."""
        options = self._registry.options
        settings = options.per_message_deflate
        return replace(settings, context_takeover=False) if settings is not None and options.handover else settings

    def _open(self, session: Session, transport: WebSocketTransport) -> None:
        try:
            self._registry.open(session, transport)
        except RequestRefused as refusal:
            transport.refuse(refusal)
            return
        transport.open()
        transport.flush()

    def _transport(self, connection: DetachedWebSocket, checked: CheckedRequest) -> WebSocketTransport:
        options = self._registry.options
        deflate, settings = connection.deflate, options.per_message_deflate
        inflater = None if deflate is None else Inflater(deflate, options.max_http_buffer_size)
        deflater = None if deflate is None else Deflater(deflate)
        decoder = FrameDecoder(options.max_http_buffer_size, inflate=inflater, masked=connection.masked)
        kind = transports[checked.transport]
        assert issubclass(kind, WebSocketTransport)
        return kind(connection.wire, self._registry.greenlets, decoder, checked.protocol, "b64" not in checked.query,
                    deflater, 0 if settings is None else settings.threshold, self._registry.observers.meter(checked.transport),
                    connection.subprotocol)


def _refuse(websocket: AnyWebSocket, start_response: StartResponse | None, answered: Response) -> Iterable[bytes]:
    """Send the response that a plain request would get. A WebSocket that was accepted already is closed instead."""
    if start_response is None or getattr(websocket, "accepted", True):
        close_accepted(websocket, 1008, answered.body.decode())
        return []
    start_response(answered.status, answered.headers)
    return [answered.body]
