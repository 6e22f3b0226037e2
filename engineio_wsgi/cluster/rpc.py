"""What is done for sessions wherever they live: send, broadcast, disconnect, count.

Owns the calls that are on their way to other workers, in their order, and what such a call does here.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Protocol

import gevent

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.local.channel import OwnerGone, connect
from engineio_wsgi.cluster.local.names import Names
from engineio_wsgi.cluster.messages import Action, BadMessage, Call, Kind, Message, Result
from engineio_wsgi.engine.registry import send_or_not
from engineio_wsgi.throttle import Throttle

__all__ = ["Caller", "LocalCaller", "SessionsHere", "ask", "perform"]

logger = logging.getLogger("engine.cluster")

#: seconds that another worker has for a call
CALL_TIMEOUT = 5.0
#: bytes of calls that may wait for one worker; one that takes nothing loses what comes beyond
MAX_WAITING = 16_000_000
COMPLAINT_PERIOD = 60.0


class SessionsHere(Protocol):
    """What a call is carried out on."""

    #: by their ids
    clients: Any

    def broadcast(self, data: str | bytes, exclude: Any = (), compress: bool = True) -> None:
        """To all sessions of this process."""
        ...


def perform(host: SessionsHere, call: Call, body: bytes) -> Result:
    """Do what another process asks for. May block while a client's write buffer is full.

    Raises:
        BadMessage: what is to be sent is not what it is said to be.
    """
    if call.action is Action.COUNT:
        return Result(len(host.clients))
    if call.action is Action.BROADCAST:
        host.broadcast(call.data(body), call.sids, call.compress)
        return Result(len(host.clients))
    session = host.clients.get(call.sids[0])
    if session is None:
        return Result(0)
    if call.action is Action.DISCONNECT:
        session.close()
        return Result(1)
    return Result(int(send_or_not(session, call.data(body), call.compress)))


def ask(address: str, message: Message) -> Message:
    """Have a worker carry out a call. Blocks until it has.

    Raises:
        OwnerGone: it does not exist, or has not answered; then nobody knows whether it did what it was asked.
    """
    deadline = monotonic() + CALL_TIMEOUT
    channel = connect(address, deadline)
    try:
        channel.send(message, deadline)
        return channel.receive(deadline)
    except (OSError, BadMessage) as error:
        raise OwnerGone(str(error)) from error
    finally:
        channel.close()


class Caller(Protocol):
    """The way of calls to the other workers."""

    def others(self) -> list[str]:
        """The ids of the other workers."""
        ...

    def ask(self, worker: str, message: Message) -> int:
        """Have one worker carry out a call. Blocks until it has. Returns how many sessions it concerned.

        Raises:
            OwnerGone: it does not exist, or has not answered.
        """
        ...

    def ask_all(self, message: Message) -> dict[str, int]:
        """The same of all others at once; who does not answer is left out."""
        ...

    def tell_all(self, message: Message) -> None:
        """Have all others carry out a call some time, each after what it was told before. Does not block."""
        ...

    def forsake(self) -> None:
        """In a forked child: what is under way is the parent's."""
        ...


class LocalCaller:
    """The way to the other workers of this machine.

    Args:
        names: of their sockets.
        worker_id: this one's.
    """

    def __init__(self, names: Names, worker_id: str) -> None:
        self._names = names
        self._worker_id = worker_id
        self._waiting: dict[str, _Queue] = {}

    def others(self) -> list[str]:
        """The ids of the other workers."""
        return [worker for worker in self._names.workers() if worker != self._worker_id]

    def ask(self, worker: str, message: Message) -> int:
        """See :class:`Caller`."""
        reply = ask(self._names.address(worker), message)
        return Result.of(reply).sessions if reply.kind is Kind.RESULT else 0

    def ask_all(self, message: Message) -> dict[str, int]:
        """See :class:`Caller`."""
        asked = {worker: gevent.spawn(self._ask_quietly, worker, message) for worker in self.others()}
        gevent.joinall(list(asked.values()))
        return {worker: greenlet.value for worker, greenlet in asked.items() if greenlet.value is not None}

    def _ask_quietly(self, worker: str, message: Message) -> int | None:
        try:
            return self.ask(worker, message)
        except OwnerGone:
            return None

    def tell_all(self, message: Message) -> None:
        """See :class:`Caller`."""
        for worker in self.others():
            queue = self._waiting.get(worker)
            if queue is None:
                queue = self._waiting[worker] = _Queue()
                gevent.spawn(self._work_off, worker, queue)
            queue.append(worker, message)

    def forsake(self) -> None:
        """See :class:`Caller`."""
        for queue in self._waiting.values():
            queue.messages.clear()

    def _work_off(self, worker: str, queue: _Queue) -> None:
        try:
            while queue.messages:
                self.ask(worker, queue.popleft())
        except OwnerGone as error:
            logger.debug("= %d calls were lost with the worker %s: %s", 1 + len(queue.messages), worker, error)
        finally:
            del self._waiting[worker]


class _Queue:
    """Calls that wait for one worker."""

    __slots__ = ("_complaints", "messages", "size")

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.size = 0
        self._complaints = Throttle(COMPLAINT_PERIOD)

    def append(self, worker: str, message: Message) -> None:
        """Another one, unless there are too many."""
        if self.size > MAX_WAITING:
            if self._complaints.passes(worker, monotonic()):
                logger.warning("the worker %s takes no calls: %d bytes wait for it, and broadcasts to it are dropped", worker,
                               self.size)
            return
        self.messages.append(message)
        self.size += len(message.body)

    def popleft(self) -> Message:
        """The next one."""
        message = self.messages.popleft()
        self.size -= len(message.body)
        return message
