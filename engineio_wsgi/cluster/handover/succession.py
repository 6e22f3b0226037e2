"""The hand-over of one server's sessions between two workers of a machine: the search for an heir, the claim, and the move.

Owns the names of this process, and the listeners under those that it has taken from other workers.
"""

from __future__ import annotations

import _socket
import logging
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

import gevent

from engineio_wsgi.cluster.handover.format import FORMAT
from engineio_wsgi.cluster.handover.heir import Heir
from engineio_wsgi.cluster.handover.idle import idle_connections
from engineio_wsgi.cluster.handover.leaving import HEIR_GONE, NOT_TAKEN, Passage, close_descriptor
from engineio_wsgi.cluster.handover.messages import Candidate, Claim
from engineio_wsgi.cluster.handover.worker_names import WorkerNames
from engineio_wsgi.cluster.listeners import Listeners
from engineio_wsgi.cluster.local.calls import LocalCaller
from engineio_wsgi.cluster.local.channel import PATIENCE, Channel, connect
from engineio_wsgi.cluster.local.listener import UnixListener
from engineio_wsgi.cluster.local.names import FORMER, Names, is_listening
from engineio_wsgi.cluster.messages import Action, Call, Kind, Message, MovedConnection, Refusal
from engineio_wsgi.engine.registry import WORKER_ID_SIZE
from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.errors import BadMessage, OwnerGone
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.connection import Connection

__all__ = ["Heirs", "Plan", "Succession"]

logger = logging.getLogger("engine.cluster")

#: seconds that a worker has to say whether it can be an heir
SEARCH_TIMEOUT = 1.0
#: seconds between two searches for an heir
SEARCH_PERIOD = 0.05
#: seconds between two looks for names that no session has any more
DROP_PERIOD = 10.0

#: further heirs that are searched for, one after the other, if some fail or leave themselves
MAX_HEIRS = 3
#: why sessions stay that another heir may take
RETRIED = {HEIR_GONE, NOT_TAKEN}

#: given the workers that could take the sessions, those that may be claimed now
Heirs = Callable[[list[Candidate]], list[Candidate]]


class Plan(NamedTuple):
    """How a worker leaves.

    Attributes:
        heirs: decides which workers may be claimed.
        workers: if so many answer that can take no sessions, the search ends.
        searches_on: whether to search on, given the time of the monotonic clock at which that began, and whether there are
            workers that can take the sessions, or have not said yet whether they can.
        deadline: of the monotonic clock, for everything.
        close: called when an heir is there: accept no more connections.
        settle: called when the sessions have moved: blocks until no more connections are accepted. Those that were opened
            meanwhile move then.
    """

    heirs: Heirs
    workers: int
    searches_on: Callable[[float, bool], bool]
    deadline: float
    close: Callable[[], object]
    settle: Callable[[], object] = int


class Neighbourhood(Protocol):
    """What a succession needs of its cluster."""

    @property
    def fingerprint(self) -> str:
        """The configuration that workers must share to send each other requests."""
        ...

    #: the servers of this process
    listeners: Listeners

    def receive(self, channel: Channel, message: Message, name: str) -> None:
        """Take a connection, request or call that was sent to a name of this process."""
        ...

    def take_idle(self, connection: MovedConnection, number: int, read_ahead: bytes) -> bool:
        """Serve a connection. Returns whether it is served; the descriptor belongs to it then."""
        ...


