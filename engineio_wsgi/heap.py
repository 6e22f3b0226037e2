"""Python's garbage collection in a process that serves: a heap that is frozen after start-up, and a limit on full collections.

A full collection looks at every object of the process and stops everything meanwhile: 10,000 sessions that poll, with their
connections, take about 0.1 s. Python begins one whenever the heap has grown by a quarter, which clients that make sessions by the
thousand bring about several times a second. Knows nothing of sessions.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

from engineio_wsgi.runtime.clock import monotonic

__all__ = ["DEFAULT_SHARE", "freeze_heap", "limit_collections"]

#: share of the time that full collections may take
DEFAULT_SHARE = 0.005
#: seconds after a full collection for which the next one is put off at most, however long it took
LONGEST_PAUSE = 300.0
#: the same, where not the last one took long, but the next one will
LONGEST_GROWTH = 60.0
#: seconds that a full collection takes for each object: 0.33 to 0.39 µs were measured with 36,000 to 680,000 objects
PER_OBJECT = 4e-7
#: in the place of the third threshold, for as long as full collections are put off: the largest that Python takes
NEVER = 2**31 - 1
#: the number that Python has for the collection of the whole heap, and for the one before it
FULL, MIDDLE = 2, 1


def freeze_heap() -> int:
    """Collect, and take all objects that are left out of later collections (:func:`gc.freeze`). May be called again.

    Call it when the application has been imported, and before requests are served. Modules, classes and functions stay until the
    end anyway. Blocks for the time of one full collection. Any thread may call it.

    Returns:
        Number of the objects that are frozen.
    """
    gc.collect()
    gc.freeze()
    return gc.get_freeze_count()


class CollectionLimit:
    """Puts off full collections after each one, so that they take no more than a share of the time.

    Python decides when a collection begins, by its thresholds. For as long as full ones are put off, the third threshold is a
    number that is never reached; the younger objects are collected as ever. A collection that the application asks for
    (:func:`gc.collect`) is not put off, but the next one is because of it.

    Args:
        share: of the time, above 0.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._began = 0.0
        #: when the last full collection was over, and how many seconds it took
        self._ended = 0.0
        self._took = 0.0
        #: the third threshold, while another one takes its place
        self._threshold: int | None = None

    def on_collection(self, phase: str, info: Mapping[str, Any]) -> None:  # as `gc.callbacks` has it
        """What Python calls at the beginning and at the end of each collection."""
        generation = info["generation"]
        if generation == FULL:
            if phase == "start":
                self._began = monotonic()
            else:
                self._put_off(monotonic())
        elif generation == MIDDLE and phase == "stop" and self._threshold is not None and self._is_due(monotonic()):
            self.release()

    def _is_due(self, now: float) -> bool:
        """Whether the next full collection may begin."""
        first, second, _ = gc.get_threshold()
        # so many objects were made, and not freed, between two collections of the middle generation: some of them since
        grown = gc.get_count()[FULL] * first * (second + 1)
        pause = max(min(self._took / self._share, LONGEST_PAUSE),
                    min((self._took + grown * PER_OBJECT) / self._share, LONGEST_GROWTH))
        return now - self._ended >= pause

    def _put_off(self, now: float) -> None:
        first, second, third = gc.get_threshold()
        self._ended = now
        self._took = now - self._began
        if third != NEVER:
            self._threshold = third
            gc.set_threshold(first, second, NEVER)

    def release(self) -> None:
        """Leave full collections to Python's own rule, until the next one is over."""
        first, second, third = gc.get_threshold()
        if self._threshold is not None and third == NEVER:
            # otherwise the application has set another one meanwhile
            gc.set_threshold(first, second, self._threshold)
        self._threshold = None


_limits: list[CollectionLimit] = []


def limit_collections(share: float = DEFAULT_SHARE) -> None:
    """Let full collections take no more than a share of this process's time. Any thread may call it; it does not block.

    After a full collection of `t` seconds, the next one begins at the earliest after ``t / share`` seconds, but after 300 s
    Python's own rule holds again. Where the heap has grown since, `t` is what the next one will take, and 60 s are the most.

    What is no longer referred to is freed at once, as ever; only objects that refer to each other in a circle, and have outlived
    the younger collections, stay that long. A later call replaces the limit of an earlier one.

    Args:
        share: above 0; with 1 or more there is no limit, and Python decides.

    Raises:
        ValueError: `share` is not above 0.
    """
    if not share > 0:
        raise ValueError(f"share is {share!r}, and has to be above 0")
    for limit in _limits:
        gc.callbacks.remove(limit.on_collection)
        limit.release()
    _limits.clear()
    if share < 1:
        _limits.append(CollectionLimit(share))
        gc.callbacks.append(_limits[0].on_collection)
