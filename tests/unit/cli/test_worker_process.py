"""A worker process, as its master sees it: how it starts and ends."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from gevent.event import Event

from engineio_wsgi.cli.worker_process import WorkerProcess

PATIENCE = 60.0


def ended(text: str) -> WorkerProcess:
    """A worker that has run the text of a program."""
    worker = WorkerProcess([sys.executable, "-c", text], 1, [])
    over = Event()
    worker.watch(lambda message: None, over.set)
    assert over.wait(PATIENCE)
    return worker


@pytest.mark.parametrize(("number", "name"), [(int(signal.SIGKILL), "SIGKILL"), (int(signal.SIGRTMIN) + 3, None)],
                         ids=["named", "real-time"])
def test_the_signal_that_has_ended_it_is_told(number: int, name: str | None) -> None:
    worker = ended(f"import os; os.kill(os.getpid(), {number})")
    assert worker.failure.endswith(f" was ended by {name or f'signal {number}'} before it served")


def test_a_process_that_cannot_be_started_leaves_no_descriptors() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(FileNotFoundError, match="/no/such/python"):
            WorkerProcess(["/no/such/python"], 1, [])
    assert set(os.listdir("/proc/self/fd")) == before
