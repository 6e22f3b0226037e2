"""The clock of all deadlines and periods, in seconds.

The clock is monotonic, and libraries that freeze an application's time do not freeze it. freezegun replaces ``time.monotonic`` in
every module that has it, under any name, and in modules that are imported while the time is frozen. If the engine's clock stood
still, the engine would wait for ever; if it jumped, the engine would take its clients for dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

__all__ = ["monotonic"]

#: what ``time.monotonic`` reads on Linux, by a function that no library replaces
monotonic: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
