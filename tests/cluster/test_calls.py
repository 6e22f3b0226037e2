"""What one process does for sessions that live in another: send, broadcast, disconnect, count."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest
from support.clients import PollingSession, WebSocketSession
from support.rawwebsocket import Closed
from support.serving import EventLog, Served
from support.workers import Workers

import engineio_wsgi
from engineio_wsgi import Bundle, ConfigurationError, Emitter
from engineio_wsgi.cluster.local.names import AbstractNames
from engineio_wsgi.cluster.messages import VERSION
from engineio_wsgi.errors import NoWorkers

UNKNOWN = "zzzz-no-such-session"


@pytest.fixture
def group(tmp_path: Path, name: str) -> Iterator[Workers]:
    """Three workers."""
    workers = Workers(tmp_path, 3, cluster=name, apart=name.startswith("redis"))
    yield workers
    workers.stop()


def sessions_of(group: Workers) -> list[WebSocketSession]:
    """A session of each worker."""
    return [WebSocketSession(worker).open() for worker in group.workers]


def test_a_broadcast_reaches_every_session_of_every_worker(group: Workers) -> None:
    sessions = sessions_of(group)
    for number in range(20):
        group.workers[0].call("broadcast", str(number), exclude=[sessions[2].sid])
    group.workers[0].call("broadcast", "last")
    for session in sessions[:2]:
        assert session.hear_many(21) == [*map(str, range(20)), "last"]
    assert sessions[2].hear() == "last"


def test_a_bundle_crosses_the_cluster_as_one(group: Workers) -> None:
    sessions = sessions_of(group)
    workers = group.workers
    for worker in workers:
        gevent.joinall([gevent.spawn(worker.call, "broadcast", [f"head of {worker.pid}", "tail"]) for _ in range(10)])
    assert workers[0].call("send", sessions[1].sid, ["é\ud800", "to one"]) is True
    workers[0].call("broadcast", ["not", "to all"], exclude=[sessions[2].sid])
    heard = sessions[1].hear_many(64)
    pairs = sorted(zip(heard[::2], heard[1::2], strict=True), key=str)
    assert pairs == sorted([*[(f"head of {worker.pid}", "tail") for worker in workers for _ in range(10)],
                            ("é\ufffd", "to one"), ("not", "to all")], key=str)
    assert sessions[2].hear_many(60)[1::2] == ["tail"] * 30


def test_an_emitter_sends_a_bundle(group: Workers, name: str) -> None:
    sessions = sessions_of(group)
    emitter, bundle = Emitter(name), Bundle("head", b"\x00\xff", "tail")
    assert emitter.broadcast(bundle) == 3
    assert emitter.send(sessions[1].sid, bundle) is True
    assert [session.hear_many(count) for session, count in zip(sessions, (3, 6, 3), strict=True)] == [
        list(bundle), [*bundle, *bundle], list(bundle)]


def test_a_bundle_that_is_too_large_for_a_worker_is_refused_by_it(group: Workers, name: str) -> None:
    session = sessions_of(group)[0]
    emitter = Emitter(name)
    large = Bundle("x" * 1_500_000, "x" * 1_500_000)
    assert emitter.send(session.sid, large) is False
    assert emitter.broadcast(large) == 0
    assert emitter.send(session.sid, "the next message") is True
    assert session.hear() == "the next message"
    group.wait_for_log("a bundle of 3000000 bytes is larger than max_buffered, which is 2000000 bytes")


def test_a_local_broadcast_reaches_this_worker_only(group: Workers) -> None:
    sessions = sessions_of(group)
    group.workers[0].call("broadcast", "here", local=True)
    group.workers[0].call("broadcast", "everywhere")
    assert sessions[0].hear_many(2) == ["here", "everywhere"]
    assert sessions[1].hear() == "everywhere"


def test_a_group_has_members_in_every_worker(group: Workers) -> None:
    sessions = sessions_of(group)
    for worker, session in zip(group.workers, sessions, strict=True):
        if session is not sessions[1]:
            worker.call("join", session.sid, "news")
    group.workers[1].call("broadcast", "one", to="news", exclude=[sessions[2].sid])
    group.workers[1].call("broadcast", "two", to="news")
    assert (sessions[0].hear_many(2), sessions[2].hear()) == (["one", "two"], "two")
    group.workers[2].call("leave", sessions[2].sid, "news")
    group.workers[1].call("broadcast", "three", to="news")
    group.workers[1].call("broadcast", "to nobody", to="a group without members")
    group.workers[1].call("broadcast", "last")
    assert sessions[0].hear_many(2) == ["three", "last"]
    assert [session.hear() for session in sessions[1:]] == ["last", "last"]


def test_an_emitter_reaches_a_group(group: Workers, name: str) -> None:
    sessions = sessions_of(group)
    group.workers[0].call("join", sessions[0].sid, "news")
    group.workers[2].call("join", sessions[2].sid, "news")
    emitter = Emitter(name)
    assert emitter.broadcast("to members", to="news") == 2
    assert emitter.broadcast("to nobody", to="a group without members") == 0
    assert emitter.broadcast("last") == 3
    assert [session.hear() for session in sessions] == ["to members", "last", "to members"]


@pytest.mark.parametrize("data", ["text", "ü€😀", ""])
def test_send_reaches_a_session_of_any_worker(group: Workers, data: str) -> None:
    sessions = sessions_of(group)
    for session in sessions:
        assert group.workers[1].call("send", session.sid, data) is True
        assert session.hear() == data


def test_send_returns_whether_the_message_was_queued(group: Workers) -> None:
    sessions = sessions_of(group)
    sender = group.workers[0]
    for sid in (UNKNOWN, sessions[1].sid[:4] + "forged", sessions[0].sid[:4] + "forged", "", "é" * 8, "x"):
        assert sender.call("send", sid, "data") is False, sid
        assert sender.call("disconnect", sid) is False, sid


def test_disconnect_lets_the_client_fetch_what_waits_for_it(group: Workers) -> None:
    sessions = [PollingSession(worker).open() for worker in group.workers]
    for session in sessions:
        assert group.workers[0].call("send", session.sid, "last words") is True
        assert group.workers[0].call("disconnect", session.sid) is True
        assert session.hear() == "last words"
    group.wait_for_log("closed: forced close", 3)


def test_count_and_workers(group: Workers, name: str) -> None:
    assert group.workers[0].call("count") == 0
    ids = sorted(worker.ask()["id"] for worker in group.workers)
    sessions = [*sessions_of(group), WebSocketSession(group.workers[0]).open()]
    for worker in group.workers:
        assert worker.call("count") == 4
        assert sorted(worker.call("workers")) == ids
    assert sorted(session.sid[:4] for session in sessions[:3]) == ids
    os.kill(group.workers[2].pid, signal.SIGKILL)
    with gevent.Timeout(60):
        while group.workers[0].call("count") != 3:
            gevent.sleep(0.02)
    assert sorted(group.workers[0].call("workers")) == sorted(session.sid[:4] for session in sessions[:2])


def test_a_stopped_worker_delays_no_broadcast_to_others(group: Workers) -> None:
    sessions = sessions_of(group)
    os.kill(group.workers[1].pid, signal.SIGSTOP)
    group.workers[0].call("broadcast", "hello")
    assert sessions[2].hear() == "hello"
    os.kill(group.workers[1].pid, signal.SIGCONT)
    assert sessions[1].hear() == "hello"


def test_workers_of_one_process_answer_each_other(name: str) -> None:
    """Also if who asks is the main greenlet: the hub goes on while it waits."""
    servers = [engineio_wsgi.Server(cluster=name).listen(("127.0.0.1", 0)) for _ in range(2)]
    session = WebSocketSession(Served(servers[0].address, EventLog(), handler="ours")).open()
    assert gevent.getcurrent().parent is None
    assert servers[1].send(session.sid, "hello") is True
    assert session.hear() == "hello"
    assert servers[1].cluster is not None and servers[1].cluster.count() == 1
    emitter = Emitter(name)
    assert emitter.send(session.sid, "emitted") is True
    assert session.hear() == "emitted"
    for server in servers:
        server.close(1)


# -- processes that serve nothing


SCRIPT = """
import sys, threading
{patch}
import engineio_wsgi

