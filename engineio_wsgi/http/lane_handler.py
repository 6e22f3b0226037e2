"""The handler's side of the lane: the loop over a connection's requests, with a greenlet and without one.

Owns the greenlet of a connection: it ends while a poll waits, and another one is started when the application has to be called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING

import gevent

from engineio_wsgi.http.access_log import is_silent
from engineio_wsgi.http.connection import HttpConnection
from engineio_wsgi.http.lane import HOOKS, Lane, keeps_lane
from engineio_wsgi.http.lane_ports import LaneEngine
from engineio_wsgi.http.request_head import HeadParser, RequestHead
from engineio_wsgi.http.response_writer import Responder

if TYPE_CHECKING:
    from _socket import socket as CSocket
    from wsgiref.types import WSGIEnvironment

    from gevent.socket import socket as GeventSocket

__all__ = ["LaneResponder", "begins_in_hub"]

#: what the request line of a session's request has
SESSION = b"sid="
#: whether accepted sockets have TCP_NODELAY from their listener
INHERITS = sys.platform == "linux"
#: methods that end with the connection, if a subclass overrides them
LIFE = frozenset(("_end_connection", "handle"))
#: methods that expect the gevent socket of a connection, if a subclass overrides them
BEGINNING = frozenset(("__init__",))
#: attributes of a handler that only a request needs; without them, one whose connection waits takes 2.5 KB less
OF_REQUEST = frozenset((
    "_detached", "_head", "_head_read", "_lent", "_orig_status", "_parser", "_request", "application", "close_connection", "code",
    "command", "content_length", "environ", "handed_off", "headers_sent", "path", "request_version", "requestline",
    "response_headers", "response_length", "result", "status", "time_finish", "time_start", "websocket", "wsgi_input",
))  # fmt: skip


def begins_in_hub(kind: type, log: object) -> bool:
    """Whether the connections of a server with handlers of a class, and a log, can begin without a greenlet."""
    return keeps_lane(kind, LaneResponder, HOOKS | LIFE | BEGINNING, "first_lane") and is_silent(log)


class LaneResponder(Responder):
    """The part of a handler that serves requests one after the other, over the lane where it can."""

    max_request_line: int
    max_header_size: int
    max_header_count: int
    header_timeout: float
    keepalive_timeout: float
    lane: bool

    #: from the bytes of a poll or POST to those of its answer, once one has been accepted
    _lane: Lane | None = None
    #: the bytes of the request's head
    _head_read = b""
    _parser: HeadParser
    #: ``None`` while the connection has none
    _socket: GeventSocket | None = None
    #: starts a greenlet for the connection
    _start_greenlet: Callable[..., object] = staticmethod(gevent.spawn)
    _request: RequestHead | None
    _is_logging: bool

    # -- of the handler

    def handle_one_request(self) -> bool:
        """Read a request and answer it. Returns whether another may follow on this connection."""
        raise NotImplementedError

    def _end_connection(self, connection: HttpConnection) -> None:
        raise NotImplementedError

    @property
    def socket(self) -> GeventSocket:
        """The connection's gevent socket, for applications."""
        if self._socket is None:
            self._socket = self._connection.regain()
        return self._socket

    # -- requests

    def _serve_requests(self, timeout: float) -> None:
        """Answer requests until the connection ends, or needs no greenlet any more. Blocks.

        Args:
            timeout: seconds in which the first one has to begin.
        """
        connection = self._connection
        if self._lane is None:
            self._lane = self._first_lane()
        while connection.fill(timeout) and self._serve_one():
            timeout = self.keepalive_timeout

    def _serve_one(self) -> bool:
        """Answer the request that has begun to arrive. Returns whether this greenlet has to wait for another one."""
        lane = self._lane
        if lane is not None and lane.serve():
            return not (self.close_connection or lane.let_go())
        connection = self._connection
        if connection.serves_session:
            if SESSION not in connection.buffer.partition(b"\r\n")[0]:
                # its turn came before others': the request may well be a handshake, and so they come first now
                connection.give_way()
            connection.prefer(False)
        if not self.handle_one_request():
            return False
        # an idle connection keeps only the headers of the last requests, to compare the next with them
        self.environ = self.response_headers = self._request = self._head = None
        self._head_read = b""
        return True

    def _leave_connection(self) -> None:
        """The greenlet ends: end the connection as well, unless it needs none."""
        lane = self._lane
        if lane is None or not lane.is_released:
            self._end_connection(self._connection)
            return
        lane.take_over()
        self._socket = None
        self.__dict__ = {name: value for name, value in self.__dict__.items() if name not in OF_REQUEST}

    # -- without a greenlet

    @property
    def _needs_greenlet(self) -> bool:
        """Whether the greenlet may not end before the connection: a pool counts it, or a subclass does something at its end."""
        return (getattr(self.server, "pool", None) is not None or not self._connection.can_be_released
                or not keeps_lane(type(self), LaneResponder, LIFE))

    @property
    def is_released(self) -> bool:
        """Whether no greenlet serves the connection now."""
        return self._lane is not None and self._lane.is_released

    def begin_in_hub(self, sock: CSocket, start_greenlet: Callable[..., object]) -> None:
        """Serve a new connection without a greenlet. Does not block.

        Args:
            sock: the connection's socket, which does not block.
            start_greenlet: starts one when the connection needs it, as ``gevent.spawn`` does.
        """
        self._start_greenlet = start_greenlet
        connection = self._connection = HttpConnection(sock)
        if not INHERITS:
            connection.no_delay()
        self._lane = lane = Lane(self, connection, self.server.lane_engine, False, False, True)
        lane.begin()

    def serve_in_greenlet(self) -> None:
        """Have a greenlet serve the connection from now on, until it needs none any more. Does not block."""
        self._connection.leave_alone()
        self._start_greenlet(self._serve_again)

    def _serve_again(self) -> None:
        lane = self._lane
        self._parser = HeadParser()
        try:
            if lane is not None:
                lane.settle()
            if not self.close_connection:
                self._serve_requests(self.keepalive_timeout)
        finally:
            self._leave_connection()

    def end_released(self) -> None:
        """End the connection, which no greenlet serves. Does not block."""
        self._end_connection(self._connection)

    # -- the lane

    def open_lane(self, engine: LaneEngine, environ: WSGIEnvironment, headers: list[tuple[str, str]]) -> None:
        """Serve later requests like the present one over the lane, unless a subclass has to see them.

        Args:
            engine: has accepted the present request.
            environ: of it.
            headers: the CORS headers of its response.
        """
        if self.close_connection or self._detached is not None or not keeps_lane(type(self), LaneResponder, HOOKS):
            return
        lane = self._lane
        if lane is None or not lane.leads_to(engine):
            lane = self._lane = Lane(self, self._connection, engine, self._logs_lane, self._needs_greenlet, False)
        if lane.note(self._head_read, environ, headers):
            # the lane compares the same bytes
            self._parser = HeadParser()

    def note_session(self) -> None:
        """The present request was a session's: serve the next one of this connection before those of others."""
        if self._detached is None:
            self._connection.prefer(True)

    def _first_lane(self) -> Lane | None:
        """The lane of a new connection, if its first request may go over it."""
        engine: LaneEngine | None = getattr(self.server, "lane_engine", None)
        if engine is None or self._logs_lane or not keeps_lane(type(self), LaneResponder, HOOKS, "first_lane"):
            return None
        return Lane(self, self._connection, engine, False, self._needs_greenlet, True)

    @property
    def _logs_lane(self) -> bool:
        """Whether the access log gets a line for each request over the lane."""
        return self._is_logging

    @property
    def stopping(self) -> bool:
        """Whether the connection ends with the next response over the lane, because the server stops."""
        return False

    def close_soon(self) -> None:
        """Let the connection end with the present request."""
        self.close_connection = True

    def on_lane_request(self) -> None:
        """A request has been read that goes over the lane."""

    def on_lane_response(self) -> None:
        """It has been answered."""

    def log_lane(self, line: str, began: float, size: int) -> None:
        """Write the access log's line of a request that went over the lane.

        Args:
            line: the request line.
            began: when the request had been read, as `time.time` says it.
            size: bytes of the response.
        """
        self.requestline, self.response_length = line, size
        self.status = self._orig_status = "200 OK"
        self.time_start, self.time_finish = began, time()
        self.log_request()
