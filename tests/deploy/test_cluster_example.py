"""examples/cluster, started as its text says: nothing is sticky, and everybody hears everybody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from support.deployment import free_port
from support.processes import ROOT
from support.serving import EventLog, Served
from support.workers import Nomad

EXAMPLE = ROOT / "examples" / "cluster"


@pytest.fixture(params=["nginx", "redis"])
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """One of the variants, running."""
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process: Any = subprocess.Popen(
            [sys.executable, "run.py", request.param, str(port)], cwd=EXAMPLE, stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"})
    for line in process.stdout:
        if line.startswith("Listening at"):
            break
    assert process.poll() is None, (tmp_path / "log").read_text()
    served = Served(("127.0.0.1", port), EventLog(), handler=request.param)
    yield served
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
    process.stdout.close()
    log_text = (tmp_path / "log").read_text()
    assert "Traceback" not in log_text and "ERROR" not in log_text, log_text


def test_everybody_hears_everybody(example: Served) -> None:
    count = 4 if example.handler == "nginx" else 8
    with gevent.Timeout(60):
        while f"at {count} workers" not in example.connect().get("/").body.decode():
            gevent.sleep(0.1)
    sessions: list[Nomad] = []
    workers: set[str] = set()
    # the kernel gives a connection to whichever worker is awake
    with gevent.Timeout(60, AssertionError("all of them are at one worker")):
        while len(workers) < 2:
            # together: nginx would send one after the other over the same connection
            opening = [gevent.spawn(Nomad(example).open) for _ in range(12)]
            opened = [greenlet.get() for greenlet in opening]
            workers.update(session.hear() for session in opened)
            sessions += opened
    for number in range(3):
        sessions[number].say(f"hello {number}")
        for session in sessions:
            assert session.hear() == f"hello {number}"
    websocket = sessions[0].upgrade()
    websocket.send("5")
    websocket.send("4by websocket")
    for session in sessions[1:]:
        assert session.hear() == "by websocket"
    while websocket.recv() != "4by websocket":
        pass
    page = example.connect().get("/").body
    assert page.endswith(b": %d sessions at %d workers\n" % (len(sessions), count)), page
    websocket.close()
    for session in sessions[1:]:
        # a poll that nobody sends again would be waited for at the end
        session.post("1")
