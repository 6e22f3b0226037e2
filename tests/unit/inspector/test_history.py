"""Samples of the last minutes: one for each period, with what has happened in it."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from engineio_wsgi.inspector import history
from engineio_wsgi.inspector.history import History, Totals


class Counts:
    """Counts that a test changes."""

    def __init__(self) -> None:
        self.now = Totals(messages_in=0, messages_out=0)

    def read(self) -> Totals:
        return self.now


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def samples(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    """A history that samples twenty times a second."""
    monkeypatch.setattr(history, "PERIOD", 0.05)
    kept = History(counts.read)
    kept.start()
    yield kept
    kept.after_fork()


def wait_for(samples: History, number: int) -> None:
    with gevent.Timeout(60):
        while len(samples.since(0)) < number:
            gevent.sleep(0.01)


def test_each_period_has_one_sample(samples: History) -> None:
    wait_for(samples, 5)
    slots = [sample.slot for sample in samples.since(0)]
    assert slots == sorted(set(slots))
    assert samples.last == samples.since(0)[-1]


def test_what_has_happened_in_a_period(samples: History, counts: Counts) -> None:
    wait_for(samples, 1)
    known = len(samples.since(0))
    counts.now = Totals(sessions=3, opened=5, closed=2, refused=1, messages_in=70, messages_out=80)
    wait_for(samples, known + 2)
    later = samples.since(0)[known:]
    assert later[-1].sessions == 3
    assert [sum(sample[field] for sample in later) for field in range(2, 7)] == [5, 2, 1, 70, 80]


def test_messages_that_are_not_counted(samples: History, counts: Counts) -> None:
    counts.now = Totals(sessions=1)
    wait_for(samples, 3)
    assert (samples.last.messages_in, samples.last.messages_out) == (None, None)  # type: ignore[union-attr]


def test_only_what_a_page_does_not_have(samples: History) -> None:
    wait_for(samples, 3)
    all_of_them = samples.since(0)
    assert samples.since(all_of_them[1].slot)[0] == all_of_them[2]


def test_the_longest_lag_counts(samples: History) -> None:
    wait_for(samples, 1)
    known = len(samples.since(0))
    for seconds in (1.5, 2.5, 0.5):
        samples.on_lag(seconds)
    wait_for(samples, known + 2)
    later = samples.since(0)[known:]
    assert max(sample.lag for sample in later) >= 2500
    assert min(sample.lag for sample in later) < 2500


def test_a_forked_child_begins_anew(samples: History) -> None:
    wait_for(samples, 2)
    samples.after_fork()
    assert samples.since(0) == []
    assert samples.last is None
