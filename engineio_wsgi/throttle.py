"""A limit on repeated log lines: which of many equal ones is written. No I/O; the time is an argument."""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["Throttle"]

#: seconds for which the same log line is not written again
PERIOD = 60.0
#: the maximum number of keys that are kept; with more of them, lines are repeated and memory does not grow
MAX_KEYS = 1000


class Throttle:
    """Lets each key pass once every ``period`` seconds; a minute, if it is not given.

    Example::

        throttle = Throttle()
        if throttle.passes((address, code), monotonic()):
            logger.info(...)
    """

    __slots__ = ("_period", "_until")

    def __init__(self, period: float = PERIOD) -> None:
        self._period = period
        self._until: dict[Hashable, float] = {}

    def passes(self, key: Hashable, now: float) -> bool:
        """Whether ``key`` may pass at the time ``now``: it has not passed for a period."""
        if self._until.get(key, now) > now:
            return False
        if len(self._until) >= MAX_KEYS:
            self._until.clear()
        self._until[key] = now + self._period
        return True
