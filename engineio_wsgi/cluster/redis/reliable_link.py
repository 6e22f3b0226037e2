"""The link between two workers over channels that may lose messages: each is delivered once and in order, or the link fails.

Owns the numbers of messages, what has not been acknowledged, and the conversations on the link. Knows nothing of Redis, and
nothing of what is said. The numbers do what TCP's do: what was published while the other did not listen is published again,
and what comes twice is delivered once. A link that either side has forgotten begins anew under another mark.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Any, NamedTuple, Protocol, Self

import gevent
from gevent.event import Event
from gevent.hub import Waiter

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.local.channel import OwnerGone
from engineio_wsgi.cluster.messages import VERSION, BadMessage, Kind, Message, check_version
from engineio_wsgi.deadline import Deadline

__all__ = ["NO_LINK", "Conversation", "Envelope", "EnvelopeSender", "ReliableLink"]

#: seconds after which what has arrived is acknowledged, if nothing else goes back
ACK_DELAY = 0.05
#: bytes that may wait for another worker's acknowledgement
MAX_UNACKED = 16_000_000
#: bytes after which an acknowledgement does not wait
ACK_SIZE = 262_144
#: version; origin; mark of the link; its oldest number that has not been acknowledged; number; the other's mark; the last of
#: its numbers that has arrived; conversation: begun by the origin if positive, by the receiver if negative
_ENVELOPE = Struct("!B12sIQQIQq")
#: what cannot be answered: it has no opposite of 8 bytes
NO_CONVERSATION = -(1 << 63)
#: of a message that is on no link: it may be lost, and is not acknowledged
NO_LINK = 0
#: in the head of the end of a conversation: what began it shall not take effect any more
TAKEN_BACK = "taken back"


class Envelope(NamedTuple):
    """What is around a message on its way from one worker to another."""

    origin: str
    link: int
    first: int
    number: int
    other_link: int
    arrived: int
    conversation: int

    def pack(self, message: bytes) -> bytes:
        """The bytes of both."""
        return _ENVELOPE.pack(VERSION, self.origin.encode("ascii"), *self[1:]) + message

    @classmethod
    def open(cls, data: bytes) -> tuple[Self, Message | None]:
        """Read what :meth:`pack` has made; there may be no message in it.

        Raises:
            BadMessage: it is not that.
        """
        if len(data) < _ENVELOPE.size:
            raise BadMessage(f"{len(data)} bytes are no message")
        version, origin, *numbers = _ENVELOPE.unpack_from(data)
        check_version(version)
        try:
            envelope = cls(origin.rstrip(b"\0").decode("ascii"), *numbers)
        except UnicodeDecodeError:
            raise BadMessage("an origin that is no name") from None
        if not envelope.first or envelope.conversation == NO_CONVERSATION:
            raise BadMessage("numbers that no worker of this version sends")
        content = data[_ENVELOPE.size:]
        if not content:
            return envelope, None
        return envelope, Message.parse(content)


class EnvelopeSender(Protocol):
    """Who carries envelopes."""

    #: of this worker
    name: str

    def post(self, receiver: str, data: bytes) -> object:
        """Carry an envelope to another worker, or lose it. Does not block."""
        ...

    def begun(self, conversation: Conversation, message: Message) -> object:
        """Another worker has begun a conversation with a message. Must not block."""
        ...


class Conversation:
    """Messages between two workers that belong together.

    For one greenlet at a time, unless ``on_message`` is set: it is then called in the hub instead, with each message, and with
    ``None`` when the other side has ended the conversation or its worker is gone.
    """

    __slots__ = ("_inbox", "_opened_by", "_waiter", "ended", "number", "on_message", "peer", "taken_back")

    def __init__(self, peer: ReliableLink, number: int) -> None:
        self.peer = peer
        self.number = number
        self._inbox: deque[Message] = deque()
        self._waiter: Waiter | None = None
        #: the number of the message that has begun it, if that was sent from here and nothing has come back yet; else 0
        self._opened_by = 0
        #: set once the other side has ended it, or its worker is gone
        self.ended = Event()
        #: whether it was ended so that nothing comes of it, and not because its client has left
        self.taken_back = False
        self.on_message: Callable[[Message | None], object] | None = None

    def send(self, message: Message) -> int:
        """Send a message. Does not block. Returns its number.

        Raises:
            OwnerGone: the conversation has ended, or the other worker takes nothing.
        """
        if self.ended.is_set():
            raise OwnerGone("it has ended the conversation")
        try:
            return self.peer.send(self.number, message.encode())
        except BadMessage as error:
            raise OwnerGone(str(error)) from error

    def open(self, message: Message) -> None:
        """Send the message that begins the conversation. Does not block.

        Raises:
            OwnerGone: the other worker takes nothing. The conversation has ended then.
        """
        try:
            self._opened_by = self.send(message)
        except OwnerGone:
            self.end(tell=False)
            raise

    def receive(self, deadline: float) -> Message:
        """The next message. Blocks.

        Raises:
            OwnerGone: the other side has ended the conversation.
            TimeoutError: it says nothing.
        """
        end = Deadline(deadline - monotonic())
        while not self._inbox:
            if self.ended.is_set():
                raise OwnerGone("it has ended the conversation, or is gone")
            if end.has_passed():
                raise TimeoutError("the other worker does not answer")
            self._wait(end.left or 0.0)
        return self._inbox.popleft()

    def _wait(self, seconds: float) -> None:
        """Block until something arrives, for so many seconds at most. An event with a timeout would cost twice as much."""
        waiter = self._waiter = Waiter()
        timer = gevent.get_hub().loop.timer(seconds)
        timer.start(waiter.switch, None)
        try:
            waiter.get()
        finally:
            self._waiter = None
            timer.close()

    def _wake(self) -> None:
        if self._waiter is not None:
            gevent.get_hub().loop.run_callback(self._waiter.switch, None)

    def deliver(self, message: Message) -> None:
        """A message has arrived."""
        self._opened_by = 0
        if message.kind is Kind.END:
            self.taken_back = TAKEN_BACK in message.fields
            self.peer.forget(self)
            self.finish()
        elif self.on_message is not None:
            self.on_message(message)
        else:
            self._inbox.append(message)
            self._wake()

    def finish(self) -> None:
        """Nothing more will come."""
        self.ended.set()
        self._wake()
        if self.on_message is not None:
            self.on_message(None)

    def begin_callbacks(self, on_message: Callable[[Message | None], object]) -> None:
        """From now on, ``on_message`` is called; first with what has arrived already."""
        self.on_message = on_message
        while self._inbox:
            on_message(self._inbox.popleft())
        if self.ended.is_set():
            on_message(None)

    def end(self, tell: bool = True, take_back: bool = False) -> None:
        """Nothing more is said or heard here. Harmless if repeated.

        Args:
            tell: whether the other side needs to be told.
            take_back: whether nothing is to come of what was said, if nothing has come of it yet.
        """
        self.on_message = None
        if self.peer.forget(self) and tell and not self.ended.is_set():
            fields = (TAKEN_BACK,) if take_back else ()
            self.peer.send(self.number, Message(Kind.END, fields).encode(), beyond_limit=True)
        self.ended.set()
        self._wake()

    @property
    def is_unacked(self) -> bool:
        """Whether it has been begun from here, and it is unknown if that has arrived."""
        return bool(self._opened_by) and self.peer.is_unacked(self._opened_by)

    def take_back(self) -> None:
        """End it, and let nothing come of what has begun it, if nothing has come of it yet."""
        self.peer.withdraw(self._opened_by)
        self.end(take_back=True)


class ReliableLink:
    """Another worker, and the link to it. Everything here is the hub's.

    Args:
        sender: carries the envelopes.
        name: of the other worker.
    """

    def __init__(self, sender: EnvelopeSender, name: str) -> None:
        self._sender = sender
        self.name = name
        self._link = secrets.randbits(32) or 1
        self._sent = 0
        self._unacked: deque[tuple[int, int, bytes]] = deque()
        self._unacked_size = 0
        #: of the link that comes from there; 0 before anything has come
        self._other_link = NO_LINK
        self._arrived = 0
        self._arrived_size = 0
        self._ack_timer: Any = None
        self._ack_wanted = False
        self._asked_again_at = -1
        self._last_conversation = 0
        self._conversations: dict[int, Conversation] = {}
        #: whether messages are about to be repeated, since nobody listens there at the moment
        self._repeats = False
        #: of the monotonic clock: since when nobody has listened there; 0 while somebody does
        self._unheard_since = 0.0
        self._closed = False
        #: the oldest number that was unacknowledged at the last look; and one that was sent again to see whether it is, or 0
        self._oldest = self._tried_again = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing that would be lost if the link were forgotten."""
        return not self._conversations and not self._unacked

    @property
    def is_known(self) -> bool:
        """Whether anything has ever come from there."""
        return self._other_link != NO_LINK

    # -- conversations

    def note_heard(self) -> None:
        """The other worker listens."""
        self._unheard_since = 0.0

    def note_unheard(self, now: float) -> float:
        """The other worker did not listen at a time of the monotonic clock. Returns for how many seconds it has not."""
        self._unheard_since = self._unheard_since or now
        return now - self._unheard_since

    def repeat_after(self, seconds: float) -> None:
        """Repeat what is not acknowledged after a pause, and ask the other side to do so. Does not block."""
        if not self._repeats:
            self._repeats = True
            gevent.spawn_later(seconds, self._repeat)

    def _repeat(self) -> None:
        self._repeats = False
        if not self._closed:
            self.try_again()
            self.ask_again()

    def give_up_unanswered(self) -> None:
        """Nothing shall come any more of conversations that have only been begun."""
        for conversation in list(self._conversations.values()):
            if conversation.is_unacked:
                conversation.take_back()

    def begin(self) -> Conversation:
        """A new conversation."""
        self._last_conversation += 1
        conversation = Conversation(self, self._last_conversation)
        self._conversations[conversation.number] = conversation
        return conversation

    def forget(self, conversation: Conversation) -> bool:
        """The conversation is over. Returns whether it was not before."""
        if self._conversations.get(conversation.number) is not conversation:
            # one of a link that has begun anew since may have its number
            return False
        del self._conversations[conversation.number]
        return True

    # -- sending

    def send(self, conversation: int, message: bytes, beyond_limit: bool = False) -> int:
        """Send a message. Does not block. Returns its number.

        Raises:
            OwnerGone: too much waits for the other worker already.
        """
        if self._unacked_size > MAX_UNACKED and not beyond_limit:
            raise OwnerGone(f"{self._unacked_size} bytes wait for it")
        self._sent += 1
        self._unacked.append((self._sent, conversation, message))
        self._unacked_size += len(message)
        self._post(self._sent, conversation, message)
        return self._sent

    def is_unacked(self, number: int) -> bool:
        """Whether it is unknown if a message has arrived."""
        return bool(self._unacked) and self._unacked[0][0] <= number

    def withdraw(self, number: int) -> None:
        """A message is not to be delivered any more, if it can be helped: its number stays, its content goes."""
        for position, (each, conversation, message) in enumerate(self._unacked):
            if each == number:
                self._unacked[position] = (number, conversation, b"")
                self._unacked_size -= len(message)

    def post_again(self) -> None:
        """Send everything that has not been acknowledged."""
        for number, conversation, message in self._unacked:
            self._post(number, conversation, message)

    def try_again(self) -> None:
        """Send the oldest of them; the others when it has arrived: a worker that stands still has enough to read."""
        if self._unacked:
            self._tried_again = self._unacked[0][0]
            self._post(*self._unacked[0])

    def ask_again(self) -> None:
        """Have the other side send everything again that has not been acknowledged."""
        self._post(0, 1)

    def look(self) -> None:
        """Called now and then: what was lost is said again, and asked for again; and whether there is anybody is seen by that."""
        oldest = self._unacked[0][0] if self._unacked else 0
        if oldest and oldest == self._oldest:
            self.try_again()
        elif self._asked_again_at == self._arrived:
            self.ask_again()
        elif self._conversations:
            self._post(0, 0)
        self._oldest = oldest

    def _post(self, number: int, conversation: int, message: bytes = b"") -> None:
        first = self._unacked[0][0] if self._unacked else self._sent + 1
        envelope = Envelope(self._sender.name, self._link, first, number, self._other_link, self._arrived, conversation)
        self._ack_wanted = False
        self._arrived_size = 0
        self._sender.post(self.name, envelope.pack(message))

    # -- receiving

    def receive(self, envelope: Envelope, message: Message | None) -> None:
        """Something has come from the other worker."""
        if envelope.link != self._other_link:
            self._begin_anew(envelope)
        # what it has given up will not come any more
        self._arrived = max(self._arrived, envelope.first - 1)
        if envelope.other_link == self._link:
            self._take_ack(envelope.arrived)
        if envelope.number == 0:
            if envelope.conversation:
                # it misses something
                self.post_again()
        elif envelope.number == self._arrived + 1:
            self._take_next(envelope.conversation, message)
        elif envelope.number <= self._arrived:
            self._acknowledge_soon(0)
        elif self._asked_again_at != self._arrived:
            self._asked_again_at = self._arrived
            self.ask_again()

    def _take_next(self, conversation: int, message: Message | None) -> None:
        self._arrived += 1
        self._asked_again_at = -1
        self._acknowledge_soon(0 if message is None else len(message.body))
        if message is not None:
            self._deliver(conversation, message)

    def _begin_anew(self, envelope: Envelope) -> None:
        """The other side knows nothing of what there was before."""
        if self._other_link != NO_LINK:
            self.fail()
        self._other_link = envelope.link
        self._arrived = envelope.first - 1

    def _take_ack(self, arrived: int) -> None:
        unacked = self._unacked
        while unacked and unacked[0][0] <= arrived:
            self._unacked_size -= len(unacked.popleft()[2])
        if self._tried_again and arrived >= self._tried_again:
            self._tried_again = 0
            self.post_again()

    def _acknowledge_soon(self, size: int) -> None:
        self._arrived_size += size
        if self._arrived_size > ACK_SIZE:
            self._post(0, 0)
            return
        self._ack_wanted = True
        if self._ack_timer is None:
            # it runs out even if something goes back meanwhile: stopping it for each message costs more
            self._ack_timer = gevent.get_hub().loop.timer(ACK_DELAY)
            self._ack_timer.start(self._on_ack_due)

    def _on_ack_due(self) -> None:
        self._stop_timer()
        if self._ack_wanted:
            self._post(0, 0)

    def _stop_timer(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.stop()
            self._ack_timer.close()
            self._ack_timer = None

    def _deliver(self, number: int, message: Message) -> None:
        # what they have begun is negative here
        conversation = self._conversations.get(-number)
        if conversation is not None:
            conversation.deliver(message)
        elif message.kind is Kind.END:
            return
        elif number > 0 and message.kind.begins:
            conversation = self._conversations[-number] = Conversation(self, -number)
            self._sender.begun(conversation, message)
        else:
            self.send(-number, Message(Kind.END).encode(), beyond_limit=True)

    # -- the end

    def fail(self) -> None:
        """The other worker is gone, or has forgotten the link: everybody who waits for it learns that."""
        conversations = list(self._conversations.values())
        self._conversations.clear()
        self._unacked.clear()
        self._unacked_size = 0
        for conversation in conversations:
            conversation.finish()

    def close(self) -> None:
        """Forget the link."""
        self._closed = True
        self.fail()
        self._stop_timer()
