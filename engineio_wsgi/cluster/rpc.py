"""Remote calls between workers: send, broadcast, disconnect and count sessions of other workers.

Owns the calls to the other workers of this machine, their order, and what a call from another worker does here.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import gevent
from gevent.event import Event

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.local.channel import Channel, connect
from engineio_wsgi.cluster.local.names import Names, is_worker_id
from engineio_wsgi.cluster.messages import Action, BadMessage, Call, Kind, Message, read_result
from engineio_wsgi.deadline import Deadline
from engineio_wsgi.engine.registry import send_or_not
from engineio_wsgi.errors import BundleTooLarge, OwnerGone
from engineio_wsgi.http.hub_thread import has_hub
from engineio_wsgi.session.delivery import Delivery
from engineio_wsgi.session.outgoing import Outgoing
from engineio_wsgi.session.socket import Socket
from engineio_wsgi.throttle import Throttle

__all__ = ["Answers", "Caller", "Carrier", "LocalCaller", "SessionsHere", "WorkerCaller", "perform"]

logger = logging.getLogger("engine.cluster")

T = TypeVar("T")

#: seconds that another worker has to answer a call
CALL_TIMEOUT = 5.0
#: bytes of calls that may wait for one worker; calls beyond them are dropped
MAX_WAITING = 16_000_000


class SessionsHere(Protocol):
    """The sessions of this process."""

    #: by their ids
    clients: Mapping[str, Socket]

    def deliver(self, data: Outgoing, delivery: Delivery) -> int:
        """Send a message or a bundle to those that it is for. Returns their number."""
        ...


def perform(host: SessionsHere, call: Call, body: bytes) -> int:
    """Carry out a call of another process. Returns how many sessions it concerned.

    May block while a client's write buffer is full.

    Raises:
        BadMessage: what the call should send is in another form, or is a bundle that does not fit into a write buffer.
    """
    try:
        return _perform(host, call, body)
    except BundleTooLarge as error:
        raise BadMessage(str(error)) from error


def _perform(host: SessionsHere, call: Call, body: bytes) -> int:
    if call.action is Action.COUNT:
        return len(host.clients)
    if call.action is Action.BROADCAST:
        return host.deliver(call.data(body), call.delivery)
    session = host.clients.get(call.sids[0])
    if session is None:
        return 0
    if call.action is Action.DISCONNECT:
        session.close()
        return 1
    return int(send_or_not(session, call.data(body), call.compress))


class Answers(Generic[T]):
    """The answers of several workers, until all of them are there. Only the hub's greenlets may use it."""

    def __init__(self) -> None:
        self.by_worker: dict[str, T] = {}
        #: the number of workers that will answer; -1 until it is known
        self._expected = -1
        self._complete = Event()

    def expect(self, workers: int) -> None:
        """So many workers have got the question."""
        self._expected = workers
        self._check()

    def add(self, worker: str, answer: T) -> None:
        """A worker has answered."""
        self.by_worker[worker] = answer
        self._check()

    def _check(self) -> None:
        if 0 <= self._expected <= len(self.by_worker):
            self._complete.set()

    def wait(self, timeout: float) -> bool:
        """Block until all answers are there. Returns ``False`` if they are not after ``timeout`` seconds."""
        return Deadline(timeout).wait(self._complete)


class Caller(Protocol):
    """Asks workers to carry out calls. Every method blocks until they have."""

    def others(self) -> list[str]:
        """The ids of the workers, except this one."""
        ...

    def ask(self, worker: str, message: Message) -> int:
        """Ask one worker. Returns how many sessions the call concerned.

        Raises:
            OwnerGone: the worker does not exist, or has not answered; in that case it may have carried out the call.
        """
        ...

    def ask_all(self, message: Message) -> dict[str, int]:
        """Ask all of them at once. Returns the results by worker, without those that have not answered."""
        ...


class Carrier(Protocol):
    """Carries calls to other workers. Nothing here blocks."""

    def tell(self, worker: str, message: Message, on_heard: Callable[[int], object] | None = None) -> bool:
        """Have one worker carry out a call later, in the order of the calls.

        Args:
            on_heard: called, possibly at once, with the number of workers that will get the call; not called if that stays
                unknown. With it, the call does not wait for a Redis that is away.

        Returns:
            Whether the call will be sent.
        """
        ...

    def tell_all(self, message: Message, on_heard: Callable[[int], object] | None = None) -> bool:
        """Have all others carry out a call later, each in the order of the calls; see :meth:`tell`."""
        ...


