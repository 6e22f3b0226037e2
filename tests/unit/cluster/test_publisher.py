"""What a worker sends and receives for topics, with other workers in the same process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from engineio_wsgi import Bundle
from engineio_wsgi.cluster.messages import Action, Call, Message
from engineio_wsgi.cluster.publisher import Post, PostKind, Publisher, check_session, check_timeout
from engineio_wsgi.cluster.topics import Topics
from engineio_wsgi.errors import BadMessage, UnknownSession
from engineio_wsgi.runtime.greenlet_pool import GreenletPool

GROUP = "group"


class Bus:
    """Carries messages between the workers of a test, at once."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.sent = 0
        #: whether messages are carried at all
        self.up = True

    def join(self, name: str, *sessions: str) -> Worker:
        """A new worker."""
        self.workers[name] = Worker(self, name, sessions)
        return self.workers[name]


class Worker:
    """A publisher, and what its subscriber has heard."""

    def __init__(self, bus: Bus, name: str, sessions: tuple[str, ...]) -> None:
        self.bus, self.name = bus, name
        self.topics = Topics(GreenletPool().submit, lambda callback: callback)
        self.publisher = Publisher(GROUP, name, self.topics, {name + each for each in sessions}, self)
        self.heard: list[object] = []

    def subscribe(self, reply: Any = None) -> Worker:
        """Hear the news, and answer."""
        self.topics.subscribe("news", lambda data: self.heard.append(data) or reply)
        return self

    def tell(self, worker: str, message: Message, on_heard: Callable[[int], object] | None = None) -> bool:
        """Carry a message to one worker."""
        return self._tell([worker] if worker in self.bus.workers else [], message, on_heard)

    def tell_all(self, message: Message, on_heard: Callable[[int], object] | None = None) -> bool:
        """Carry a message to all others."""
        return self._tell([name for name in self.bus.workers if name != self.name], message, on_heard)

    def _tell(self, workers: list[str], message: Message, on_heard: Callable[[int], object] | None) -> bool:
        if not self.bus.up:
            return False
        for name in workers:
            self.bus.sent += 1
            self.bus.workers[name].receive(Message.parse(message.encode()))
        if on_heard is not None:
            on_heard(len(workers))
        return True

    def receive(self, message: Message) -> int:
        """Take a message."""
        return self.publisher.receive(Call.of(message), message.body)


@pytest.fixture
def bus() -> Bus:
    """One with three workers, two of which subscribe."""
    bus = Bus()
    bus.join("aaaa", "1").subscribe("from a")
    bus.join("bbbb", "1").subscribe(b"from b")
    bus.join("cccc")
    return bus


def settle() -> None:
    """Let everything run that can."""
    for _ in range(5):
        gevent.sleep(0)


def heard(bus: Bus) -> list[list[object]]:
    """What each worker has heard."""
    settle()
    return [worker.heard for worker in bus.workers.values()]


def test_all_workers_get_what_is_published(bus: Bus) -> None:
    for worker in bus.workers.values():
        worker.publisher.publish("news", worker.name, "")
    assert sorted(map(sorted, heard(bus)), key=len) == [[], ["aaaa", "bbbb", "cccc"], ["aaaa", "bbbb", "cccc"]]


@pytest.mark.parametrize("asking", ["aaaa", "cccc"])
def test_replies_come_by_worker(bus: Bus, asking: str) -> None:
    assert bus.workers[asking].publisher.ask("news", "?", 60, "") == {"aaaa": "from a", "bbbb": b"from b"}
    assert bus.workers[asking].publisher.ask("weather", "?", 60, "") == {}


def test_a_worker_with_several_names_answers_once(bus: Bus) -> None:
    """It has taken over the sessions of workers that have gone, and their names."""
    for name in ("dddd", "eeee"):
        bus.workers[name] = bus.workers["bbbb"]
    for _ in range(2):
        assert bus.workers["aaaa"].publisher.ask("news", "?", 3600, "") == {"aaaa": "from a", "bbbb": b"from b"}
    assert bus.workers["bbbb"].heard == ["?", "?"]


def test_a_message_for_a_session_reaches_its_worker_only(bus: Bus) -> None:
    publisher = bus.workers["aaaa"].publisher
    publisher.publish("news", "there", "bbbb1")
    publisher.publish("news", "here", "aaaa1")
    assert (heard(bus), bus.sent) == ([["here"], ["there"], []], 1)
    assert publisher.ask("news", "?", 60, "bbbb1") == {"bbbb": b"from b"}
    assert publisher.ask("news", "?", 60, "aaaa1") == {"aaaa": "from a"}
    assert bus.sent == 3


