"""Calls to the workers of this machine, each over a channel.

Owns the calls that wait for a worker, and their order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from contextlib import suppress

import gevent

from engineio_wsgi.cluster.bounded_queue import BoundedQueue
from engineio_wsgi.cluster.local.channel import Channel, connect, pause
from engineio_wsgi.cluster.local.names import FORMER, Names, is_worker_id
from engineio_wsgi.cluster.messages import Kind, Message, Refusal, read_result
from engineio_wsgi.cluster.rpc import CALL_TIMEOUT
from engineio_wsgi.errors import BadMessage, OwnerGone
from engineio_wsgi.http.hub_thread import has_hub
from engineio_wsgi.log import Throttle
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["LocalCaller"]

logger = logging.getLogger("engine.cluster")

#: bytes of calls that may wait for one worker; calls beyond them are dropped
MAX_WAITING = 16_000_000
#: seconds until a call for a session that moves is repeated
RETRY_PERIOD = 0.005


class LocalCaller:
    """Asks the workers of this machine. Any thread may do so, with and without gevent; to tell them something, only the hub's.

    Args:
        names: of their sockets.
        own: the ids of this worker; none for a process that is no worker.
    """

    def __init__(self, names: Names, own: Container[str] = ()) -> None:
        self._names = names
        self._own = own
        #: the calls that wait for each worker
        self._waiting: dict[str, BoundedQueue[Message]] = {}
        self._throttle = Throttle()

    def others(self) -> list[str]:
        """See :class:`Caller`."""
        return [worker for worker in self._names.workers() if worker not in self._own]

    def ask(self, worker: str, message: Message) -> int:
        """See :class:`Caller`."""
        try:
            channel, reply = self._exchange(worker, message)
            channel.close()
            return read_result(reply) if reply.kind is Kind.RESULT else 0
        except (OSError, BadMessage) as error:
            raise OwnerGone(str(error)) from error

    def _exchange(self, worker: str, message: Message, channel: Channel | None = None) -> tuple[Channel, Message]:
        """Send a call, and follow the session or the name that it is for if that moves. Returns the channel, and the reply.

        Args:
            channel: to the worker, if there is one. It is closed if another one is returned, and after an error.
        """
        deadline = monotonic() + CALL_TIMEOUT
        name = worker
        while True:
            channel = channel or connect(self._names.address(name), deadline)
            try:
                reply = channel.ask(message, deadline)
                refusal = Refusal.of(reply) if reply.kind is Kind.REFUSED else None
            except BaseException:
                channel.close()
                raise
            if refusal not in (Refusal.MOVED, Refusal.FORMER) or monotonic() > deadline:
                return channel, reply
            channel.close()
            channel = None
            name = worker + FORMER if refusal is Refusal.FORMER else worker
            pause(RETRY_PERIOD)

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
            queue = self._waiting[worker] = BoundedQueue(MAX_WAITING)
            gevent.spawn(self._work_off, worker, queue)
        if not queue.append(message, len(message.body)) and self._throttle.passes(worker, monotonic()):
            logger.warning("messages to the worker %s are dropped: it does not answer, and %d bytes wait for it", worker,
                           queue.size)

    def after_fork(self) -> None:
        """See :class:`WorkerCaller`."""
        for queue in self._waiting.values():
            queue.clear()

    def _work_off(self, worker: str, queue: BoundedQueue[Message]) -> None:
        """Send what waits, over one channel: a new one costs more than most calls."""
        channel: Channel | None = None
        try:
            while queue:
                channel, _ = self._exchange(worker, queue.popleft(), channel)
            if channel is not None:
                channel.close()
        except (OwnerGone, OSError, BadMessage) as error:
            logger.debug("= dropped %d calls to the worker %s: %s", 1 + len(queue), worker, error)
        finally:
            del self._waiting[worker]

    def tell_former(self, worker: str, message: Message) -> None:
        """Have the process that had a worker's id before carry out a call later, in the order of the calls. Does not block."""
        self._enqueue(worker + FORMER, message)
