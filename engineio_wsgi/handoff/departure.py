"""Giving a client's connection away in the state in which its request found it.

Owns the knowledge of how the loop that accepted a connection is left without a byte, a shutdown or an end of the stream. A
duplicate of the file descriptor is somewhere else by then, and the client must not notice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import quote, unquote

import gevent
from gevent import monkey
from geventwebsocket.websocket import WebSocket as PlainWebSocket

from engineio_wsgi.handoff.accepted_websocket import read_ahead
from engineio_wsgi.handoff.client_socket import client_socket
from engineio_wsgi.handoff.listening import accepted_by
from engineio_wsgi.handoff.server_loops import Release, loop_of
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.protocol.websocket.handshake import asks_for_websocket
from engineio_wsgi.runtime.connection import Connection, detach

__all__ = ["Departure", "departure_of", "forget_descriptor"]


#: what a loop that has to be told a status writes to its access log: the response is somebody else's
HANDED_OVER = "000 Handed over"
#: the head of a request whose environ is known
HANDSHAKE = b"GET / HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
#: what need not be escaped in a path
PATH_CHARACTERS = "/!$&'()*+,;=:@~"


class Departure(Protocol):
    """One connection that can leave, together with the request that has just been read from it."""

    #: the socket, gevent's or the C one; a TLS one is a TLS socket
    sock: Any
    #: whether its bytes are TLS's, whose state cannot leave the process
    secure: bool
    #: the client's address, as ``accept`` has returned it; empty if that is not known
    address: Any
    #: the names of the server that has accepted it, or empty ones
    listener: tuple[str, str]
    #: whether it is a WebSocket, whose handshake has been answered already
    accepted: bool

    def as_read(self) -> bytes:
        """The request, and what came behind it, as it was read from the connection. It stays where it is."""
        ...

    def leave(self) -> Connection:
        """Take the connection out of its loop. What :meth:`as_read` returned does not come out of it again."""
        ...

    def end(self, start_response: Callable[..., Any] | None) -> Iterable[bytes]:
        """Let the loop end, after :meth:`leave`: what to return to it, unless it has to be an exception."""
        ...


class _OwnDeparture:
    """From our own handler, which has kept the request's bytes."""

    accepted = False

    def __init__(self, handler: WebSocketHandler, request: bytes, listener: tuple[str, str]) -> None:
        self._handler = handler
        self.listener = listener
        self._request = request
        self.sock = handler.socket
        self.secure = getattr(handler.socket, "_sslobj", None) is not None
        # a Unix socket's client has none
        self.address = handler.client_address if isinstance(handler.client_address, tuple) else ""

    def as_read(self) -> bytes:
        """The request, and what came behind it."""
        return self._request

    def leave(self) -> Connection:
        """Take the connection out of its handler."""
        return self._handler.depart()

    def end(self, start_response: Callable[..., Any] | None) -> Iterable[bytes]:
        """The handler knows that there is nothing to send."""
        return []


class _LoopDeparture:
    """From gevent's and gunicorn's loops, which keep nothing of a request's head: it is written anew.

    That of a WebSocket's handshake is there for its form; what it says is in its environ, which goes beside it.
    """

    accepted = False

    def __init__(self, environ: dict[str, Any], loop: Release, head: bytes, listener: tuple[str, str]) -> None:
        self.listener = listener
        self._loop = loop
        self._head = head
        self.sock = client_socket(environ)
        self.secure = getattr(self.sock, "_sslobj", None) is not None
        accepted = accepted_by(environ)
        # not what a middleware has made of it
        self.address = accepted.address if accepted is not None and isinstance(accepted.address, tuple) else ""

    def as_read(self) -> bytes:
        """The request, and what came behind it."""
        return self._head + self._loop.read_ahead()

    def leave(self) -> Connection:
        """Take the connection out of its loop."""
        return self._loop.take()

    def end(self, start_response: Callable[..., Any] | None) -> Iterable[bytes]:
        """An exception ends the loop."""
        assert start_response is not None
        self._loop.end(HANDED_OVER, start_response)


