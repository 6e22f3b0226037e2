"""The clock of all deadlines and periods, and what is used of the event loop's timers. Times are seconds.

The clock is monotonic, and libraries that freeze an application's time do not freeze it. freezegun replaces ``time.monotonic`` in
every module that has it, under any name, and in modules that are imported while the time is frozen. If the engine's clock stood
still, the engine would wait for ever; if it jumped, the engine would take its clients for dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

__all__ = ["Loop", "TimedLoop", "Timer", "monotonic"]

#: what ``time.monotonic`` reads on Linux, by a function that no library replaces
monotonic: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_MONOTONIC)


class Timer(Protocol):
    """A timer of gevent's event loop."""

    def start(self, callback: Callable[..., object], *args: object) -> object:
        """Call ``callback(*args)`` in the hub when the time has come."""
        ...

    def close(self) -> object:
        """Do not call any more. The timer cannot be started again."""
        ...


class Loop(Protocol):
    """The timers and callbacks of gevent's event loop, which has no types of its own. `IoLoop` has its I/O watchers, too."""

    def timer(self, after: float, repeat: float = 0.0) -> Timer:
        """A timer that fires ``after`` seconds after its start, and every ``repeat`` seconds from then on if that is not 0."""
        ...

    def run_callback(self, callback: Callable[..., object], *args: object) -> object:
        """Call ``callback(*args)`` in the hub, soon. For the hub's thread only."""
        ...

    def run_callback_threadsafe(self, callback: Callable[..., object], *args: object) -> object:
        """Call ``callback(*args)`` in the hub, soon. For any thread."""
        ...


class TimedLoop(Loop, Protocol):
    """The same, with the loop's own clock."""

    def now(self) -> float:
        """The time at which the present turn of the loop began."""
        ...

    def update_now(self) -> object:
        """Set that time to the present."""
        ...