class Succession:
    """See the module.

    Args:
        worker: this process as a worker.
        sockets: the names of the workers' sockets.
        names: those of this process.
        caller: of the other workers.
        neighbourhood: the rest of the cluster.
        first: returns the listener of this process under its first name.
    """

    def __init__(self, worker: Worker, sockets: Names, names: WorkerNames, caller: LocalCaller,
                 neighbourhood: Neighbourhood, first: Callable[[], UnixListener]) -> None:
        self._worker = worker
        self._first = first
        self._sockets = sockets
        self._names = names
        self._caller = caller
        self._neighbourhood = neighbourhood
        self.heir = Heir(worker, names, caller, self)
        #: by name, without the first one's
        self._listeners: dict[str, UnixListener] = {}
        #: of the sessions that stay here, when the names have been given away
        self._former: list[UnixListener] = []
        self._passage: Passage | None = None
        #: the processes of workers that serve, and can take no sessions
        self._unsuitable: set[int] = set()
        self._sweeper: gevent.Greenlet | None = None

    # -- as an heir

    @property
    def fingerprint(self) -> str:
        """The configuration that workers must share to send each other requests."""
        return self._neighbourhood.fingerprint

    def listen_under(self, name: str, listener: _socket.socket) -> None:
        """Serve the requests of other workers that are sent to another worker's name."""
        self._listeners[name] = UnixListener(self._sockets, name, partial(self.receive, name), listener)

    def count_websocket(self, connection: Connection) -> None:
        """Count the WebSocket of a session that has come."""
        self._neighbourhood.listeners.count_websocket(connection)

    def take_idle(self, connection: MovedConnection, number: int, read_ahead: bytes) -> bool:
        """See `Neighbourhood`."""
        return self._neighbourhood.take_idle(connection, number, read_ahead)

    def receive(self, name: str, channel: Channel, message: Message) -> None:
        """Take what another worker has sent to a name of this process. Blocks until it is done."""
        if message.kind is Kind.SEARCH or message.kind is Kind.CLAIM:
            try:
                self.heir.answer(channel, message)
            finally:
                self._begin_to_sweep()
        else:
            self._neighbourhood.receive(channel, message, name)

    # -- names of former processes

    def _begin_to_sweep(self) -> None:
        if self._has_names and not self._sweeper:
            self._sweeper = gevent.spawn(self._sweep)

    @property
    def _has_names(self) -> bool:
        """Whether there are names that may have to be dropped. A worker that leaves gives them away instead."""
        return self._passage is None and (bool(self._listeners) or self._names.expects_any)

    def _sweep(self) -> None:
        """Drop the names that no session has any more, as long as there are any."""
        while self._has_names:
            gevent.sleep(DROP_PERIOD)
            if self._passage is None:
                self._drop_names()

    def _drop_names(self) -> None:
        self._look_for_formers()
        unused = self._names.drop_unused(self._worker.clients)
        for listener in [self._listeners.pop(name) for name in unused if name in self._listeners]:
            listener.close()

    def _look_for_formers(self) -> None:
        for name in self._names.left_behind:
            self.look_for_former(name)

    def look_for_former(self, name: str) -> None:
        """Expect no sessions of a name any more if the process that had it before has ended. Does not block."""
        if name in self._names.left_behind and not is_listening(self._sockets.address(name + FORMER)):
            self._names.expect_no_more([name])
            self.heir.forget(name)

    def whereabouts(self, sid: str) -> Refusal:
        """What to tell a worker that asks for a session which is not here."""
        self.look_for_former(sid[:WORKER_ID_SIZE])
        return self._names.whereabouts(sid)

    # -- calls

    def perform(self, call: Call, body: bytes, name: str, perform: Callable[[Call, bytes], int]) -> int | Refusal:
        """Carry out a call that was sent to a name of this process. May block while a client's write buffer is full.

        Args:
            call: of another worker.
            body: what is to be sent.
            name: of this process.
            perform: carries it out, whatever the name.

        Returns:
            How many sessions it concerned; a refusal if they are elsewhere.
        """
        if call.action is Action.SEND or call.action is Action.DISCONNECT:
            sid = call.sids[0]
            return perform(call, body) if sid in self._worker.clients else self._elsewhere(sid)
        is_former = name.endswith(FORMER)
        name = name.removesuffix(FORMER)
        if not is_former and not self._names.is_own(name):
            return Refusal.MOVED
        if call.action is Action.COUNT:
            return sum(self._names.belongs(sid, name) for sid in self._worker.clients)
        if is_former:
            return self._worker.deliver(call.data(body), call.delivery, partial(self._names.belongs, name=name))
        number = self._worker.deliver(call.data(body), call.delivery, self._filter_of(name))
        self.heir.on_broadcast(name, call, body)
        return number

    def publish(self, call: Call, body: bytes, name: str, receive: Callable[[str], int]) -> int | Refusal:
        """Take a message of a topic that was sent to a name of this process. Does not block.

        Args:
            call, body: the message.
            name: of this process.
            receive: takes it, given the name if that has been another worker's before.

        Returns:
            How many workers have taken it; a refusal if it is for another process.
        """
        sid = next(iter(call.sids), "")
        if name.endswith(FORMER):
            return receive("")
        if not self._names.is_own(name) or (sid and sid not in self._worker.clients and self._elsewhere(sid)):
            return self._elsewhere(sid) if sid else Refusal.MOVED
        if not sid and self._names.expects(name):
            # whoever subscribes in the process that has had the name may have sessions of it still
            self._caller.tell_former(name, call.message(call.data(body)))
            return receive("")
        return receive("" if name == self._names.first else name)

    def _elsewhere(self, sid: str) -> int | Refusal:
        refusal = self.whereabouts(sid)
        return 0 if refusal is Refusal.UNKNOWN else refusal

    def _filter_of(self, name: str) -> Callable[[str], bool] | None:
        """Which sessions get what is sent to all sessions of a name; ``None`` if all do."""
        return partial(self._names.belongs, name=name) if len(self._names.all) > 1 else None

    def on_own_broadcast(self, message: Message) -> None:
        """A broadcast of this process is sent to all workers."""
        if self._passage is not None and not self._passage.is_broken:
            self._passage.tell(message)
        call = Call.of(message)
        if call.action is Action.BROADCAST:
            self.heir.on_own_broadcast(call, message.body)

    # -- the search

    def _found(self) -> tuple[list[tuple[Candidate, str]], bool]:
        """The workers that can take the sessions, each with one of its names, those first that the fewest have claimed.

        Also returns whether others may be able to: they do not serve yet, or do not answer at the moment.
        """
        found: dict[int, tuple[Candidate, str]] = {}
        undecided: set[str] = set()

        def ask(name: str) -> None:
            try:
                candidate = self._ask(name)
            except TimeoutError:
                undecided.add(name)
            except (OSError, OwnerGone, BadMessage) as error:
                logger.debug("= the worker %s does not say whether it can take sessions: %s", name, error)
            else:
                if candidate.leaving:
                    return
                if not candidate.ready:
                    undecided.add(name)
                elif self._is_suitable(candidate):
                    found.setdefault(candidate.process, (candidate, name))

        gevent.joinall([gevent.spawn(ask, name) for name in self._caller.others()])
        return sorted(found.values(), key=lambda each: (each[0].claims, each[0].process)), bool(undecided)

    def _ask(self, name: str) -> Candidate:
        deadline = monotonic() + SEARCH_TIMEOUT
        channel = connect(self._sockets.address(name), deadline)
        try:
            return Candidate.of(channel.ask(Message(Kind.SEARCH), deadline))
        finally:
            channel.close()

    def _is_suitable(self, candidate: Candidate) -> bool:
        """Whether a worker that serves can take the sessions. If not, this is logged once."""
        if candidate.format != FORMAT:
            reason = f"its format of them is {candidate.format}, and this one's {FORMAT}"
        elif candidate.fingerprint != self.fingerprint:
            reason = f"it has other options: {candidate.fingerprint[:300]!r}, and this one {self.fingerprint[:300]!r}"
        elif not candidate.resumes:
            reason = "it has no listener of 'resume', or not the option handover"
        else:
            return True
        if candidate.process not in self._unsuitable:
            self._unsuitable.add(candidate.process)
            logger.warning("the worker %d cannot take sessions of this one: %s", candidate.process, reason)
        return False

    def _claim(self, plan: Plan) -> Channel | None:
        """Search until a worker has accepted the claim. Returns the channel to it; ``None`` if there is none in time."""
        began, is_hopeful = monotonic(), True
        while plan.searches_on(began, is_hopeful):
            found, others_may = self._found()
            chosen = plan.heirs([candidate for candidate, _ in found])
            for candidate, name in found:
                if candidate in chosen and (channel := self._claim_one(candidate, name)) is not None:
                    return channel
            if not found and len(self._unsuitable) >= plan.workers:
                return None
            is_hopeful = bool(found) or others_may
            gevent.sleep(SEARCH_PERIOD)
        return None

    def _claim_one(self, candidate: Candidate, name: str) -> Channel | None:
        deadline = monotonic() + PATIENCE
        try:
            channel = connect(self._sockets.address(name), deadline)
        except OwnerGone:
            return None
        try:
            if channel.ask(Claim.on(candidate, self._names.all).message(), deadline).kind is Kind.TAKEN:
                return channel
        except (OSError, BadMessage) as error:
            logger.debug("= a worker could not be claimed: %s", error)
        channel.close()
        return None

    # -- the move

    def leave(self, plan: Plan) -> bool:
        """Move the sessions to an heir. Blocks until all have moved, or stay.

        Args:
            plan: how.

        Returns:
            Whether there was an heir.
        """
        channel = self._claim(plan)
        if channel is None:
            return False
        began = monotonic()
        plan.close()
        reasons = self._move(channel, plan, {})
        for _ in range(MAX_HEIRS):
            if not RETRIED & set(reasons.values()) or (channel := self._claim(plan)) is None:
                break
            reasons = self._move(channel, plan, reasons)
        _report(reasons, monotonic() - began)
        return True

    def _move(self, channel: Channel, plan: Plan, reasons: dict[str, str]) -> dict[str, str]:
        """Move the sessions to one heir. Returns why sessions stay; ``reasons`` is the same of an heir before."""
        passage = self._passage = Passage(self._worker, channel, self._names.name_of)
        given = self._give_names(passage)
        stays = {sid: reason for sid, reason in reasons.items() if reason not in RETRIED}
        reasons = self._worker.move_sessions(passage, plan.deadline, stays=stays)
        if not passage.is_broken:
            self._give_idle(passage)
            plan.settle()
            # requests that were under way may have opened others
            reasons = self._worker.move_sessions(passage, plan.deadline, stays=reasons)
        if not passage.is_broken:
            self._look_for_formers()
            is_complete = not self._worker.clients and not self._names.expects_any
            passage.ask(Message(Kind.END, ("complete",) if is_complete else ()))
        if passage.is_broken:
            for name, listener in given:
                self._names.take_back(name)
                listener.resume()
        else:
            for _, listener in given:
                listener.give_away()
            self._listeners.clear()
        passage.close()
        return reasons

    def _give_names(self, passage: Passage) -> list[tuple[str, UnixListener]]:
        """Give the names away, and listen for requests of the sessions that have not moved. Returns the names' listeners."""
        given: list[tuple[str, UnixListener]] = []
        for name in self._names.own:
            listener = self._first() if name == self._names.first else self._listeners[name]
            listener.pause()
            with suppress(FileExistsError):
                self._former.append(UnixListener(self._sockets, name + FORMER, partial(self.receive, name + FORMER)))
            if passage.ask(Message(Kind.NAME, (name,)), listener.fileno()):
                self._names.give_away(name)
                given.append((name, listener))
            else:
                listener.resume()
        return given

    def _give_idle(self, passage: Passage) -> None:
        """Give the connections away that wait for their next request. Those that the heir does not take are served here again."""
        for connection, descriptor in idle_connections(self._neighbourhood.listeners.rosters(), self.fingerprint):
            if passage.ask(Message(Kind.IDLE, connection.message(b"").fields), descriptor):
                close_descriptor(descriptor)
            elif not self._neighbourhood.take_idle(connection, descriptor, b""):
                os.close(descriptor)

    def close(self) -> None:
        """Stop listening under all names but the first one. Harmless if repeated."""
        for listener in [*self._listeners.values(), *self._former]:
            listener.close()
        self._listeners.clear()
        self._former.clear()
        if self._sweeper is not None:
            self._sweeper.kill(block=False)

    def after_fork(self) -> None:
        """In a forked child: the sockets are the parent's."""
        for listener in [*self._listeners.values(), *self._former]:
            listener.after_fork()
        if self._sweeper is not None:
            self._sweeper.kill(block=False)


def _report(reasons: dict[str, str], seconds: float) -> None:
    """Log why sessions stay: one line for each reason."""
    for reason, count in Counter(reasons.values()).items():
        logger.warning("%d sessions do not move, and will be closed: %s", count, reason)
    logger.info("the sessions have moved to another worker, after %.2f s; %d stay", seconds, len(reasons))
