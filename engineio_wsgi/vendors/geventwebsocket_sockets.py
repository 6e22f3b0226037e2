"""What is inside gevent-websocket's ``WebSocket``.

Relies on: ``WebSocket.handler``, whose ``socket`` and ``rfile`` are the connection; ``WebSocket.closed``, which keeps ``close``
from writing.
"""

from __future__ import annotations

from io import BufferedReader
from typing import TypeGuard

from gevent.socket import socket as GeventSocket
from geventwebsocket.websocket import WebSocket

__all__ = ["is_plain", "mark_closed", "reader_of", "socket_of"]


def is_plain(websocket: object) -> TypeGuard[WebSocket]:
    """Whether a WebSocket is gevent-websocket's own."""
    return isinstance(websocket, WebSocket)


def socket_of(websocket: WebSocket) -> GeventSocket:
    """The socket of its connection."""
    return websocket.handler.socket


def reader_of(websocket: WebSocket) -> BufferedReader:
    """The buffered reader over that socket."""
    reader: BufferedReader = websocket.handler.rfile
    return reader


def mark_closed(websocket: WebSocket) -> None:
    """Make its own ``close`` do nothing, because the connection has been detached."""
    websocket.closed = True
