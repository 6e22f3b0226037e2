"""How a broadcast is delivered: to whom, and what becomes of a session whose client is slow."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from typing import NamedTuple, Self

from engineio_wsgi.session.groups import check_group

__all__ = ["Delivery", "OnSlow"]


class OnSlow(enum.Enum):
    """What a broadcast does with a session whose write buffer is full."""

    #: close it
    CLOSE = "close"
    #: leave it out
    DROP = "drop"
    #: queue the message nevertheless: no more than one waits for each key
    LATEST = "latest"


class Delivery(NamedTuple):
    """How one broadcast is delivered.

    Attributes:
        to: the group that gets it; ``None`` for all sessions.
        exclude: the ids of sessions that do not get it.
        compress: whether transports may compress it.
        on_slow: what becomes of a session whose write buffer is full.
        key: the message replaces one with the same key that still waits; ``None`` if it replaces none.
    """

    to: str | None = None
    exclude: Collection[str] = frozenset()
    compress: bool = True
    on_slow: OnSlow = OnSlow.CLOSE
    key: str | None = None

    @classmethod
    def create(cls, to: object, exclude: Iterable[str], compress: bool, on_slow: str, key: object) -> Self:
        """Check what an application has asked for.

        Raises:
            TypeError: ``to`` or ``key`` is no str.
            ValueError: ``on_slow`` has no such value, ``"latest"`` has no key, or another value has one.
        """
        group = None if to is None else check_group(to)
        choices = [choice.value for choice in OnSlow]
        if on_slow not in choices:
            raise ValueError(f"on_slow: expected one of {', '.join(map(repr, choices))}; got {on_slow!r}")
        if key is not None and not isinstance(key, str):
            raise TypeError(f"key: expected a str, got {type(key).__name__}")
        if (on_slow == OnSlow.LATEST.value) is not bool(key):
            raise ValueError("on_slow='latest' needs a key, the name of what the message is the latest value of; other values of "
                             "on_slow take none")
        return cls(group, frozenset(exclude), compress, OnSlow(on_slow), key)
