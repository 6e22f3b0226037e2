"""Once is enough: which of many equal log lines is worth writing. No I/O; the clock is an argument."""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["Throttle"]

#: keys that are remembered; a flood from more addresses than this costs lines, not memory
MAX_KEYS = 1000


class Throttle:
    """Lets a key pass once in ``period`` seconds.

    Example::

        throttle = Throttle(60.0)
        if throttle.passes((address, code), monotonic()):
            logger.info(...)
    """

    __slots__ = ("_period", "_until")

    def __init__(self, period: float) -> None:
        self._period = period
        self._until: dict[Hashable, float] = {}

    def passes(self, key: Hashable, now: float) -> bool:
        """Whether ``key`` has not passed for a period; if so, it does now."""
        if self._until.get(key, now) > now:
            return False
        if len(self._until) >= MAX_KEYS:
            self._until.clear()
        self._until[key] = now + self._period
        return True
