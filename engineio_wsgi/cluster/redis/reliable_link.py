"""A reliable link between two workers over channels that may lose messages. Messages arrive once and in order, or the link fails.

Owns the sequence numbers, the unacknowledged messages, and the conversations on the link. Knows nothing of Redis, and nothing of
the messages' content. As in TCP, messages that were lost are sent again, and duplicates are dropped. A link that either side has
forgotten begins anew under another mark.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from typing import Protocol

import gevent
from gevent.event import Event
from gevent.hub import Waiter

from engineio_wsgi.cluster.messages import Kind, Message
from engineio_wsgi.cluster.redis.envelope import NO_LINK, Envelope
from engineio_wsgi.errors import BadMessage, OwnerGone
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.runtime.loop import Watcher

__all__ = ["Conversation", "EnvelopeSender", "ReliableLink"]

#: seconds after which a message is acknowledged, if no message in the other direction has done so
ACK_DELAY = 0.05
#: bytes that may be unacknowledged
MAX_UNACKED = 16_000_000
#: received bytes that are acknowledged at once
ACK_SIZE = 262_144
#: the field of an END message that withdraws the first message of the conversation
WITHDRAWN = "withdrawn"


class EnvelopeSender(Protocol):
    """Sends the envelopes of a link, and gets its new conversations."""

    #: this worker's
    name: str

    def post(self, receiver: str, data: bytes) -> object:
        """Send an envelope to another worker; it may be lost. Does not block."""
        ...

    def begun(self, conversation: Conversation, message: Message) -> object:
        """Another worker has begun a conversation with a message. Must not block."""
        ...


class Conversation:
    """A sequence of messages between two workers.

    For one greenlet at a time, unless :meth:`begin_callbacks` was called.
    """

    __slots__ = ("_inbox", "_opened_by", "_waiter", "ended", "link", "number", "on_message", "withdrawn")

    def __init__(self, link: ReliableLink, number: int) -> None:
        self.link = link
        self.number = number
        self._inbox: deque[Message] = deque()
        self._waiter: Waiter | None = None
        #: the number of the message that began it, if this side sent it and has received nothing yet; else 0
        self._opened_by = 0
        #: set once the conversation has ended, or the other worker is gone
        self.ended = Event()
        #: whether the other side has withdrawn it, and not ended it because its client has left
        self.withdrawn = False
        self.on_message: Callable[[Message | None], object] | None = None

    def send(self, message: Message) -> int:
        """Send a message. Does not block. Returns its number.

        Raises:
            OwnerGone: the conversation has ended, or too much waits for the other worker.
        """
        if self.ended.is_set():
            raise OwnerGone("it has ended the conversation")
        try:
            return self.link.send(self.number, message.encode())
        except BadMessage as error:
            raise OwnerGone(str(error)) from error

    def open(self, message: Message) -> None:
        """Send the message that begins the conversation. Does not block.

        Raises:
            OwnerGone: too much waits for the other worker. The conversation has ended then.
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
            TimeoutError: nothing has arrived in time.
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
            self.withdrawn = WITHDRAWN in message.fields
            self.link.forget(self)
            self.finish()
        elif self.on_message is not None:
            self.on_message(message)
        else:
            self._inbox.append(message)
            self._wake()

    def finish(self) -> None:
        """No more messages will arrive."""
        self.ended.set()
        self._wake()
        if self.on_message is not None:
            self.on_message(None)

    def begin_callbacks(self, on_message: Callable[[Message | None], object]) -> None:
        """Call ``on_message`` in the hub with each message, first with those that have arrived already.

        It gets ``None`` when the other side has ended the conversation, or its worker is gone.
        """
        self.on_message = on_message
        while self._inbox:
            on_message(self._inbox.popleft())
        if self.ended.is_set():
            on_message(None)

    def end(self, tell: bool = True, withdraw: bool = False) -> None:
        """End the conversation. Harmless if repeated.

        Args:
            tell: whether the other side needs to be told.
            withdraw: whether the other side must not act on the first message, if it has not done so yet.
        """
        self.on_message = None
        if self.link.forget(self) and tell and not self.ended.is_set():
            fields = (WITHDRAWN,) if withdraw else ()
            self.link.send(self.number, Message(Kind.END, fields).encode(), beyond_limit=True)
        self.ended.set()
        self._wake()

    @property
    def is_unacked(self) -> bool:
        """Whether this side has begun the conversation, and it is unknown if the first message has arrived."""
        return bool(self._opened_by) and self.link.is_unacked(self._opened_by)

    def withdraw(self) -> None:
        """End the conversation, and withdraw its first message."""
        self.link.withdraw(self._opened_by)
        self.end(withdraw=True)


