"""Detaching the connection of a WebSocket that has been accepted by our handler, by gevent-websocket's, or by another library.

The result is always a `Connection` with WebSocket frames on it. A WebSocket of another library stays where it is, and its
messages are copied to a socket pair.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

import gevent
from gevent import socket as gevent_socket
from geventwebsocket.websocket import WebSocket as PlainWebSocket

from engineio_wsgi.errors import HandshakeRefused
from engineio_wsgi.handoff.server_loops import PlainWebSocketLoop
from engineio_wsgi.protocol.websocket.deflate import DeflateParameters, DeflateSettings
from engineio_wsgi.protocol.websocket.frames import Close, FrameDecoder, Violation, encode_binary, encode_close, encode_text
from engineio_wsgi.runtime.connection import RECV_SIZE, Connection, detach
from engineio_wsgi.runtime.forks import hold
from engineio_wsgi.vendors.geventwebsocket_sockets import is_plain
from engineio_wsgi.websocket.websocket import WebSocket

__all__ = ["AnyWebSocket", "DetachedWebSocket", "check_handshake", "close_accepted", "detach_websocket", "offered_subprotocols"]

logger = logging.getLogger("engine.ws")


class MessageWebSocket(Protocol):
    """A WebSocket of any library."""

    def receive(self) -> str | bytes | None:
        """The next message; ``None`` at the end. Blocks."""
        ...

    def send(self, message: str | bytes, *, binary: bool) -> object:
        """Send one message. May block."""
        ...

    def close(self, code: int, message: str, /) -> object:
        """Close the WebSocket with a code and a reason."""
        ...


#: what can be in an environ as ``wsgi.websocket``
AnyWebSocket: TypeAlias = WebSocket | MessageWebSocket


class DetachedWebSocket(NamedTuple):
    """The connection of a WebSocket, after it was detached.

    Attributes:
        wire: the connection.
        deflate: how messages are compressed; ``None`` if they are not.
        masked: whether its frames are masked, as a client's are.
        wait: blocks until the connection is closed; the former owner must not go on before. ``None`` if it may.
        subprotocol: the sub-protocol that was agreed on, if that is known.
    """

    wire: Connection
    deflate: DeflateParameters | None
    masked: bool
    wait: Callable[[], object] | None
    subprotocol: str | None = None


def check_handshake(websocket: object) -> None:
    """Refuse a WebSocket whose handshake is not valid. Other libraries have checked theirs.

    Raises:
        HandshakeRefused: the handshake is not valid.
    """
    refusal = websocket.refusal if isinstance(websocket, WebSocket) else None
    if refusal is not None:
        # a new one: the WebSocket keeps its own, which would keep the frames of this request alive
        raise HandshakeRefused(refusal.status, refusal.detail, refusal.headers)


def offered_subprotocols(websocket: object) -> tuple[str, ...]:
    """The sub-protocols that the client offers; none once the handshake has been answered."""
    return websocket.offered_protocols if isinstance(websocket, WebSocket) and not websocket.accepted else ()


def detach_websocket(websocket: AnyWebSocket, headers: list[tuple[str, str]], deflate: DeflateSettings | None,
                     subprotocol: str | None = None, more: bool = False) -> DetachedWebSocket:
    """Detach the connection of a WebSocket, which cannot be used afterwards. Does not block.

    Args:
        headers: more headers for the handshake's response, if it has not been sent yet.
        deflate: how to compress, if that has not been negotiated yet; ``None`` for not at all.
        subprotocol: one of those that the client offers, if the handshake's response has not been sent yet.
        more: whether the caller writes something at once.

    Raises:
        OSError: the client has gone.
    """
    if isinstance(websocket, WebSocket):
        wire, parameters = websocket.detach(headers, deflate, subprotocol, more)
        return DetachedWebSocket(wire, parameters, True, None, websocket.agreed_protocol)
    if is_plain(websocket):
        return _detach_plain(websocket)
    return _pump(websocket)


def close_accepted(websocket: AnyWebSocket, code: int, reason: str) -> None:
    """Close a WebSocket whose handshake has been answered, with any close code: gevent-websocket's own ``close`` sends few.

    Blocks until a TLS connection is closed.
    """
    connection = detach_websocket(websocket, [], None)
    try:
        connection.wire.write(encode_close(code, reason))
    except OSError:
        connection.wire.close()
    connection.wire.linger()
    if connection.wait is not None:
        connection.wait()


def _detach_plain(websocket: PlainWebSocket) -> DetachedWebSocket:
    """Detach the connection of gevent-websocket's WebSocket, with what its reader has read ahead."""
    loop = PlainWebSocketLoop(websocket)
    connection = loop.detach(loop.as_read())
    return DetachedWebSocket(connection, None, True, loop.end if connection.secure else None)


def _pump(websocket: MessageWebSocket) -> DetachedWebSocket:
    """Copy the messages of a WebSocket to frames on a socket pair, and back.

    The pair costs two more copies per message, so that sessions have one kind of connection only.
    """
    near, far = gevent_socket.socketpair()
    hold(far)
    sender = gevent.spawn(_pump_out, websocket, far)
    return DetachedWebSocket(Connection(detach(near)), None, False, lambda: _pump_in(websocket, far, sender))


def _pump_in(websocket: MessageWebSocket, far: gevent_socket.socket, sender: gevent.Greenlet) -> None:
    """From the WebSocket to the session, in the greenlet that has accepted the WebSocket, until either ends."""
    try:
        while (message := websocket.receive()) is not None:
            far.sendall(encode_text(message) if isinstance(message, str) else encode_binary(bytes(message)))
        far.sendall(encode_close(1000, ""))
        far.shutdown(gevent_socket.SHUT_WR)
    except Exception as error:
        # another library may raise anything at the end of a WebSocket
        logger.debug("= a WebSocket of another library ended: %s", error)
        far.shutdown(gevent_socket.SHUT_WR)
    sender.join()


def _pump_out(websocket: MessageWebSocket, far: gevent_socket.socket) -> None:
    """From the session to the WebSocket."""
    decoder = FrameDecoder(1 << 62, masked=False)
    with far:
        while data := far.recv(RECV_SIZE):
            for item in decoder.feed(data):
                if isinstance(item, (str, bytes)):
                    websocket.send(item, binary=isinstance(item, bytes))
                elif isinstance(item, (Close, Violation)):
                    websocket.close(item.code or 1000, item.reason)
                    return
