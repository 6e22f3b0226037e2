"""The last minutes of one worker: a sample every two seconds, for the charts. Does no I/O but reading the process' CPU time.

Sampling continues while no page is open, so that a new page can show the last minutes. A sample costs some microseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import process_time, time
from typing import NamedTuple

import gevent

from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Watcher

__all__ = ["PERIOD", "History", "Totals"]

#: seconds between two samples, and samples that are kept: five minutes
PERIOD = 2.0
KEPT = 150


class Totals(NamedTuple):
    """What has been counted since the worker began.

    Attributes:
        sessions: those that are open now.
        messages_in, messages_out: ``None`` while messages are not counted.
    """

    sessions: int = 0
    opened: int = 0
    closed: int = 0
    refused: int = 0
    messages_in: int | None = None
    messages_out: int | None = None


class Sample(NamedTuple):
    """One period.

    Attributes:
        slot: the period's number since 1970: the same on all workers whose clocks agree.
        sessions: those that were open at its end.
        opened, closed, refused, messages_in, messages_out: how many in this period; ``None`` if that was not counted.
        lag: the longest time by which the event loop was late, in milliseconds.
        cpu: the share of a core that the process has used, in percent.
    """

    slot: int
    sessions: int
    opened: int
    closed: int
    refused: int
    messages_in: int | None
    messages_out: int | None
    lag: float
    cpu: float


class History:
    """Takes the samples of one worker. For the hub's thread only.

    Args:
        read: returns the counts of this moment.
    """

    def __init__(self, read: Callable[[], Totals]) -> None:
        self._read = read
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._timer: Watcher | None = None
        self._before = Totals()
        self._cpu_before = 0.0
        self._sampled_at = 0.0
        self._due = 0.0
        #: seconds by which the loop was late at most, in this period
        self._lag = 0.0

    def start(self) -> None:
        """Sample from now on. Harmless if repeated."""
        if self._timer is None:
            self._before = self._read()
            self._cpu_before, self._sampled_at = process_time(), monotonic()
            self._schedule()

    def _schedule(self) -> None:
        """Sample in the middle of the next period, so that each period has one sample."""
        after = PERIOD * 1.5 - time() % PERIOD
        self._due = monotonic() + after
        self._timer = gevent.get_hub().loop.timer(after, ref=False)
        self._timer.start(self._sample)

    def after_fork(self) -> None:
        """In a forked child: the samples and the timer are the parent's."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._samples.clear()
        self._before, self._lag = Totals(), 0.0

    def on_lag(self, seconds: float) -> None:
        """The event loop was late."""
        self._lag = max(self._lag, seconds)

    def _sample(self) -> None:
        now, before = self._read(), self._before
        cpu, at = process_time(), monotonic()
        elapsed = max(at - self._sampled_at, 0.001)
        # in a worker without sessions, nothing else measures the lag
        lag = max(self._lag, at - self._due)
        self._samples.append(Sample(
            int(time() // PERIOD), now.sessions, now.opened - before.opened, now.closed - before.closed,
            now.refused - before.refused, _difference(now.messages_in, before.messages_in),
            _difference(now.messages_out, before.messages_out),
            round(lag * 1000, 1), round((cpu - self._cpu_before) / elapsed * 100, 1)))
        self._before, self._cpu_before, self._sampled_at, self._lag = now, cpu, at, 0.0
        if self._timer is not None:
            self._timer.close()
        self._schedule()

    def since(self, slot: int) -> list[Sample]:
        """The samples of later periods."""
        return [sample for sample in self._samples if sample.slot > slot]

    @property
    def last(self) -> Sample | None:
        """The latest sample; ``None`` in the first seconds."""
        return self._samples[-1] if self._samples else None


def _difference(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else now - before
