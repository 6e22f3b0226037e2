"""A worker process, as its master sees it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import gevent
from gevent import subprocess
from gevent.socket import socket as GeventSocket

from engineio_wsgi.cli.link import MasterEnd
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["WorkerProcess"]


class WorkerProcess:
    """A worker; the process starts at once.

    Args:
        command: what it runs.
        generation: a number that grows with each replacement of the workers.
        listeners: the sockets on which it accepts connections.

    Raises:
        OSError: the system cannot start it; no descriptor is left open.
    """

    def __init__(self, command: Sequence[str], generation: int, listeners: Iterable[GeventSocket]) -> None:
        self._link = link = MasterEnd(generation, listeners)
        self._began = monotonic()
        try:
            self._process = subprocess.Popen(command, pass_fds=link.descriptors, env={**os.environ, **link.environment})
        except BaseException:
            link.close()
            raise
        finally:
            link.passed()
        #: whether it serves
        self.is_ready = False
        self._reason = ""
        self._reported_status: int | None = None
        self._killer: gevent.Greenlet | None = None

    def watch(self, on_message: Callable[[dict[str, object]], object], on_ended: Callable[[], object]) -> None:
        """Call ``on_message`` with each message of the worker, and then, when the process has ended, ``on_ended``."""
        gevent.spawn(self._watch, on_message, on_ended)

    def _watch(self, on_message: Callable[[dict[str, object]], object], on_ended: Callable[[], object]) -> None:
        reader = gevent.spawn(self._read, on_message)
        self._process.wait()
        # a process that was forked from the worker may hold its end: what was sent before is there
        reader.join(timeout=1.0)
        reader.kill()
        self._link.close()
        if self._killer is not None:
            self._killer.kill()
        on_ended()

    def _read(self, on_message: Callable[[dict[str, object]], object]) -> None:
        for message in self._link.messages():
            if "failed" in message:
                self._reason = str(message["failed"])
                self._reported_status = int(str(message["status"]))
            on_message(message)

    def on_ready(self) -> None:
        """It has said that it serves."""
        self.is_ready = True

    def age(self) -> float:
        """Seconds since it was started."""
        return monotonic() - self._began

    @property
    def failure(self) -> str:
        """Why it has ended, in one line: its own words, or its status."""
        if self._reason:
            return self._reason
        status: int = self._process.returncode
        how = f"was ended by {_signal_name(-status)}" if status < 0 else f"has ended with status {status}"
        return f"worker {self._process.pid} {how}" + ("" if self.is_ready else " before it served")

    @property
    def exit_status(self) -> int:
        """The exit status of the command if this worker is why it fails."""
        return self._reported_status or 1

    def stop(self, how: str, patience: float) -> None:
        """Tell it to stop. Does not block.

        A worker that does not serve yet is terminated.

        Args:
            how: one of `Stop`.
            patience: seconds after which it is killed.
        """
        if self.is_ready:
            self._link.stop(how)
        else:
            self._signal(signal.SIGTERM)
        if self._killer is None:
            self._killer = gevent.spawn_later(patience, self._signal, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
