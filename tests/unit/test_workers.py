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


def order_of(*, nested: bool = False) -> list[str]:
    """The order of two tasks, of what the loop does otherwise, and of a task that the first has submitted."""
    workers = Workers()
    order: list[str] = []
    done = Event()

    def first() -> None:
        order.append("first")
        if nested:
            workers.submit(lambda: order.append("nested"))

    workers.submit(first)
    gevent.get_hub().loop.run_callback(order.append, "loop")
    workers.submit(lambda: order.append("second"))
    gevent.spawn_later(0.01, done.set)
    assert done.wait(5)
    return order


def test_what_is_submitted_in_one_turn_of_the_loop_runs_in_one():
    assert order_of() == ["first", "second", "loop"]


def test_what_is_submitted_meanwhile_has_its_turn_later():
    assert order_of(nested=True) == ["first", "second", "loop", "nested"]


def test_the_loop_has_its_turn_when_the_slice_is_used_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engineio_wsgi.workers.SLICE", -1.0)
    assert order_of() == ["first", "loop", "second"]


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
