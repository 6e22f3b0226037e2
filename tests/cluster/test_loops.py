"""Workers whose connections are accepted by other loops than our handler's, and handed over all the same."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import gevent
import gevent.event
import pytest
from support.clients import PollingSession
from support.http2 import Http2Connection
from support.processes import APPLICATION, ServerProcess
from support.rawhttp import ConnectionEnded
from support.workers import Nomad, Workers

#: gunicorn closes a connection whose preface it has not read within a second, which a busy machine misses
PATIENT_WITH_PREFACES = """
from gunicorn.http2 import negotiation
negotiation.H2C_PREFACE_TIMEOUT = 60.0
"""
OURS = "engineio_wsgi.gunicorn.Worker"
#: workers of other test runs on this machine have other names, and perhaps another version
LOCAL = {"cluster": f"local:loops-{os.getpid()}"}
TARGET = "/engine.io/?EIO=4&transport=polling"
#: worker class, arguments, options. Our worker, and others with our hooks, need not be told that there are several
KINDS: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "ours": (OURS, [], {}),
    "ours, preloaded": (OURS, ["--preload"], {}),
    "gevent": ("gevent", [], LOCAL),
    "gevent_pywsgi": ("gevent_pywsgi", [], LOCAL),
    "gevent with hooks": ("gevent", ["-c", "python:engineio_wsgi.gunicorn"], {}),
}


@pytest.fixture(params=KINDS)
def gunicorn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """Three workers."""
    kind, arguments, options = KINDS[request.param]
    server = ServerProcess(tmp_path, kind, "-w", "3", *arguments, options=options)
    yield server
    server.stop()


def talk(served: Any, name: int, messages: int = 8) -> int:
    """Polls, posts and an upgrade, on a connection each. Returns how many of the last three moved to another worker."""
    session = Nomad(served).open()
    for number in range(messages):
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
    for connection in (session.posting, session.getting):
        connection.close()
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


@pytest.mark.parametrize("gunicorn", ["ours"], indirect=True)
def test_a_thousand_sessions(gunicorn: ServerProcess) -> None:
    """Each request of which may come to any worker: none is refused."""
    names = iter(range(1000))
    guests = [gevent.spawn(lambda: sum(talk(gunicorn.served, name, 1) for name in names)) for _ in range(20)]
    gevent.joinall(guests)
    failed = [str(guest.exception) for guest in guests if not guest.successful()]
    assert not failed, (failed, [line for line in gunicorn.logs().splitlines() if "closed: transport close" not in line])
    assert sum(guest.value for guest in guests) > 100
    assert " 400 " not in gunicorn.logs()
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


def test_http2_connections_do_not_move(tmp_path: Path) -> None:
    """Its connection is one of many streams, and what is for another worker's session is relayed."""
    server = ServerProcess(tmp_path, "gevent", "-w", "3", "--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge",
                           options=LOCAL, application=APPLICATION + PATIENT_WITH_PREFACES)
    try:
        opening = Http2Connection(server.served)
        opened = opening.request("GET", TARGET)[1].decode()
        owner, target = opening.json("/")["pid"], f"{TARGET}&sid={json.loads(opened[1:])['sid']}"
        strangers = 0
        for number in range(100):
            connection = Http2Connection(server.served)
            assert connection.request("POST", target, f"4{number}".encode()) == (200, b"ok")
            assert connection.request("GET", target) == (200, f"4{number}".encode())
            strangers += connection.json("/")["pid"] != owner
            connection.close()
            if strangers > 5:
                break
        assert strangers > 5
        [complaint] = server.complaints()
        assert "let a proxy speak HTTP/2" in complaint
    finally:
        server.stop()


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


T = TypeVar("T")


def ask(request: Callable[[], T]) -> T:
    """What a request is answered with. One that is not was never read, and may be sent again (RFC 9112 section 9.3.1).

    A client that is slow to send it may find that a server which stops has closed the connection meanwhile.
    """
    while True:
        with suppress(ConnectionEnded, ConnectionError):
            return request()


def test_gunicorn_reloads_under_load(tmp_path: Path) -> None:
    """Every message takes effect once, also one whose request had to be sent again: the next echo would be another's."""
    server = ServerProcess(tmp_path, OURS, "-w", "2")
    # not from 0 on: an only message "0" is how a Socket.IO client connects
    stop, ends, talking, numbers, heard = gevent.event.Event(), [0], [0], count(10), list[str]()

    def newcomer() -> Nomad:
        while True:
            try:
                return ask(lambda: Nomad(server.served).open())
            except AssertionError as refused:
                # the worker that accepted it has been told to stop since
                assert "503" in str(refused)

    def talk_on() -> None:
        session = newcomer()
        talking[0] += 1
        while not stop.is_set():
            message = f"4{next(numbers)}"
            posted = ask(partial(session.post, message))
            packet = ask(session.recv) if posted.status == 200 else "1"
            if packet == "1":
                # its worker was told to stop; a new session finds a new worker
                assert posted.status == 200 or posted.json()["code"] == 1
                ends[0] += 1
                session = newcomer()
            else:
                assert packet == message
                heard.append(message)

    def pids() -> set[int]:
        return {ask(server.ask)["pid"] for _ in range(10)}

    try:
        old = pids()
        talkers = [gevent.spawn(talk_on) for _ in range(4)]
        server.until(lambda: talking[0] == 4)  # each session is in an old worker
        server.signal(signal.SIGHUP)
        server.until(lambda: not old & pids())
        before = len(heard)
        server.until(lambda: len(heard) > before + 50)  # for the new ones to be under load, too
        stop.set()
        gevent.joinall(talkers, raise_error=True)
        assert ends[0] >= 4, "every session was in a worker that has ended"
    finally:
        server.stop()
    assert not server.complaints(), server.logs()[:3500]
