"""The links of this worker to the workers of other machines, and the calls, which need no link.

Owns the links, and the answers to calls. Knows Redis only as publish and subscribe.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import gevent

from engineio_wsgi.cluster.local.channel import PATIENCE
from engineio_wsgi.cluster.local.names import is_worker_id
from engineio_wsgi.cluster.messages import Action, Call, Kind, Message, read_result, write_result
from engineio_wsgi.cluster.redis.calls import RedisCaller
from engineio_wsgi.cluster.redis.envelope import NO_LINK, Envelope
from engineio_wsgi.cluster.redis.login import RedisConnector
from engineio_wsgi.cluster.redis.pubsub import Publication, PubSub
from engineio_wsgi.cluster.redis.reliable_link import Conversation, ReliableLink
from engineio_wsgi.cluster.rpc import CALL_TIMEOUT, Answers
from engineio_wsgi.errors import BadMessage, ConfigurationError, OwnerGone, Unreachable
from engineio_wsgi.log import Throttle
from engineio_wsgi.options.redis_url import RedisLocation
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Watcher

__all__ = ["LinkFigures", "RedisLinks"]

logger = logging.getLogger("engine.cluster")

#: seconds after Redis was reached within which other workers may not have reconnected yet
GRACE = 3.0
#: seconds until messages to it are repeated
GRACE_PAUSE = 0.1
#: seconds that a worker has to reconnect, if it has only lost its connection
RETURN_GRACE = 0.3
#: seconds that a worker may be unreachable before its link is forgotten: longer than a request waits to be repeated
LINK_GRACE = PATIENCE + 1.0
#: seconds of delay after which the loop counts as having been blocked, and seconds in which it then receives what it missed
STANDSTILL, CATCH_UP = 1.0, 0.25
#: seconds between two checks of each link
CHECK_PERIOD = 2.0
#: seconds that Redis has to receive a withdrawal. If it does not, it has not received the withdrawn message either
FLUSH_TIMEOUT = 1.0
#: links after which idle ones are closed
MAX_IDLE = 256


class LinkFigures(NamedTuple):
    """What can be counted about the links of a worker.

    Attributes:
        listening: links to workers that listen, as far as it is known.
        absent: links to workers that do not.
        unacked_bytes: of messages that the other workers have not acknowledged.
        retransmitted: messages that were sent again.
    """

    listening: int = 0
    absent: int = 0
    unacked_bytes: int = 0
    retransmitted: int = 0


class RedisLinks(RedisCaller):
    """The links of one worker. Made in the hub, after any fork. Blocks until the worker has subscribed.

    Args:
        location: of Redis.
        group: of workers that serve each other's sessions.
        name: this worker's id.
        begun: called with each conversation that another worker begins, and its first message. Must not block.
        perform: carries out a call of another process. May block, except for broadcasts and what is published.
        announce: called with the name of an event and its argument. Must not block.

    Raises:
        ConfigurationError: Redis cannot be reached.
        FileExistsError: the id is taken.
    """

    def __init__(self, location: RedisLocation, group: str, name: str, begun: Callable[[Conversation, Message], object],
                 perform: Callable[[Call, bytes], int], announce: Callable[[str, object], object]) -> None:
        super().__init__(group)
        self.name = name
        self._begun = begun
        self._perform = perform
        self._announce = announce
        self._links: dict[str, ReliableLink] = {}
        #: by the links that are forgotten
        self._retransmitted = 0
        self._numbers = count(1)
        self._asked: dict[int, Answers[int]] = {}
        self._throttle = Throttle()
        self._connector = RedisConnector(location, self._channels.slot_key)
        #: of the monotonic clock: when the loop last ran, as far as it is known, and until when new conversations wait
        self._awake_at = self._held_until = monotonic()
        # an envelope without a message has no effect
        probe = Envelope(name).pack(b"")
        self._pubsub = PubSub(self._connector, [self._channels.of(name), self._channels.all], probe, self._receive,
                              self._on_reconnected, lambda lost: announce("cluster_lost", lost))
        try:
            self._pubsub.open()
        except Unreachable as error:
            raise ConfigurationError(f"cluster: {error}") from error
        self._timer: Watcher = gevent.get_hub().loop.timer(CHECK_PERIOD, CHECK_PERIOD)
        self._timer.start(self._check)

    # -- links

    def begin(self, worker: str, message: Message) -> Conversation:
        """Begin a conversation with another worker. Does not block.

        Raises:
            OwnerGone: too much waits for that worker.
        """
        conversation = self._link_to(worker).begin()
        conversation.open(message)
        return conversation

    def withdraw(self, conversation: Conversation) -> None:
        """End a conversation, and withdraw its first message. Blocks until Redis has the withdrawal, for a second at most."""
        conversation.withdraw()
        self._pubsub.flush(FLUSH_TIMEOUT)

    def _link_to(self, name: str) -> ReliableLink:
        link = self._links.get(name)
        if link is None:
            if len(self._links) >= MAX_IDLE:
                if not self._pubsub.connected:
                    # invented session ids must not fill the memory meanwhile
                    raise OwnerGone("Redis is disconnected, and there are too many links")
                self._sweep()
            link = self._links[name] = ReliableLink(self, name)
        return link

    def _sweep(self) -> None:
        for name, link in list(self._links.items()):
            if link.idle:
                self._forget(name)

    def _forget(self, name: str) -> None:
        link = self._links.pop(name)
        self._retransmitted += link.retransmitted
        link.close()

    def figures(self) -> LinkFigures:
        """What can be counted about the links. Any thread may call this."""
        links = list(self._links.values())
        listening = sum([link.listens for link in links])
        return LinkFigures(listening, len(links) - listening, sum([link.unacked_size for link in links]),
                           self._retransmitted + sum([link.retransmitted for link in links]))

    def post(self, receiver: str, data: bytes) -> bool:
        """Send an envelope to another worker; it may be lost. Does not block. Returns whether it will be published."""
        asked_at = monotonic()

        def heard(listeners: int) -> None:
            if not listeners:
                self._note_absent(receiver, asked_at)
            elif (link := self._links.get(receiver)) is not None:
                link.note_present()

        return self._pubsub.publish(Publication(self._channels.of(receiver), data, False, heard))

    def _note_absent(self, name: str, now: float) -> None:
        """No connection listened to a worker's channel: the worker is gone, or has only lost its connection to Redis.

        Args:
            now: when the message was published, of the monotonic clock. A blocked loop may read Redis' answer much later.
        """
        link = self._links.get(name)
        if link is None:
            return
        absent = link.note_absent(now)
        if now - self._pubsub.connected_since > GRACE:
            # no request waits for a worker that may be gone; but its messages are not forgotten so fast: it may repeat them
            if absent > RETURN_GRACE:
                link.give_up_unanswered()
            if not link.is_known or absent > LINK_GRACE:
                self._forget(name)
                return
        link.repeat_after(GRACE_PAUSE)

    def begun(self, conversation: Conversation, message: Message) -> None:
        """Another worker begins a conversation. If the loop was blocked, it may have been withdrawn since: that is read first."""
        if self._catches_up():
            gevent.spawn_later(CATCH_UP, self._begun, conversation, message)
        else:
            self._begun(conversation, message)

    def _catches_up(self) -> bool:
        """Whether the loop was blocked a moment ago. Called whenever it runs."""
        now = monotonic()
        if now - self._awake_at > CHECK_PERIOD + STANDSTILL:
            self._held_until = now + CATCH_UP
        self._awake_at = now
        return now < self._held_until

    def _check(self) -> None:
        self._catches_up()
        for link in list(self._links.values()):
            link.check()

    @property
    def connected(self) -> bool:
        """Whether Redis is connected."""
        return self._pubsub.connected

    def _on_reconnected(self, away: float) -> None:
        """Redis was away for ``away`` seconds: messages in both directions may be lost."""
        self._announce("cluster_back", away)
        for link in self._links.values():
            link.repeat_all()
            link.request_repeat()

    # -- receiving

    def _receive(self, data: bytes) -> None:
        try:
            envelope, message = Envelope.open(data)
            if envelope.origin == self.name:
                return
            if envelope.link == NO_LINK:
                self._receive_call(envelope, message)
            else:
                self._link_to(envelope.origin).receive(envelope, message)
        except BadMessage as error:
            if self._throttle.passes(str(error), monotonic()):
                logger.warning("a message on Redis was refused: %s", error)

    def _receive_call(self, envelope: Envelope, message: Message | None) -> None:
        if message is not None and message.kind is Kind.CALL:
            call = Call.of(message)
            if call.group != self._group:
                raise BadMessage(f"a call for the group {call.group!r}")
            if call.action is Action.BROADCAST or call.action is Action.PUBLISH:
                # in their order
                self._answer(envelope, self._perform(call, message.body))
            else:
                gevent.spawn(self._carry_out, envelope, call, message.body)
        elif message is not None and message.kind is Kind.RESULT:
            answers = self._asked.get(-envelope.conversation)
            if answers is not None:
                answers.add(envelope.origin, read_result(message))

    def _carry_out(self, envelope: Envelope, call: Call, body: bytes) -> None:
        try:
            self._answer(envelope, self._perform(call, body))
        except BadMessage as error:
            logger.warning("a call on Redis was refused: %s", error)

    def _answer(self, envelope: Envelope, sessions: int) -> None:
        if envelope.conversation:
            self._post_call(self._channels.of(envelope.origin), -envelope.conversation, write_result(sessions))

    # -- calls: each is carried out once, or not at all if Redis is disconnected meanwhile

    def _post_call(self, channel: bytes, number: int, message: Message, heard: Callable[[int], object] | None = None) -> bool:
        envelope = Envelope(self.name, conversation=number)
        # a caller that waits for an answer gets an error, so the call must not be carried out later
        return self._pubsub.publish(Publication(channel, envelope.pack(message.encode()), number == 0 and heard is None, heard))

    def _ask(self, channel: bytes, message: Message) -> dict[str, int]:
        """See :class:`RedisCaller`. No results while Redis is away."""
        number = next(self._numbers)
        answers = self._asked[number] = Answers()
        # a call to all workers comes back to this one, too, which ignores it
        itself = int(channel == self._channels.all)
        try:
            if self._post_call(channel, number, message, lambda heard: answers.expect(heard - itself)):
                answers.wait(CALL_TIMEOUT)
        finally:
            del self._asked[number]
        return answers.by_worker

    def tell_all(self, message: Message, on_heard: Callable[[int], object] | None = None) -> bool:
        """See :class:`Carrier`."""
        # this worker receives it, too
        return self._tell(self._channels.all, message, None if on_heard is None else lambda heard: on_heard(heard - 1))

    def tell(self, worker: str, message: Message, on_heard: Callable[[int], object] | None = None) -> bool:
        """See :class:`Carrier`."""
        return is_worker_id(worker) and self._tell(self._channels.of(worker), message, on_heard)

    def _tell(self, channel: bytes, message: Message, heard: Callable[[int], object] | None) -> bool:
        posted = self._post_call(channel, 0, message, heard)
        if not posted and heard is None and self._throttle.passes("full", monotonic()):
            logger.warning("broadcasts to other machines are dropped: too many bytes wait for Redis")
        return posted

    def after_fork(self) -> None:
        """In a forked child: the connection and the links are the parent's."""
        self._timer.close()
        self._pubsub.after_fork()
        self._links.clear()

    def close(self, timeout: float) -> None:
        """Send queued messages, for ``timeout`` seconds at most, and unsubscribe."""
        self._timer.close()
        self._pubsub.close(timeout)
        for name in list(self._links):
            self._forget(name)
