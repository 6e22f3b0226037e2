"""Factories for fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

__all__ = ["stopped_afterwards"]


class Stoppable(Protocol):
    """Something that runs until it is stopped."""

    def stop(self) -> object:
        """Stop it."""
        ...


T = TypeVar("T", bound=Stoppable)


def stopped_afterwards(kind: Callable[..., T]) -> Iterator[Callable[..., T]]:
    """The body of a fixture: a factory that calls ``kind``. What it has made is stopped when the test ends."""
    made: list[T] = []

    def make(**options: Any) -> T:
        made.append(kind(**options))
        return made[-1]

    yield make
    for each in made:
        each.stop()
