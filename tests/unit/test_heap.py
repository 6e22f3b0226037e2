"""What is done about Python's garbage collection in a process that serves."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from time import sleep

import pytest

from engineio_wsgi.heap import CollectionLimit, freeze_heap, limit_collections


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The process of the tests goes on as before."""
    thresholds = gc.get_threshold()
    yield
    limit_collections(1)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def grow() -> list[list[int]]:
    """Have the youngest objects collected many times, and those of the middle generation."""
    kept = []
    for _ in range(3):
        for _ in range(3000):
            kept.append([0])
        gc.collect(1)
    return kept


def test_what_exists_is_frozen() -> None:
    kept = [object(), [0]]
    assert freeze_heap() == gc.get_freeze_count() > 1000
    assert not any(thing is kept for thing in gc.get_objects())


def test_garbage_is_not_frozen() -> None:
    circle: list[object] = []
    circle.append(circle)
    number = id(circle)
    del circle
    freeze_heap()
    gc.unfreeze()
    assert not any(id(thing) == number and isinstance(thing, list) and thing[:1] == [thing] for thing in gc.get_objects())


def test_after_a_full_collection_the_next_one_is_put_off() -> None:
    gc.set_threshold(700, 10, 11)
    limit_collections(1e-9)
    assert gc.get_threshold() == (700, 10, 11)
    gc.collect()
    assert gc.get_threshold()[:2] == (700, 10)
    assert gc.get_threshold()[2] > 1_000_000
    before = gc.get_stats()[2]["collections"]
    grow()
    assert gc.get_stats()[2]["collections"] == before
    assert gc.get_threshold()[2] > 1_000_000


def test_when_its_time_is_over_python_decides_again() -> None:
    gc.set_threshold(700, 10, 11)
    limit_collections(0.999)
    gc.collect()
    while gc.get_threshold()[2] != 11:
        sleep(0.02)
        gc.collect(1)


def test_without_a_limit_nothing_is_put_off() -> None:
    gc.set_threshold(700, 10, 11)
    limit_collections(1e-9)
    gc.collect()
    callbacks = len(gc.callbacks)
    limit_collections(1)
    assert (gc.get_threshold(), len(gc.callbacks)) == ((700, 10, 11), callbacks - 1)
    gc.collect()
    assert gc.get_threshold() == (700, 10, 11)


def test_a_later_limit_replaces_an_earlier_one() -> None:
    limit_collections(0.5)
    callbacks = len(gc.callbacks)
    limit_collections(0.25)
    assert len(gc.callbacks) == callbacks


def test_thresholds_of_the_application_are_left_alone() -> None:
    limit = CollectionLimit(1e-9)
    limit.on_collection("start", {"generation": 2})
    limit.on_collection("stop", {"generation": 2})
    gc.set_threshold(500, 5, 5)
    limit.release()
    assert gc.get_threshold() == (500, 5, 5)


@pytest.mark.parametrize("share", [0, -1, float("nan")])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="has to be above 0"):
        limit_collections(share)
