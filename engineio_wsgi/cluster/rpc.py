"""Remote calls between workers: send, broadcast, disconnect and count sessions of other workers.

Owns what a call does in the worker that carries it out, the answers to calls, and the interfaces of those who call:
`local.calls`, `redis.links` and `redis.one_shot`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from gevent.event import Event

from engineio_wsgi.cluster.messages import Action, Call, Message
from engineio_wsgi.engine.registry import send_or_not
from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.errors import BadMessage, BundleTooLarge
from engineio_wsgi.runtime.deadline import Deadline

__all__ = ["CALL_TIMEOUT", "Answers", "Caller", "Carrier", "WorkerCaller", "perform"]

T = TypeVar("T")

#: seconds that another worker has to answer a call
CALL_TIMEOUT = 5.0


def perform(worker: Worker, call: Call, body: bytes) -> int:
    """Carry out a call of another process. Returns how many sessions it concerned.

    May block while a client's write buffer is full.

    Raises:
        BadMessage: what the call should send is in another form, or is a bundle that does not fit into a write buffer.
    """
    if call.action is Action.COUNT:
        return len(worker.clients)
    try:
        if call.action is Action.BROADCAST:
            return worker.deliver(call.data(body), call.delivery)
        session = worker.clients.get(call.sids[0])
        if session is None:
            return 0
        if call.action is Action.SEND:
            return int(send_or_not(session, call.data(body), call.compress))
    except BundleTooLarge as error:
        raise BadMessage(str(error)) from error
    session.close()
    return 1


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
