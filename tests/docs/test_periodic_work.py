"""The manual's tickers: one tick for every session, however many workers there are, and whichever of them dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import subprocess
from support.clients import open_session
from support.manual import DOCS, ROOT, Shown, code_of, lines_of, program
from support.serving import Served

pytestmark = [pytest.mark.ours, pytest.mark.deadline(600)]
PAGE = code_of((DOCS / "guides" / "periodic-work.rst").read_text())
FILES = {code.name: code.text for code in PAGE if code.name}
GUNICORN, TICKER, ONE_WORKER = [line for code in PAGE if code.language == "console" for line in lines_of(code.text)]
#: first characters of a session's id
WORKER = 4


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Starts one of the page's servers on any port, beside the page's files."""
    running: list[Shown] = []
    for name in ("app.py", "ticker.py", "with_ticker.py"):
        (tmp_path / name).write_text(FILES[name])

    def run(command: str, **environment: str) -> Shown:
        running.append(Shown(tmp_path / f"logs {len(running)}", [*program(command), "-b", "127.0.0.1:0", "--no-control-socket"],
                             tmp_path, **environment))
        return running[-1]

    yield run
    for server in running:
        server.stop()


def at_two_workers(site: Served) -> list[Any]:
    """Sessions over WebSocket."""
    sessions: list[Any] = []
    while len({session.sid[:WORKER] for session in sessions}) < 2:
        # together: the kernel gives one after the other to whichever worker is awake
        opening = [gevent.spawn(open_session, site, "websocket") for _ in range(6)]
        gevent.joinall(opening, raise_error=True)
        sessions += [greenlet.value for greenlet in opening]
    return sessions


def heard(session: Any) -> tuple[str, int]:
    """Who ticked, and the tick's number."""
    who, number = str(session.hear()).split()
    return who, int(number)


def test_a_process_of_its_own(start: Any, tmp_path: Path) -> None:
    # not the page's name: the same test may run beside this one
    cluster = {"ENGINEIO_CLUSTER": f"local:ticker-{os.getpid()}"}
    sessions = at_two_workers(start(GUNICORN, **cluster).site)
    ticker = subprocess.Popen(program(TICKER), cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), **cluster})
    try:
        for session in sessions:
            number = heard(session)[1]
            assert heard(session) == ("tick", number + 1)
    finally:
        ticker.kill()
        ticker.wait()


def test_one_of_the_workers(start: Any, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(FILES["gunicorn.conf.py"])
    site = start(ONE_WORKER).site
    sessions = at_two_workers(site)
    first = [heard(session) for session in sessions]
    second = [heard(session) for session in sessions]
    assert second == [(who, number + 1) for who, number in first]
    ticking = first[0][0]
    assert {who for who, _ in first} == {ticking}
    os.kill(int(ticking), signal.SIGKILL)
    who = ticking
    while who == ticking:
        who, _ = heard(open_session(site, "websocket"))
