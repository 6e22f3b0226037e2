"""Getting hold of an accepted WebSocket's connection, whoever accepted it.

Owns the knowledge of how this package's handler, gevent-websocket's handler, and objects that are merely shaped like
its `WebSocket` let go of a connection. What comes out is always a `Connection` with frames on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

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

__all__ = ["DetachedWebSocket", "check_handshake", "close_accepted", "detach_websocket", "offered_subprotocols"]

logger = logging.getLogger("engine.ws")


class DetachedWebSocket(NamedTuple):
    """A WebSocket's connection after it was taken over.

    ``masked`` says whether its frames are a client's; ``wait`` blocks until the connection is closed where its former
    owner must not go on before, else it is ``None``. ``subprotocol`` is what was agreed on, where that is known.
    """

    wire: Connection
    deflate: DeflateParameters | None
    masked: bool
    wait: Callable[[], object] | None
    subprotocol: str | None = None


def check_handshake(websocket: Any) -> None:
    """Refuse a WebSocket whose handshake is not a valid one.

    Raises:
        HandshakeRefused: so it is; those that were accepted already are not looked at.
    """
    refusal = websocket.refusal if isinstance(websocket, WebSocket) else None
    if refusal is not None:
        # a new one: the WebSocket keeps its own, which would keep the frames of this request alive
        raise HandshakeRefused(refusal.status, refusal.detail, refusal.headers)


def offered_subprotocols(websocket: Any) -> tuple[str, ...]:
    """What the client offers, as long as an answer can still choose of it."""
    return websocket.offered_protocols if isinstance(websocket, WebSocket) and not websocket.accepted else ()


def detach_websocket(websocket: Any, headers: list[tuple[str, str]], deflate: DeflateSettings | None,
                     subprotocol: str | None = None) -> DetachedWebSocket:
    """Take the connection out of a WebSocket, which is of no use afterwards. Does not block.

    Args:
        headers: for the handshake's response, if it has not been sent yet.
        deflate: the ``Deflate`` option to negotiate with, if it has not been negotiated yet.
        subprotocol: one of those that the client offers, if the handshake's response has not been sent yet.

    Raises:
        OSError: the client has gone.
    """
    if isinstance(websocket, WebSocket):
        wire, parameters = websocket.detach(headers, deflate, subprotocol)
        return DetachedWebSocket(wire, parameters, True, None, websocket.agreed_protocol)
    if is_plain(websocket):
        return _detach_plain(websocket)
    return _pump(websocket)


def close_accepted(websocket: Any, code: int, reason: str) -> None:
    """Close a WebSocket that somebody else has accepted already, with a code that gevent-websocket would not send."""
    connection = detach_websocket(websocket, [], None)
    try:
        connection.wire.write(encode_close(code, reason))
    except OSError:
        connection.wire.close()
    connection.wire.linger()
    if connection.wait is not None:
        connection.wait()


def _detach_plain(websocket: PlainWebSocket) -> DetachedWebSocket:
    """gevent-websocket's own."""
    loop = PlainWebSocketLoop(websocket)
    connection = loop.detach(loop.as_read())
    return DetachedWebSocket(connection, None, True, loop.end if connection.secure else None)


def _pump(websocket: Any) -> DetachedWebSocket:
    """Anything with ``receive``, ``send`` and ``close``: its messages become frames on a socket pair.

    The pair costs two more copies a message, and in exchange sessions know one kind of connection only.
    """
    near, far = gevent_socket.socketpair()
    hold(far)
    sender = gevent.spawn(_pump_out, websocket, far)
    return DetachedWebSocket(Connection(detach(near)), None, False, lambda: _pump_in(websocket, far, sender))


def _pump_in(websocket: Any, far: Any, sender: gevent.Greenlet) -> None:
    """From the WebSocket to the session, in the greenlet of whoever accepted it, until either ends."""
    try:
        while (message := websocket.receive()) is not None:
            far.sendall(encode_text(message) if isinstance(message, str) else encode_binary(bytes(message)))
        far.sendall(encode_close(1000, ""))
        far.shutdown(gevent_socket.SHUT_WR)
    except Exception as error:
        # which exceptions a foreign WebSocket ends with is its own affair
        logger.debug("= a foreign WebSocket ended: %s", error)
        far.shutdown(gevent_socket.SHUT_WR)
    sender.join()


def _pump_out(websocket: Any, far: Any) -> None:
    """From the session to the WebSocket."""
    decoder = FrameDecoder(1 << 62, masked=False)
    with far:
        while data := far.recv(RECV_SIZE):
            for item in decoder.feed(data):
                if isinstance(item, (Close, Violation)):
                    websocket.close(item.code or 1000, item.reason)
                    return
                websocket.send(item, binary=isinstance(item, bytes))
