"""The roster of a server's open connections, by which it stops without cutting off a request.

Knows nothing of the engine, and nothing of where a connection comes from.
"""

from __future__ import annotations

from _socket import socket as CSocket
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import gevent
from gevent.event import Event

from engineio_wsgi.http.connection import HttpConnection
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.response_writer import ExceptionInfo
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.deadline import Deadline, DeadlineTimer

__all__ = ["ConnectionRoster", "GivenConnection", "RosteredHandler"]

#: seconds for which an idle connection is kept when its server stops: a client that sends a request so soon after connecting,
#: or after the last response, cannot know yet that the connection ends
KEPT_PERIOD = 1.0


#: keys of an environ that a server sets
LASTING = ("wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT")


class GivenConnection(NamedTuple):
    """A connection that was taken out of its server.

    Attributes:
        descriptor: belongs to whoever gets this.
        address: the client's, as ``accept`` has returned it.
        values: what the environs of its requests have in common.
    """

    descriptor: int
    address: object
    values: dict[str, object]


class ConnectionRoster:
    """The open HTTP connections of one server: those that wait for a request, and those whose request is being answered.

    A connection that became a session's WebSocket is not in it, except for a TLS connection.
    """

    def __init__(self) -> None:
        #: those that wait for a request, and since when (monotonic clock)
        self._idle: dict[RosteredHandler, float] = {}
        self._busy: set[RosteredHandler] = set()
        self._left = Event()
        #: whether each connection ends with its next response
        self.stopping = False
        self._kept_period = KEPT_PERIOD

    def __len__(self) -> int:
        return len(self._idle) + len(self._busy)

    def enter(self, handler: RosteredHandler) -> None:
        """A connection has been accepted, or waits for its next request."""
        self._busy.discard(handler)
        self._idle[handler] = monotonic()
        if self.stopping:
            self._end_after(self._kept_period, handler)

    def begin(self, handler: RosteredHandler) -> None:
        """A request has been read."""
        self._idle.pop(handler, None)
        self._busy.add(handler)

    def leave(self, handler: RosteredHandler) -> None:
        """A connection has ended."""
        self._idle.pop(handler, None)
        self._busy.discard(handler)
        self._left.set()

    def stop(self, timeout: float) -> None:
        """End each connection with its next response, or when it is idle. Does not block.

        A connection on which no request has begun is closed when it has been idle for :data:`KEPT_PERIOD`. A request that
        has arrived by then, even in part, is answered.

        Args:
            timeout: seconds that the server has to end. Connections are kept for half of it at most.
        """
        self.stopping = True
        self._kept_period = min(KEPT_PERIOD, timeout / 2)
        now = monotonic()
        for handler, since in list(self._idle.items()):
            self._end_after(since + self._kept_period - now, handler)

    def _end_after(self, seconds: float, handler: RosteredHandler) -> None:
        DeadlineTimer(gevent.get_hub().loop, seconds, self._end, handler)

    def _end(self, handler: RosteredHandler) -> None:
        if handler in self._idle:
            handler.hang_up()

    def give_away(self) -> Iterator[GivenConnection]:
        """Take out the connections that wait for a request and can go on in another process, one after the other."""
        for handler in list(self._idle):
            # others had their turn since the list was made
            given = handler.give_away() if handler in self._idle else None
            if given is not None:
                yield given

    def wait(self, timeout: float) -> bool:
        """Block until no connection is left; ``False`` when ``timeout`` seconds passed first."""
        deadline = Deadline(timeout)
        while len(self) and not deadline.has_passed():
            self._left.clear()
            self._left.wait(deadline.left)
        return not len(self)


class RosteredHandler(WebSocketHandler):
    """A handler whose server has a ``roster``, and can therefore be stopped gracefully."""

    #: the methods that it overrides have counterparts in it for the lane
    lane = True
    #: and none of them reads a request
    first_lane = True

    def handle(self) -> None:
        """Serve the connection until it ends. Blocks."""
        roster: ConnectionRoster = self.server.roster
        roster.enter(self)
        try:
            super().handle()
        finally:
            if not self.is_released:
                roster.leave(self)

    def begin_in_hub(self, sock: CSocket, start_greenlet: Callable[..., object]) -> None:
        """Serve the connection, without a greenlet as long as none is needed. Does not block."""
        self.server.roster.enter(self)
        super().begin_in_hub(sock, start_greenlet)

    def handle_one_response(self) -> None:
        """Answer one request."""
        roster: ConnectionRoster = self.server.roster
        roster.begin(self)
        super().handle_one_response()
        if roster.stopping:
            self.close_connection = True
        elif not self.close_connection:
            roster.enter(self)

    def start_response(self, status: str, headers: Sequence[tuple[str, str]],
                       exc_info: ExceptionInfo | None = None) -> Callable[[bytes], None]:
        """PEP 3333's ``start_response``; the server may have been told to stop while the application ran."""
        if self.server.roster.stopping:
            self.close_connection = True
        return super().start_response(status, headers, exc_info)

    @property
    def stopping(self) -> bool:
        """Whether the server stops."""
        return bool(self.server.roster.stopping)

    def on_lane_request(self) -> None:
        """A request has been read that goes over the lane."""
        self.server.roster.begin(self)

    def on_lane_response(self) -> None:
        """It has been answered."""
        if self.stopping:
            self.close_connection = True
        elif not self.close_connection:
            self.server.roster.enter(self)

    def _end_connection(self, connection: HttpConnection) -> None:
        """End the greenlet, when the client has received the last response. The connection does not count as idle meanwhile."""
        self.server.roster.begin(self)
        try:
            super()._end_connection(connection)
        finally:
            self.server.roster.leave(self)

    #: values that the environs of an adopted connection have; of another connection none
    origin: Mapping[str, object] = MappingProxyType({})

    @property
    def lasting_values(self) -> dict[str, object]:
        """What the environs of all requests of this connection have in common, beside what is the server's own."""
        environ = self.server.get_environ()
        return {**{key: environ[key] for key in LASTING if key in environ}, **self.origin}

    def give_away(self) -> GivenConnection | None:
        """Give the connection away, if it can go on in another process. It waits for a request."""
        number = self._connection.give_away()
        return None if number is None else GivenConnection(number, self.client_address, self.lasting_values)

    def hang_up(self) -> None:
        """End the wait for a request. A request that has arrived, even in part, is still answered."""
        self._connection.stop_waiting()
