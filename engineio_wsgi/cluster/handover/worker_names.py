"""The names under which other workers find this process, and which of its sessions belong to each.

The first characters of a session id name a worker. When a worker is replaced, its heir takes its name, so a process may have
several. Plain state: knows no sockets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from engineio_wsgi.cluster.messages import Refusal
from engineio_wsgi.engine.registry import WORKER_ID_SIZE

__all__ = ["WorkerNames"]

class WorkerNames:
    """The names of this process.

    Args:
        first: the id that it was started with.
    """

    def __init__(self, first: str) -> None:
        self.first = first
        #: all names that lead here
        self._own = {first}
        #: names that were given to an heir
        self._given_away: set[str] = set()
        #: names whose sessions may still be with the process that had the name before
        self._expected: set[str] = set()
        #: how many workers give sessions with a name at the moment
        self._arriving: Counter[str] = Counter()

    def __contains__(self, name: object) -> bool:
        """Whether a broadcast of this process must not be sent to this name: it leads here, or did."""
        return name in self._own or name in self._given_away

    @property
    def own(self) -> list[str]:
        """The names that lead here, the first one first."""
        return sorted(self._own, key=lambda name: name != self.first)

    @property
    def all(self) -> list[str]:
        """These, and those that were given away: sessions of this process may have any of them."""
        return [*self.own, *sorted(self._given_away)]

    def is_own(self, name: str) -> bool:
        """Whether the name leads here."""
        return name in self._own

    # -- names that are taken

    def take(self, name: str) -> None:
        """This process has taken another worker's name. Its sessions are expected."""
        self._own.add(name)
        self._given_away.discard(name)

    def expect(self, names: Iterable[str]) -> None:
        """Sessions with these names arrive from now on, until :meth:`end_arrival`."""
        for name in names:
            self._expected.add(name)
            self._arriving[name] += 1

    def end_arrival(self, names: Iterable[str]) -> None:
        """The worker that gave these sessions has nothing more to give. It may keep some of them until it ends."""
        self._arriving -= Counter(names)

    def expect_no_more(self, names: Iterable[str]) -> None:
        """The process that had the names before has none of their sessions any more."""
        self._expected.difference_update(names)

    def expects(self, name: str) -> bool:
        """Whether a session with this name that is not here may be with the process that had the name before."""
        return name in self._expected

    @property
    def expects_any(self) -> bool:
        """Whether sessions may still arrive."""
        return bool(self._expected)

    @property
    def left_behind(self) -> list[str]:
        """The names whose sessions do not arrive at the moment, but may be with the process that had the name before."""
        return [name for name in self._expected if name not in self._arriving]

    def drop_unused(self, sids: Iterable[str]) -> list[str]:
        """Drop taken names that no session has any more, and none is expected to have. Returns them.

        Args:
            sids: the ids of the sessions of this process.
        """
        used = {sid[:WORKER_ID_SIZE] for sid in sids} | self._expected | {self.first}
        unused = sorted(self._own - used)
        self._own.difference_update(unused)
        return unused

    # -- names that are given away

    def give_away(self, name: str) -> None:
        """Another process has the name now."""
        self._own.discard(name)
        self._given_away.add(name)

    def take_back(self, name: str) -> None:
        """The process that was to have the name is gone."""
        self._given_away.discard(name)
        self._own.add(name)

    # -- sessions

    def belongs(self, sid: str, name: str) -> bool:
        """Whether a session of this process gets what is sent to all sessions of ``name``: see :meth:`name_of`."""
        return self.name_of(sid) == name

    def name_of(self, sid: str) -> str:
        """The name that a session of this process belongs to, whether it leads here or was given away.

        A broadcast is sent to each name, so each session belongs to exactly one of them.
        """
        owner = sid[:WORKER_ID_SIZE]
        return owner if owner in self else self.first

    def whereabouts(self, sid: str) -> Refusal:
        """What to tell a worker that asks for a session which is not here."""
        owner = sid[:WORKER_ID_SIZE]
        if owner in self._given_away:
            return Refusal.MOVED
        return Refusal.FORMER if owner in self._expected else Refusal.UNKNOWN
