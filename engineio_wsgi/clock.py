"""The clock of all deadlines and periods: monotonic, in seconds. Libraries that freeze an application's time do not freeze it.

freezegun replaces ``time.monotonic`` wherever a module has it under any name, also in modules that are imported while the time is
frozen. An engine whose clock stands still would wait for ever, and one whose clock jumps would declare its clients dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

__all__ = ["monotonic"]

#: what ``time.monotonic`` reads on Linux, by a function that nobody replaces
monotonic: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
