"""The one way in which a client's connection is taken out of the server loop that has accepted it.

Owns the Protocol, and the choice of what implements it for a request. The implementations are in `server_loops`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from wsgiref.types import StartResponse, WSGIEnvironment

from gevent.socket import socket as GeventSocket

from engineio_wsgi.handoff.relayed_stream import RelayedStream
from engineio_wsgi.handoff.server_loops import OwnLoop, PlainWebSocketLoop, loop_of
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.runtime.connection import Connection
from engineio_wsgi.vendors.geventwebsocket_sockets import is_plain

__all__ = ["Detachable", "detachable_of"]


class Detachable(Protocol):
    """One connection in a server loop, with the request that the loop has read from it last.

    First :meth:`detach` it, then :meth:`end` its loop. In between, the caller may give the connection to another process; nothing
    that the loop does afterwards reaches the client.
    """

    #: names of the server that has accepted the connection; empty where they are not known
    listener: tuple[str, str]
    #: whether it is a WebSocket whose handshake has been answered already
    accepted: bool

    @property
    def sock(self) -> GeventSocket:
        """The socket: gevent's or the C one; of a TLS connection, the TLS socket."""
        ...

    @property
    def secure(self) -> bool:
        """Whether it is a TLS connection, whose state cannot leave the process."""
        ...

    @property
    def address(self) -> object:
        """The client's address as ``accept`` has returned it; empty where it is not known."""
        ...

    def as_read(self) -> bytes:
        """The request, and the bytes that the loop has read after it. They stay where they are. Does not block."""
        ...

    def detach(self, pending: bytes = b"") -> Connection:
        """Take the connection out of its loop, without sending anything. Does not block.

        Args:
            pending: bytes that are read first from the result; nothing else that was read before is.
        """
        ...

    def end(self, start_response: StartResponse | None) -> Iterable[bytes]:
        """End the loop, after :meth:`detach`. Blocks until a TLS connection is closed.

        Returns:
            What the application returns to its server.

        Raises:
            ConnectionDetached: the loop ends by an exception.
        """
        ...


def detachable_of(environ: WSGIEnvironment, handler: WebSocketHandler | None, names: tuple[str, str]) -> Detachable | None:
    """The connection of a request that can be given away together with the request; ``None`` if it has to stay where it is.

    Args:
        handler: that has read the request, if it is one of ours.
        names: of the server that has accepted the connection; empty where they are not known.
    """
    if handler is not None:
        request = handler.request_as_read(environ)
        return None if request is None else OwnLoop(handler, request, names)
    websocket = environ.get("wsgi.websocket")
    if websocket is not None:
        if isinstance(websocket, RelayedStream):
            return websocket
        return PlainWebSocketLoop(websocket) if is_plain(websocket) else None
    loop = loop_of(environ, names)
    return loop if loop is not None and loop.is_whole else None
