"""Channels on a Redis that workers of several machines share: one connection to listen, one to speak.

Owns both connections, their coming back, and what waits for them: what is said in one turn of the event loop is one pipeline,
and for each message it is learnt how many have heard it. Knows nothing of what is said.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
from gevent.event import AsyncResult, Event

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.redis.login import TIMEOUT, RedisLink, Unreachable
from engineio_wsgi.cluster.redis.resp import RedisWire, command
from engineio_wsgi.deadline import Deadline
from engineio_wsgi.throttle import Throttle

__all__ = ["Bus", "Outgoing"]

logger = logging.getLogger("engine.cluster")

#: bytes that Redis has not taken yet; what comes beyond them is dropped
MAX_WAITING = 16_000_000
#: seconds between two attempts to reach Redis, at first and at most
FIRST_RETRY, LAST_RETRY = 0.05, 1.0
#: seconds between two looks whether everything has been heard
FLUSH_PAUSE = 0.005
#: seconds for which the same complaint is not logged again
COMPLAINT_PERIOD = 60.0
CONFIRMATIONS = (b"subscribe", b"ssubscribe")
MESSAGES = (b"message", b"smessage")


class Outgoing(NamedTuple):
    """A message on its way.

    Attributes:
        channel: its name.
        data: the message.
        lasting: whether it is to be sent after Redis has been away. If not, its sender sends it anew by itself.
        on_heard: called in the hub with the number of those who have heard it; never, if nobody knows.
    """

    channel: str
    data: bytes
    lasting: bool
    on_heard: Callable[[int], object] | None = None


class Bus:
    """One worker's connections to Redis. Made in the hub, after any fork; :meth:`open` connects.

    Args:
        link: the way to Redis.
        channels: to listen to.
        probe: a message that does nothing. It is published on the first channel, to see whether that is allowed.
        receive: called in the hub with each message, in their order. Must not block.
        on_up: called each time that Redis has been reached again, with the seconds that it was away. Must not block.
        on_down: called each time that Redis is lost, with what is known of the reason. Must not block.
    """

    def __init__(self, link: RedisLink, channels: list[str], probe: bytes, receive: Callable[[bytes], object],
                 on_up: Callable[[float], object], on_down: Callable[[Exception], object]) -> None:
        self._link = link
        self._channels = channels
        self._probe = probe
        self._receive = receive
        self._on_up = on_up
        self._on_down = on_down
        self._queue: deque[Outgoing] = deque()
        self._sent: deque[Outgoing] = deque()
        self._waiting = 0
        self._flushing = False
        self._loop: Any = gevent.get_hub().loop
        self._listening = Event()
        self._missing = 0
        self._lost: AsyncResult = AsyncResult()
        self._listener: RedisWire | None = None
        self._speaker: RedisWire | None = None
        #: whether Redis is there
        self.up = False
        #: of the monotonic clock: since when
        self.up_since = 0.0
        self._publish = b"SPUBLISH" if link.sharded else b"PUBLISH"
        self._complaints = Throttle(COMPLAINT_PERIOD)
        self._greenlet = gevent.Greenlet(self._stay)

    # -- connections

    def open(self) -> None:
        """Connect and listen. Blocks until then; what is published meanwhile waits, and messages may arrive before it returns.

        Raises:
            Unreachable: Redis is not there, or does not let this user do what is needed.
            FileExistsError: somebody listens to the first channel already.
        """
        self._reach(first=True)
        self._greenlet.start()

    def _reach(self, first: bool = False) -> None:
        self._lost = AsyncResult()
        self._missing = len(self._channels)
        self._listening.clear()
        try:
            wire, (_, listeners) = self._link.open(("PING",), (self._publish, self._channels[0], self._probe))
            self._speaker = RedisWire(wire, TIMEOUT, self._on_answered, self._lost.set)
            if first and listeners:
                raise FileExistsError(f"somebody listens to {self._channels[0]} already")
            self._listen()
        except BaseException:
            self._hang_up()
            raise
        self.up = True
        self.up_since = monotonic()
        self._flush_soon()

    def _listen(self) -> None:
        wire, _ = self._link.open()
        self._listener = RedisWire(wire, TIMEOUT, self._on_listened, self._on_deaf)
        verb = b"SSUBSCRIBE" if self._link.sharded else b"SUBSCRIBE"
        for channel in self._channels:
            self._listener.send(command(verb, channel.encode()))
        Deadline(TIMEOUT).wait(self._listening)
        if self._missing:
            late = TimeoutError(f"it has not confirmed a subscription for {TIMEOUT:g} s")
            raise Unreachable(self._link.refused(self._lost.value or late))

    def _on_deaf(self, error: Exception) -> None:
        """The connection to listen with is of no use."""
        if not self._lost.ready():
            self._lost.set(error)
        self._listening.set()

    def _hang_up(self) -> None:
        self.up = False
        for wire in (self._listener, self._speaker):
            if wire is not None:
                wire.close()
        self._listener = self._speaker = None
        # what was sent may have been heard: who sends it anew knows how to tell, and nothing else is said twice
        self._sent.clear()
        self._queue = deque(each for each in self._queue if each.lasting)
        self._waiting = sum(len(each.data) for each in self._queue)

    def _stay(self) -> None:
        pause = FIRST_RETRY
        while True:
            lost = self._lost.get()
            lost_at = monotonic()
            self._hang_up()
            self._on_down(lost)
            if self._complaints.passes(str(lost), monotonic()):
                logger.warning("Redis is lost (%s): requests for other machines' sessions wait for it", lost)
            # one that is there and refuses everything shall not be asked all the time
            pause = FIRST_RETRY if monotonic() - self.up_since > LAST_RETRY else min(2 * pause, LAST_RETRY)
            self._reach_again(pause)
            logger.info("Redis is there again")
            self._on_up(self.up_since - lost_at)

    def _reach_again(self, pause: float) -> None:
        while True:
            gevent.sleep(pause)
            try:
                self._reach()
            except Unreachable as error:
                logger.debug("= %s", error)
                pause = min(2 * pause, LAST_RETRY)
            else:
                return

    # -- listening

    def _on_listened(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            self._on_deaf(reply)
        elif not isinstance(reply, list):
            return  # a sign of life of a connection that has not subscribed yet
        elif reply[0] in MESSAGES:
            self._receive(reply[2])
        elif reply[0] in CONFIRMATIONS:
            self._missing -= 1
            if not self._missing:
                self._listening.set()

    # -- speaking

    def publish(self, outgoing: Outgoing) -> bool:
        """Send a message. Does not block.

        Returns:
            Whether it will be sent. ``False`` if too much is waiting, or Redis is away and the message does not wait for it.
        """
        if not (self.up or outgoing.lasting) or self._waiting > MAX_WAITING:
            return False
        self._queue.append(outgoing)
        self._waiting += len(outgoing.data)
        if self.up:
            self._flush_soon()
        return True

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.run_callback(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        batch = self._queue
        if self._speaker is None or not batch:
            return
        self._queue = deque()
        self._sent.extend(batch)
        self._speaker.send(b"".join([command(self._publish, each.channel.encode(), each.data) for each in batch]))

    def _on_answered(self, reply: Any) -> None:
        if isinstance(reply, int):
            each = self._sent.popleft()
            self._waiting -= len(each.data)
            if each.on_heard is not None:
                each.on_heard(reply)
        elif reply != b"PONG":
            self._lost.set(reply)

    def flush(self, timeout: float) -> None:
        """Block until Redis has everything that was published, for ``timeout`` seconds at most."""
        deadline = Deadline(timeout)
        while self.up and self._waiting and not deadline.has_passed():
            gevent.sleep(FLUSH_PAUSE)

    def forsake(self) -> None:
        """In a forked child: the connections are the parent's. What waits for them is the parent's to say."""
        self._greenlet.kill(block=False)
        self._queue.clear()
        self._hang_up()

    def close(self, timeout: float) -> None:
        """Send what waits, for ``timeout`` seconds at most, and hear nothing more. Harmless if repeated."""
        self.flush(timeout)
        gevent.kill(self._greenlet)
        self._hang_up()
