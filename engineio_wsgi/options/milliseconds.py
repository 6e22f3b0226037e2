"""Warns where an option's seconds look like milliseconds, which the reference server and most clients count in."""

from __future__ import annotations

import logging

__all__ = ["warn_of_milliseconds"]

logger = logging.getLogger("engine")

#: seconds; a longer time is hardly meant for a ping
HOUR = 3600.0

_said: set[tuple[str, float]] = set()


def warn_of_milliseconds(name: str, seconds: float) -> None:
    """Write one line about an option, if its value is more than an hour; once in a process for the same value."""
    if seconds <= HOUR or (name, seconds) in _said:
        return
    _said.add((name, seconds))
    logger.warning("%s=%g is %.1f hours: options are in seconds, not in milliseconds; did you mean %s=%g?",
                   name, seconds, seconds / HOUR, name, seconds / 1000)
