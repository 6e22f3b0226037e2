"""Calls to the workers of all machines over Redis: the channels of a group, and the base class of the callers.

Owns the names of the channels. Knows Redis only as publish and subscribe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import sha256

from engineio_wsgi.cluster.messages import Action, Call, Message
from engineio_wsgi.errors import OwnerGone

__all__ = ["Channels", "RedisCaller"]


class Channels:
    """The channels of a group.

    Args:
        group: of workers that serve each other's sessions.
    """

    def __init__(self, group: str) -> None:
        #: the part that gives all of them the same slot in a Redis Cluster
        self.slot_key = sha256(group.encode()).hexdigest()[:12]
        self._prefix = f"engineio:{{{self.slot_key}}}:"
        #: of all workers
        self.all = self.of("*")

    def of(self, name: str) -> bytes:
        """The channel of one worker."""
        return (self._prefix + name).encode("ascii")


class RedisCaller(ABC):
    """Asks workers: see :class:`Caller`.

    Args:
        group: of workers that serve each other's sessions.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._channels = Channels(group)

    @abstractmethod
    def _ask(self, channel: bytes, message: Message) -> dict[str, int]:
        """Publish a call. Blocks until all other workers have answered that have received it. Returns the results by worker."""

    def others(self) -> list[str]:
        """See :class:`Caller`."""
        return sorted(self.ask_all(Call(self._group, Action.COUNT).message()))

    def ask(self, worker: str, message: Message) -> int:
        """See :class:`Caller`."""
        results = self._ask(self._channels.of(worker), message)
        if worker not in results:
            raise OwnerGone("it does not exist, or has not answered")
        return results[worker]

    def ask_all(self, message: Message) -> dict[str, int]:
        """See :class:`Caller`."""
        return self._ask(self._channels.all, message)
