"""What a worker does for others: it takes the connections and answers the requests of its own sessions' clients.

Owns the adopted connections, their limit and their end. Knows nothing of how a request found its way here.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import gevent
from gevent.socket import socket as GeventSocket

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.listeners import Listeners, OwnListener
from engineio_wsgi.cluster.local.channel import PATIENCE, Channel
from engineio_wsgi.cluster.messages import Answer, BadMessage, Call, Kind, Message, MovedConnection, Refusal, Request
from engineio_wsgi.cluster.rpc import perform
from engineio_wsgi.deadline import Deadline
from engineio_wsgi.handoff.adopter import Adopter, ConnectionAdopter
from engineio_wsgi.http.response import Response
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.options.options import Options
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.runtime.forks import serve
from engineio_wsgi.throttle import Throttle
from engineio_wsgi.websocket.websocket import WebSocket

__all__ = ["Counters", "Host", "Owner"]

logger = logging.getLogger("engine.cluster")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: options that are applied to a request by the worker that it comes to, and have to be those of its session's: how long an answer
#: is waited for, and how large a body may be
SHARED_OPTIONS = ("ping_interval", "ping_timeout", "max_http_buffer_size")
#: seconds for which the same complaint is not logged again
COMPLAINT_PERIOD = 60.0
#: seconds between two looks whether everything has been answered
LOOK_PERIOD = 0.01
#: seconds in which connections that wait can see that they have ended
MOMENT = 0.1


class Host(Protocol):
    """What the cluster needs of its engine."""

    options: Options
    clients: Mapping[str, Any]
    #: whether the application that it is wrapped around is one and the same, wherever it was wrapped
    has_one_application: bool

    def is_outermost(self, application: Any) -> bool:
        """Whether a request to an application meets nothing before the engine."""
        ...

    def handle_request(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The engine's own requests, upgrades included."""
        ...

    def answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The engine's own requests, inside its middlewares."""
        ...

    def handle_upgrade(self, environ: dict[str, Any], websocket: Any) -> None:
        """A WebSocket that has been accepted."""
        ...

    def broadcast(self, data: str | bytes, exclude: Any = (), compress: bool = True) -> None:
        """To all sessions of this process."""
        ...

    def announce(self, event: str, argument: object) -> None:
        """Have the listeners of an event called. Does not block."""
        ...


@dataclass
class Counters:
    """What has been done since the process began."""

    #: connections that were given to the workers of their sessions
    handed_over: int = 0
    #: requests that were sent to the workers of their sessions
    relayed: int = 0
    #: connections that came from other workers
    adopted: int = 0
    #: requests of other workers' that were answered
    answered: int = 0
    #: requests whose session's worker did not take them, so that they got code 1
    failed: int = 0


