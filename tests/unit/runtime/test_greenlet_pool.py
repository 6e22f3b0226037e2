"""Worker greenlets: reuse, blocking tasks, and tasks that end badly."""

from __future__ import annotations

import gc
import logging
import time
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import gevent
import pytest
from gevent.event import Event

from engineio_wsgi.runtime.greenlet_pool import GreenletPool


@pytest.fixture(autouse=True)
def all_in_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with something else changes no order."""
    monkeypatch.setattr("engineio_wsgi.runtime.greenlet_pool.SLICE", 60.0)


def run(pool: GreenletPool, task) -> None:
    """Run ``task`` from the hub and wait until it has ended or blocked."""
    done = Event()
    gevent.get_hub().loop.run_callback(lambda: (pool.run(task), done.set()))
    assert done.wait(60)


def test_an_idle_greenlet_is_used_again():
    pool = GreenletPool()
    seen: list[object] = []
    run(pool, lambda: seen.append(gevent.getcurrent()))
    run(pool, lambda: seen.append(gevent.getcurrent()))
    assert seen[0] is seen[1]


def test_a_blocked_task_keeps_its_greenlet_and_others_go_on():
    pool = GreenletPool()
    go, ended, second = Event(), Event(), Event()
    run(pool, lambda: (go.wait(), ended.set()))
    run(pool, second.set)
    assert second.is_set()
    assert not ended.is_set()
    go.set()
    assert ended.wait(60)


def test_submit_from_any_greenlet():
    pool = GreenletPool()
    done = Event()
    pool.submit(done.set)
    assert not done.is_set()
    assert done.wait(60)


def order_of(*, nested: bool = False) -> list[str]:
    """The order of two tasks, of what the loop does otherwise, and of a task that the first has submitted."""
    pool = GreenletPool()
    order: list[str] = []
    done = Event()

    def first() -> None:
        order.append("first")
        if nested:
            pool.submit(lambda: order.append("nested"))

    pool.submit(first)
    gevent.get_hub().loop.run_callback(order.append, "loop")
    pool.submit(lambda: order.append("second"))
    gevent.spawn_later(0.01, done.set)
    assert done.wait(60)
    return order


def test_tasks_submitted_in_one_turn_of_the_loop_run_in_one_turn():
    assert order_of() == ["first", "second", "loop"]


def test_tasks_submitted_meanwhile_run_later():
    assert order_of(nested=True) == ["first", "second", "loop", "nested"]


def test_the_loop_has_its_turn_when_the_slice_is_used_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engineio_wsgi.runtime.greenlet_pool.SLICE", -1.0)
    assert order_of() == ["first", "loop", "second"]


@pytest.mark.complains
def test_a_task_that_raises_is_logged_and_its_greenlet_goes_on(caplog):
    pool = GreenletPool()
    with caplog.at_level(logging.ERROR, "engine"):
        run(pool, lambda: 1 / 0)
    assert "ZeroDivisionError" in caplog.text
    done = Event()
    run(pool, done.set)
    assert done.is_set()


def test_keyboard_interrupt_reaches_the_main_greenlet():
    pool = GreenletPool()

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.submit(interrupt)
        gevent.sleep(5)


# -- what becomes readable in one turn of the loop is read by one greenlet


class Connection:
    """Something to read; ``script`` is what its listeners do, ``log`` what happens, ``greenlet`` where it does."""

    def __init__(self, name: str, log: list[str], script: Callable[[], object] = int) -> None:
        self.name = name
        self.log = log
        self.script = script
        self.greenlet: object = None

    def read(self, now: float) -> None:
        """As a transport does it."""
        self.greenlet = gevent.getcurrent()
        self.log.append(f"read {self.name}")
        self.script()
        self.log.append(f"done {self.name}")

    def flush(self) -> None:
        """What the listeners sent is written."""
        self.log.append(f"flush {self.name}")


def attend(pool: GreenletPool, *connections: Connection, until: int) -> list[str]:
    """Have all of them become readable at once; returns their log when it has ``until`` lines."""

    def ready() -> None:
        for connection in connections:
            pool.attend(connection)

    gevent.get_hub().loop.run_callback(ready)
    return wait_for(connections[0].log, until)


def wait_for(lines: list[str], count: int) -> list[str]:
    """``lines``, when there are ``count`` of them."""
    with gevent.Timeout(60, AssertionError(f"there are only {lines}")):
        while len(lines) < count:
            gevent.sleep(0.001)
    return lines


def test_one_greenlet_reads_all_and_writes_after_each():
    log: list[str] = []
    connections = [Connection(name, log) for name in "abc"]
    attend(GreenletPool(), *connections, until=9)
    assert log == [f"{what} {name}" for name in "abc" for what in ("read", "done", "flush")]
    assert len({connection.greenlet for connection in connections}) == 1


def test_a_listener_that_blocks_holds_up_no_other_connection():
    pool, log, go = GreenletPool(), [], Event()

    def block() -> None:
        gevent.get_hub().loop.run_callback(log.append, "loop")
        go.wait()

    connections = [Connection("a", log, block), Connection("b", log), Connection("c", log)]
    attend(pool, *connections, until=9)
    assert log == ["read a", "flush a", "read b", "done b", "flush b", "read c", "done c", "flush c", "loop"], (
        "what the blocked one has sent is written, too")
    assert connections[0].greenlet is not connections[1].greenlet
    assert connections[1].greenlet is connections[2].greenlet
    go.set()
    assert wait_for(log, 10)[9:] == ["done a"]


def test_a_listener_that_blocks_after_another_one():
    pool, log, go = GreenletPool(), [], Event()
    connections = [Connection("a", log), Connection("b", log, go.wait), Connection("c", log, go.wait), Connection("d", log)]
    attend(pool, *connections, until=10)
    assert [entry for entry in log if entry.startswith("flush")] == ["flush a", "flush b", "flush c", "flush d"]
    go.set()
    assert sorted(wait_for(log, 12)[-2:]) == ["done b", "done c"]


def test_a_greenlet_that_blocked_reads_no_more_afterwards():
    pool, log, go = GreenletPool(), [], Event()
    attend(pool, Connection("a", log, go.wait), until=2)
    go.set()
    attend(pool, Connection("b", log), until=6)
    assert log == ["read a", "flush a", "done a", "read b", "done b", "flush b"]


def test_the_loop_has_its_turn_between_two_connections_when_the_slice_is_used_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engineio_wsgi.runtime.greenlet_pool.SLICE", 0.0005)
    log: list[str] = []

    def slow() -> None:
        gevent.get_hub().loop.run_callback(log.append, "loop")
        time.sleep(0.001)

    attend(GreenletPool(), Connection("a", log, slow), Connection("b", log), until=7)
    assert log == ["read a", "done a", "flush a", "loop", "read b", "done b", "flush b"]


def test_timers_have_their_turn_between_two_slices(monkeypatch: pytest.MonkeyPatch):
    """gevent runs many callbacks before it looks at timers and connections: a slice must not begin as one of them."""
    monkeypatch.setattr("engineio_wsgi.runtime.greenlet_pool.SLICE", 0.0005)
    log: list[str] = []
    loop = gevent.get_hub().loop
    timer = loop.timer(0.0)

    def slow() -> None:
        if not timer.active and "timer" not in log:
            timer.start(log.append, "timer")
        time.sleep(0.001)

    connections = [Connection(str(number), log, slow) for number in range(40)]
    attend(GreenletPool(), *connections, until=121)
    timer.close()
    assert log.index("timer") < log.index("read 3")


@pytest.mark.complains
def test_a_connection_whose_reading_fails_holds_up_no_other(caplog: pytest.LogCaptureFixture):
    log: list[str] = []
    with caplog.at_level(logging.ERROR, "engine"):
        attend(GreenletPool(), Connection("a", log, lambda: 1 / 0), Connection("b", log), until=5)
    assert "ZeroDivisionError" in caplog.text
    assert log == ["read a", "flush a", "read b", "done b", "flush b"]


# -- tasks that were submitted


def test_a_submitted_task_that_blocks_holds_up_no_other():
    pool, go = GreenletPool(), Event()
    order: list[str] = []

    def block() -> None:
        gevent.get_hub().loop.run_callback(order.append, "loop")
        go.wait()
        order.append("first")

    pool.submit(block)
    pool.submit(lambda: order.append("second"))
    pool.submit(lambda: order.append("third"))
    assert wait_for(order, 3) == ["second", "third", "loop"]
    pool.submit(lambda: order.append("fourth"))
    go.set()
    assert sorted(wait_for(order, 5)[3:]) == ["first", "fourth"], "each of them once"


@pytest.mark.complains
@pytest.mark.parametrize("error", [ValueError("x"), gevent.Timeout()])
def test_a_submitted_task_that_fails_holds_up_no_other(caplog: pytest.LogCaptureFixture, error: BaseException):
    pool = GreenletPool()
    done = Event()

    def fail() -> None:
        raise error

    with caplog.at_level(logging.ERROR, "engine"):
        pool.submit(fail)
        pool.submit(done.set)
        assert done.wait(60)
    assert caplog.text.count("a task of the engine failed") == 1


def test_a_task_that_is_killed_ends_no_other(caplog: pytest.LogCaptureFixture):
    pool = GreenletPool()
    done = Event()

    def expire() -> None:
        raise gevent.GreenletExit

    pool.submit(expire)
    pool.submit(done.set)
    assert done.wait(60)
    assert caplog.text == "", "somebody killed what ran there; that is nobody's fault"


# -- what is kept


def test_idle_greenlets_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engineio_wsgi.runtime.greenlet_pool.MAX_IDLE", 3)
    pool, go = GreenletPool(), Event()
    greenlets: list[weakref.ref[Any]] = []

    def block() -> None:
        greenlets.append(weakref.ref(gevent.getcurrent()))
        go.wait()

    for _ in range(10):
        run(pool, block)
    assert len(greenlets) == 10
    go.set()
    with gevent.Timeout(60):
        while len(pool._idle) < 3:
            gevent.sleep(0.001)
    gevent.sleep(0.001)
    gc.collect()
    assert len(pool._idle) == 3
    assert sum(greenlet() is not None for greenlet in greenlets) == 3


def test_an_idle_greenlet_keeps_no_references():
    pool = GreenletPool()

    class Payload:
        """What a task had to do with."""

    payload = Payload()
    gone = weakref.ref(payload)
    run(pool, lambda kept=payload: repr(kept))
    del payload
    gc.collect()
    assert len(pool._idle) == 1
    assert gone() is None


def test_what_is_spawned_has_context_variables_of_its_own():
    pool = GreenletPool()
    variable = ContextVar[str]("variable", default="unset")
    seen: list[tuple[object, str]] = []
    done = Event()

    def serve(value: str) -> None:
        seen.append((gevent.getcurrent(), variable.get()))
        variable.set(value)
        done.set()

    for value in ("of the first", "of the second"):
        done.clear()
        pool.spawn(serve, value)
        assert done.wait(60)
        gevent.sleep(0)
    assert seen[0][0] is seen[1][0]
    assert [value for _, value in seen] == ["unset", "unset"]


def test_a_pool_knows_its_thread():
    pool = GreenletPool()
    assert pool.is_here
    assert not gevent.get_hub().threadpool.apply(lambda: pool.is_here)


def test_spawned_functions_are_not_blamed(monkeypatch: pytest.MonkeyPatch):
    pool = GreenletPool()
    now = [0.0]
    monkeypatch.setattr("engineio_wsgi.runtime.greenlet_pool.monotonic", lambda: now[0])
    monkeypatch.setattr("engineio_wsgi.runtime.blame.monotonic", lambda: now[0])
    done = Event()

    def block() -> None:
        now[0] += 10
        done.set()

    pool.spawn(block)
    assert done.wait(60)
    gevent.sleep(0)
    assert pool.blame.of_last(20) == ""