class ReliableLink:
    """The link to another worker. Only the hub's greenlets may use it.

    Args:
        sender: sends the envelopes.
        name: of the other worker.
    """

    def __init__(self, sender: EnvelopeSender, name: str) -> None:
        self._sender = sender
        self.name = name
        self._link = secrets.randbits(32) or 1
        self._sent = 0
        self._unacked: deque[tuple[int, int, bytes]] = deque()
        #: bytes of the messages that are not acknowledged
        self.unacked_size = 0
        #: the other side's mark; 0 until something has arrived
        self._other_link = NO_LINK
        self._arrived = 0
        self._arrived_size = 0
        self._ack_timer: Watcher | None = None
        self._ack_wanted = False
        self._requested_at = -1
        self._last_conversation = 0
        self._conversations: dict[int, Conversation] = {}
        #: whether messages are about to be repeated, since the other worker does not listen at the moment
        self._repeats = False
        #: of the monotonic clock: since when the other worker has not listened; 0 while it does
        self._absent_since = 0.0
        self._closed = False
        #: the oldest number that was unacknowledged at the last check; and one that was repeated since, or 0
        self._oldest = self._repeated = 0
        #: how many messages were sent again
        self.retransmitted = 0

    @property
    def listens(self) -> bool:
        """Whether the other worker listens, as far as it is known."""
        return not self._absent_since

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if the link were forgotten."""
        return not self._conversations and not self._unacked

    @property
    def is_known(self) -> bool:
        """Whether the other worker has ever sent something."""
        return self._other_link != NO_LINK

    # -- conversations

    def note_present(self) -> None:
        """The other worker listens."""
        self._absent_since = 0.0

    def note_absent(self, now: float) -> float:
        """The other worker did not listen at a time of the monotonic clock. Returns for how many seconds it has not."""
        self._absent_since = self._absent_since or now
        return now - self._absent_since

    def repeat_after(self, seconds: float) -> None:
        """Repeat what is not acknowledged after a pause, and ask the other side to do so. Does not block."""
        if not self._repeats:
            self._repeats = True
            gevent.spawn_later(seconds, self._repeat)

    def _repeat(self) -> None:
        self._repeats = False
        if not self._closed:
            self.repeat_oldest()
            self.request_repeat()

    def give_up_unanswered(self) -> None:
        """Withdraw the conversations whose first message may not have arrived."""
        for conversation in list(self._conversations.values()):
            if conversation.is_unacked:
                conversation.withdraw()

    def begin(self) -> Conversation:
        """A new conversation."""
        self._last_conversation += 1
        conversation = Conversation(self, self._last_conversation)
        self._conversations[conversation.number] = conversation
        return conversation

    def forget(self, conversation: Conversation) -> bool:
        """The conversation is over. Returns whether it was still known."""
        if self._conversations.get(conversation.number) is not conversation:
            # after the link began anew, another one may have its number
            return False
        del self._conversations[conversation.number]
        return True

    # -- sending

    def send(self, conversation: int, message: bytes, beyond_limit: bool = False) -> int:
        """Send a message. Does not block. Returns its number.

        Raises:
            OwnerGone: too much waits for the other worker already.
        """
        if self.unacked_size > MAX_UNACKED and not beyond_limit:
            raise OwnerGone(f"{self.unacked_size} bytes wait for it")
        self._sent += 1
        self._unacked.append((self._sent, conversation, message))
        self.unacked_size += len(message)
        self._post(self._sent, conversation, message)
        return self._sent

    def is_unacked(self, number: int) -> bool:
        """Whether it is unknown if a message has arrived."""
        return bool(self._unacked) and self._unacked[0][0] <= number

    def withdraw(self, number: int) -> None:
        """Drop the content of an unacknowledged message; its number stays."""
        for position, (each, conversation, message) in enumerate(self._unacked):
            if each == number:
                self._unacked[position] = (number, conversation, b"")
                self.unacked_size -= len(message)

    def repeat_all(self) -> None:
        """Repeat all unacknowledged messages."""
        self.retransmitted += len(self._unacked)
        for number, conversation, message in self._unacked:
            self._post(number, conversation, message)

    def repeat_oldest(self) -> None:
        """Repeat the oldest of them; the others when it is acknowledged: a blocked worker has enough to read."""
        if self._unacked:
            self.retransmitted += 1
            self._repeated = self._unacked[0][0]
            self._post(*self._unacked[0])

    def request_repeat(self) -> None:
        """Ask the other side to repeat its unacknowledged messages."""
        self._post(0, 1)

    def check(self) -> None:
        """Repeat lost messages, and ask for lost ones. Called periodically; it also shows whether the other worker listens."""
        oldest = self._unacked[0][0] if self._unacked else 0
        if oldest and oldest == self._oldest:
            self.repeat_oldest()
        elif self._requested_at == self._arrived:
            self.request_repeat()
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
        """An envelope has arrived from the other worker."""
        if envelope.link != self._other_link:
            self._reset(envelope)
        # earlier numbers will not be sent any more
        self._arrived = max(self._arrived, envelope.first - 1)
        if envelope.other_link == self._link:
            self._take_ack(envelope.arrived)
        if envelope.number == 0:
            if envelope.conversation:
                # the other side misses a message
                self.repeat_all()
        elif envelope.number == self._arrived + 1:
            self._take_next(envelope.conversation, message)
        elif envelope.number <= self._arrived:
            self._acknowledge_soon(0)
        elif self._requested_at != self._arrived:
            self._requested_at = self._arrived
            self.request_repeat()

    def _take_next(self, conversation: int, message: Message | None) -> None:
        self._arrived += 1
        self._requested_at = -1
        self._acknowledge_soon(0 if message is None else len(message.body))
        if message is not None:
            self._deliver(conversation, message)

    def _reset(self, envelope: Envelope) -> None:
        """The other side has begun the link anew."""
        if self._other_link != NO_LINK:
            self.fail()
        self._other_link = envelope.link
        self._arrived = envelope.first - 1

    def _take_ack(self, arrived: int) -> None:
        unacked = self._unacked
        while unacked and unacked[0][0] <= arrived:
            self.unacked_size -= len(unacked.popleft()[2])
        if self._repeated and arrived >= self._repeated:
            self._repeated = 0
            self.repeat_all()

    def _acknowledge_soon(self, size: int) -> None:
        self._arrived_size += size
        if self._arrived_size > ACK_SIZE:
            self._post(0, 0)
            return
        self._ack_wanted = True
        if self._ack_timer is None:
            # it is not stopped when a message goes back meanwhile: that would cost more
            self._ack_timer = gevent.get_hub().loop.timer(ACK_DELAY)
            self._ack_timer.start(self._on_ack_due)

    def _on_ack_due(self) -> None:
        self._stop_timer()
        if self._ack_wanted:
            self._post(0, 0)

    def _stop_timer(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.close()
            self._ack_timer = None

    def _deliver(self, number: int, message: Message) -> None:
        # conversations that the other side has begun have negative numbers here
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
        """The other worker is gone, or has forgotten the link: end all conversations."""
        conversations = list(self._conversations.values())
        self._conversations.clear()
        self._unacked.clear()
        self.unacked_size = 0
        for conversation in conversations:
            conversation.finish()

    def close(self) -> None:
        """Forget the link."""
        self._closed = True
        self.fail()
        self._stop_timer()