def test_a_message_for_a_worker_reaches_this_worker_only(bus: Bus) -> None:
    publisher = bus.workers["aaaa"].publisher
    for worker in ("aaaa", "bbbb", "gone"):
        publisher.publish("news", worker, "", worker)
    assert (heard(bus), bus.sent) == ([["aaaa"], ["bbbb"], []], 1)


@pytest.mark.parametrize("session", ["bbbb2", "aaaa2", "dddd1", "x", "é" * 8])
def test_a_session_that_does_not_exist(bus: Bus, session: str) -> None:
    with pytest.raises(UnknownSession, match="no worker has a session with the id"):
        bus.workers["aaaa"].publisher.ask("news", "?", 60, session)
    assert heard(bus) == [[], [], []]


@pytest.mark.parametrize("session", ["aaaa2", "x", "é" * 8])
def test_a_session_that_cannot_exist_is_refused_at_once(bus: Bus, session: str) -> None:
    with pytest.raises(UnknownSession):
        bus.workers["aaaa"].publisher.publish("news", "data", session)
    bus.workers["aaaa"].publisher.publish("news", "nobody knows that it is gone", "bbbb2")
    assert heard(bus) == [[], [], []]


def test_without_other_workers_this_worker_answers_alone(bus: Bus) -> None:
    bus.up = False
    assert bus.workers["aaaa"].publisher.ask("news", "?", 60, "") == {"aaaa": "from a"}
    assert bus.workers["aaaa"].publisher.ask("news", "?", 0.001, "bbbb1") == {}


def test_a_worker_that_does_not_answer_is_left_out(bus: Bus) -> None:
    gate = gevent.event.Event()
    bus.workers["cccc"].topics.subscribe("news", lambda data: gate.wait() and None)
    assert bus.workers["cccc"].publisher.ask("news", "?", 0.05, "") == {"aaaa": "from a", "bbbb": b"from b"}
    gate.set()
    settle()  # its answer comes too late, and changes nothing
    assert bus.workers["aaaa"].publisher.ask("weather", "?", 60, "") == {}


def test_messages_that_come_late_are_dropped(bus: Bus) -> None:
    worker = bus.workers["bbbb"]
    posts = [Post(PostKind.PUBLISH, "news", str(number), "aaaa", number) for number in (1, 3, 2, 4)]
    taken = [worker.receive(post.message(GROUP)) for post in posts]
    assert (taken, heard(bus)[1]) == ([1, 1, 0, 1], ["1", "3", "4"])
    # what an emitter sends has no number
    assert [worker.receive(Post(PostKind.PUBLISH, "news", "x").message(GROUP)) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("post", [
    Post(PostKind.ASK, "news", "text", "aaaa", 7, "bbbb1"), Post(PostKind.REPLY, "é\0", b"\x00\xff", "bbbb", 1 << 40),
    Post(PostKind.PUBLISH, "news", "\ud800"),
], ids=repr)
def test_a_post_comes_back(post: Post) -> None:
    message = Message.parse(post.message(GROUP).encode())
    assert Post.of(Call.of(message), message.body) == post


@pytest.mark.parametrize("message", [
    Call(GROUP, Action.PUBLISH, ("", "publish", "aaaa"), to="news").message("x"),
    Call(GROUP, Action.PUBLISH, ("", "shout", "aaaa", "1"), to="news").message("x"),
    Call(GROUP, Action.PUBLISH, ("", "publish", "aaaa", "one"), to="news").message("x"),
    Call(GROUP, Action.PUBLISH, ("", "publish", "aaaa", "1")).message("x"),
    Call(GROUP, Action.PUBLISH, ("", "publish", "aaaa", "1"), to="news").message(Bundle("x")),
    Call(GROUP, Action.COUNT, ("", "publish", "aaaa", "1"), to="news").message("x"),
], ids=["too few fields", "kind", "number", "no topic", "bundle", "action"])
def test_anything_but_a_post_is_refused(message: Message) -> None:
    with pytest.raises(BadMessage):
        Post.of(Call.of(message), message.body)


def test_arguments_that_are_refused() -> None:
    wrong: Any = 7
    with pytest.raises(TypeError, match="session: expected the id of a session, a str, or None; got int"):
        check_session(wrong)
    with pytest.raises(UnknownSession):
        check_session("")
    for timeout in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="timeout: expected more than 0 seconds"):
            check_timeout(timeout)
    for other in (None, "1", True):
        with pytest.raises(TypeError, match="timeout: expected seconds, a number"):
            check_timeout(other)
    assert (check_session(None), check_session("sid"), check_timeout(1)) == ("", "sid", 1.0)
