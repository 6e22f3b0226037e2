"""The subscribers of topics in one process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from engineio_wsgi.cluster import topics as module
from engineio_wsgi.cluster.topics import MAX_DATA, MAX_TOPIC, Reply, Topics, check_data, check_topic
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.runtime.greenlet_pool import GreenletPool


@pytest.fixture
def topics() -> Topics:
    """The subscribers of nobody yet."""
    return Topics(GreenletPool().submit, lambda callback: callback)


def settle() -> None:
    """Let everything run that can."""
    for _ in range(5):
        gevent.sleep(0)


def asked(topics: Topics, data: str | bytes, publisher: str = "me") -> list[tuple[bool, Reply]]:
    """The answers to a question."""
    answers: list[tuple[bool, Reply]] = []
    topics.deliver("news", publisher, data, lambda *answer: answers.append(answer))
    settle()
    return answers


def test_each_subscriber_of_a_topic_is_called_once(topics: Topics) -> None:
    heard: list[object] = []
    topics.subscribe("news", lambda data: heard.append(("one", data)))
    topics.subscribe("news", lambda data: heard.append(("two", data)))
    topics.subscribe("sport", heard.append)
    topics.deliver("news", "me", "text")
    topics.deliver("news", "me", b"bytes")
    topics.deliver("weather", "me", "nobody hears it")
    assert heard == [], "subscribers run in a greenlet of the pool"
    settle()
    assert heard == [("one", "text"), ("two", "text"), ("one", b"bytes"), ("two", b"bytes")]


def test_an_ended_subscription_gets_no_messages(topics: Topics) -> None:
    heard: list[object] = []
    end = topics.subscribe("news", heard.append)
    other = topics.subscribe("news", heard.append)
    topics.deliver("news", "me", "a")
    settle()
    topics.deliver("news", "me", "b")
    end()
    end()
    settle()
    assert heard == ["a", "a", "b"]
    other()
    assert asked(topics, "c") == [(False, None)]


def test_a_blocked_subscriber_delays_the_messages_of_one_publisher_only(topics: Topics) -> None:
    heard: list[object] = []
    gate = gevent.event.Event()

    def subscriber(data: str | bytes) -> None:
        if data == "wait":
            gate.wait()
        heard.append(data)

    topics.subscribe("news", subscriber)
    for publisher, data in (("a", "wait"), ("a", "a2"), ("b", "b1"), ("a", "a3"), ("b", "b2")):
        topics.deliver("news", publisher, data)
    settle()
    assert heard == ["b1", "b2"]
    gate.set()
    settle()
    assert heard == ["b1", "b2", "wait", "a2", "a3"]


@pytest.mark.parametrize(("returned", "answer"), [
    ("text", (True, "text")), (b"bytes", (True, b"bytes")), (bytearray(b"array"), (True, b"array")), (None, (True, None)),
], ids=repr)
def test_what_a_subscriber_returns_is_the_reply(topics: Topics, returned: Any, answer: tuple[bool, Reply]) -> None:
    topics.subscribe("news", lambda data: returned)
    assert asked(topics, "?") == [answer]


def test_the_first_reply_that_is_not_none_counts(topics: Topics) -> None:
    for returned in (None, "first", "second"):
        topics.subscribe("news", lambda data, returned=returned: returned)
    assert asked(topics, "?") == [(True, "first")]


@pytest.mark.complains
@pytest.mark.parametrize("fail", [lambda data: 1 / 0, lambda data: {"no": "text"}, lambda data: "x" * (MAX_DATA + 1)],
                         ids=["raises", "wrong type", "too large"])
def test_a_subscriber_that_fails_gives_no_reply(topics: Topics, caplog: pytest.LogCaptureFixture,
                                                fail: Callable[[Any], Any]) -> None:
    topics.subscribe("news", fail)
    assert asked(topics, "?") == [(False, None)]
    assert [record.getMessage() for record in caplog.records] == ["a subscriber of the topic 'news' failed"]
    topics.subscribe("news", lambda data: "a second one")
    assert asked(topics, "?") == [(True, "a second one")]


def test_what_a_subscriber_returns_when_nobody_asks_is_ignored(topics: Topics) -> None:
    topics.subscribe("news", lambda data: object())
    topics.deliver("news", "me", "data")
    settle()


def test_a_killed_subscriber_delays_no_messages(topics: Topics) -> None:
    heard: list[object] = []

    def subscriber(data: str | bytes) -> None:
        if data == "kill":
            raise gevent.GreenletExit
        heard.append(data)

    topics.subscribe("news", subscriber)
    for data in ("kill", "a", "b"):
        topics.deliver("news", "me", data)
    settle()
    assert heard == ["a", "b"]


def test_what_waits_for_a_slow_subscriber_is_bounded(topics: Topics, monkeypatch: pytest.MonkeyPatch,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    heard: list[object] = []
    topics.subscribe("news", heard.append)
    for number in range(100):
        topics.deliver("news", "me", f"{number:05}")
    assert asked(topics, "?") == [(False, None)]
    assert heard == ["00000", "00001", "00002"]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "a subscriber of the topic 'news' is too slow: 15 bytes wait for it, and messages are dropped")]
    topics.deliver("news", "me", "again")
    settle()
    assert heard[3:] == ["again"]


def test_late_messages_of_a_publisher_are_known(topics: Topics) -> None:
    assert [topics.is_newer("a", number) for number in (1, 2, 2, 5, 4, 6)] == [True, True, False, True, False, True]
    assert topics.is_newer("b", 1)


def test_a_forked_child_keeps_the_subscriptions_and_nothing_that_waits(topics: Topics) -> None:
    heard: list[object] = []
    topics.subscribe("news", heard.append)
    assert topics.is_newer("a", 7)
    topics.after_fork()
    assert topics.is_newer("a", 1)
    topics.deliver("news", "me", "new")
    settle()
    assert heard == ["new"]


@pytest.mark.parametrize(("topic", "error", "text"), [
    ("", ValueError, "1 to 255 characters, not 0"), ("x" * (MAX_TOPIC + 1), ValueError, "1 to 255 characters, not 256"),
    (b"news", TypeError, "a topic is a str, not bytes"), (None, TypeError, "a topic is a str, not NoneType"),
], ids=["empty", "long", "bytes", "None"])
def test_topics_that_are_refused(topics: Topics, topic: Any, error: type[Exception], text: str) -> None:
    for check in (check_topic, lambda topic: topics.subscribe(topic, print)):
        with pytest.raises(error, match=text):
            check(topic)


@pytest.mark.parametrize(("data", "error", "text"), [
    ({"a": 1}, TypeError, "what is published is str or bytes-like, not dict"), (None, TypeError, "not NoneType"),
    ("é" * (MAX_DATA // 2 + 1), ValueError, "what is published has 8000000 bytes at most, not 8000002"),
], ids=["dict", "None", "large"])
def test_data_that_is_refused(data: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        check_data(data)


def test_subscribers_that_are_refused(topics: Topics) -> None:
    async def never_run(data: object) -> None: ...

    not_callable: Any = "a text"
    coroutine: Any = never_run
    with pytest.raises(TypeError, match="a subscriber must be callable, not str"):
        topics.subscribe("news", not_callable)
    with pytest.raises(ConfigurationError, match="a subscriber of a topic must be a plain function"):
        topics.subscribe("news", coroutine)
