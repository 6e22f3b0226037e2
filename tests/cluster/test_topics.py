"""What the workers of an application publish to each other, and ask each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest
from support.clients import WebSocketSession
from support.redis import RedisServer
from support.workers import Worker, Workers, settled

import engineio_wsgi
from engineio_wsgi import Emitter
from engineio_wsgi.errors import NoWorkers, UnknownSession, UsageError

#: seconds that a question may take; only a failing test waits that long, or one whose workers do not all answer
LONG = 60.0


@pytest.fixture
def group(tmp_path: Path, name: str) -> Iterator[Workers]:
    """Three workers with subscribers."""
    workers = Workers(tmp_path, 3, cluster=name, apart=name.startswith("redis"), topics=["news"])
    for worker in workers.workers:
        # each is a member of the cluster then
        worker.ask()
    yield workers
    workers.stop()


def heard_by(worker: Worker, count: int) -> Any:
    """What a worker's subscriber has heard, once it is so much."""
    heard: list[Any] = []

    def enough() -> bool:
        heard[:] = worker.call("heard")
        return len(heard) >= count

    settled(enough)
    return heard


def ids(group: Workers) -> list[str]:
    """Of the workers, in their order."""
    return [worker.ask()["id"] for worker in group.workers]


def test_every_worker_gets_each_message_once_and_in_the_publishers_order(group: Workers) -> None:
    def publish(worker: Worker) -> None:
        for number in range(30):
            assert worker.call("publish", "news", f"{worker.pid} {number}") is None

    publishers = group.workers[:2]
    gevent.joinall([gevent.spawn(publish, worker) for worker in publishers], raise_error=True)
    for worker in group.workers:
        heard = heard_by(worker, 60)
        for publisher in publishers:
            of_one = [data for data in heard if data.startswith(f"{publisher.pid} ")]
            assert of_one == [f"{publisher.pid} {number}" for number in range(30)]
        assert len(heard) == 60
    assert group.complaints() == []


@pytest.mark.parametrize("data", ["text", "é\U0001f600", "", "x" * 300_000])
def test_replies_come_by_worker(group: Workers, data: str) -> None:
    for worker in group.workers:
        assert worker.call("ask", "news", data, timeout=LONG) == dict.fromkeys(ids(group), data)


def test_a_reply_of_none_differs_from_no_reply(group: Workers) -> None:
    asking = group.workers[0]
    assert asking.call("ask", "news", "nothing", timeout=LONG) == dict.fromkeys(ids(group))
    assert asking.call("ask", "a topic without subscribers", "?", timeout=LONG) == {}
    assert asking.call("ask", "news", "fail", timeout=LONG) == {}
    group.wait_for_log("ERROR engine.cluster: a subscriber of the topic 'news' failed", 3)
    assert group.log().count("RuntimeError: a subscriber that fails") == 3
    assert asking.call("ask_in_a_thread", "news", "?", timeout=LONG) == dict.fromkeys(ids(group), "?")


def test_a_message_for_a_session_reaches_its_worker_only(group: Workers) -> None:
    sessions = [WebSocketSession(worker).open() for worker in group.workers]
    for session in sessions:
        for worker in group.workers:
            assert worker.call("ask", "news", session.sid, timeout=LONG, session=session.sid) == {session.sid[:4]: session.sid}
            worker.call("publish", "news", "published", session=session.sid)
    for worker, session in zip(group.workers, sessions, strict=True):
        assert sorted(heard_by(worker, 6)) == sorted([session.sid, "published"] * 3)


def test_a_message_for_a_worker_reaches_this_worker_only(group: Workers) -> None:
    names = ids(group)
    for name in [*names, "gone", "../x", "é"]:
        for worker in group.workers:
            worker.call("publish", "news", name, worker=name)
    assert group.workers[0].call("ask", "news", "last", timeout=LONG) == dict.fromkeys(names, "last")
    assert [sorted(heard_by(worker, 4)) for worker in group.workers] == [sorted([name, name, name, "last"]) for name in names]
    assert group.complaints() == []


def test_an_unknown_session_is_refused(group: Workers) -> None:
    sessions = [WebSocketSession(worker).open() for worker in group.workers]
    asking = group.workers[0]
    gone = sessions[1].sid
    sessions[1].close()
    group.wait_for_log("closed: transport close")
    for sid in (gone, sessions[0].sid[:4] + "forged", "zzzz-no-such-session", "x"):
        outcome = asking.call("ask", "news", "?", timeout=LONG, session=sid)
        assert outcome == f"UnknownSession: no worker has a session with the id '{sid[:6]}…'"
    assert asking.call("publish", "news", "?", session="x").startswith("UnknownSession")
    asking.call("publish", "news", "it cannot be known that nobody is there", session=gone)
    assert asking.call("ask", "news", "next", timeout=LONG) == dict.fromkeys(ids(group), "next")
    assert group.workers[1].call("heard") == ["next"]


@pytest.mark.parametrize(("arguments", "options", "error"), [
    (("", "data"), {}, "ValueError: a topic has 1 to 255 characters, not 0"),
    (("x" * 256, "data"), {}, "ValueError: a topic has 1 to 255 characters, not 256"),
    (("news", "x" * 8_000_001), {}, "ValueError: what is published has 8000000 bytes at most, not 8000001"),
], ids=["no topic", "long topic", "large"])
def test_what_is_refused(group: Workers, arguments: tuple[str, str], options: dict[str, Any], error: str) -> None:
    for call in ("publish", "ask"):
        assert group.workers[0].call(call, *arguments, **options) == error