class Owner:
    """This worker, as the others see it.

    Args:
        host: the engine.
        group: of workers that serve each other's sessions.
        counters: to count in.
    """

    def __init__(self, host: Host, group: str, counters: Counters) -> None:
        self._host = host
        self._group = group
        #: what other workers have to have in common with this one, to send requests here
        self.terms = " ".join([group, *[f"{name}={getattr(host.options, name)}" for name in SHARED_OPTIONS]])
        self._complaints = Throttle(COMPLAINT_PERIOD)
        self._counters = counters
        #: requests of other workers' that are under way
        self._answering = 0
        #: through which requests come here
        self.listeners = Listeners(host)
        #: serves what becomes a session's WebSocket, where our handler does not; and nothing else
        self._upgrader = Adopter(host.handle_request)

    @property
    def _adopters(self) -> list[ConnectionAdopter]:
        return [self._upgrader, *self.listeners.adopters]

    @property
    def adopted(self) -> int:
        """How many connections there are under our handler that came from other workers, WebSockets of sessions not counted."""
        return sum(len(adopter.roster) for adopter in self._adopters)

    def receive(self, channel: Channel, message: Message) -> None:
        """Do what another worker asks for. Blocks until it is done.

        Args:
            channel: to that worker.
            message: the first of the conversation.

        Raises:
            OSError: the other worker hung up.
            BadMessage: it is not one of ours.
        """
        if message.kind is Kind.CONNECTION:
            self._take_connection(channel, MovedConnection.of(message), message.body)
        elif message.kind is Kind.REQUEST:
            self._take_request(channel, Request.of(message), message.body)
        elif message.kind is Kind.CALL:
            self._take_call(channel, Call.of(message), message.body)
        else:
            raise BadMessage(f"a conversation does not begin with {message.kind.name}")

    def refusal(self, terms: str, sid: str) -> Refusal | None:
        """Why nothing of a session's can be taken here; ``None`` if it can."""
        if terms != self.terms:
            if self._complaints.passes(terms, monotonic()):
                logger.warning("requests of a worker with other options are refused: it has %.300r, this one %r; "
                               "workers that serve each other's sessions have the same", terms, self.terms)
            return Refusal.OTHER_TERMS
        return None if sid in self._host.clients else Refusal.UNKNOWN

    # -- connections

    def refusal_of(self, connection: MovedConnection) -> Refusal | None:
        """Why a connection cannot be taken here; ``None`` if it can."""
        refusal = self.refusal(connection.terms, connection.sid)
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
        # without a file descriptor left for it, this worker is as full as one with too many connections
        refusal = self.refusal_of(connection) or (Refusal.FULL if channel.cut_short else None)
        if refusal is not None:
            channel.send(refusal.message(), deadline)
            return
        number = channel.take_descriptor()
        try:
            # it is the other's until this has been sent: who has given up waiting for it has answered the client
            channel.send(Message(Kind.TAKEN), deadline)
        except BaseException:
            os.close(number)
            raise
        self.take(number, connection, read_ahead)

    def take(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        """Serve a connection that :meth:`refusal_of` does not refuse. Its file descriptor belongs to this object now.

        Blocks only while the pool of the server that serves it is full.
        """
        self._counters.adopted += 1
        listener = self.listeners.find(connection.listener)
        if connection.accepted:
            gevent.spawn(self._take_websocket, number, connection, read_ahead)
        elif connection.handshake is not None:
            adopter = listener.adopter if isinstance(listener, OwnListener) else self._upgrader
            # what is outside of the engine has seen the request where it came in
            adopter.adopt(number, connection.address, read_ahead=read_ahead, environ=connection.handshake,
                          instead=self._host.handle_request)
        elif listener is not None:
            listener.adopt(number, connection, read_ahead)
        else:
            # its server has ended since
            os.close(number)

    def _take_websocket(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        """A WebSocket whose handshake has been answered, without extensions."""
        environ = _environ_of(connection.handshake or {})
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        sock = GeventSocket(fileno=number)
        serve(sock)
        wire = Connection(detach(sock), read_ahead)
        websocket = WebSocket(environ, lambda _: wire)
        websocket.accept()
        self._host.handle_upgrade(environ, websocket)

    # -- requests

    def _take_request(self, channel: Channel, request: Request, body: bytes) -> None:
        refusal = self.refusal(request.terms, request.sid)
        deadline = monotonic() + PATIENCE
        channel.send(Message(Kind.TAKEN) if refusal is None else refusal.message(), deadline)
        if refusal is not None:
            return
        self._answering += 1
        try:
            # when the client leaves, the other worker hangs up
            answer = self.answer(request, body, {"engineio.socket": channel.sock})
            channel.send(answer, monotonic() + PATIENCE)
        finally:
            self._answering -= 1

    def answer(self, request: Request, body: bytes, client: Mapping[str, Any]) -> Message:
        """Answer a request that :meth:`refusal` does not refuse. Blocks as long as a poll has to wait.

        Args:
            client: what the environ has by which an :class:`EndWatch` sees that the client has left.
        """
        self._counters.answered += 1
        answered = self._call({**_environ_of(request.environ, body), **client})
        return Answer(answered.status, answered.headers).message(answered.body)

    def _call(self, environ: dict[str, Any]) -> Response:
        try:
            return call(self._host.answer, environ)
        except Exception:
            # a middleware's
            logger.exception("a request that another worker sent here failed")
            return Response("500 Internal Server Error", [("Content-Type", "text/plain")], b"Internal Server Error")

    # -- calls

    def _take_call(self, channel: Channel, call: Call, body: bytes) -> None:
        reply = Refusal.OTHER_TERMS.message() if call.group != self._group else perform(self._host, call, body).message()
        channel.send(reply, monotonic() + PATIENCE)

    # -- the end

    def close(self, timeout: float) -> int:
        """Let adopted connections end with the request that is under way, and have others' requests answered.

        Blocks, for ``timeout`` seconds at most, and for a moment at least. Returns how many have not ended.
        """
        deadline = monotonic() + max(timeout, MOMENT)
        gevent.joinall([gevent.spawn(adopter.close, deadline - monotonic()) for adopter in self._adopters])
        end = Deadline(deadline - monotonic())
        while self._answering and not end.has_passed():
            gevent.sleep(LOOK_PERIOD)
        return self.adopted + self._answering


def _environ_of(texts: Mapping[str, str], body: bytes = b"") -> dict[str, Any]:
    return {
        **texts, "wsgi.version": (1, 0), "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True, "wsgi.multithread": False, "wsgi.multiprocess": True, "wsgi.run_once": False,
    }  # fmt: skip
