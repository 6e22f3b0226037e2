"""The inspector of several workers, and of servers with plain threads: one page shows the sessions of all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest
from support.clients import PollingSession, Session, WebSocketSession, probe
from support.processes import ROOT, ServerProcess
from support.rawwebsocket import Closed
from support.serving import Served

PATIENCE = 60.0
#: with an inspector only if the command does not make one
APPLICATION = """
import sys
import engineio_wsgi
from engineio_wsgi.inspector import Inspector, Password

server = engineio_wsgi.Server()
server.on("connection", lambda socket: socket.on("message", socket.send))

def page(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]

app = server.wrap(page)
if "--inspector" not in sys.argv:
    app = Inspector(server, allow=Password("sesam")).mount(app)
"""
AUTHORIZATION = [("Authorization", "Basic eDpzZXNhbQ==")]
#: the kinds of worker, their arguments, and how many there are
KINDS = {
    "engineio_wsgi.gunicorn.Worker": (("-w", "2"), 2),
    "engineio_wsgi.gunicorn.Worker, preloaded": (("-w", "2", "--preload"), 2),
    "gevent": (("-c", "python:engineio_wsgi.gunicorn", "-w", "2"), 2),
    "gthread": (("--threads", "8"), 1),
    "plain": ((), 1),
    "serve": (("--workers", "2", "--inspector", "/inspector"), 2),
    "serve, alone": (("--inspector", "/inspector"), 1),
}


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ServerProcess, int]]:
    """A server with an inspector, and the number of its workers."""
    arguments, workers = KINDS[request.param]
    running = ServerProcess(tmp_path, request.param.partition(",")[0], *arguments, application=APPLICATION,
                            environment={"ENGINEIO_INSPECTOR_PASSWORD": "sesam"})
    yield running, workers
    said = running.complaints()
    running.stop()
    assert not said, running.logs()


class Page:
    """What the page does, without the page."""

    def __init__(self, process: ServerProcess) -> None:
        self.served = Served(process.served.address, process.served.events, handler="", path="/inspector/live/")
        self.session = PollingSession(self.served, headers=AUTHORIZATION).open()
        self._receive()

    def _receive(self) -> Any:
        while not isinstance(packet := self.session.recv(), str) or packet[0] != "4":
            pass
        return json.loads(packet[1:])

    def ask(self, **question: Any) -> Any:
        """The answer to a question."""
        self.session.say(json.dumps(question))
        return self._receive()

    def until(self, condition: Callable[[Any], bool], **wishes: str) -> Any:
        """The first answer to a look that has what is waited for."""
        deadline = monotonic() + PATIENCE
        while not condition(answer := self.ask(type="look", **wishes)):
            assert monotonic() < deadline, answer
            gevent.sleep(0.05)
        return answer


def rows(answer: Any) -> list[Any]:
    return [row for worker in answer["workers"] for row in worker["sessions"]]


def row_of(answer: Any, session: Session) -> Any:
    """The row of a session, if it is shown."""
    return next((row for row in rows(answer) if row["id"] == session.sid[:6] + "…"), None)


def packets_of(answer: Any) -> list[Any]:
    """The packets of the watched session."""
    return [packet for worker in answer["workers"] if worker["watched"] for packet in worker["watched"]["packets"]]


def one_for_each(process: ServerProcess, workers: int) -> dict[str, WebSocketSession]:
    """A session of each worker, by the worker's id. Others are closed: a page shows only so many."""
    by_owner: dict[str, WebSocketSession] = {}
    for _ in range(2000):
        session = WebSocketSession(process.served).open()
        if by_owner.setdefault(session.sid[:4], session) is not session:
            session.close()
        if len(by_owner) == workers:
            return by_owner
    raise AssertionError(f"only {len(by_owner)} workers of {workers} got a connection")


def test_one_page_shows_all_workers(server: tuple[ServerProcess, int]) -> None:
    process, workers = server
    by_owner = one_for_each(process, workers)
    sessions: list[Session] = [*by_owner.values(), PollingSession(process.served).open()]
    page = Page(process)
    answer = page.until(lambda answer: len(rows(answer)) == len(sessions))
    assert {worker["worker"] for worker in answer["workers"]} == {*by_owner}
    assert len({worker["load"]["pid"] for worker in answer["workers"]}) == workers
    assert {row["id"] for row in rows(answer)} == {session.sid[:6] + "…" for session in sessions}
    assert sum(worker["totals"][0] for worker in answer["workers"]) == len(sessions)


