"""The master: which workers it starts, replaces and dismisses, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any

import gevent
import pytest

from engineio_wsgi.cli import master as room
from engineio_wsgi.cli.link import Stop
from engineio_wsgi.cli.master import Master
from engineio_wsgi.cli.worker_process import WorkerProcess


class FakeWorker(WorkerProcess):
    """A worker without a process: the test says what it does."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.is_ready = False
        self.told: list[str] = []
        self.settled = False
        self._tell: Callable[[dict[str, object]], object]
        self._end: Callable[[], object]

    def watch(self, on_message: Callable[[dict[str, object]], object], on_ended: Callable[[], object]) -> None:
        """Called by the master."""
        self._tell, self._end = on_message, on_ended

    def stop(self, how: str, patience: float) -> None:
        """Called by the master."""
        self.told.append(how)

    def age(self) -> float:
        """Seconds."""
        return 60.0 if self.settled else 0.0

    @property
    def failure(self) -> str:
        """Why it has ended."""
        return f"worker of {self.generation} failed"

    @property
    def exit_status(self) -> int:
        """The command's."""
        return 7

    def tell(self, **message: object) -> None:
        """It says something to the master."""
        self._tell(message)
        gevent.sleep(0)

    def end(self) -> None:
        """Its process ends."""
        self._end()
        gevent.sleep(0)


class Stage:
    """A running master, and its workers."""

    def __init__(self, count: int) -> None:
        self.workers: list[FakeWorker] = []
        self.served = 0
        #: how many more workers the system can start
        self.room = 100
        self.master = Master(self._spawn, count, 10.0, self._serving)
        self.result = gevent.spawn(self.master.run)
        gevent.sleep(0)

    def _spawn(self, generation: int) -> FakeWorker:
        if not self.room:
            raise OSError(12, "Cannot allocate memory")
        self.room -= 1
        self.workers.append(FakeWorker(generation))
        return self.workers[-1]

    def _serving(self) -> None:
        self.served += 1

    def of(self, generation: int) -> list[FakeWorker]:
        """The workers of a generation, in the order in which they were started."""
        return [worker for worker in self.workers if worker.generation == generation]

    def ready(self, generation: int) -> None:
        """Let all workers of a generation become ready."""
        while waiting := [worker for worker in self.of(generation) if not worker.is_ready]:
            for worker in waiting:
                worker.tell(ready=True)

    def signal(self, number: int) -> None:
        """A signal arrives."""
        self.master.on_signal(number)
        gevent.sleep(0)

    def told(self, generation: int) -> list[list[str]]:
        """What the workers of a generation were told."""
        return [worker.told for worker in self.of(generation)]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Stage]]:
    """A factory of running masters, without pauses."""
    monkeypatch.setattr(room, "SHORTEST_PAUSE", 0.0)
    running: list[Stage] = []

    def start(count: int) -> Stage:
        running.append(Stage(count))
        return running[-1]

    yield start
    for each in running:
        each.result.kill()


Start = Callable[[int], Stage]


def test_the_first_worker_starts_alone(stage: Start) -> None:
    here = stage(3)
    assert (len(here.workers), here.served) == (1, 0)
    here.workers[0].tell(ready=True)
    assert (len(here.workers), here.served) == (3, 0)
    here.ready(1)
    assert (len(here.workers), here.served) == (3, 1)


def test_if_the_first_worker_fails_the_command_ends_with_its_status(stage: Start, capsys: Any) -> None:
    here = stage(3)
    here.workers[0].end()
    assert here.result.get() == 7
    assert capsys.readouterr().err == "engineio-wsgi: worker of 1 failed\n"


def test_the_old_workers_go_when_all_new_ones_are_ready(stage: Start) -> None:
    here = stage(2)
    here.ready(1)
    here.signal(SIGHUP)
    here.of(2)[0].tell(ready=True)
    assert here.told(1) == [[], []]
    here.ready(2)
    assert here.told(1) == [[Stop.REPLACED]] * 2
    assert here.told(2) == [[], []]
    assert here.served == 1


def test_a_new_worker_that_fails_leaves_the_old_ones_alone(stage: Start, capsys: Any) -> None:
    here = stage(2)
    here.ready(1)
    here.signal(SIGHUP)
    here.of(2)[0].tell(ready=True)
    here.of(2)[1].end()
    assert here.told(1) == [[], []]
    assert here.of(2)[0].told == [Stop.QUICK]
    assert capsys.readouterr().err.splitlines()[-1].endswith("the old workers go on, new ones cannot start: worker of 2 failed")
    here.signal(SIGHUP)
    here.ready(3)
    assert here.told(1) == [[Stop.REPLACED]] * 2


def test_a_signal_while_workers_start_is_not_forgotten(stage: Start, capsys: Any) -> None:
    here = stage(1)
    here.signal(SIGHUP)
    assert here.of(2) == []
    here.ready(1)
    assert len(here.of(2)) == 1
    assert capsys.readouterr().err == "engineio-wsgi: SIGHUP: new workers start\n"


