"""Workers of a machine without sockets that keep records apart, and without abstract names: as macOS, but on Linux."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from support.workers import Nomad, Workers, assert_descriptors_are_given_back, settled

from engineio_wsgi import Emitter, emitter
from engineio_wsgi.cluster.local import records
from engineio_wsgi.cluster.local.names import Folder


@pytest.fixture
def group(start: Callable[..., Workers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Three workers, all of which have joined."""
    folder = tmp_path / "sockets"
    monkeypatch.setattr(records, "KIND", socket.SOCK_STREAM)
    monkeypatch.setattr(emitter, "choose_names", lambda group: Folder(folder))
    made = start(3, sockets=str(folder), streams=True)
    gevent.joinall([gevent.spawn(worker.ask) for worker in made.workers], raise_error=True)
    return made


def test_sessions_at_every_worker(group: Workers) -> None:
    """Connections are handed over, and what is larger than a record is relayed whole."""
    session = Nomad(group.workers[0]).open()
    large = "x" * 300_000
    for worker in group.workers:
        session.served = worker
        for text in ("short", large):
            session.echo(text)
    session.served = group.workers[1]
    websocket = session.upgrade()
    websocket.send("5")
    websocket.send(f"4{large}")
    while (received := websocket.recv()) != f"4{large}":
        assert received in ("6", "2")
    assert group.total("handed_over") > 0
    assert group.total("failed") == 0


def test_calls_and_messages(group: Workers) -> None:
    first, second, third = group.workers
    session = Nomad(first).open()
    assert second.call("send", session.sid, "x" * 100_000) is True
    assert session.hear() == "x" * 100_000
    third.call("broadcast", "to all")
    assert session.hear() == "to all"
    assert Emitter("local").send(session.sid, "from outside") is True
    assert session.hear() == "from outside"
    assert len(Emitter("local").workers()) == 3


def test_a_worker_that_is_killed(group: Workers) -> None:
    first, second, _ = group.workers
    session = Nomad(first).open()
    session.served = second
    session.echo("hello")
    os.kill(first.pid, signal.SIGKILL)
    assert session.post("4x").json()["code"] == 1
    settled(lambda: len(second.call("workers")) == 2)


def test_descriptors_are_given_back(group: Workers) -> None:
    owner, other, _ = group.workers
    assert_descriptors_are_given_back(owner, other)
