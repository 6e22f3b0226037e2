"""Publishing and subscribing on a Redis that workers of several machines share, over one connection.

Owns the connection, its reconnection, and the messages that wait for it. Messages that are published until the event loop has
nothing else to do go out as one pipeline of limited length, and the publisher learns how many subscribers have received each.
Knows nothing of their content.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import gevent
from gevent.event import AsyncResult, Event
from hiredis import PushNotification

from engineio_wsgi.cluster.redis.login import TIMEOUT, RedisConnector
from engineio_wsgi.cluster.redis.resp import RedisConnection, pack_command
from engineio_wsgi.errors import Unreachable
from engineio_wsgi.log import Throttle
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.runtime.loop import IoLoop, Watcher

__all__ = ["PubSub", "Publication"]

logger = logging.getLogger("engine.cluster")

#: bytes that Redis has not taken yet; messages beyond them are dropped
MAX_WAITING = 16_000_000
#: seconds between two attempts to reach Redis, at first and at most
FIRST_RETRY, LAST_RETRY = 0.05, 1.0
#: seconds for which a message is kept at most, to send others with it
MAX_DELAY = 0.001
#: messages that are sent at once. With more in one batch, the requests of many clients go round all workers together, and only
#: one process at a time has something to do
MAX_BATCH = 16
#: seconds between two checks whether all messages have been received
FLUSH_PAUSE = 0.005
#: switches to RESP3, where one connection may publish and subscribe (Redis 6)
HELLO = pack_command("HELLO", "3")
CONFIRMATIONS = (b"subscribe", b"ssubscribe")
MESSAGES = (b"message", b"smessage")


class Publication(NamedTuple):
    """A message to publish.

    Attributes:
        channel: its name.
        data: the message.
        lasting: whether it is published after Redis was away. If not, its sender repeats it.
        on_heard: called in the hub with the number of its receivers; not called if that is not known.
    """

    channel: bytes
    data: bytes
    lasting: bool
    on_heard: Callable[[int], object] | None = None


class PubSub:
    """One worker's connection to Redis. Made in the hub, after any fork; :meth:`open` connects.

    Args:
        connector: makes connections to Redis.
        channels: to subscribe to.
        probe: a message without effect. It is published on the first channel, to check that this is allowed.
        receive: called in the hub with each message, in their order. Must not block.
        on_up: called each time that Redis has been reached again, with the seconds that it was away. Must not block.
        on_down: called each time that Redis is lost, with the reason as far as it is known. Must not block.
    """

    def __init__(self, connector: RedisConnector, channels: list[bytes], probe: bytes, receive: Callable[[bytes], object],
                 on_up: Callable[[float], object], on_down: Callable[[Exception], object]) -> None:
        self._connector = connector
        self._channels = channels
        self._probe = probe
        self._receive = receive
        self._on_up = on_up
        self._on_down = on_down
        self._queue: deque[Publication] = deque()
        self._sent: deque[Publication] = deque()
        self._waiting = 0
        self._loop: IoLoop = gevent.get_hub().loop
        #: fires when the loop has nothing else to do
        self._idle = self._loop.idle()
        #: fires if the loop stays busy; ``None`` if nothing is about to be sent
        self._late: Watcher | None = None
        #: set once all subscriptions are confirmed, or the connection is lost
        self._settled = Event()
        self._unconfirmed = 0
        self._lost: AsyncResult = AsyncResult()
        self._connection: RedisConnection | None = None
        #: whether Redis is connected
        self.connected = False
        #: since when, on the monotonic clock
        self.connected_since = 0.0
        self._throttle = Throttle()
        self._greenlet = gevent.Greenlet(self._keep_connected)

    # -- the connection

    def open(self) -> None:
        """Connect and subscribe. Blocks until then; messages may arrive before it returns.

        Raises:
            Unreachable: Redis is not there, or does not let this user do what is needed.
            FileExistsError: another connection has subscribed to the first channel already.
        """
        self._connect(first=True)
        self._greenlet.start()

    def _connect(self, first: bool = False) -> None:
        connector = self._connector
        connection, (_, listeners) = connector.open(("PING",), (connector.publish, self._channels[0], self._probe))
        self._lost = AsyncResult()
        self._unconfirmed = len(self._channels)
        self._settled.clear()
        self._connection = RedisConnection(connection, TIMEOUT, self._on_reply, self._lose)
        try:
            if first and listeners:
                raise FileExistsError(f"another connection has subscribed to {self._channels[0].decode()} already")
            # each subscription by itself: in a Redis Cluster, too, all have the same slot
            self._connection.send(HELLO + b"".join([pack_command(connector.subscribe, each) for each in self._channels]))
            Deadline(TIMEOUT).wait(self._settled)
            if self._unconfirmed:
                late = TimeoutError(f"it has not confirmed a subscription for {TIMEOUT:g} s")
                raise Unreachable(connector.refused(self._lost.value or late))
        except BaseException:
            self._disconnect()
            raise
        self.connected = True
        self.connected_since = monotonic()
        self._flush_soon()

    def _lose(self, error: Exception) -> None:
        """The connection is lost, or cannot be used."""
        if not self._lost.ready():
            self._lost.set(error)
        self._settled.set()

    def _disconnect(self) -> None:
        self.connected = False
        self._stop_waiting()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        # what was sent may have been received: a link finds out and repeats it, and nothing else is sent twice
        self._sent.clear()
        self._queue = deque(each for each in self._queue if each.lasting)
        self._waiting = sum(len(each.data) for each in self._queue)

    def _keep_connected(self) -> None:
        """Reconnect whenever the connection is lost."""
        pause = FIRST_RETRY
        while True:
            lost = self._lost.get()
            lost_at = monotonic()
            self._disconnect()
            self._on_down(lost)
            if self._throttle.passes(str(lost), monotonic()):
                logger.warning("Redis is disconnected (%s): requests for sessions of other machines wait for it", lost)
            # a Redis that accepts connections and refuses everything else is not tried all the time
            pause = FIRST_RETRY if monotonic() - self.connected_since > LAST_RETRY else min(2 * pause, LAST_RETRY)
            self._reconnect(pause)
            logger.info("Redis is connected again")
            self._on_up(self.connected_since - lost_at)

    def _reconnect(self, pause: float) -> None:
        while True:
            gevent.sleep(pause)
            try:
                self._connect()
            except Unreachable as error:
                logger.debug("= %s", error)
                pause = min(2 * pause, LAST_RETRY)
            else:
                return

    # -- replies and messages

    def _on_reply(self, reply: object) -> None:
        """A reply, or a message: hiredis returns whatever Redis has sent."""
        if isinstance(reply, PushNotification):
            if reply[0] in MESSAGES:
                self._receive(reply[2])
            elif reply[0] in CONFIRMATIONS:
                self._unconfirmed -= 1
                if not self._unconfirmed:
                    self._settled.set()
        elif isinstance(reply, int):
            each = self._sent.popleft()
            self._waiting -= len(each.data)
            if each.on_heard is not None:
                each.on_heard(reply)
        elif isinstance(reply, Exception):
            self._lose(reply)

    # -- publishing

    def publish(self, publication: Publication) -> bool:
        """Publish a message. Does not block.

        Returns:
            Whether it will be published. ``False`` if too much is waiting, or Redis is away and the message does not wait for it.
        """
        if not (self.connected or publication.lasting) or self._waiting > MAX_WAITING:
            return False
        self._queue.append(publication)
        self._waiting += len(publication.data)
        if self.connected:
            if len(self._queue) >= MAX_BATCH:
                self._flush()
            else:
                self._flush_soon()
        return True

    def _flush_soon(self) -> None:
        """Send once the loop has nothing else to do: what is published until then goes out with the same system call."""
        if self._late is None:
            self._late = self._loop.timer(MAX_DELAY)
            self._late.start(self._flush)
            self._idle.start(self._flush)

    def _stop_waiting(self) -> None:
        self._idle.stop()
        if self._late is not None:
            self._late.close()
            self._late = None

    def _flush(self) -> None:
        self._stop_waiting()
        batch = self._queue
        if not self.connected or self._connection is None or not batch:
            return
        self._queue = deque()
        self._sent.extend(batch)
        self._connection.send(b"".join([pack_command(self._connector.publish, each.channel, each.data) for each in batch]))

    def flush(self, timeout: float) -> None:
        """Block until Redis has all published messages, for ``timeout`` seconds at most."""
        deadline = Deadline(timeout)
        while self.connected and self._waiting and not deadline.has_passed():
            gevent.sleep(FLUSH_PAUSE)

    def after_fork(self) -> None:
        """In a forked child: the connection and the messages that wait for it are the parent's."""
        self._greenlet.kill(block=False)
        self._queue.clear()
        self._disconnect()

    def close(self, timeout: float) -> None:
        """Send what waits, for ``timeout`` seconds at most, and receive nothing more. Harmless if repeated."""
        self.flush(timeout)
        gevent.kill(self._greenlet)
        self._disconnect()