class WorkerCaller(Caller, Carrier, Protocol):
    """Both, for one worker."""

    def after_fork(self) -> None:
        """In a forked child: drop the calls that the parent has under way."""
        ...


class LocalCaller:
    """Asks the workers of this machine. Without :meth:`tell_all`, from any thread, with gevent and without it.

    Args:
        names: of their sockets.
        worker_id: this one's; empty for a process that is no worker.
    """

    def __init__(self, names: Names, worker_id: str = "") -> None:
        self._names = names
        self._worker_id = worker_id
        self._waiting: dict[str, _Queue] = {}

    def others(self) -> list[str]:
        """See :class:`Caller`."""
        return [worker for worker in self._names.workers() if worker != self._worker_id]

    def ask(self, worker: str, message: Message) -> int:
        """See :class:`Caller`."""
        deadline = monotonic() + CALL_TIMEOUT
        channel = connect(self._names.address(worker), deadline)
        try:
            reply = channel.ask(message, deadline)
            return read_result(reply) if reply.kind is Kind.RESULT else 0
        except (OSError, BadMessage) as error:
            raise OwnerGone(str(error)) from error
        finally:
            channel.close()

    def ask_all(self, message: Message) -> dict[str, int]:
        """See :class:`Caller`. One after the other where there is no hub."""
        results: dict[str, int] = {}

        def ask(worker: str) -> None:
            with suppress(OwnerGone):
                results[worker] = self.ask(worker, message)

        if has_hub():
            gevent.joinall([gevent.spawn(ask, worker) for worker in self.others()])
        else:
            for worker in self.others():
                ask(worker)
        return results

    def tell_all(self, message: Message, on_heard: Callable[[int], object] | None = None) -> bool:
        """See :class:`Carrier`."""
        others = self.others()
        for worker in others:
            self._enqueue(worker, message)
        if on_heard is not None:
            on_heard(len(others))
        return True

    def tell(self, worker: str, message: Message, on_heard: Callable[[int], object] | None = None) -> bool:
        """See :class:`Carrier`."""
        is_there = is_worker_id(worker) and (on_heard is None or worker in self._names.workers())
        if on_heard is not None:
            on_heard(int(is_there))
        if not is_there:
            return False
        self._enqueue(worker, message)
        return True

    def _enqueue(self, worker: str, message: Message) -> None:
        queue = self._waiting.get(worker)
        if queue is None:
            queue = self._waiting[worker] = _Queue()
            gevent.spawn(self._work_off, worker, queue)
        queue.append(worker, message)

    def after_fork(self) -> None:
        """See :class:`WorkerCaller`."""
        for queue in self._waiting.values():
            queue.messages.clear()

    def _work_off(self, worker: str, queue: _Queue) -> None:
        """Send what waits, over one channel: a new one costs more than most calls."""
        channel: Channel | None = None
        try:
            while queue.messages:
                message, deadline = queue.popleft(), monotonic() + CALL_TIMEOUT
                channel = channel or connect(self._names.address(worker), deadline)
                channel.ask(message, deadline)
        except (OwnerGone, OSError, BadMessage) as error:
            logger.debug("= dropped %d calls to the worker %s: %s", 1 + len(queue.messages), worker, error)
        finally:
            if channel is not None:
                channel.close()
            del self._waiting[worker]


class _Queue:
    """The calls that wait for one worker."""

    __slots__ = ("_complaints", "messages", "size")

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.size = 0
        self._complaints = Throttle()

    def append(self, worker: str, message: Message) -> None:
        """Add a call, unless too many wait."""
        if self.size > MAX_WAITING:
            if self._complaints.passes(worker, monotonic()):
                logger.warning("messages to the worker %s are dropped: it does not answer, and %d bytes wait for it", worker,
                               self.size)
            return
        self.messages.append(message)
        self.size += len(message.body)

    def popleft(self) -> Message:
        """Remove the next call."""
        message = self.messages.popleft()
        self.size -= len(message.body)
        return message