def test_a_worker_that_ends_is_replaced(stage: Start) -> None:
    here = stage(2)
    here.ready(1)
    here.of(1)[0].end()
    gevent.sleep(0.001)
    assert len(here.of(1)) == 3
    here.ready(1)
    assert here.told(1) == [[], [], []]


def test_a_worker_that_ends_during_a_reload_is_not_replaced(stage: Start) -> None:
    here = stage(1)
    here.ready(1)
    here.signal(SIGHUP)
    here.of(1)[0].end()
    gevent.sleep(0.001)
    assert len(here.workers) == 2
    here.ready(2)
    assert here.told(2) == [[]]


def test_workers_that_end_again_and_again_are_given_up(stage: Start, capsys: Any) -> None:
    here = stage(1)
    here.ready(1)
    for number in range(room.MAX_FAILURES):
        here.workers[-1].end()
        gevent.sleep(0.001)
        assert len(here.workers) == min(number + 2, room.MAX_FAILURES)
    assert here.result.get() == 1
    assert capsys.readouterr().err.endswith("worker of 1 failed: no worker can be kept running\n")


def test_workers_that_end_after_a_while_are_not_given_up(stage: Start) -> None:
    here = stage(1)
    here.ready(1)
    for number in range(2 * room.MAX_FAILURES):
        here.workers[-1].settled = True
        here.workers[-1].end()
        gevent.sleep(0.001)
        here.ready(1)
        assert len(here.workers) == number + 2


# -- processes that the system cannot start

NO_MEMORY = "a worker process could not be started: [Errno 12] Cannot allocate memory"


def test_a_system_that_cannot_start_all_workers_ends_the_command(stage: Start, capsys: Any) -> None:
    here = stage(3)
    here.room = 1
    here.workers[0].tell(ready=True)
    assert [set(worker.told) for worker in here.workers] == [{Stop.QUICK}] * 2
    for worker in here.workers:
        worker.end()
    assert here.result.get() == 1
    assert capsys.readouterr().err == f"engineio-wsgi: {NO_MEMORY}\n"


@pytest.mark.parametrize("room_left", [0, 1])
def test_a_generation_that_the_system_cannot_start_leaves_the_old_one_alone(stage: Start, capsys: Any, room_left: int) -> None:
    here = stage(2)
    here.ready(1)
    here.room = room_left
    here.signal(SIGHUP)
    here.ready(2)
    assert here.told(1) == [[], []]
    assert here.told(2) == [[Stop.QUICK]] * room_left
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"engineio-wsgi: the old workers go on, new ones cannot start: {NO_MEMORY}"]
    here.room = 100
    here.signal(SIGHUP)
    here.ready(3)
    assert here.told(1) == [[Stop.REPLACED]] * 2


def test_a_missing_worker_is_started_when_the_system_can(stage: Start, capsys: Any) -> None:
    here = stage(3)
    here.ready(1)
    here.room = 0
    for worker in here.of(1)[:2]:
        worker.settled = True
        worker.end()
    gevent.sleep(0.001)
    lines = capsys.readouterr().err.splitlines()
    # one line for each loss, and then one for each attempt
    assert lines[:2] == ["engineio-wsgi: worker of 1 failed; another worker is started in 0 s"] * 2
    assert set(lines[2:]) == {f"engineio-wsgi: {NO_MEMORY}; another worker is started in 0 s"}
    here.room = 100
    gevent.sleep(0.001)
    assert len(here.workers) == 5
    here.ready(1)
    assert not here.result.ready()


def test_without_any_worker_it_does_not_try_for_ever(stage: Start, capsys: Any) -> None:
    here = stage(1)
    here.ready(1)
    here.room = 0
    here.workers[0].end()
    assert here.result.get() == 1
    assert capsys.readouterr().err.endswith(f"{NO_MEMORY}: no worker can be kept running\n")


@pytest.mark.parametrize(("number", "how"), [(SIGTERM, Stop.GRACEFUL), (SIGINT, Stop.QUICK)])
def test_it_ends_when_its_workers_have_ended(stage: Start, number: int, how: str) -> None:
    here = stage(2)
    here.ready(1)
    here.signal(SIGHUP)
    here.signal(number)
    assert here.told(1) == [[how]] * 2
    assert here.told(2) == [[how]]
    here.signal(SIGHUP)
    for worker in here.workers:
        assert not here.result.ready()
        worker.end()
    assert here.result.get() == 0
    assert len(here.workers) == 3


def test_a_second_signal_may_be_in_a_hurry(stage: Start) -> None:
    here = stage(1)
    here.ready(1)
    for number in (SIGTERM, SIGTERM, SIGINT):
        here.signal(number)
    assert here.told(1) == [[Stop.GRACEFUL, Stop.QUICK]]
