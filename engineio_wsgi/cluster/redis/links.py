"""This worker among those of other machines: its links to them, and the calls that need none.

Owns the names of the channels, the links to the other workers, and what is answered to whom. Knows Redis only as a bus.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import sha256
from itertools import count
from typing import Any

import gevent
from gevent.event import Event

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.local.channel import PATIENCE, OwnerGone
from engineio_wsgi.cluster.messages import Action, BadMessage, Call, Kind, Message, Result
from engineio_wsgi.cluster.redis.login import RedisConnector, Unreachable
from engineio_wsgi.cluster.redis.pubsub import Outgoing, PubSub
from engineio_wsgi.cluster.redis.reliable_link import NO_LINK, Conversation, Envelope, ReliableLink
from engineio_wsgi.cluster.rpc import CALL_TIMEOUT
from engineio_wsgi.deadline import Deadline
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.redis_url import RedisLocation
from engineio_wsgi.throttle import Throttle

__all__ = ["Channels", "RedisLinks"]

logger = logging.getLogger("engine.cluster")

#: seconds after Redis was reached in which a worker that does not listen may only not have come back yet
GRACE = 3.0
#: seconds until it is tried again
GRACE_PAUSE = 0.1
#: seconds in which a worker comes back that has lost nothing but its connection
RETURN_GRACE = 0.3
#: seconds that a worker may not listen without being forgotten: longer than a request may wait there to be said again
LINK_GRACE = PATIENCE + 1.0
#: seconds beyond which a loop that is late has stood still, and seconds in which it then hears what it has missed
STANDSTILL, CATCH_UP = 1.0, 0.25
#: seconds between two looks at each link
LOOK_PERIOD = 2.0
#: seconds that Redis has to hear that something was taken back; if it does not, it has not heard the message itself either
FLUSH_TIMEOUT = 1.0
#: links that may be idle before they are looked through
MAX_IDLE = 256
#: seconds for which the same complaint is not logged again
COMPLAINT_PERIOD = 60.0
#: what the names of those begin with who only make calls: no worker's id does
CLIENT_MARK = "~"


class Channels:
    """The channels of a group.

    Args:
        group: of workers that serve each other's sessions.
    """

    def __init__(self, group: str) -> None:
        #: the part by which a Redis Cluster finds the node of all of them
        self.slot_key = sha256(group.encode()).hexdigest()[:12]
        self._prefix = f"engineio:{{{self.slot_key}}}:"
        #: for everybody
        self.all = self.of("*")

    def of(self, name: str) -> bytes:
        """The channel of one worker."""
        return (self._prefix + name).encode("ascii")


class RedisLinks:
    """One worker's place among those of all machines. Made in the hub, after any fork. Blocks until it listens.

    Args:
        location: of Redis.
        group: of workers that serve each other's sessions.
        name: this worker's id.
        begun: called with each conversation that another worker begins, and its first message. Must not block.
        perform: carries out a call of another process. May block; of broadcasts, it must not.
        announce: called with the name of an event and its argument. Must not block.

    Raises:
        ConfigurationError: Redis cannot be reached.
        FileExistsError: the id is taken.
    """

    def __init__(self, location: RedisLocation, group: str, name: str, begun: Callable[[Conversation, Message], object],
                 perform: Callable[[Call, bytes], Result], announce: Callable[[str, object], object]) -> None:
        self.name = name
        self._begun = begun
        self._perform = perform
        self._announce = announce
        self._group = group
        self._channels = Channels(group)
        self._reliable_links: dict[str, ReliableLink] = {}
        self._numbers = count(1)
        self._asked: dict[int, _Answers] = {}
        self._complaints = Throttle(COMPLAINT_PERIOD)
        self._link = RedisConnector(location, self._channels.slot_key)
        #: of the monotonic clock: when the loop was last seen to run, and until when what is begun has to wait
        self._awake_at = self._held_until = monotonic()
        # with no message in it, nobody does anything
        probe = Envelope(name, NO_LINK, 1, 0, NO_LINK, 0, 0).pack(b"")
        self._bus = PubSub(self._link, [self._channels.of(name), self._channels.all], probe, self._receive, self._come_back,
                        lambda lost: announce("cluster_lost", lost))
        try:
            self._bus.open()
        except Unreachable as error:
            raise ConfigurationError(f"cluster: {error}") from error
        self._timer: Any = gevent.get_hub().loop.timer(LOOK_PERIOD, LOOK_PERIOD)
        self._timer.start(self._look)

    # -- links

    def begin(self, worker: str, message: Message) -> Conversation:
        """Begin a conversation with another worker. Does not block.

        Raises:
            OwnerGone: it takes nothing.
        """
        conversation = self._peer(worker).begin()
        conversation.open(message)
        return conversation

    def take_back(self, conversation: Conversation) -> None:
        """End a conversation whose first message shall not take effect any more. Blocks until Redis knows, for a moment."""
        conversation.take_back()
        self._bus.flush(FLUSH_TIMEOUT)

    def _peer(self, name: str) -> ReliableLink:
        peer = self._reliable_links.get(name)
        if peer is None:
            if len(self._reliable_links) >= MAX_IDLE:
                if not self._bus.up:
                    # whoever makes up ids shall not fill memory meanwhile
                    raise OwnerGone("Redis is away, and too much waits for it")
                self._sweep()
            peer = self._reliable_links[name] = ReliableLink(self, name)
        return peer

    def _sweep(self) -> None:
        for name, peer in list(self._reliable_links.items()):
            if peer.idle:
                peer.close()
                del self._reliable_links[name]

    def post(self, receiver: str, data: bytes) -> bool:
        """Carry an envelope to another worker, or lose it. Does not block."""

        asked_at = monotonic()

        def heard(listeners: int) -> None:
            if not listeners:
                self._unheard(receiver, asked_at)
            elif (peer := self._reliable_links.get(receiver)) is not None:
                peer.note_heard()

        return self._bus.publish(Outgoing(self._channels.of(receiver), data, False, heard))

    def _unheard(self, name: str, now: float) -> None:
        """Nobody listened to a worker's channel: it is gone, or has only lost its connection to Redis.

        Args:
            now: when Redis was asked, of the monotonic clock. The answer may have been read much later, by a late loop.
        """
        peer = self._reliable_links.get(name)
        if peer is None:
            return
        unheard = peer.note_unheard(now)
        if now - self._bus.up_since > GRACE:
            # no request waits for a worker that may be gone; but its messages are not forgotten so fast: it may repeat them
            if unheard > RETURN_GRACE:
                peer.give_up_unanswered()
            if not peer.is_known or unheard > LINK_GRACE:
                del self._reliable_links[name]
                peer.close()
                return
        peer.repeat_after(GRACE_PAUSE)

    def begun(self, conversation: Conversation, message: Message) -> None:
        """Another worker begins a conversation. After a standstill, it may have taken it back since: that is looked for first."""
        if self._catches_up():
            gevent.spawn_later(CATCH_UP, self._begun, conversation, message)
        else:
            self._begun(conversation, message)

    def _catches_up(self) -> bool:
        """Whether the loop has stood still a moment ago. Called whenever it runs."""
        now = monotonic()
        if now - self._awake_at > LOOK_PERIOD + STANDSTILL:
            self._held_until = now + CATCH_UP
        self._awake_at = now
        return now < self._held_until

    def _look(self) -> None:
        self._catches_up()
        for peer in list(self._reliable_links.values()):
            peer.look()

    @property
    def connected(self) -> bool:
        """Whether Redis is there."""
        return self._bus.up

    def _come_back(self, away: float) -> None:
        """Redis has been away for so many seconds: what was on its way may be lost, in both directions."""
        self._announce("cluster_back", away)
        for peer in self._reliable_links.values():
            peer.post_again()
            peer.ask_again()

    # -- what arrives

    def _receive(self, data: bytes) -> None:
        try:
            envelope, message = Envelope.open(data)
            if envelope.origin == self.name:
                return
            if envelope.link == NO_LINK:
                self._receive_call(envelope, message)
            else:
                self._peer(envelope.origin).receive(envelope, message)
        except BadMessage as error:
            if self._complaints.passes(str(error), monotonic()):
                logger.warning("a message on Redis was refused: %s", error)

    def _receive_call(self, envelope: Envelope, message: Message | None) -> None:
        if message is not None and message.kind is Kind.CALL:
            call = Call.of(message)
            if call.group != self._group:
                raise BadMessage(f"it is for the group {call.group!r}")
            if call.action is Action.BROADCAST:
                # in the order in which they come
                self._answer(envelope, self._perform(call, message.body))
            else:
                gevent.spawn(self._carry_out, envelope, call, message.body)
        elif message is not None and message.kind is Kind.RESULT:
            answers = self._asked.get(-envelope.conversation)
            if answers is not None:
                answers.add(envelope.origin, Result.of(message).sessions)

    def _carry_out(self, envelope: Envelope, call: Call, body: bytes) -> None:
        try:
            self._answer(envelope, self._perform(call, body))
        except BadMessage as error:
            logger.warning("a call on Redis was refused: %s", error)

    def _answer(self, envelope: Envelope, result: Result) -> None:
        if envelope.conversation:
            self._post_call(self._channels.of(envelope.origin), -envelope.conversation, result.message())

    # -- calls: each is carried out once, or not at all if Redis goes away meanwhile

    def _post_call(self, channel: bytes, number: int, message: Message, heard: Callable[[int], object] | None = None) -> bool:
        envelope = Envelope(self.name, NO_LINK, 1, 0, NO_LINK, 0, number)
        # who waits for an answer is told that there is none, and nothing may come of it later
        return self._bus.publish(Outgoing(channel, envelope.pack(message.encode()), number == 0, heard))

    def others(self) -> list[str]:
        """The ids of the other workers; none while Redis is away. Blocks until they have answered."""
        return sorted(self.ask_all(Call(self._group, Action.COUNT).message()))

    def ask(self, worker: str, message: Message) -> int:
        """Have one worker carry out a call. Blocks until it has. Returns how many sessions it concerned.

        Raises:
            OwnerGone: it does not exist, or has not answered.
        """
        answers = self._ask(self._channels.of(worker), message, lambda heard: heard)
        if worker not in answers:
            raise OwnerGone("it does not exist, or has not answered")
        return answers[worker]

    def ask_all(self, message: Message) -> dict[str, int]:
        """The same of all others at once; who does not answer is left out."""
        # this worker hears it, too
        return self._ask(self._channels.all, message, lambda heard: heard - 1)

    def _ask(self, channel: bytes, message: Message, expected: Callable[[int], int]) -> dict[str, int]:
        answers = _Answers()
        number = next(self._numbers)
        self._asked[number] = answers
        try:
            if self._post_call(channel, number, message, lambda heard: answers.expect(expected(heard))):
                Deadline(CALL_TIMEOUT).wait(answers.complete)
        finally:
            del self._asked[number]
        return answers.sessions

    def tell_all(self, message: Message) -> None:
        """Have all others carry out a call some time, each after what it was told before. Does not block."""
        if not self._post_call(self._channels.all, 0, message) and self._complaints.passes("full", monotonic()):
            logger.warning("too much waits for Redis, and broadcasts to other machines are dropped")

    def forsake(self) -> None:
        """In a forked child: the place among the workers is the parent's."""
        self._timer.close()
        self._bus.forsake()
        self._reliable_links.clear()

    def close(self, timeout: float) -> None:
        """Send what is queued, for ``timeout`` seconds at most, and leave the channels."""
        self._timer.stop()
        self._timer.close()
        self._bus.close(timeout)
        for peer in self._reliable_links.values():
            peer.close()
        self._reliable_links.clear()


class _Answers:
    """What came of a call that several were asked for."""

    def __init__(self) -> None:
        self.sessions: dict[str, int] = {}
        self._expected = -1
        self.complete = Event()

    def expect(self, number: int) -> None:
        """So many have heard it."""
        self._expected = number
        self._look()

    def add(self, worker: str, sessions: int) -> None:
        """One has answered."""
        self.sessions[worker] = sessions
        self._look()

    def _look(self) -> None:
        if len(self.sessions) == self._expected:
            self.complete.set()