def test_a_session_of_any_worker_is_watched_and_closed(server: tuple[ServerProcess, int]) -> None:
    process, workers = server
    page = Page(process)
    by_owner = one_for_each(process, workers)
    for session in by_owner.values():
        handle = row_of(page.until(partial(row_of, session=session)), session)["handle"]
        page.ask(type="look", watched=handle)
        session.say("hello")
        assert session.hear() == "hello"
        packets = packets_of(page.until(lambda answer: len(packets_of(answer)) == 2, watched=handle))
        assert {tuple(packet[2:6]) for packet in packets} == {(False, "message", False, 5), (True, "message", False, 5)}
        assert page.ask(type="close", session=handle) == {"type": "closed", "session": handle, "done": True}
        with pytest.raises(Closed, match="closed by the inspector"):
            session.recv()


def children_of(pid: int) -> set[str]:
    """The processes that a process has started."""
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def moved_in(answer: Any) -> int:
    """Sessions that the workers have taken over."""
    return sum(worker["moves"]["in"] for worker in answer["workers"])


HANDING_OVER = APPLICATION.replace("Server()", "Server(handover=True)").replace(
    "server.on", 'server.on("resume", lambda socket: None)\nserver.on')


def test_sessions_that_new_workers_have_taken_over(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path, "serve", "--workers", "2", "--inspector", "/inspector", application=HANDING_OVER,
                            environment={"ENGINEIO_INSPECTOR_PASSWORD": "sesam"})
    sessions = [WebSocketSession(process.served).open() for _ in range(6)]
    old = children_of(process.process.pid)
    os.kill(process.process.pid, signal.SIGHUP)
    process.wait_for("the new workers serve")
    process.until(lambda: not old & children_of(process.process.pid))
    # a worker that is busy with its start may not answer in time
    answer = Page(process).until(lambda answer: len(answer["workers"]) == 2)
    assert moved_in(answer) == len(sessions)
    assert {row["id"] for row in rows(answer)} == {session.sid[:6] + "…" for session in sessions}
    # the old workers' names lead to the new ones, which the page takes into account
    assert set(answer["silent"]) <= {name for worker in answer["workers"] for name in worker["names"]}
    process.stop()


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_the_command_prints_a_password_once(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    process = ServerProcess(tmp_path, "serve", "--inspector", "/ops", *arguments, application=APPLICATION)
    printed = re.findall("the password of the inspector at /ops/ is (.*)", process.logs())
    assert (len(printed), len(printed[0])) == (1, 20)
    for password, status in ((printed[0], 200), ("sesam", 401)):
        authorization = "Basic " + b64encode(f"x:{password}".encode()).decode()
        assert process.served.connect().get("/ops/", [("Authorization", authorization)]).status == status
    assert process.served.connect().get("/ops/").status == 401
    process.stop()


SEVERAL = "import engineio_wsgi\napp = engineio_wsgi.Server().wrap(engineio_wsgi.Server(path='/b').wrap(print))\n"
NOT_ONE = {
    "import engineio_wsgi\ndef app(environ, start_response): ...\n": "expects an application with one Server; this one has 0",
    SEVERAL: "expects an application with one Server; this one has 2",
    APPLICATION.replace('"--inspector" not in', '"--inspector" in'): "the application has an inspector of its own",
}


@pytest.mark.parametrize("application", NOT_ONE)
@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_an_application_that_cannot_be_inspected(tmp_path: Path, application: str, arguments: tuple[str, ...]) -> None:
    (tmp_path / "app.py").write_text(application)
    command = [sys.executable, "-m", "engineio_wsgi", "serve", "app:app", "--bind", "127.0.0.1:0", "--inspector", "/ops",
               *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("engineio-wsgi: --inspector")
    assert NOT_ONE[application] in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_pages_session_moves_to_websocket(server: tuple[ServerProcess, int]) -> None:
    process, _ = server
    page = Page(process)
    probe(page.session)
    assert process.served.connect().get("/inspector/").status == 401
