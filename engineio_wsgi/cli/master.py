"""The master process of ``serve --workers``: starts the workers, replaces them on SIGHUP or when the code has changed, ends them.

A worker is a new process that runs the same command, so it has the code of the moment. It inherits the listening sockets and one
end of a `link`. The first worker of a generation starts alone: if the application cannot be loaded, that is said once. The old
generation serves until the whole new one is ready.

Everything that happens is an event in one queue, which one greenlet takes out. It must not import the application.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import NamedTuple

import gevent
from gevent.queue import Queue

from engineio_wsgi.cli.link import Stop
from engineio_wsgi.cli.watching import WatchedFiles
from engineio_wsgi.cli.worker_process import WorkerProcess

__all__ = ["Master"]

logger = logging.getLogger("engine")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: starts that fail one after the other until the command gives up, if no worker serves
MAX_FAILURES = 5
#: seconds after which a worker that ends is no failure of its start
SETTLED = 10.0
#: seconds before a worker that has ended is replaced: after one that had settled, and after the last of many failures
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
#: seconds beyond the graceful timeout after which a worker is killed: it waits 2 of them for `close` listeners
KILL_MARGIN = 5.0


class Kind(Enum):
    """Kinds of events."""

    SIGNAL = auto()
    MESSAGE = auto()
    ENDED = auto()
    RESPAWN = auto()
    CHANGED = auto()


class Event(NamedTuple):
    """What has happened, and to what: a signal's number, a worker, a file's name."""

    kind: Kind
    subject: object
    message: dict[str, object]


class Master:
    """See the module.

    Args:
        spawn: starts a worker of the generation with a number.
        count: how many workers there are.
        graceful_timeout: seconds that a worker has to stop.
        on_serving: called once, when the first generation is ready.
        files: those whose changes start a new generation; ``None`` to watch none.
    """

    def __init__(self, spawn: Callable[[int], WorkerProcess], count: int, graceful_timeout: float,
                 on_serving: Callable[[], object], files: WatchedFiles | None = None) -> None:
        self._spawn_process = spawn
        self._count = count
        self._graceful_timeout = graceful_timeout
        self._on_serving = on_serving
        self._files = files
        self._events: Queue[Event] = Queue()
        #: the generation that serves, the one that is starting, and those that have been told to stop
        self._serving: list[WorkerProcess] = []
        self._starting: list[WorkerProcess] = []
        self._leaving: list[WorkerProcess] = []
        #: the number of the generation that was begun last
        self._generation = 0
        self._failures = 0
        #: how many `Kind.RESPAWN` are to come
        self._respawns = 0
        #: why another generation has to follow the one that is starting
        self._again: str | None = None
        self._status: int | None = None

    # -- what happens

    def watch_signals(self) -> None:
        """Let the signals of this process do what they are for."""
        for number in SIGNALS:
            gevent.signal_handler(number, self.on_signal, number)

    def on_signal(self, number: int) -> None:
        """A signal has arrived. Does not block."""
        self._put(Kind.SIGNAL, number)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Blocks. Returns the exit status of the command."""
        if self._files is not None:
            gevent.spawn(self._files.watch, lambda name: self._put(Kind.CHANGED, name))
        self._begin_generation()
        while self._status is None or self._workers():
            event = self._events.get()
            _HANDLERS[event.kind](self, event)
        return self._status

    def _put(self, kind: Kind, subject: object = None, message: dict[str, object] | None = None) -> None:
        self._events.put(Event(kind, subject, message or {}))

    def _workers(self) -> list[WorkerProcess]:
        return [*self._serving, *self._starting, *self._leaving]

    def _fill(self, workers: list[WorkerProcess], count: int) -> str:
        """Start workers of the generation until a list has ``count``.

        Returns:
            Why that is not possible now, for which the system may have reasons that pass; empty if it was.
        """
        while len(workers) < count:
            try:
                workers.append(self._spawn())
            except OSError as error:
                return f"a worker process could not be started: {error}"
        return ""

    def _spawn(self) -> WorkerProcess:
        worker = self._spawn_process(self._generation)
        worker.watch(lambda message: self._put(Kind.MESSAGE, worker, message), lambda: self._put(Kind.ENDED, worker))
        return worker

    def _on_signal(self, event: Event) -> None:
        if event.subject == signal.SIGHUP:
            self._replace("SIGHUP")
        else:
            self._stop(0, Stop.QUICK if event.subject == signal.SIGINT else Stop.GRACEFUL)

    def _on_changed(self, event: Event) -> None:
        self._replace(f"{event.subject} has changed")

    def _on_message(self, event: Event) -> None:
        worker, message = event.subject, event.message
        assert isinstance(worker, WorkerProcess)
        files = message.get("files")
        if self._files is not None and isinstance(files, list):
            self._files.add(files)
        if message.get("ready"):
            worker.on_ready()
            self._look_at_generation()

    # -- generations

    def _replace(self, why: str) -> None:
        """Start another generation; if one is starting, when that is over."""
        if self._status is not None:
            return
        if self._starting:
            self._again = why
            return
        _say(f"{why}: new workers start")
        self._begin_generation()

    def _replace_again(self) -> None:
        why, self._again = self._again, None
        if why is not None:
            self._replace(why)

    def _begin_generation(self) -> None:
        self._generation += 1
        self._start(1)

    def _start(self, count: int) -> None:
        """Start workers of the generation that is starting, until it has ``count``."""
        failure = self._fill(self._starting, count)
        if failure:
            self._on_failed_generation(failure, 1)

    def _look_at_generation(self) -> None:
        """A worker has become ready: start the others, or let the old ones go."""
        if not self._starting or not all(worker.is_ready for worker in self._starting):
            return
        if len(self._starting) < self._count:
            self._start(self._count)
            return
        is_first = not self._serving
        old, self._serving, self._starting = self._serving, self._starting, []
        self._failures = 0
        self._dismiss(old, Stop.REPLACED)
        if is_first:
            self._on_serving()
        elif old:
            _say("the new workers serve")
        self._replace_again()

    def _dismiss(self, workers: Iterable[WorkerProcess], how: str) -> None:
        for worker in workers:
            worker.stop(how, self._graceful_timeout + KILL_MARGIN)
            self._leaving.append(worker)

    # -- ends

    def _on_ended(self, event: Event) -> None:
        worker = event.subject
        assert isinstance(worker, WorkerProcess)
        if worker in self._starting:
            self._starting.remove(worker)
            self._on_failed_generation(worker.failure, worker.exit_status)
        elif worker in self._serving:
            self._serving.remove(worker)
            self._failures = 0 if worker.is_ready and worker.age() > SETTLED else self._failures + 1
            self._top_up_later(worker.failure)
        elif worker in self._leaving:
            self._leaving.remove(worker)

    def _on_failed_generation(self, failure: str, status: int) -> None:
        """The new generation cannot start. The old one goes on, if there is one; else the command ends with ``status``."""
        others, self._starting = self._starting, []
        self._dismiss(others, Stop.QUICK)
        if not self._serving:
            _say(failure)
            self._stop(status, Stop.QUICK)
            return
        _say(f"the old workers go on, new ones cannot start: {failure}")
        self._top_up()
        self._replace_again()

    def _top_up_later(self, failure: str) -> None:
        """A worker is missing, though it was not told to end. Start another one, after a pause that grows with each failure."""
        if self._status is not None:
            return
        if self._failures >= MAX_FAILURES and not any(other.is_ready for other in self._serving):
            _say(f"{failure}: no worker can be kept running")
            self._stop(1, Stop.QUICK)
            return
        pause = min(SHORTEST_PAUSE * 4 ** self._failures, LONGEST_PAUSE)
        _say(f"{failure}; another worker is started in {pause:g} s")
        self._respawns += 1
        gevent.spawn_later(pause, self._put, Kind.RESPAWN)

    def _on_respawn(self, event: Event) -> None:
        self._respawns -= 1
        self._top_up()

    def _top_up(self) -> None:
        """Bring the generation that serves to its size, unless it is about to be replaced."""
        if self._status is not None or self._starting:
            return
        failure = self._fill(self._serving, self._count)
        if failure and not self._respawns:
            self._failures += 1
            self._top_up_later(failure)

    def _stop(self, status: int, how: str) -> None:
        if self._status is None:
            self._status = status
        elif how != Stop.QUICK:
            return
        workers = self._workers()
        self._serving, self._starting, self._leaving = [], [], []
        self._dismiss(workers, how)


_HANDLERS: dict[Kind, Callable[[Master, Event], None]] = {
    Kind.SIGNAL: Master._on_signal, Kind.MESSAGE: Master._on_message, Kind.ENDED: Master._on_ended,
    Kind.RESPAWN: Master._on_respawn, Kind.CHANGED: Master._on_changed,
}  # fmt: skip


def _say(text: str) -> None:
    print(f"engineio-wsgi: {text}", file=sys.stderr, flush=True)
