"""The metrics of several workers as one: ``prometheus_client``'s multi-process mode under gunicorn, as the example has it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import gevent
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.clients import WebSocketSession
from support.processes import ROOT, ServerProcess

EXAMPLE = ROOT / "examples/deploy"
PATIENCE = 60.0


class Workers(ServerProcess):
    """gunicorn with two workers and the example's application and configuration."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        # gunicorn serves the first application that is named, and ServerProcess names its own behind these
        super().__init__(folder, "engineio_wsgi.gunicorn.Worker", "-w", "2", "-c", str(EXAMPLE / "gunicorn_metrics.py"),
                         "--pythonpath", str(EXAMPLE), *arguments, "metrics_app:app")

    def values(self, name: str, **labels: str) -> list[float]:
        """The values of a scrape."""
        connection = self.served.connect()
        text = connection.get("/metrics").body.decode()
        connection.close()
        return [sample.value for family in text_string_to_metric_families(text) for sample in family.samples
                if sample.name == f"engineio_{name}" and labels.items() <= sample.labels.items()]

    def show(self, expected: float, name: str, **labels: str) -> None:
        """Wait until there is one series with the value that it has to have."""
        deadline = monotonic() + PATIENCE
        while (values := self.values(name, **labels)) != [expected]:
            assert monotonic() < deadline, f"{name} {labels} is {values}, not {expected}\n{self.logs()}"
            gevent.sleep(0.1)

    def pids(self) -> list[int]:
        """The workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


def worker_of(session: WebSocketSession, pids: list[int]) -> int:
    """The process that has a session's connection."""
    port = session.served.address[1]
    local = session.ws.http.sock.getsockname()[1]
    needle = f"0100007F:{port:04X} 0100007F:{local:04X} "
    inode = next(line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if needle in line)
    return next(pid for pid in pids for fd in Path(f"/proc/{pid}/fd").iterdir() if f"[{inode}]" in os.readlink(fd))


@pytest.fixture(params=[(), ("--preload",)], ids=["", "preload"])
def workers(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    files = tmp_path / "metrics"
    files.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(files))
    running = Workers(tmp_path, *request.param)
    yield running
    running.stop()
    assert not [line for line in running.complaints() if "SIGKILL" not in line], running.logs()


def spread(workers: Workers) -> dict[int, list[WebSocketSession]]:
    """Sessions by worker: each has at least one."""
    sessions: dict[int, list[WebSocketSession]] = {}
    deadline = monotonic() + PATIENCE
    while len(sessions) < 2 or len(workers.pids()) < 2:
        assert monotonic() < deadline
        session = WebSocketSession(workers.served).open()
        sessions.setdefault(worker_of(session, workers.pids()), []).append(session)
    return sessions


def test_two_workers_count_as_one(workers: Workers) -> None:
    sessions = spread(workers)
    everybody = [session for some in sessions.values() for session in some]
    for session in everybody:
        session.say("one", "two")
        assert session.hear_many(2) == ["one", "two"]
    count = len(everybody)
    workers.show(2 * count, "messages_received_total", transport="websocket")
    workers.show(2 * count, "messages_sent_total", transport="websocket")
    workers.show(count, "handshakes_total", transport="websocket")
    workers.show(count, "sessions", transport="websocket", protocol="4")

    killed, theirs = next(iter(sessions.items()))
    os.kill(killed, signal.SIGKILL)
    workers.show(count - len(theirs), "sessions", transport="websocket", protocol="4")
    workers.show(2 * count, "messages_received_total", transport="websocket")

    asked, ours = next((pid, some) for pid, some in sessions.items() if pid != killed)
    os.kill(asked, signal.SIGTERM)
    workers.show(0, "sessions", transport="websocket", protocol="4")
    workers.show(len(ours), "closes_total", reason="server shutting down")