emitter = engineio_wsgi.Emitter(sys.argv[1])
outcome = []

def emit():
    outcome.append(emitter.broadcast("to all", exclude=[sys.argv[2]]))
    outcome.append(emitter.send(sys.argv[3], "to one") and emitter.send(sys.argv[3], b"binary"))
    outcome.append(emitter.disconnect(sys.argv[2]))
    outcome.append(emitter.send("zzzz-no-such-session", "x"))

{how}
print(outcome)
"""
HOWS = {
    "plainly": ("", "emit()"),
    "in a thread": ("", "thread = threading.Thread(target=emit); thread.start(); thread.join()"),
    "in a greenlet": ("import gevent", "gevent.spawn(emit).join()"),
    "monkey-patched": ("from gevent import monkey; monkey.patch_all()", "emit()"),
}


@pytest.mark.parametrize("how", HOWS)
def test_emitter(group: Workers, name: str, how: str) -> None:
    sessions = sessions_of(group)
    patch, call = HOWS[how]
    script = SCRIPT.format(patch=patch, how=call)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script, name, sessions[1].sid, sessions[2].sid],
                          capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("[3, True, True, False]\n", "")
    assert sessions[0].hear() == "to all"
    assert sessions[2].hear_many(3) == ["to all", "to one", b"binary"]
    with pytest.raises(Closed):
        sessions[1].hear()


def test_emitter_counts(group: Workers, name: str) -> None:
    sessions = sessions_of(group)
    emitter = Emitter(name)
    assert emitter.count() == 3
    assert sorted(emitter.workers()) == sorted(session.sid[:4] for session in sessions)


def test_emitter_of_another_cluster_says_that_there_are_no_workers(group: Workers, name: str) -> None:
    session = sessions_of(group)[0]
    for emitter, path in ((Emitter(name + "x"), "/engine.io"), (Emitter(name, path="/chat"), "/chat")):
        assert emitter.workers() == []
        for call in (emitter.count, partial(emitter.broadcast, "x"), partial(emitter.send, session.sid, "x"),
                     partial(emitter.disconnect, session.sid), partial(emitter.send, "?", "x")):
            with pytest.raises(NoWorkers, match=f" under the path '{path}' has no workers"):
                call()
    assert Emitter(name).send(session.sid, "the first message") is True
    assert session.hear() == "the first message"


@pytest.mark.parametrize("cluster", [None, "elsewhere", 1])
def test_emitter_refuses(cluster: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^cluster: expected"):
        Emitter(cluster)


@pytest.mark.parametrize("data", [1, None, ["x"]])
def test_emitter_sends_text_and_bytes_only(name: str, data: Any) -> None:
    with pytest.raises(TypeError, match=r"a message is str \(text\) or bytes-like"):
        Emitter(name).send(UNKNOWN, data)


def call_message(fields: list[str]) -> bytes:
    """The bytes of a call, whose body is no text."""
    head = "".join(f"\0{field}" for field in fields).encode()
    body = b"\xff\xfe"
    return struct.pack("!BcII", VERSION, b"L", len(head), len(body)) + head + body


#: fields behind the group
GARBAGE: dict[str, list[str]] = {
    "no action": ["explode", "text", "compress", "", "close", "", "", "x"],
    "two sids": ["send", "text", "compress", "", "close", "", "", "x", "y"], "nothing": [],
    "text that is none": ["broadcast", "text", "compress", "", "close", "", ""],
    "no way of delivery": ["broadcast", "text", "compress", "", "explode", "", ""],
}


@pytest.mark.parametrize("name", ["local"], indirect=True)
def test_malformed_calls_are_refused(group: Workers, name: str) -> None:
    session = sessions_of(group)[0]
    address = AbstractNames(f"{name}/engine.io").address(session.sid[:4])
    for fields in GARBAGE.values():
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(60)
            sock.connect(address)
            sock.send(call_message([f"{name}/engine.io", *fields]))
            assert sock.recv(100) == b""
    group.wait_for_log("a message of another process was refused", len(GARBAGE))
    session.say("still there")
    assert session.hear() == "still there"
