"""Giving a client's connection away in the state in which its request found it.

Owns the knowledge of how the loop that accepted a connection is left without a byte, a shutdown or an end of the stream. A
duplicate of the file descriptor is somewhere else by then, and the client must not notice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import quote

import gevent
from gevent import monkey
from gevent.event import Event
from geventwebsocket.websocket import WebSocket as PlainWebSocket

from engineio_wsgi.handler import WebSocketHandler
from engineio_wsgi.http.peer import client_socket
from engineio_wsgi.http.release import Release, loop_of
from engineio_wsgi.http.takeover import read_ahead
from engineio_wsgi.wire import Wire, detach

__all__ = ["Departure", "departure_of", "forget_descriptor"]


#: what a loop that has to be told a status writes to its access log: the response is somebody else's
HANDED_OVER = "000 Handed over"


class Departure(Protocol):
    """One connection that can leave, together with the request that has just been read from it."""

    #: the socket, gevent's or the C one; a TLS one is a TLS socket
    sock: Any
    #: whether its bytes are TLS's, whose state cannot leave the process
    secure: bool
    #: the client's address, as ``accept`` has returned it
    address: Any
    #: the environ of a WebSocket handshake that has been answered already
    accepted: dict[str, str] | None

    def as_read(self) -> bytes:
        """The request, and what came behind it, as it was read from the connection. It stays where it is."""
        ...

    def leave(self) -> Wire:
        """Take the connection out of its loop. What :meth:`as_read` returned does not come out of it again."""
        ...

    def end(self, start_response: Callable[..., Any] | None) -> Iterable[bytes]:
        """Let the loop end, after :meth:`leave`: what to return to it, unless it has to be an exception."""
        ...


class _OwnDeparture:
    """From our own handler, which has kept the request's bytes."""

    accepted: dict[str, str] | None = None

    def __init__(self, handler: WebSocketHandler, request: bytes) -> None:
        self._handler = handler
        self._request = request
        self.sock = handler.socket
        self.secure = getattr(handler.socket, "_sslobj", None) is not None
        # a Unix socket's client has none
        self.address = handler.client_address if isinstance(handler.client_address, tuple) else ""

    def as_read(self) -> bytes:
        """The request, and what came behind it."""
        return self._request

    def leave(self) -> Wire:
        """Take the connection out of its handler."""
        return self._handler.depart()

    def end(self, start_response: Callable[..., Any] | None) -> Iterable[bytes]:
        """The handler knows that there is nothing to send."""
        return []


class _LoopDeparture:
    """From gevent's and gunicorn's loops, which keep nothing of a request's head: it is written anew."""

    accepted: dict[str, str] | None = None

    def __init__(self, environ: dict[str, Any], loop: Release, head: bytes) -> None:
        self._loop = loop
        self._head = head
        self.sock = client_socket(environ)
        self.secure = getattr(self.sock, "_sslobj", None) is not None
        port = environ.get("REMOTE_PORT") or "0"
        self.address = (environ.get("REMOTE_ADDR") or "", int(port) if port.isdigit() else 0)

    def as_read(self) -> bytes:
        """The request, and what came behind it."""
        return self._head + self._loop.read_ahead()

    def leave(self) -> Wire:
        """Take the connection out of its loop."""
        return self._loop.take()

    def end(self, start_response: Callable[..., Any] | None) -> Iterable[bytes]:
        """An exception ends the loop."""
        assert start_response is not None
        self._loop.end(HANDED_OVER, start_response)


class _AcceptedDeparture:
    """A WebSocket that gevent-websocket's own handler has accepted."""

    def __init__(self, environ: dict[str, Any], websocket: PlainWebSocket) -> None:
        self._websocket = websocket
        self._wire: Wire | None = None
        self.sock = websocket.handler.socket
        self.secure = getattr(self.sock, "_sslobj", None) is not None
        self.address = ""
        self.accepted: dict[str, str] | None = {key: value for key, value in environ.items() if type(value) is str}

    def as_read(self) -> bytes:
        """What came behind the handshake."""
        return read_ahead(self._websocket.handler.rfile, self.sock)

    def leave(self) -> Wire:
        """Take the connection out of its handler. Reads nothing: it would be read from the other worker's connection."""
        self._websocket.closed = True
        self._wire = Wire(detach(self.sock))
        return self._wire

    def end(self, start_response: Callable[..., Any] | None) -> Iterable[bytes]:
        """The handler sees a closed WebSocket. Blocks until a TLS connection is closed, whose state cannot leave the handler."""
        if self._wire is not None and not self._wire.closed:
            closed = Event()
            self._wire.on_closed(closed.set)
            closed.wait()
        return []


def departure_of(environ: dict[str, Any], handler: WebSocketHandler | None) -> Departure | None:
    """The way out for the connection of a request; ``None`` if it has to stay where it is."""
    if handler is not None:
        request = handler.request_as_read(environ)
        return None if request is None else _OwnDeparture(handler, request)
    websocket = environ.get("wsgi.websocket")
    if websocket is not None:
        return _AcceptedDeparture(environ, websocket) if isinstance(websocket, PlainWebSocket) else None
    loop = loop_of(environ)
    if loop is None or not loop.untouched:
        return None
    head = write_head(environ)
    return None if head is None else _LoopDeparture(environ, loop, head)


def write_head(environ: Mapping[str, Any]) -> bytes | None:
    """The head of a request from what has become of it; ``None`` where that would not come to the same."""
    if environ.get("SCRIPT_NAME"):
        # whoever has taken this off the path would have to do so again
        return None
    target = quote(environ["PATH_INFO"], safe="/!$&'()*+,;=:@~", encoding="latin-1")
    lines = [f"{environ['REQUEST_METHOD']} {target}?{environ.get('QUERY_STRING', '')} {environ['SERVER_PROTOCOL']}"]
    for key, value in environ.items():
        if key.startswith("HTTP_") and type(value) is str:
            lines.append(f"{key[5:].replace('_', '-').title()}: {value}")
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            lines.append(f"{key.replace('_', '-').title()}: {environ[key]}")
    if any(character in line for line in lines for character in "\r\n\0"):
        return None
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


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
