"""Receives connections and requests of this worker's sessions from other workers.

Owns the adopted connections, their limit and their end. Knows nothing of how the other worker found this one.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol
from wsgiref.types import WSGIEnvironment

import gevent
from gevent.socket import socket as GeventSocket

from engineio_wsgi.cluster.carriers import headers_of, unpack_headers
from engineio_wsgi.cluster.handover.process import process
from engineio_wsgi.cluster.listeners import Listeners, OwnListener
from engineio_wsgi.cluster.messages import Call, Kind, Message, MovedConnection, Refusal, Request, write_answer, write_result
from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.errors import BadMessage
from engineio_wsgi.handoff.adopter import Adopter, ConnectionAdopter
from engineio_wsgi.http.response import Response
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.log import Throttle
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.runtime.forks import serve
from engineio_wsgi.websocket.websocket import WebSocket

__all__ = ["TRACE", "Counters", "Exchange", "Receiver"]

logger = logging.getLogger("engine.cluster")

#: options that must be the same in both workers, because the forwarding worker applies them as well: they set the timeout of an
#: answer, and the limit of a body
SHARED_OPTIONS = ("ping_interval", "ping_timeout", "max_http_buffer_size")
#: key of what a moved connection's requests have in their environs: the headers that continue a trace. It is taken out here
TRACE = "engineio.trace"
#: seconds for which a request may wait until its session has moved, before it is taken and waits here: far fewer than the other
#: worker waits until it is taken
GATE_PATIENCE = 1.0
#: seconds between two checks whether all requests have been answered
LOOK_PERIOD = 0.01
#: seconds that idle connections have at least to close
MOMENT = 0.1


class Exchange(Protocol):
    """The way in which something came from another worker, and in which the reply goes back."""

    @property
    def client(self) -> Mapping[str, object]:
        """The part of a request's environ by which an `EndWatch` notices that the client has left the other worker."""
        ...

    def confirm(self) -> object:
        """Tell the other worker that its request will be answered."""
        ...

    def take_connection(self) -> int | None:
        """Tell the other worker that its connection is taken. Returns its file descriptor; ``None`` if there is none left."""
        ...

    def finish(self, message: Message) -> object:
        """Send the last message."""
        ...


Event = Literal["handed_over", "relayed", "adopted", "answered", "failed"]


@dataclass
class Counters:
    """Counts of events since the process began."""

    #: connections handed over to the workers of their sessions
    handed_over: int = 0
    #: requests relayed to the workers of their sessions
    relayed: int = 0
    #: connections received from other workers
    adopted: int = 0
    #: requests answered for other workers
    answered: int = 0
    #: requests whose session's worker did not take them, so that they got code 1
    failed: int = 0

    def add(self, event: Event) -> None:
        """Count one more."""
        setattr(self, event, getattr(self, event) + 1)


