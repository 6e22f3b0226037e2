"""What is inside gevent's servers, their handlers and their pools.

Relies on: the arguments of a ``BaseServer``'s greenlets; ``pywsgi.Input`` (``rfile``, ``position``, ``chunked_input``,
``content_length``); ``WSGIHandler._log_error``; ``pywsgi._NoopLog``; ``Pool._semaphore`` and ``Pool._discard``; ``_sock`` of the
standard library's ``SocketIO``, from which pywsgi reads.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BufferedReader
from types import TracebackType
from typing import Any

from gevent import Greenlet
from gevent.pool import Group, Pool
from gevent.pywsgi import Input, WSGIHandler
from gevent.server import StreamServer
from gevent.socket import socket as GeventSocket

__all__ = [
    "PlacePool",
    "accepted_in",
    "buffered_reader",
    "discards_lines",
    "is_pywsgi_input",
    "is_untouched",
    "log_failure",
    "reader_socket",
    "skip_body",
]

#: how gevent's WSGI server, and gunicorn's gevent workers, begin to name themselves in ``SERVER_SOFTWARE``
PYWSGI = "gevent/"


def buffered_reader(body: object) -> Any:  # the reader of `pywsgi.Input`, which has no types
    """A connection's buffered reader, which pywsgi keeps in ``wsgi.input``; for an upgrade, it is ``wsgi.input`` itself."""
    return getattr(body, "rfile", body)


def reader_socket(reader: object) -> GeventSocket | None:
    """The socket that a buffered reader reads from; ``None`` if it reads from something else."""
    return getattr(getattr(reader, "raw", None), "_sock", None)


def is_pywsgi_input(body: object, software: str) -> bool:
    """Whether a ``wsgi.input`` is pywsgi's. For an upgrade it is a plain reader, as werkzeug's and wsgiref's always are."""
    return type(body) is Input or (type(body) is BufferedReader and software.startswith(PYWSGI))


def is_untouched(body: Any) -> bool:  # `pywsgi.Input`, which has no types, or anything else
    """Whether nothing of a request's body has been read, and the body is not in chunks."""
    return type(body) is not Input or not (body.position or body.chunked_input)


def skip_body(body: Any) -> None:  # the same
    """Keep pywsgi from reading the rest of a request's body in order to discard it."""
    if type(body) is Input:
        body.content_length = body.position


def accepted_in(greenlet: object) -> tuple[StreamServer, GeventSocket, object] | None:
    """The server that started a greenlet with a connection, the connection's socket, and the client's address.

    gevent's servers spawn ``_handle_and_close_when_done(handle, close, (sock, address))``; ``close`` is the server's method.
    """
    if not isinstance(greenlet, Greenlet):
        return None
    match greenlet.args:
        case (_, close, (sock, address, *_)):
            server = getattr(close, "__self__", None)
            return (server, sock, address) if isinstance(server, StreamServer) else None
    return None


def log_failure(handler: WSGIHandler, kind: type[BaseException] | None, value: BaseException | None,
                traceback: TracebackType | None) -> None:
    """Report an exception of the application as pywsgi does: with its traceback and the environ."""
    handler._log_error(kind, value, traceback)


def discards_lines(log: object) -> bool:
    """Whether a server's log is what pywsgi makes of ``log=None``."""
    return type(log).__name__ == "_NoopLog"


class PlacePool(Pool):  # type: ignore[misc]  # gevent has no types
    """gevent's pool, in which a place can outlive the greenlet that has taken it.

    Args:
        size: number of places.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        #: places that are taken, and whose greenlets have ended
        self.kept = 0
        #: greenlets whose places are to be kept
        self._keepers: set[Greenlet] = set()

    def keep(self, greenlet: Greenlet) -> Callable[[], None]:
        """Keep the place of a greenlet of this pool beyond its end. Returns the function that gives the place back."""
        self._keepers.add(greenlet)

        def give_back() -> None:
            if greenlet in self._keepers:
                self._keepers.discard(greenlet)
            else:
                self.kept -= 1
                self._semaphore.release()

        return give_back

    def take(self) -> Callable[[], None]:
        """Take a place without a greenlet, also if there is none. Returns the function that gives the place back."""
        has_place = self._semaphore.acquire(blocking=False)
        self.kept += 1

        def give_back() -> None:
            self.kept -= 1
            if has_place:
                self._semaphore.release()

        return give_back

    def _discard(self, greenlet: Greenlet) -> None:
        """What gevent calls when a greenlet ends."""
        if greenlet in self._keepers:
            self._keepers.discard(greenlet)
            self.kept += 1
            Group._discard(self, greenlet)
        else:
            super()._discard(greenlet)

    def free_count(self) -> int:
        """Number of places that are free."""
        return max(0, int(self.size) - len(self) - self.kept)