def test_a_blocked_subscriber_delays_no_other_publisher(group: Workers) -> None:
    blocked, other = group.workers[:2]
    blocked.call("publish", "news", "block")
    for worker in (other, group.workers[2]):
        assert worker.call("ask", "news", "?", timeout=LONG) == dict.fromkeys(ids(group), "?")
    assert blocked.call("ask", "news", "?", timeout=0.1) == {}


def test_a_worker_that_is_stopped_or_killed_is_left_out(group: Workers) -> None:
    names = ids(group)
    asking, stopped, killed = group.workers
    os.kill(stopped.pid, signal.SIGSTOP)
    # the others have answered long before
    assert asking.call("ask", "news", "one", timeout=5.0) == {names[0]: "one", names[2]: "one"}
    asking.call("publish", "news", "two")
    assert heard_by(killed, 2) == ["one", "two"]
    os.kill(killed.pid, signal.SIGKILL)
    os.kill(stopped.pid, signal.SIGCONT)
    settled(lambda: asking.call("ask", "news", "three", timeout=1.0) == {names[0]: "three", names[1]: "three"})
    heard = [data for data in stopped.call("heard") if data != "three"]
    assert heard == [data for data in ("one", "two") if data in heard], "in their order, if at all"


# -- processes that are no workers


SCRIPT = """
import sys
import engineio_wsgi

emitter = engineio_wsgi.Emitter(sys.argv[1])
print([emitter.publish("news", "text"), emitter.publish("news", b"\\x00\\xff"),
       emitter.publish("news", "one", session=sys.argv[2])])
"""


def test_an_emitter_publishes(group: Workers, name: str) -> None:
    session = WebSocketSession(group.workers[1]).open()
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT, name, session.sid], capture_output=True, text=True,
                          timeout=300)
    assert (done.stdout, done.stderr) == ("[3, 3, 1]\n", "")
    assert [sorted(heard_by(worker, count)) for worker, count in zip(group.workers, (2, 3, 2), strict=True)] == [
        ["00ff", "text"], ["00ff", "one", "text"], ["00ff", "text"]]


def test_an_emitter_refuses(group: Workers, name: str) -> None:
    emitter = Emitter(name)
    for sid in ("zzzz-no-such-session", group.workers[0].ask()["id"] + "forged", "x"):
        with pytest.raises(UnknownSession):
            emitter.publish("news", "data", session=sid)
    here = group.workers[0].ask()["id"]
    assert [emitter.publish("news", "data", worker=worker) for worker in (here, "gone", "../x")] == [1, 0, 0]
    with pytest.raises(ValueError, match="a topic has 1 to 255 characters"):
        emitter.publish("", "data")
    with pytest.raises(NoWorkers):
        Emitter(name + "x").publish("news", "data")


def test_a_process_that_is_no_worker_yet_publishes_and_subscribes(group: Workers, name: str) -> None:
    cluster = engineio_wsgi.Server(cluster=name).cluster
    assert cluster is not None
    heard: list[object] = []
    end = cluster.subscribe("news", heard.append)
    cluster.publish("news", "from outside")
    assert [heard_by(worker, 1) for worker in group.workers] == [["from outside"]] * 3
    with pytest.raises(UsageError, match="ask: this process is no worker of the cluster"):
        cluster.ask("news", "?")
    end()
    assert heard == []


def test_a_subscription_is_kept_when_the_process_becomes_a_worker(name: str) -> None:
    servers = [engineio_wsgi.Server(cluster=name) for _ in range(2)]
    heard: list[list[object]] = [[], []]
    ends = []
    for server, here in zip(servers, heard, strict=True):
        assert server.cluster is not None
        ends.append(server.cluster.subscribe("news", partial(list.append, here)))
        server.listen(("127.0.0.1", 0))
    cluster = servers[0].cluster
    assert cluster is not None
    assert cluster.ask("news", b"\x00", timeout=LONG) == dict.fromkeys(cluster.workers())
    ends[1]()
    assert list(cluster.ask("news", "second", timeout=LONG)) == [cluster.workers()[0]]
    assert heard == [[b"\x00", "second"], [b"\x00"]]
    for server in servers:
        server.close(1)


# -- Redis away


def test_messages_wait_for_a_redis_that_is_away(start: Callable[..., Workers], redis: RedisServer) -> None:
    group = start(2, cluster=redis.url, apart=True, topics=["news"])
    publisher, other = group.workers
    names = ids(group)
    assert publisher.call("ask", "news", "before", timeout=LONG) == dict.fromkeys(names, "before")
    redis.kill()
    group.wait_for_log("lost: ", 2)
    for number in range(10):
        publisher.call("publish", "news", str(number))
    assert publisher.call("ask", "news", "meanwhile", timeout=LONG) == {names[0]: "meanwhile"}
    redis.start()
    group.wait_for_log("back after", 2)
    settled(lambda: bool(publisher.call("ask", "news", "after", timeout=LONG) == dict.fromkeys(names, "after")))
    heard = [data for data in other.call("heard") if data.isdigit()]
    # a worker that comes back later than the publisher misses the first of them
    assert heard == [str(number) for number in range(10 - len(heard), 10)]
    assert "meanwhile" not in other.call("heard")
    assert [data for data in publisher.call("heard") if data.isdigit()] == [str(number) for number in range(10)]