class _AcceptedDeparture:
    """A WebSocket that gevent-websocket's own handler has accepted."""

    accepted = True
    listener = ("", "")

    def __init__(self, websocket: PlainWebSocket) -> None:
        self._websocket = websocket
        self._wire: Connection | None = None
        self.sock = websocket.handler.socket
        self.secure = getattr(self.sock, "_sslobj", None) is not None
        self.address = ""

    def as_read(self) -> bytes:
        """What came behind the handshake."""
        return read_ahead(self._websocket.handler.rfile, self.sock)

    def leave(self) -> Connection:
        """Take the connection out of its handler. Reads nothing: it would be read from the other worker's connection."""
        self._websocket.closed = True
        self._wire = Connection(detach(self.sock))
        return self._wire

    def end(self, start_response: Callable[..., Any] | None) -> Iterable[bytes]:
        """The handler sees a closed WebSocket. Blocks until a TLS connection is closed, whose state cannot leave the handler."""
        if self._wire is not None:
            self._wire.wait_closed()
        return []


def departure_of(environ: dict[str, Any], handler: WebSocketHandler | None, names: tuple[str, str]) -> Departure | None:
    """The way out for the connection of a request; ``None`` if it has to stay where it is.

    Args:
        handler: that has read the request, if it is one of ours.
        names: of the server that has accepted the connection; empty where it is not known.
    """
    if handler is not None:
        request = handler.request_as_read(environ)
        return None if request is None else _OwnDeparture(handler, request, names)
    websocket = environ.get("wsgi.websocket")
    if websocket is not None:
        return _AcceptedDeparture(websocket) if isinstance(websocket, PlainWebSocket) else None
    loop = loop_of(environ)
    if loop is None or not loop.untouched:
        return None
    head = HANDSHAKE if asks_for_websocket(environ) else write_head(environ)
    return None if head is None else _LoopDeparture(environ, loop, head, names)


def write_head(environ: Mapping[str, Any]) -> bytes | None:
    """The head of a request from what a server has made of it; ``None`` where that would not come to the same."""
    target = _target_of(environ)
    if target is None or "PROXY_PROTOCOL" in environ:
        return None
    lines = [f"{environ['REQUEST_METHOD']} {target} {environ['SERVER_PROTOCOL']}"]
    for key, value in environ.items():
        if key.startswith("HTTP_") and type(value) is str:
            lines.append(f"{key[5:].replace('_', '-').title()}: {value}")
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            lines.append(f"{key.replace('_', '-').title()}: {environ[key]}")
    if any(character in line for line in lines for character in "\r\n\0"):
        return None
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def _target_of(environ: Mapping[str, Any]) -> str | None:
    """The target of a request; ``None`` if its path has come by another way than the request line."""
    prefix, path = environ.get("SCRIPT_NAME", ""), environ["PATH_INFO"]
    if prefix not in ("", os.environ.get("SCRIPT_NAME")):
        return None
    target: str | None = environ.get("RAW_URI")
    if target is None:
        return f"{quote(prefix + path, safe=PATH_CHARACTERS, encoding='latin-1')}?{environ.get('QUERY_STRING', '')}"
    return target if unquote(target.partition("?")[0], encoding="latin-1") == prefix + path else None


def _epoll() -> Any:
    """What monkey-patching takes out of its module, and what other platforms do not have."""
    return monkey.get_original("select", "epoll")


def forget_descriptor(number: int) -> None:
    """Unregister a file descriptor, which is about to be closed, from the event loop's epoll.

    libev never does: it counts on the kernel, which forgets a file when its last descriptor is closed. Here another process
    has one, and the next event on it would have libev throw away its whole set and build it anew.
    """
    loop: Any = gevent.get_hub().loop
    if loop.backend != "epoll":
        return
    try:
        # the object would close the loop's own descriptor when it goes
        epoll = _epoll().fromfd(os.dup(loop.fileno()))
    except OSError:
        # no file can be opened. It costs time, and nothing else
        return
    try:
        epoll.unregister(number)
    except OSError:
        # it has not been registered, because nobody has waited for it yet
        return
    finally:
        epoll.close()
