"""What an exchange concludes from Redis' answer that nobody listens to a worker, however late it reads the answer."""

from __future__ import annotations

from typing import Any

import pytest

from engineio_wsgi.cluster.messages import Kind, Message
from engineio_wsgi.cluster.redis import links as exchange
from engineio_wsgi.cluster.redis.links import RedisLinks
from engineio_wsgi.cluster.redis.pubsub import Outgoing
from engineio_wsgi.cluster.redis.reliable_link import Conversation, Envelope

OTHER = "other"


class FakeBus:
    """Redis is there, and has been for long."""

    up = True
    up_since = 0.0

    def __init__(self, *arguments: object) -> None:
        self.published: list[Outgoing] = []

    def open(self) -> None:
        """Redis has been reached."""

    def publish(self, outgoing: Outgoing) -> bool:
        """Keep a message; a test says who has heard it."""
        self.published.append(outgoing)
        return True

    def close(self, timeout: float) -> None:
        """Nothing waits."""


class Clock:
    """A clock that a test sets."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The exchange's clock."""
    clock = Clock()
    monkeypatch.setattr(exchange, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> FakeBus:
    """The exchange's bus."""
    bus = FakeBus()
    monkeypatch.setattr(exchange, "PubSub", lambda *arguments: bus)
    return bus


def begin(one: RedisLinks, bus: FakeBus) -> tuple[Conversation, Any]:
    """A conversation with a worker that has said something before, and what tells how many have heard of it."""
    one._receive(Envelope(OTHER, 7, 1, 0, 0, 0, 0).pack(b""))
    conversation = one.begin(OTHER, Message(Kind.TAKEN))
    return conversation, bus.published[-1].on_heard


@pytest.mark.parametrize(("asked_again_after", "lasts"), [(0.1, True), (exchange.LINK_GRACE + 1, False)])
def test_nobody_listens(clock: Clock, bus: FakeBus, asked_again_after: float, lasts: bool) -> None:
    location: Any = type("Location", (), {"finder": ""})
    one = RedisLinks(location, "group", "me", lambda *_: None, lambda *_: Any, lambda *_: None)
    conversation, first = begin(one, bus)
    first(0)
    clock.now += asked_again_after
    _, second = begin(one, bus)
    clock.now += 60  # the loop was blocked when the answer came
    second(0)
    assert conversation.ended.is_set() is not lasts
    one.close(0)