class Receiver:
    """Takes connections, requests and calls from other workers.

    Args:
        worker: this process as a worker.
        group: of workers that serve each other's sessions.
        counters: count them.
        perform: carries out a call that was sent to a name of this worker, and returns how many sessions it concerned. May block
            while a client's write buffer is full.
        whereabouts: returns the refusal for a session that this worker does not have.
    """

    def __init__(self, worker: Worker, group: str, counters: Counters, perform: Callable[[Call, bytes, str], int | Refusal],
                 whereabouts: Callable[[str], Refusal]) -> None:
        self._worker = worker
        self._whereabouts = whereabouts
        self._perform = perform
        self._group = group
        #: the configuration that other workers must share to send requests here
        self.fingerprint = " ".join([group, *[f"{name}={getattr(worker.options, name)}" for name in SHARED_OPTIONS]])
        self._throttle = Throttle()
        self._counters = counters
        #: requests of other workers that are under way
        self._answering = 0
        #: the servers of this process that have received a request
        self.listeners = Listeners(worker)
        #: serves connections that become WebSockets, if their server has another handler than ours
        self._upgrader = Adopter(worker.handle_request)

    @property
    def _adopters(self) -> list[ConnectionAdopter]:
        return [self._upgrader, *self.listeners.adopters]

    @property
    def adopted(self) -> int:
        """How many connections from other workers our handler serves, without the WebSockets of sessions."""
        return sum(len(adopter.roster) for adopter in self._adopters)

    def receive(self, exchange: Exchange, message: Message, name: str = "") -> None:
        """Take a connection, request or call from another worker. Blocks until it has been served.

        Args:
            exchange: with that worker.
            message: the first one.
            name: of this worker, to which it was sent; empty for the first one.

        Raises:
            OSError, OwnerGone: the other worker has ended the exchange.
            BadMessage: an exchange does not begin with such a message.
        """
        if message.kind is Kind.CONNECTION:
            self._take_connection(exchange, MovedConnection.of(message), message.body)
        elif message.kind is Kind.REQUEST:
            self._take_request(exchange, Request.of(message), message.body)
        elif message.kind is Kind.CALL:
            self._take_call(exchange, Call.of(message), message.body, name)
        else:
            raise BadMessage(f"expected CONNECTION, REQUEST or CALL, got {message.kind.name}")

    def _refusal(self, fingerprint: str, sid: str) -> Refusal | None:
        """Why requests for a session cannot be taken here; ``None`` if they can."""
        if fingerprint != self.fingerprint:
            if self._throttle.passes(fingerprint, monotonic()):
                logger.warning("requests of a worker with other options are refused: it has %.300r, this one %r; "
                               "workers that serve each other's sessions need the same", fingerprint, self.fingerprint)
            return Refusal.OTHER_CONFIGURATION
        if not sid:
            # the other worker leaves, so sessions are opened here
            return None
        if self._worker.gate is not None:
            # if the session moves soon, the other worker can send the request to where it is then
            self._worker.gate.wait_for(sid, GATE_PATIENCE)
        return None if sid in self._worker.clients else self._whereabouts(sid)

    # -- connections

    def _take_connection(self, exchange: Exchange, connection: MovedConnection, read_ahead: bytes) -> None:
        refusal = self._refusal(connection.fingerprint, connection.sid)
        if refusal is None and self._has_room(connection):
            number = exchange.take_connection()
            if number is not None:
                self._serve(number, connection, read_ahead)
                return
        exchange.finish((refusal or self._lack_of_room(connection)).message())

    def _lack_of_room(self, connection: MovedConnection) -> Refusal:
        """Why a connection cannot be served. An upgrade waits until its session has moved to where it can."""
        is_moving = connection.handshake is not None and process.leaving and self._worker.gate is not None
        return Refusal.MOVED if is_moving else Refusal.FULL

    def _has_room(self, connection: MovedConnection) -> bool:
        listener = self.listeners.find(connection.listener)
        if connection.accepted:
            return True
        if connection.handshake is not None:
            # also of a server that accepts nothing more: the session is still here
            return listener is None or (listener.serves and not (listener.counts_websockets and listener.crowded))
        return listener is not None and listener.moves and not listener.full

    def _serve(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        """Serve a connection, whose file descriptor belongs to this object now. Blocks only while the server's pool is full."""
        self._counters.add("adopted")
        origin = dict(connection.origin)
        trace, observers = origin.pop(TRACE, ""), self._worker.observers
        connection = connection._replace(origin=origin)
        if trace and observers.of_hops:
            with observers.arriving("hand_over", unpack_headers(trace)):
                self._adopt(number, connection, read_ahead)
        else:
            self._adopt(number, connection, read_ahead)

    def _adopt(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        listener = self.listeners.find(connection.listener)
        if connection.accepted:
            gevent.spawn(self._serve_websocket, number, connection, read_ahead)
        elif connection.handshake is not None:
            adopter = listener.adopter if isinstance(listener, OwnListener) else self._upgrader
            # the middlewares outside of the engine have seen the request in the other worker
            adopter.adopt(number, connection.address, read_ahead=read_ahead, environ=connection.handshake,
                          instead=self._worker.handle_request)
        elif listener is not None:
            listener.adopt(number, connection, read_ahead)
        else:
            # the server has stopped since
            os.close(number)

    def _serve_websocket(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        """Serve a WebSocket whose handshake was answered without extensions."""
        environ = _environ_of(connection.handshake or {})
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        sock = GeventSocket(fileno=number)
        serve(sock)
        stream = Connection(detach(sock), read_ahead)
        websocket = WebSocket(environ, lambda head, more: stream)
        websocket.accept()
        self._worker.handle_upgrade(environ, websocket)

    # -- requests

    def _take_request(self, exchange: Exchange, request: Request, body: bytes) -> None:
        refusal = self._refusal(request.fingerprint, request.sid)
        if refusal is not None:
            exchange.finish(refusal.message())
            return
        exchange.confirm()
        self._answering += 1
        try:
            exchange.finish(write_answer(self._answer(_environ_of(request.environ, body, exchange.client))))
        finally:
            self._answering -= 1

    def _answer(self, environ: WSGIEnvironment) -> Response:
        """The answer of the engine. Blocks as long as a poll has to wait."""
        self._counters.add("answered")
        observers = self._worker.observers
        try:
            if observers.of_hops:
                with observers.arriving("relay", headers_of(environ)):
                    return call(self._worker.answer, environ)
            return call(self._worker.answer, environ)
        except Exception:
            # raised by a middleware
            logger.exception("a request from another worker failed")
            return Response("500 Internal Server Error", [("Content-Type", "text/plain")], b"Internal Server Error")

    # -- calls

    def _take_call(self, exchange: Exchange, asked: Call, body: bytes, name: str) -> None:
        if asked.group != self._group:
            exchange.finish(Refusal.OTHER_CONFIGURATION.message())
        else:
            result = self._perform(asked, body, name)
            exchange.finish(result.message() if isinstance(result, Refusal) else write_result(result))

    # -- when another worker leaves

    def take_idle(self, connection: MovedConnection, number: int, read_ahead: bytes) -> bool:
        """Serve a connection that waits for its next request. Returns whether it is served; the descriptor belongs to it then."""
        listener = self.listeners.find(connection.listener)
        if listener is None or listener.full or listener.server.ssl_enabled:
            return False
        self._counters.add("adopted")
        listener.adopt(number, connection, read_ahead)
        return True

    # -- the end

    def close(self, timeout: float) -> int:
        """Let adopted connections end with their current request, and wait for the answers to other workers.

        Blocks for ``timeout`` seconds at most, and for :data:`MOMENT` at least. Returns how many have not ended.
        """
        deadline = monotonic() + max(timeout, MOMENT)
        gevent.joinall([gevent.spawn(adopter.close, deadline - monotonic()) for adopter in self._adopters])
        end = Deadline(deadline - monotonic())
        while self._answering and not end.has_passed():
            gevent.sleep(LOOK_PERIOD)
        return self.adopted + self._answering


def _environ_of(texts: Mapping[str, str], body: bytes = b"", client: Mapping[str, object] | None = None) -> WSGIEnvironment:
    return {
        **texts, **(client or {}), "wsgi.version": (1, 0), "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True, "wsgi.multithread": False, "wsgi.multiprocess": True, "wsgi.run_once": False,
    }  # fmt: skip
