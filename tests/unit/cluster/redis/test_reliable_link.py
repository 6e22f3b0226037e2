"""The link between two workers: once and in order over channels that lose and repeat, or the conversation ends."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engineio_wsgi.cluster.messages import Kind, Message
from engineio_wsgi.cluster.redis import reliable_link as link_module
from engineio_wsgi.cluster.redis.envelope import Envelope
from engineio_wsgi.cluster.redis.reliable_link import Conversation, ReliableLink
from engineio_wsgi.errors import BadMessage, OwnerGone


class Side:
    """One of two workers, and what is on its way from it to the other."""

    def __init__(self, name: str, other: str) -> None:
        self.name = name
        self.listening = True
        self.way: deque[bytes] = deque()
        self.link = ReliableLink(self, other)
        self.heard: list[int] = []
        self.others: list[Conversation] = []
        self.ended = 0

    def post(self, receiver: str, data: bytes) -> None:
        """Put it on its way."""
        self.way.append(data)

    def begun(self, conversation: Conversation, message: Message) -> None:
        """The other side has begun one."""
        self.others.append(conversation)
        self.hear(message)
        conversation.begin_callbacks(self.hear)

    def hear(self, message: Message | None) -> None:
        """What arrives."""
        if message is None:
            self.ended += 1
        else:
            self.heard.append(int(message.body))

    def take(self, data: bytes) -> None:
        """Something has come from the other side, if this one listens."""
        if self.listening:
            self.link.receive(*Envelope.open(data))

    def come_back(self) -> None:
        """As after a loss of the bus."""
        self.listening = True
        self.link.repeat_all()
        self.link.request_repeat()

    def close(self) -> None:
        """Forget everything."""
        self.link.close()


class Pair:
    """Both sides; the left one has begun a conversation."""

    def __init__(self) -> None:
        self.left, self.right = Side("left", "right"), Side("right", "left")
        self.conversation = self.left.link.begin()
        self.conversation.begin_callbacks(self.left.hear)
        self.said: dict[str, list[int]] = {"left": [], "right": []}

    def say(self, side: str) -> None:
        """The next number."""
        number = len(self.said[side])
        if side == "left":
            self.conversation.send(Message(Kind.DATA if number else Kind.REQUEST, body=b"%d" % number))
        elif self.right.others:
            self.right.others[0].send(Message(Kind.DATA, body=b"%d" % number))
        else:
            return
        self.said[side].append(number)

    def carry(self, source: Side, target: Side, count: int) -> None:
        """Some of what is on its way arrives."""
        for _ in range(min(count, len(source.way))):
            target.take(source.way.popleft())

    def settle(self) -> None:
        """Everybody is there again, and everything arrives."""
        for side in (self.left, self.right):
            side.come_back()
        while self.left.way or self.right.way:
            self.carry(self.left, self.right, 1)
            self.carry(self.right, self.left, 1)

    def close(self) -> None:
        """Forget everything."""
        self.left.close()
        self.right.close()


STEPS = st.lists(st.tuples(st.sampled_from(["say", "carry", "lose", "repeat", "deaf", "back"]), st.booleans(), st.integers(1, 4)))


def step(pair: Pair, action: str, leftwards: bool, count: int) -> None:
    source, target = (pair.right, pair.left) if leftwards else (pair.left, pair.right)
    if action == "say":
        pair.say(source.name)
    elif action == "carry":
        pair.carry(source, target, count)
    elif action == "lose":
        for _ in range(min(count, len(source.way))):
            source.way.popleft()
    elif action == "repeat":
        source.way.extend(list(source.way)[:count])
    elif action == "deaf":
        target.listening = False
    else:
        target.come_back()


@given(STEPS)
@settings(max_examples=400)
def test_once_and_in_order_whatever_is_lost(steps: list[tuple[str, bool, int]]) -> None:
    pair = Pair()
    try:
        for each in steps:
            step(pair, *each)
        pair.settle()
        assert pair.right.heard == pair.said["left"]
        assert pair.left.heard == pair.said["right"]
        assert pair.left.ended == pair.right.ended == 0
    finally:
        pair.close()


@given(STEPS, st.booleans())
@settings(max_examples=200)
def test_a_side_that_has_forgotten_the_link_begins_a_new_one(steps: list[tuple[str, bool, int]], left: bool) -> None:
    pair = Pair()
    try:
        pair.say("left")
        for each in steps:
            step(pair, *each)
        pair.settle()
        side, other = (pair.left, pair.right) if left else (pair.right, pair.left)
        side.link.close()
        side.link = ReliableLink(side, other.name)
        conversation = side.link.begin()
        conversation.begin_callbacks(side.hear)
        conversation.send(Message(Kind.REQUEST, body=b"1000"))
        pair.settle()
        assert other.heard[-1] == 1000
        other.others[-1].send(Message(Kind.DATA, body=b"2000"))
        pair.settle()
        assert side.heard[-1] == 2000
        # whoever was in the old one knows that it is over
        assert pair.left.ended >= 1 and pair.right.ended >= 1
    finally:
        pair.close()


def test_a_withdrawn_message_is_not_delivered() -> None:
    pair = Pair()
    pair.right.listening = False
    kinds = (Kind.REQUEST, Kind.DATA, Kind.DATA)
    numbers = [pair.conversation.send(Message(kind, body=b"%d" % number)) for number, kind in enumerate(kinds)]
    pair.left.link.withdraw(numbers[1])
    assert pair.left.link.is_unacked(numbers[1])
    pair.left.way.clear()
    pair.settle()
    assert pair.right.heard == [0, 2]
    assert pair.left.link.idle is False
    pair.conversation.end()
    for _ in range(2):
        # the second time, it is acknowledged
        pair.settle()
    assert (pair.right.ended, pair.right.link.idle, pair.left.link.idle) == (1, True, True)
    pair.close()


def test_no_message_is_sent_when_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "MAX_UNACKED", 1000)
    pair = Pair()
    pair.conversation.send(Message(Kind.REQUEST, body=b"1" * 1000))
    with pytest.raises(OwnerGone, match=r"\d+ bytes wait for it"):
        pair.conversation.send(Message(Kind.DATA, body=b"1"))
    for _ in range(2):
        pair.settle()
    pair.conversation.send(Message(Kind.DATA, body=b"2"))
    pair.settle()
    assert pair.right.heard[-1] == 2
    pair.close()


@pytest.mark.parametrize("rest", [[], [2, 3]], ids=["nothing follows", "more follows"])
def test_lost_messages_are_repeated(rest: list[int]) -> None:
    """Without a reconnection. The requests for a repetition may be lost, too."""
    pair = Pair()
    pair.say("left")
    pair.carry(pair.left, pair.right, 1)
    pair.say("left")
    pair.left.way.clear()
    for _ in rest:
        pair.say("left")
        pair.carry(pair.left, pair.right, 1)
    pair.right.way.clear()
    for _ in range(3):
        for side in (pair.left, pair.right):
            side.link.check()
        pair.carry(pair.left, pair.right, 100)
        pair.carry(pair.right, pair.left, 100)
    assert pair.right.heard == [0, 1, *rest]
    pair.close()


def test_all_lost_messages_follow_the_first_of_them() -> None:
    """Until that has arrived, a worker that stands still is not made to read everything many times."""
    pair = Pair()
    for _ in range(5):
        pair.say("left")
    pair.left.way.clear()
    for _ in range(5):
        pair.left.link.check()
    said_again = {Envelope.open(data)[0].number for data in pair.left.way}
    assert said_again == {0, 1}, "0: whether anybody is there"
    for _ in range(2):
        pair.carry(pair.left, pair.right, 100)
        pair.right.link.check()
        pair.carry(pair.right, pair.left, 100)
    assert pair.right.heard == [0, 1, 2, 3, 4]
    pair.close()


GARBAGE: list[Any] = [b"", Envelope("left", 1, 0, 1, 0, 0, 1).pack(b""), Envelope("left", 1, 1, 1, 0, 0, -(1 << 63)).pack(b""),
                      b"x", b"\x01" * 20, b"\x02" + bytes(60), Envelope("left", 1, 1, 1, 0, 0, 1).pack(b"garbage"),
                      Envelope("left", 1, 1, 1, 0, 0, 1).pack(Message(Kind.REQUEST).encode() + b"more"),
                      bytes([1, 255] + [0] * 60)]


@pytest.mark.parametrize("data", GARBAGE)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        Envelope.open(data)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    side = Side("left", "right")
    try:
        for content in (data, Envelope("right", 1, 1, 1, 0, 0, 1).pack(data)):
            try:
                side.link.receive(*Envelope.open(content))
            except BadMessage:
                continue
    finally:
        side.close()
