"""Workers whose connections are accepted by other loops than our handler's, and handed over all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from support.clients import PollingSession
from support.processes import ServerProcess
from support.workers import Nomad, Workers

KINDS = ["engineio_wsgi.gunicorn.Worker", "gevent", "gevent_pywsgi"]


@pytest.fixture(params=KINDS)
def gunicorn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """Three workers."""
    server = ServerProcess(tmp_path, request.param, "-w", "3", options={"cluster": "local"})
    yield server
    server.stop()


def talk(served: Any, name: int) -> int:
    """Polls, posts and an upgrade, on a connection each. Returns how many of the last three moved to another worker."""
    session = Nomad(served).open()
    for number in range(8):
        session.say(f"{name} {number}")
        assert session.hear() == f"{name} {number}"
    # a connection that has moved serves everything where it is
    seen = [connection.get("/").json() for connection in (session.posting, session.getting)]
    assert seen[0]["pid"] == seen[1]["pid"]
    websocket = session.upgrade()
    websocket.send("5")
    websocket.send("4by websocket")
    assert websocket.recv() == "4by websocket"
    session.close_websocket(websocket)
    return sum(one["hops"] for one in seen)


def test_gunicorn(gunicorn: ServerProcess) -> None:
    moved = 0
    # who accepts takes all that is there, so that a burst of connections may find one worker only
    for name in range(100):
        talks = [gevent.spawn(talk, gunicorn.served, name) for _ in range(4)]
        gevent.joinall(talks, raise_error=True)
        moved += sum(one.value for one in talks)
        if name > 5 and moved > 10:
            break
    assert moved > 10
    assert not gunicorn.complaints(), gunicorn.logs()[:3500]


def test_gunicorn_behind_a_proxy(gunicorn: ServerProcess) -> None:
    connections = [gunicorn.served.connect() for _ in range(6)]
    sessions = [PollingSession(gunicorn.served, headers=[("X-Forwarded-For", "203.0.113.9")]).open() for _ in range(6)]
    pids = [connection.get("/").json()["pid"] for connection in connections]
    for turn in range(6):
        for number, session in enumerate(sessions):
            session.getting = session.posting = connections[(turn + number) % 6]
            session.say(str(turn))
            assert session.hear() == str(turn)
    assert [connection.get("/").json()["pid"] for connection in connections] == pids
    assert not gunicorn.complaints(), gunicorn.logs()[:3500]


@pytest.mark.parametrize("handler", ["pywsgi", "stock"])
def test_gevent(tmp_path: Path, handler: str) -> None:
    group = Workers(tmp_path, 3, handler=handler)
    try:
        gevent.joinall([gevent.spawn(talk, group.shared, name) for name in range(12)], raise_error=True)
        assert group.total("handed_over") > 50
        assert group.total("adopted") == group.total("handed_over")
        assert group.total("failed") == 0
        assert not group.complaints()
    finally:
        group.stop()
