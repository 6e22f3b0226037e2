"""Receives connections and requests of this worker's sessions from other workers.

Owns the adopted connections, their limit and their end. Knows nothing of how the other worker found this one.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol
from wsgiref.types import StartResponse, WSGIEnvironment

import gevent
from gevent.socket import socket as GeventSocket

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.listeners import Front, Listeners, OwnListener
from engineio_wsgi.cluster.local.channel import PATIENCE, Channel
from engineio_wsgi.cluster.messages import BadMessage, Call, Kind, Message, MovedConnection, Refusal, Request, write_answer
from engineio_wsgi.cluster.rpc import SessionsHere, perform
from engineio_wsgi.deadline import Deadline
from engineio_wsgi.handoff.adopter import Adopter, ConnectionAdopter
from engineio_wsgi.http.response import Response
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.options.options import Options
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.runtime.forks import serve
from engineio_wsgi.throttle import Throttle
from engineio_wsgi.websocket.websocket import WebSocket

__all__ = ["Counters", "Host", "Receiver"]

logger = logging.getLogger("engine.cluster")

#: options that the forwarding worker applies, too, so that both workers must have the same values: the timeout of an answer, and
#: the limit of a body
SHARED_OPTIONS = ("ping_interval", "ping_timeout", "max_http_buffer_size")
#: seconds for which the same complaint is not logged again
COMPLAINT_PERIOD = 60.0
#: seconds between two checks whether all requests have been answered
LOOK_PERIOD = 0.01
#: seconds in which idle connections can notice that they have ended
MOMENT = 0.1


class Host(Front, SessionsHere, Protocol):
    """The part of this process's `Worker` that the cluster needs."""

    options: Options

    def handle_request(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request of the engine's, upgrades included."""
        ...

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request of the engine's that needs no connection."""
        ...

    def handle_upgrade(self, environ: WSGIEnvironment, websocket: WebSocket) -> None:
        """Serve an accepted WebSocket."""
        ...

    def announce(self, event: str, argument: object) -> None:
        """Emit an event. Does not block."""
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
        host: the `Worker` of this process.
        group: of workers that serve each other's sessions.
        counters: to count them in.
    """

    def __init__(self, host: Host, group: str, counters: Counters) -> None:
        self._host = host
        self._group = group
        #: the configuration that other workers must share to send requests here
        self.fingerprint = " ".join([group, *[f"{name}={getattr(host.options, name)}" for name in SHARED_OPTIONS]])
        self._complaints = Throttle(COMPLAINT_PERIOD)
        self._counters = counters
        #: requests of other workers that are under way
        self._answering = 0
        #: the servers of this process, as far as they are known
        self.listeners = Listeners(host)
        #: serves connections that become WebSockets, if their server has another handler than ours
        self._upgrader = Adopter(host.handle_request)

    @property
    def _adopters(self) -> list[ConnectionAdopter]:
        return [self._upgrader, *self.listeners.adopters]

    @property
    def adopted(self) -> int:
        """How many connections from other workers our handler serves, without the WebSockets of sessions."""
        return sum(len(adopter.roster) for adopter in self._adopters)

    def receive(self, channel: Channel, message: Message) -> None:
        """Take a connection, request or call from another worker. Blocks until it has been served.

        Args:
            channel: to that worker.
            message: the first one.

        Raises:
            OSError: the other worker has closed the channel.
            BadMessage: the message is none that may come first.
        """
        if message.kind is Kind.CONNECTION:
            self._take_connection(channel, MovedConnection.of(message), message.body)
        elif message.kind is Kind.REQUEST:
            self._take_request(channel, Request.of(message), message.body)
        elif message.kind is Kind.CALL:
            self._take_call(channel, Call.of(message), message.body)
        else:
            raise BadMessage(f"expected CONNECTION, REQUEST or CALL, got {message.kind.name}")

    def refusal(self, fingerprint: str, sid: str) -> Refusal | None:
        """Why requests for a session cannot be taken here; ``None`` if they can."""
        if fingerprint != self.fingerprint:
            if self._complaints.passes(fingerprint, monotonic()):
                logger.warning("requests of a worker with other options are refused: it has %.300r, this one %r; "
                               "workers that serve each other's sessions have the same", fingerprint, self.fingerprint)
            return Refusal.OTHER_CONFIGURATION
        return None if sid in self._host.clients else Refusal.UNKNOWN

    # -- connections

    def refusal_of(self, connection: MovedConnection) -> Refusal | None:
        """Why a connection cannot be taken here; ``None`` if it can."""
        refusal = self.refusal(connection.fingerprint, connection.sid)
        if refusal is not None or connection.accepted:
            return refusal
        listener = self.listeners.find(connection.listener)
        if connection.handshake is None:
            serves = listener is not None and listener.moves and not listener.full
        else:
            serves = listener is None or not (listener.counts_websockets and listener.full)
        return None if serves else Refusal.FULL

    def _take_connection(self, channel: Channel, connection: MovedConnection, read_ahead: bytes) -> None:
        deadline = monotonic() + PATIENCE
        # a worker without a file descriptor left is as full as one with too many connections
        refusal = self.refusal_of(connection) or (Refusal.FULL if channel.cut_short else None)
        if refusal is not None:
            channel.send(refusal.message(), deadline)
            return
        number = channel.take_descriptor()
        try:
            # until this has been sent, it is the other worker's: that may have stopped waiting, and answered the client itself
            channel.send(Message(Kind.TAKEN), deadline)
        except BaseException:
            os.close(number)
            raise
        self.take(number, connection, read_ahead)

    def take(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        """Serve a connection that :meth:`refusal_of` does not refuse. Its file descriptor belongs to this object now.

        Blocks only while the server's pool is full.
        """
        self._counters.add("adopted")
        listener = self.listeners.find(connection.listener)
        if connection.accepted:
            gevent.spawn(self._take_websocket, number, connection, read_ahead)
        elif connection.handshake is not None:
            adopter = listener.adopter if isinstance(listener, OwnListener) else self._upgrader
            # the middlewares outside of the engine have seen the request in the other worker
            adopter.adopt(number, connection.address, read_ahead=read_ahead, environ=connection.handshake,
                          instead=self._host.handle_request)
        elif listener is not None:
            listener.adopt(number, connection, read_ahead)
        else:
            # the server has stopped since
            os.close(number)

    def _take_websocket(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        """Serve a WebSocket whose handshake was answered without extensions."""
        environ = _environ_of(connection.handshake or {})
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        sock = GeventSocket(fileno=number)
        serve(sock)
        wire = Connection(detach(sock), read_ahead)
        websocket = WebSocket(environ, lambda head, more: wire)
        websocket.accept()
        self._host.handle_upgrade(environ, websocket)

    # -- requests

    def _take_request(self, channel: Channel, request: Request, body: bytes) -> None:
        refusal = self.refusal(request.fingerprint, request.sid)
        deadline = monotonic() + PATIENCE
        channel.send(Message(Kind.TAKEN) if refusal is None else refusal.message(), deadline)
        if refusal is not None:
            return
        self._answering += 1
        try:
            # when the client leaves, the other worker closes the channel
            answer = self.answer(request, body, {"engineio.socket": channel.sock})
            channel.send(answer, monotonic() + PATIENCE)
        finally:
            self._answering -= 1

    def answer(self, request: Request, body: bytes, client: Mapping[str, object]) -> Message:
        """Answer a request that :meth:`refusal` does not refuse. Blocks as long as a poll has to wait.

        Args:
            client: added to the environ, so that an :class:`EndWatch` notices that the client has left.
        """
        self._counters.add("answered")
        return write_answer(self._call({**_environ_of(request.environ, body), **client}))

    def _call(self, environ: WSGIEnvironment) -> Response:
        try:
            return call(self._host.answer, environ)
        except Exception:
            # raised by a middleware
            logger.exception("a request that another worker sent here failed")
            return Response("500 Internal Server Error", [("Content-Type", "text/plain")], b"Internal Server Error")

    # -- calls

    def _take_call(self, channel: Channel, call: Call, body: bytes) -> None:
        reply = Refusal.OTHER_CONFIGURATION.message() if call.group != self._group else perform(self._host, call, body).message()
        channel.send(reply, monotonic() + PATIENCE)

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


def _environ_of(texts: Mapping[str, str], body: bytes = b"") -> WSGIEnvironment:
    return {
        **texts, "wsgi.version": (1, 0), "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True, "wsgi.multithread": False, "wsgi.multiprocess": True, "wsgi.run_once": False,
    }  # fmt: skip
