"""Channels on a Redis that workers of several machines share: one connection to listen, one to speak.

Owns both connections, their coming back, and the queue between them: one greenlet sends everything that waits as one pipeline,
and learns for each message how many have heard it. Knows nothing of what is said.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

import gevent
from gevent.event import Event
from redis.exceptions import TimeoutError as RedisTimeout

from engineio_wsgi.cluster.redis_link import LOST, TIMEOUT, RedisLink, Unreachable
from engineio_wsgi.throttle import Throttle

__all__ = ["Bus", "Outgoing"]

logger = logging.getLogger("engine.cluster")

#: messages of one pipeline
MAX_BATCH = 512
#: bytes that wait while Redis is away; what comes beyond them is dropped
MAX_WAITING = 16_000_000
#: seconds between two attempts to reach Redis, at first and at most
FIRST_RETRY, LAST_RETRY = 0.05, 1.0
#: seconds between two looks whether everything has been sent
FLUSH_PAUSE = 0.005
#: messages that are received before other greenlets get their turn
MAX_RECEIVED = 64
#: seconds for which the same complaint is not logged again
COMPLAINT_PERIOD = 60.0


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
    """One worker's connections to Redis. Made in the hub, after any fork. Blocks until it listens.

    Args:
        link: the way to Redis.
        channels: to listen to.
        receive: called with each message, in their order. Must not block.
        on_up: called each time that Redis has been reached, the first time excepted. Must not block.

    Raises:
        Unreachable: Redis is not there.
    """

    def __init__(self, link: RedisLink, channels: list[str], receive: Callable[[bytes], object],
                 on_up: Callable[[], object]) -> None:
        self._link = link
        self._channels = channels
        self._receive = receive
        self._on_up = on_up
        self._queue: deque[Outgoing] = deque()
        self._waiting = 0
        self._unanswered = 0
        self._something = Event()
        #: whether Redis is there
        self.up = False
        #: of the monotonic clock: since when
        self.up_since = 0.0
        self._publish = b"SPUBLISH" if link.sharded else b"PUBLISH"
        self._complaints = Throttle(COMPLAINT_PERIOD)
        self._greenlet = gevent.spawn(self._stay, *self._reach())

    # -- connections

    def _reach(self) -> tuple[Any, Any]:
        listener = self._link.connect()
        try:
            verb = "SSUBSCRIBE" if self._link.sharded else "SUBSCRIBE"
            listener.send_command(verb, *self._channels)
            for _ in self._channels:
                listener.read_response()
            speaker = self._link.connect()
        except BaseException as error:
            listener.disconnect()
            if isinstance(error, LOST):
                raise Unreachable(str(error)) from error
            raise
        self.up = True
        self.up_since = monotonic()
        return listener, speaker

    def _stay(self, listener: Any, speaker: Any) -> None:
        pause = FIRST_RETRY
        while True:
            lost = self._serve(listener, speaker)
            if self._complaints.passes(str(lost), monotonic()):
                logger.warning("Redis is lost (%s): requests for other machines' sessions wait for it", lost)
            # one that is there and refuses everything shall not be asked all the time
            pause = FIRST_RETRY if monotonic() - self.up_since > LAST_RETRY else min(2 * pause, LAST_RETRY)
            listener, speaker = self._reach_again(pause)
            logger.info("Redis is there again")
            self._on_up()

    def _serve(self, listener: Any, speaker: Any) -> BaseException | None:
        """Listen and speak until one of the two is lost. Returns why."""
        loops = [gevent.spawn(_until_lost, self._listen, listener), gevent.spawn(_until_lost, self._speak, speaker)]
        try:
            error: BaseException | None = gevent.wait(loops, count=1)[0].value
            return error
        finally:
            self.up = False
            gevent.killall(loops)
            listener.disconnect()
            speaker.disconnect()
            # who sends them anew would send them twice
            self._queue = deque(each for each in self._queue if each.lasting)
            self._unanswered = 0
            self._waiting = sum(len(each.data) for each in self._queue)

    def _reach_again(self, pause: float) -> tuple[Any, Any]:
        while True:
            gevent.sleep(pause)
            try:
                return self._reach()
            except Unreachable as error:
                logger.debug("= %s", error)
                pause = min(2 * pause, LAST_RETRY)

    # -- listening

    def _listen(self, connection: Any) -> None:
        silent = False
        received = 0
        while True:
            try:
                message = connection.read_response(disable_decoding=True, disconnect_on_error=False)
            except RedisTimeout:
                if silent:
                    raise
                # nobody has said anything for a while, or Redis is gone without a word: it has to answer
                silent = True
                connection.send_command("PING", check_health=False)
                continue
            silent = False
            if message[0] in (b"message", b"smessage"):
                self._receive(message[2])
                received += 1
                if received % MAX_RECEIVED == 0:
                    gevent.sleep(0)

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
        self._something.set()
        return True

    def _speak(self, connection: Any) -> None:
        while True:
            self._something.wait(TIMEOUT)
            self._send(connection, self._next_batch())

    def _next_batch(self) -> list[Outgoing]:
        queue = self._queue
        batch = [queue.popleft() for _ in range(min(len(queue), MAX_BATCH))]
        self._waiting -= sum(len(each.data) for each in batch)
        if not queue:
            self._something.clear()
        return batch

    def _send(self, connection: Any, batch: list[Outgoing]) -> None:
        """One pipeline; without anything to say, a sign of life."""
        commands: list[tuple[Any, ...]] = [(self._publish, each.channel, each.data) for each in batch] or [("PING",)]
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        if not batch:
            connection.read_response()
        self._unanswered = len(batch)
        for each in batch:
            heard = connection.read_response()
            self._unanswered -= 1
            if each.on_heard is not None:
                each.on_heard(heard)

    def flush(self, timeout: float) -> None:
        """Block until Redis has everything that was published, for ``timeout`` seconds at most."""
        deadline = monotonic() + timeout
        while self.up and (self._queue or self._unanswered) and monotonic() < deadline:
            gevent.sleep(FLUSH_PAUSE)

    def close(self, timeout: float) -> None:
        """Send what waits, for ``timeout`` seconds at most, and hear nothing more. Harmless if repeated."""
        self.flush(timeout)
        gevent.kill(self._greenlet)


def _until_lost(loop: Callable[[Any], object], connection: Any) -> BaseException | None:
    try:
        loop(connection)
    except LOST as error:
        return error
    return None
