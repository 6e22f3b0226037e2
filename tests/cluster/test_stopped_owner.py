"""A worker of the same machine that is stopped: requests for its sessions fail in time, and delay no others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import gevent
import pytest
from support.clients import PollingSession
from support.workers import Nomad, Workers, knock

#: of a worker of these tests' Unix socket
BACKLOG = 8
#: seconds that the workers give each other: what goes on meanwhile takes far less, on a slow machine, too
PATIENCE = 3


@pytest.fixture
def group(start: Callable[..., Workers]) -> Workers:
    """Two workers with little patience."""
    return start(2, patience=PATIENCE, backlog=BACKLOG)


def check(group: Workers, session: PollingSession, message: str, reason: str) -> None:
    """The session's worker has been stopped: what is posted to it now is refused, and does not take effect afterwards."""
    owner, other = group.workers
    neighbour = Nomad(other).open()
    posting = gevent.spawn(session.post, message)
    gevent.sleep(0)
    neighbour.say("fine")
    assert neighbour.hear() == "fine"
    assert not posting.ready()
    assert posting.get().json()["code"] == 1
    group.wait_for_log(reason)
    os.kill(owner.pid, signal.SIGCONT)
    session.say("in time")
    assert session.hear() == "in time"


def test_no_answer(group: Workers) -> None:
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    os.kill(owner.pid, signal.SIGSTOP)
    check(group, session, "4too late", f"it has not answered for {PATIENCE} s")


def test_no_room_in_the_queue(group: Workers) -> None:
    """Nobody accepts, and the kernel lets no more wait."""
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    os.kill(owner.pid, signal.SIGSTOP)
    crowd = [knock(session.sid[:4]) for _ in range(BACKLOG + 1)]
    check(group, session, "4too late", "its queue is full")
    for visitor in crowd:
        visitor.close()


def test_no_room_in_the_buffer(group: Workers) -> None:
    """Of a request that is relayed, only the beginning goes in."""
    owner, other = group.workers
    session = PollingSession(owner, headers=[("X-Forwarded-For", "203.0.113.9")]).open()
    session.posting, session.getting = other.connect(), other.connect()
    os.kill(owner.pid, signal.SIGSTOP)
    check(group, session, "4" + "x" * 900_000, f"it has not answered for {PATIENCE} s")


def test_a_stop_that_is_short(group: Workers) -> None:
    """A full queue is waited for."""
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    os.kill(owner.pid, signal.SIGSTOP)
    crowd = [knock(session.sid[:4]) for _ in range(BACKLOG + 1)]
    posting = gevent.spawn(session.post, "4in time")
    other.ask()
    os.kill(owner.pid, signal.SIGCONT)
    assert posting.get().body == b"ok"
    assert session.hear() == "in time"
    for visitor in crowd:
        visitor.close()
