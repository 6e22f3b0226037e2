"""Which workers an emitter without a cluster name reaches, and its error where there are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from support.clients import WebSocketSession, open_session
from support.processes import ServerProcess
from support.serving import EventLog, Served

import engineio_wsgi
from engineio_wsgi import Emitter
from engineio_wsgi.cluster.local.names import AbstractNames
from engineio_wsgi.cluster.local.running import running_clusters
from engineio_wsgi.errors import NoWorkers

Start = Callable[..., ServerProcess]
OURS = "engineio_wsgi.gunicorn.Worker"


@pytest.fixture
def path() -> str:
    """Of engines that no other test has: the names of a machine are seen by all."""
    return f"/{uuid4()}"


@pytest.fixture
def gunicorn(tmp_path: Path, path: str) -> Iterator[Start]:
    """Starts gunicorn with two workers, which serve each other's sessions by themselves."""
    started: list[ServerProcess] = []

    def start(kind: str = OURS) -> ServerProcess:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        hooks = () if kind == OURS else ("-c", "python:engineio_wsgi.gunicorn")
        # what tells two gunicorns apart is where they listen
        bind = f"unix:{folder}/socket" if started else "127.0.0.1:0"
        started.append(ServerProcess(folder, kind, "-w", "2", *hooks, options={"path": path}, bind=bind))
        started[-1].served.path = f"{path}/"
        started[-1].until(lambda: sum(each.workers for each in running_clusters(path) if each.here) == 2 * len(started))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def refusal(call: Callable[[], object]) -> str:
    """What a call says that reaches nobody."""
    with pytest.raises(NoWorkers) as caught:
        call()
    assert isinstance(caught.value, ConnectionError)
    return str(caught.value)


@pytest.mark.parametrize("kind", [OURS, "gevent"])
def test_gunicorns_workers_are_found(gunicorn: Start, path: str, kind: str) -> None:
    session = open_session(gunicorn(kind).served, "websocket")
    emitter = Emitter("local", path)
    assert len(emitter.workers()) == 2
    assert emitter.broadcast("to all") == emitter.count() == 1
    assert session.hear() == "to all"
    assert emitter.send(session.sid, "to one") is True
    assert session.hear() == "to one"
    assert emitter.send("zzzz-no-such-session", "x") is False
    assert emitter.disconnect(session.sid) is True


def test_with_two_gunicorns_the_cluster_must_be_named(gunicorn: Start, path: str) -> None:
    session = open_session(gunicorn().served, "websocket")
    gunicorn()
    text = refusal(lambda: Emitter("local", path).broadcast("x"))
    names = [each.cluster for each in running_clusters(path) if each.here]
    assert text.startswith(f"the cluster 'local' under the path {path!r} has no workers; of this user, there is ")
    assert all(f"{name!r} (2 workers)" in text for name in names)
    emitters = [Emitter(name, path) for name in names]
    assert sorted(emitter.count() for emitter in emitters) == [0, 1]
    assert sum(emitter.broadcast("named") for emitter in emitters) == 1
    assert session.hear() == "named"


def test_a_named_cluster_is_mentioned_and_not_used(path: str) -> None:
    name = f"local:shop-{uuid4()}"
    server = engineio_wsgi.Server(cluster=name, path=path).listen(("127.0.0.1", 0))
    assert f"{name!r} (1 worker)" in refusal(lambda: Emitter("local", path).broadcast("x"))
    assert f"{name!r} (1 worker, under another path)" in refusal(Emitter(name, f"{path}/chat").count)
    server.close(0)
    assert f"{name!r} (" not in refusal(Emitter(name, path).count)


def test_a_cluster_without_a_name_goes_first(gunicorn: Start, path: str) -> None:
    gunicorn()
    server = engineio_wsgi.Server(cluster="local", path=path).listen(("127.0.0.1", 0))
    session = WebSocketSession(Served(server.address, EventLog(), handler="ours", path=f"{path}/")).open()
    emitter = Emitter("local", path)
    assert emitter.workers() == [session.sid[:4]]
    assert emitter.count() == 1
    server.close(0)
    assert len(emitter.workers()) == 2
    assert emitter.count() == 0


def test_the_longest_name_of_a_cluster_is_an_address(path: str) -> None:
    name = "local:" + "x" * 64
    server = engineio_wsgi.Server(cluster=name, path=path).listen(("127.0.0.1", 0))
    assert len(Emitter(name, path).workers()) == 1
    assert len(AbstractNames(f"{name}{path}").address("abcd").encode()) <= 108 - len("4294967295") + len("0")
    server.close(0)
