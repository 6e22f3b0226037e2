"""Topics: what an application's workers publish to each other, and the subscribers that are called with it.

Owns the subscriptions of a server, the order of a publisher's messages, and the limits of a message. Knows no other workers:
`publisher` sends and receives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TypeAlias

from engineio_wsgi.cluster.bounded_queue import BoundedQueue
from engineio_wsgi.log import Throttle
from engineio_wsgi.options.functions import check_function
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.session.dispatcher import LISTENER_ERRORS
from engineio_wsgi.session.outgoing import as_message
from engineio_wsgi.transports.base import size_of

__all__ = ["MAX_DATA", "MAX_TOPIC", "Reply", "Subscriber", "Topics", "check_data", "check_topic"]

logger = logging.getLogger("engine.cluster")

#: characters of a topic
MAX_TOPIC = 255
#: bytes of what is published at once, and of a reply: Redis drops a subscriber for which it has to keep 32 MB
MAX_DATA = 8_000_000
#: bytes that may wait for the subscribers of a topic, of each publisher; messages beyond them are dropped
MAX_WAITING = 16_000_000
#: seconds after which the event loop runs although more messages wait
SLICE = 0.01
#: publishers whose last numbers are kept
MAX_PUBLISHERS = 10_000

#: what a subscriber has returned
Reply: TypeAlias = str | bytes | None
Subscriber: TypeAlias = Callable[[str | bytes], object]
#: called with whether a subscriber has returned, and with the reply
Answer: TypeAlias = Callable[[bool, Reply], object]
#: the messages of one publisher that wait for the subscribers of one topic, with what is called with the answer
_Queue: TypeAlias = BoundedQueue[tuple[str | bytes, Answer | None]]


class _Subscription:
    """One subscriber, for one call of ``subscribe``. It is called in a context of its framework."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self.call = call


class Topics:
    """The subscribers of one server in this process, by topic. They exist before the process is a worker, and after a fork.

    Args:
        submit: has a function called soon, in a greenlet that it may block.
        stand_in: returns the callable that is called in place of a subscriber.
    """

    def __init__(self, submit: Callable[[Callable[[], object]], object],
                 stand_in: Callable[[Subscriber], Callable[..., object]]) -> None:
        self._submit = submit
        self._stand_in = stand_in
        self._subscriptions: dict[str, tuple[_Subscription, ...]] = {}
        #: guards the replacement of a topic's subscriptions
        self._changing = Lock()
        #: of each topic and publisher
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._newest: dict[str, int] = {}
        self._throttle = Throttle()

    # -- subscriptions

    def subscribe(self, topic: str, callback: Subscriber) -> Callable[[], None]:
        """Call ``callback(data)`` with each message of a topic. Any thread may call this.

        Returns:
            A function that ends the subscription. Harmless if repeated.

        Raises:
            TypeError, ValueError: ``topic`` is no name of a topic, or ``callback`` is not callable.
            ConfigurationError: ``callback`` is a coroutine function, or makes a generator: its body would never run.
        """
        check_topic(topic)
        if not callable(callback):
            raise TypeError(f"a subscriber must be callable, not {type(callback).__name__}")
        check_function("a subscriber of a topic", callback)
        subscription = _Subscription(self._stand_in(callback))
        with self._changing:
            self._subscriptions[topic] = (*self._subscriptions.get(topic, ()), subscription)
        return partial(self._unsubscribe, topic, subscription)

    def _unsubscribe(self, topic: str, subscription: _Subscription) -> None:
        with self._changing:
            left = tuple(each for each in self._subscriptions.get(topic, ()) if each is not subscription)
            if left:
                self._subscriptions[topic] = left
            else:
                self._subscriptions.pop(topic, None)

    def after_fork(self) -> None:
        """In a forked child: what waits is the parent's. The subscriptions stay, as listeners do."""
        self._changing = Lock()
        self._queues.clear()
        self._newest.clear()

    # -- messages

    def is_newer(self, publisher: str, number: int) -> bool:
        """Whether a publisher's message with this number comes in order. One that comes late is dropped: it has been given up."""
        if number <= self._newest.get(publisher, 0):
            return False
        if len(self._newest) >= MAX_PUBLISHERS:
            self._newest.clear()
        self._newest[publisher] = number
        return True

    def deliver(self, topic: str, publisher: str, data: str | bytes, answer: Answer | None = None) -> None:
        """Have the subscribers of a topic called with a message. Does not block. For the hub's thread only.

        Args:
            publisher: who sends it; the messages of one publisher stay in order, those of several do not wait for each other.
            answer: called when the subscribers have returned; if there is none, at once.
        """
        if topic not in self._subscriptions:
            if answer is not None:
                answer(False, None)
            return
        queue = self._queues.get((topic, publisher))
        if queue is None:
            queue = self._queues[topic, publisher] = BoundedQueue(MAX_WAITING)
            self._submit(partial(self._work_off, topic, publisher, queue))
        if not queue.append((data, answer), size_of(data)):
            if self._throttle.passes(topic, monotonic()):
                logger.warning("a subscriber of the topic %r is too slow: %d bytes wait for it, and messages are dropped", topic,
                               queue.size)
            if answer is not None:
                answer(False, None)

    def _work_off(self, topic: str, publisher: str, queue: _Queue) -> None:
        """In a greenlet of the pool: call the subscribers with what waits."""
        ends = monotonic() + SLICE
        try:
            while queue:
                self._call(topic, *queue.popleft())
                if monotonic() > ends:
                    break
        finally:
            # even if a subscriber has killed the greenlet
            if queue:
                self._submit(partial(self._work_off, topic, publisher, queue))
            elif self._queues.get((topic, publisher)) is queue:
                del self._queues[topic, publisher]

    def _call(self, topic: str, data: str | bytes, answer: Answer | None) -> None:
        has_returned, reply = False, None
        for subscription in self._subscriptions.get(topic, ()):
            try:
                result = subscription.call(data)
                if answer is not None and reply is None:
                    reply = None if result is None else check_data(result, "a reply")
                has_returned = True
            except LISTENER_ERRORS:
                logger.exception("a subscriber of the topic %r failed", topic)
        if answer is not None:
            answer(has_returned, reply)


def check_topic(topic: object) -> str:
    """Check the name of a topic.

    Raises:
        TypeError: it is no str.
        ValueError: it is empty or too long.
    """
    if not isinstance(topic, str):
        raise TypeError(f"a topic is a str, not {type(topic).__name__}")
    if not 0 < len(topic) <= MAX_TOPIC:
        raise ValueError(f"a topic has 1 to {MAX_TOPIC} characters, not {len(topic)}")
    return topic


def check_data(data: object, what: str = "what is published") -> str | bytes:
    """Check what is to be published, or a reply.

    Raises:
        TypeError: it is neither str nor bytes-like.
        ValueError: it is too large.
    """
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"{what} is str or bytes-like, not {type(data).__name__}")
    message = as_message(data)
    if size_of(message) > MAX_DATA:
        raise ValueError(f"{what} has {MAX_DATA} bytes at most, not {size_of(message)}")
    return message
