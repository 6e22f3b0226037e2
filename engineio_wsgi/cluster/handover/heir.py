"""The worker that takes the place of another one: it gets that worker's names, sessions and idle connections.

Owns what arrives, until it is served here. The acknowledgement of a session is the point of no return: before it is sent, nothing
of the session is touched, and after it the other worker does nothing with it any more.
"""

from __future__ import annotations

import _socket
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Protocol

from gevent.socket import socket as GeventSocket

from engineio_wsgi.cluster.handover.format import FORMAT, decode
from engineio_wsgi.cluster.handover.messages import Candidate, Claim
from engineio_wsgi.cluster.handover.process import process
from engineio_wsgi.cluster.handover.worker_names import WorkerNames
from engineio_wsgi.cluster.local.calls import LocalCaller
from engineio_wsgi.cluster.local.channel import PATIENCE, Channel
from engineio_wsgi.cluster.messages import Call, Kind, Message, MovedConnection, Refusal
from engineio_wsgi.engine.resumption import PreparedSession
from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.errors import BadMessage
from engineio_wsgi.log import Throttle
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.runtime.forks import serve
from engineio_wsgi.runtime.loop import Stream

__all__ = ["Heir", "Neighbourhood", "candidate"]

logger = logging.getLogger("engine.cluster")

TAKEN = Message(Kind.TAKEN)


def candidate(worker: Worker, fingerprint: str, claims: int = 0) -> Candidate:
    """What a worker that leaves has to know of this one, whether or not it can be an heir.

    Args:
        worker: this process as a worker.
        fingerprint: the configuration that workers must share.
        claims: how often it has been claimed.
    """
    return Candidate(os.getpid(), process.generation, process.ready, process.leaving, worker.resumes, claims, FORMAT, fingerprint)


class Neighbourhood(Protocol):
    """What an heir needs of its cluster."""

    @property
    def fingerprint(self) -> str:
        """The configuration that workers must share to send each other requests."""
        ...

    def listen_under(self, name: str, listener: _socket.socket) -> None:
        """Serve the requests of other workers that are sent to another worker's name."""
        ...

    def count_websocket(self, connection: Connection) -> None:
        """Count the WebSocket of a session that has come."""
        ...

    def take_idle(self, connection: MovedConnection, number: int, read_ahead: bytes) -> bool:
        """Serve a connection. Returns whether it is served; the descriptor belongs to it then."""
        ...


