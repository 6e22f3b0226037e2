"""The client's socket behind a WSGI request, and watching it for the end of the connection. Never reads from it."""

from __future__ import annotations

import _socket
from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIEnvironment

import gevent
from gevent.event import Event

from engineio_wsgi.runtime.loop import Watcher
from engineio_wsgi.vendors.django_servers import reader_behind
from engineio_wsgi.vendors.gevent_servers import buffered_reader, reader_socket
from engineio_wsgi.vendors.gevent_sockets import c_socket, is_tls

__all__ = ["ENDED", "EndWatch", "client_socket", "primed"]

READ = 1
#: key in an environ, for a client that is connected to another machine: a gevent event that is set when the client has gone
ENDED = "engineio.ended"
#: the first bytes of a TLS alert: of its own type (TLS 1.2), or encrypted, as application data of a certain size (TLS 1.3,
#: RFC 8446 section 5.2: 2 bytes, their type, and a 16-byte tag)
TLS_ALERTS = (b"\x15\x03", b"\x17\x03")
TLS13_ALERT_SIZE = 19


def client_socket(environ: WSGIEnvironment) -> Any:  # of gevent or any other library
    """The socket that a request came on; ``None`` if the server does not show it."""
    for key in ("engineio.socket", "gunicorn.socket", "gunicorn.sock"):
        if environ.get(key) is not None:
            return environ[key]
    return reader_socket(reader_behind(buffered_reader(environ.get("wsgi.input"))))


def primed(sock: object) -> bytes:
    """The bytes of a `PrimedSocket` that have not been received yet; none of any other socket."""
    data: bytes = getattr(sock, "primed", b"")
    return data


class EndWatch:
    """Calls ``on_end()`` in the hub when the client of a waiting request closes or resets its connection.

    If the socket cannot be found, nothing is watched, and only the heartbeat ends the session. If the client is connected to
    another machine, the environ has an event under :data:`ENDED`.

    Args:
        environ: of the request.
        on_end: called once; must not block.
    """

    __slots__ = ("_ended", "_on_end", "_socket", "_tls", "_watcher")

    def __init__(self, environ: WSGIEnvironment, on_end: Callable[[], object]) -> None:
        self._on_end = on_end
        self._watcher: Watcher | None = None
        self._ended: Event | None = environ.get(ENDED)
        if self._ended is not None:
            self._ended.rawlink(self._on_ended)
            return
        sock = client_socket(environ)
        self._socket = c_socket(sock)
        self._tls = is_tls(sock)
        number = -1 if sock is None else sock.fileno()
        if number >= 0:
            self._watcher = gevent.get_hub().loop.io(number, READ)
            self._watcher.start(self._on_readable)

    def _on_ended(self, _: Event) -> None:
        self.stop()
        self._on_end()

    def _on_readable(self) -> None:
        try:
            head = _socket.socket.recv(self._socket, 5, _socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            head = b""
        # bytes are the next request, which waits for this one
        self.stop()
        if not head or (self._tls and _is_tls_alert(head)):
            self._on_end()

    def stop(self) -> None:
        """Stop watching; harmless if repeated."""
        if self._ended is not None:
            self._ended.unlink(self._on_ended)
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None


def _is_tls_alert(head: bytes) -> bool:
    if head[:2] == TLS_ALERTS[0]:
        return True
    return head[:2] == TLS_ALERTS[1] and int.from_bytes(head[3:5]) == TLS13_ALERT_SIZE
