"""What a worker concludes when Redis reports that a message had no receivers, however late it reads that."""

from __future__ import annotations

from typing import Any

import pytest

from engineio_wsgi.cluster.messages import Kind, Message
from engineio_wsgi.cluster.redis import links
from engineio_wsgi.cluster.redis.envelope import Envelope
from engineio_wsgi.cluster.redis.links import RedisLinks
from engineio_wsgi.cluster.redis.pubsub import Publication
from engineio_wsgi.cluster.redis.reliable_link import Conversation

OTHER = "other"


class FakePubSub:
    """Redis is there, and has been for long."""

    connected = True
    connected_since = 0.0

    def __init__(self, *arguments: object) -> None:
        self.published: list[Publication] = []

    def open(self) -> None:
        """Redis has been reached."""

    def publish(self, outgoing: Publication) -> bool:
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
    """The clock of the links."""
    clock = Clock()
    monkeypatch.setattr(links, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def pubsub(monkeypatch: pytest.MonkeyPatch) -> FakePubSub:
    """The pub/sub of the links."""
    pubsub = FakePubSub()
    monkeypatch.setattr(links, "PubSub", lambda *arguments: pubsub)
    return pubsub


def begin(one: RedisLinks, pubsub: FakePubSub) -> tuple[Conversation, Any]:
    """A conversation with a worker that has said something before, and what tells how many have heard of it."""
    one._receive(Envelope(OTHER, 7, 1, 0, 0, 0, 0).pack(b""))
    conversation = one.begin(OTHER, Message(Kind.TAKEN))
    return conversation, pubsub.published[-1].on_heard


@pytest.mark.parametrize(("asked_again_after", "lasts"), [(0.1, True), (links.LINK_GRACE + 1, False)])
def test_a_channel_without_listeners(clock: Clock, pubsub: FakePubSub, asked_again_after: float, lasts: bool) -> None:
    location: Any = type("Location", (), {"finder": ""})
    one = RedisLinks(location, "group", "me", lambda *_: None, lambda *_: Any, lambda *_: None)
    conversation, first = begin(one, pubsub)
    first(0)
    clock.now += asked_again_after
    _, second = begin(one, pubsub)
    clock.now += 60  # the loop was blocked when the answer came
    second(0)
    assert conversation.ended.is_set() is not lasts
    one.close(0)
