"""Workers whose sockets are files in a directory, as on systems without abstract names."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from support.workers import Nomad, Workers, settled

from engineio_wsgi import Emitter, emitter
from engineio_wsgi.cluster.local.names import Folder
from engineio_wsgi.errors import NoWorkers

Start = Callable[..., Workers]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Its name: it does not exist yet."""
    return tmp_path / "sockets"


@pytest.fixture
def reach(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emitter]:
    """A process that serves nothing, beside them."""
    monkeypatch.setattr(emitter, "choose_names", lambda group: Folder(folder))
    yield Emitter("local")


def test_requests_of_each_session_at_every_worker(start: Start, folder: Path, reach: Emitter) -> None:
    """All of them have begun to listen at the same time, and none has taken another for dead."""
    group = start(8, sockets=str(folder))
    # a worker joins with its first request
    asking = [gevent.spawn(lambda worker=worker: worker.ask()["id"]) for worker in group.workers]
    ids = sorted(one.get() for one in asking)
    for worker in group.workers:
        assert sorted(worker.call("workers")) == ids
    session = Nomad(group.workers[0]).open()
    for number, worker in enumerate(group.workers):
        session.served = worker
        session.echo(str(number))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert reach.workers() == ids
    assert reach.send(session.sid, "from outside") is True
    assert session.hear() == "from outside"
    assert group.total("handed_over") > 0
    assert group.total("failed") == 0


def test_sockets_of_killed_workers_are_removed(start: Start, folder: Path, reach: Emitter) -> None:
    group = start(2, sockets=str(folder))
    first, second = group.workers
    session = Nomad(first).open()
    session.served = second
    session.echo("hello")
    os.kill(first.pid, signal.SIGKILL)
    assert session.post("4x").json()["code"] == 1
    assert second.call("workers") == reach.workers() == [second.ask()["id"]]
    assert (folder / session.sid[:4]).exists()
    third = start(1, sockets=str(folder)).workers[0].ask()["id"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([second.ask()["id"], third])


def test_a_worker_that_closes_removes_its_socket(start: Start, folder: Path) -> None:
    worker = start(1, sockets=str(folder)).workers[0]
    Nomad(worker).open()
    assert len(list(folder.iterdir())) == 1
    worker.connect().get("/close")
    settled(lambda: not list(folder.iterdir()))


def test_an_unused_directory_has_no_workers(reach: Emitter) -> None:
    assert reach.workers() == []
    with pytest.raises(NoWorkers):
        reach.count()
    with pytest.raises(NoWorkers):
        reach.send("abcdefgh", "x")


@pytest.mark.parametrize("kind", ["open to others", "a file", "a link"])
def test_a_directory_that_others_could_have_made_is_refused(start: Start, folder: Path, reach: Emitter, tmp_path: Path,
                                                            kind: str) -> None:
    if kind == "a file":
        folder.write_text("")
    elif kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir(mode=0o755)
    group = start(1, sockets=str(folder))
    assert group.workers[0].connect().get("/engine.io/?EIO=4&transport=polling").status == 500
    group.wait_for_log(f"cluster: workers cannot listen for each other here: {folder} is not a directory of this user")
    assert reach.workers() == []


def test_a_directory_that_other_users_can_enter_is_not_used_any_more(start: Start, folder: Path) -> None:
    group = start(2, sockets=str(folder))
    first, second = group.workers
    session = Nomad(first).open()
    Nomad(second).open()
    folder.chmod(0o777)
    session.served = second
    assert session.post("4x").json()["code"] == 1
    folder.chmod(0o700)
    session.echo("again")
