"""Makes the event loop late, as a greenlet does that computes."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent


def block_loop(seconds: float, meanwhile: Callable[[], object]) -> None:
    """Block the loop in its next turn, before any timer or socket is looked at. Returns at once.

    Args:
        seconds: longer than the deadline that is to be missed. A wait that the caller begins before the loop's next turn is
            then over before anything that has happened ``meanwhile`` can have been seen.
        meanwhile: called first. Must not wait for anything.
    """

    def block() -> None:
        meanwhile()
        time.sleep(seconds)

    gevent.get_hub().loop.run_callback(block)
