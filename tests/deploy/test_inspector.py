"""The inspector of several workers, and of servers with plain threads: one page shows the sessions of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest
from support.clients import PollingSession, Session, WebSocketSession, probe
from support.processes import ServerProcess
from support.rawwebsocket import Closed
from support.serving import Served

PATIENCE = 60.0
APPLICATION = """
import engineio_wsgi
from engineio_wsgi.inspector import Inspector, Password

server = engineio_wsgi.Server()
inspector = Inspector(server, allow=Password("sesam"))
server.on("connection", lambda socket: socket.on("message", socket.send))

def page(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]

app = inspector.mount(server.wrap(page))
"""
AUTHORIZATION = [("Authorization", "Basic eDpzZXNhbQ==")]
#: the kinds of worker, their arguments, and how many there are
KINDS = {
    "engineio_wsgi.gunicorn.Worker": (("-w", "2"), 2),
    "engineio_wsgi.gunicorn.Worker, preloaded": (("-w", "2", "--preload"), 2),
    "gevent": (("-c", "python:engineio_wsgi.gunicorn", "-w", "2"), 2),
    "gthread": (("--threads", "8"), 1),
    "plain": ((), 1),
}


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ServerProcess, int]]:
    """A server with an inspector, and the number of its workers."""
    arguments, workers = KINDS[request.param]
    running = ServerProcess(tmp_path, request.param.partition(",")[0], *arguments, application=APPLICATION)
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


def test_one_page_shows_all_workers(server: tuple[ServerProcess, int]) -> None:
    process, workers = server
    sessions: list[Session] = []
    owners: set[str] = set()
    while len(owners) < workers:
        assert len(sessions) < 200
        sessions.append(WebSocketSession(process.served).open() if len(sessions) % 2 else PollingSession(process.served).open())
        owners.add(sessions[-1].sid[:4])
    page = Page(process)
    answer = page.until(lambda answer: len(rows(answer)) == len(sessions))
    assert {worker["worker"] for worker in answer["workers"]} == owners
    assert len({worker["load"]["pid"] for worker in answer["workers"]}) == workers
    assert {row["id"] for row in rows(answer)} == {session.sid[:6] + "…" for session in sessions}
    assert sum(worker["totals"][0] for worker in answer["workers"]) == len(sessions)


def test_a_session_of_any_worker_is_watched_and_closed(server: tuple[ServerProcess, int]) -> None:
    process, workers = server
    page = Page(process)
    by_owner: dict[str, WebSocketSession] = {}
    while len(by_owner) < workers:
        session = WebSocketSession(process.served).open()
        by_owner.setdefault(session.sid[:4], session)
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


def test_the_pages_session_moves_to_websocket(server: tuple[ServerProcess, int]) -> None:
    process, _ = server
    page = Page(process)
    probe(page.session)
    assert process.served.connect().get("/inspector/").status == 401