class Heir:
    """What this process does as an heir, for one server.

    Args:
        worker: this process as a worker.
        names: its names.
        caller: of the other workers.
        neighbourhood: the rest of the cluster.
    """

    def __init__(self, worker: Worker, names: WorkerNames, caller: LocalCaller, neighbourhood: Neighbourhood) -> None:
        self._worker = worker
        self._names = names
        self._caller = caller
        self._neighbourhood = neighbourhood
        self._claims = 0
        #: of the log: what one session lacks, all may lack
        self._throttle = Throttle()
        #: the broadcasts since a name has come, which its sessions have missed that arrive later
        self._missed: dict[str, list[tuple[Call, bytes]]] = {}
        #: names whose former process keeps sessions
        self._shared: set[str] = set()

    # -- before

    def candidate(self) -> Candidate:
        """What a worker that leaves has to know of this one."""
        return candidate(self._worker, self._neighbourhood.fingerprint, self._claims)

    def answer(self, channel: Channel, message: Message) -> None:
        """Serve a worker that leaves. Blocks until it has nothing more to say.

        Raises:
            OSError: it has closed the channel.
            BadMessage: it has sent what does not belong here.
        """
        if message.kind is Kind.SEARCH:
            channel.send(self.candidate().message())
            return
        claim, own = Claim.of(message), self.candidate()
        if not process.takes_sessions or claim != Claim.on(own, list(claim.names)) or not own.resumes:
            channel.send(Refusal.NOT_TAKEN.message())
            return
        self._claims += 1
        self._names.expect(claim.names)
        is_complete = False
        try:
            channel.send(TAKEN)
            is_complete = self._take_all(channel, claim.names)
        finally:
            for name in claim.names:
                self._on_end(name, is_complete)

    def _on_end(self, name: str, is_complete: bool) -> None:
        """The worker that leaves has nothing more to give. ``is_complete``: it has no sessions any more."""
        missed = self._missed.pop(name, [])
        self._names.end_arrival([name])
        if is_complete:
            self._names.expect_no_more([name])
            return
        self._shared.add(name)
        for call, body in missed:
            self._caller.tell_former(name, call.message(call.data(body)))

    # -- what arrives

    def _take_all(self, channel: Channel, names: tuple[str, ...]) -> bool:
        """Take what comes, until the end. Returns whether the other worker has no sessions any more."""
        handlers: dict[Kind, Callable[[Channel, Message], object]] = {
            Kind.NAME: self._take_name, Kind.SESSION: self._take_session, Kind.IDLE: self._take_idle,
            Kind.CALL: partial(self._take_call, names),
        }  # fmt: skip
        while (message := channel.await_request(PATIENCE)) is not None:
            if message.kind is Kind.END:
                channel.send(TAKEN)
                return bool(message.fields)
            handle = handlers.get(message.kind)
            if handle is None:
                raise BadMessage(f"{message.kind.name} does not belong to a hand-over")
            handle(channel, message)
            channel.close_descriptors()
        return False

    def _take_name(self, channel: Channel, message: Message) -> None:
        number = channel.take_descriptor()
        if number is None:
            raise BadMessage("a name without its listener")
        listener = _socket.socket(fileno=number)
        (name,) = message.fields
        self._missed[name] = []
        self._names.take(name)
        self._neighbourhood.listen_under(name, listener)
        channel.send(TAKEN)

    def _take_session(self, channel: Channel, message: Message) -> None:
        try:
            name, kind = message.fields
            prepared = self._prepare(channel, message, has_connection=bool(kind))
        except (BadMessage, ValueError, OSError) as error:
            if self._throttle.passes(str(error), monotonic()):
                logger.warning("sessions of another worker cannot go on here: %s", error)
            channel.send(Refusal.NOT_TAKEN.message())
            return
        try:
            channel.send(TAKEN)
        except BaseException:
            prepared.discard()
            raise
        prepared.resume()
        if prepared.connection is not None:
            self._neighbourhood.count_websocket(prepared.connection)
        for call, body in self._missed.get(name, ()):
            self._worker.deliver(call.data(body), call.delivery, lambda sid: sid == prepared.sid)

    def _prepare(self, channel: Channel, message: Message, has_connection: bool) -> PreparedSession:
        """A session that does nothing yet. Its descriptor stays open if it is not valid, and belongs to the channel then."""
        if process.leaving:
            raise ValueError("this worker is leaving itself")
        snapshot = decode(message.body)
        stream: Stream | None = None
        if has_connection:
            number = channel.take_descriptor()
            if number is None:
                raise OSError("too many open files")
            sock = GeventSocket(fileno=number)
            serve(sock)
            stream = detach(sock)
        try:
            return self._worker.prepare(snapshot, stream)
        except BaseException:
            if stream is not None:
                stream.close()
            raise

    def _take_call(self, names: tuple[str, ...], channel: Channel, message: Message) -> None:
        """A broadcast of the worker that leaves. The sessions that are still there have got it."""
        call = Call.of(message)
        self._worker.deliver(call.data(message.body), call.delivery, lambda sid: sid.startswith(names))
        channel.send(TAKEN)

    def _take_idle(self, channel: Channel, message: Message) -> None:
        connection = MovedConnection.of(Message(Kind.CONNECTION, message.fields, message.body))
        number = channel.take_descriptor()
        is_taken = number is not None and self._neighbourhood.take_idle(connection, number, message.body)
        channel.send(TAKEN if is_taken else Refusal.FULL.message())

    # -- broadcasts

    def on_broadcast(self, name: str, call: Call, body: bytes) -> None:
        """A broadcast has been sent to a name of this process. Sessions with that name may not be here, or not yet."""
        if name in self._missed:
            self._missed[name].append((call, body))
        elif name in self._shared:
            self._caller.tell_former(name, call.message(call.data(body)))

    def on_own_broadcast(self, call: Call, body: bytes) -> None:
        """The same, if it was made in this process, and sent to all names."""
        for name in [*self._missed, *self._shared]:
            self.on_broadcast(name, call, body)

    def forget(self, name: str) -> None:
        """Nobody has the name any more."""
        self._shared.discard(name)
