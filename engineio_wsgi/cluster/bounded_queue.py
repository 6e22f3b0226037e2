"""A queue that is bounded by the bytes of its items, whatever they are."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

__all__ = ["BoundedQueue"]

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """Items in their order.

    Args:
        limit: bytes. If more are waiting, no item is added.
    """

    __slots__ = ("_items", "_limit", "size")

    def __init__(self, limit: int) -> None:
        self._items: deque[tuple[T, int]] = deque()
        self._limit = limit
        #: bytes of the waiting items
        self.size = 0

    def __len__(self) -> int:
        return len(self._items)

    def append(self, item: T, size: int) -> bool:
        """Add an item of so many bytes. Returns whether it was added: not if the queue is full."""
        if self.size > self._limit:
            return False
        self._items.append((item, size))
        self.size += size
        return True

    def popleft(self) -> T:
        """Remove the next item."""
        item, size = self._items.popleft()
        self.size -= size
        return item

    def clear(self) -> None:
        """Remove all items."""
        self._items.clear()
        self.size = 0
