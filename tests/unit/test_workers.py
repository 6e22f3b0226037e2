"""Worker greenlets: reuse, blocking tasks, and tasks that end badly."""

from __future__ import annotations

import logging

import gevent
import pytest
from gevent.event import Event

from engineio_wsgi.workers import Workers


def run(workers: Workers, task) -> None:
    """Run ``task`` from the hub and wait until it has ended or blocked."""
    done = Event()
    gevent.get_hub().loop.run_callback(lambda: (workers.run(task), done.set()))
    assert done.wait(5)


def test_an_idle_worker_is_used_again():
    workers = Workers()
    seen: list[object] = []
    run(workers, lambda: seen.append(gevent.getcurrent()))
    run(workers, lambda: seen.append(gevent.getcurrent()))
    assert seen[0] is seen[1]


def test_a_blocked_task_keeps_its_worker_and_others_go_on():
    workers = Workers()
    go, ended, second = Event(), Event(), Event()
    run(workers, lambda: (go.wait(), ended.set()))
    run(workers, second.set)
    assert second.is_set()
    assert not ended.is_set()
    go.set()
    assert ended.wait(5)


def test_submit_from_any_greenlet():
    workers = Workers()
    done = Event()
    workers.submit(done.set)
    assert not done.is_set()
    assert done.wait(5)


@pytest.mark.complains
def test_a_task_that_raises_is_logged_and_its_worker_goes_on(caplog):
    workers = Workers()
    with caplog.at_level(logging.ERROR, "engine"):
        run(workers, lambda: 1 / 0)
    assert "ZeroDivisionError" in caplog.text
    done = Event()
    run(workers, done.set)
    assert done.is_set()


def test_keyboard_interrupt_reaches_the_main_greenlet():
    workers = Workers()

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workers.submit(interrupt)
        gevent.sleep(5)
