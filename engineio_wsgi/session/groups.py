"""Groups: which sessions of this process are in which group.

Owns both directions of the membership. Knows nothing of other workers, and nothing of what is sent to a group.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engineio_wsgi.session.session import Session

__all__ = ["Groups", "check_group"]


class Groups:
    """The groups of the sessions of one server, in this process. A group exists as long as it has a member."""

    __slots__ = ("_by_session", "_members")

    def __init__(self) -> None:
        # dicts, because they keep the order in which sessions have joined
        self._members: dict[str, dict[Session, None]] = {}
        self._by_session: dict[Session, set[str]] = {}

    def join(self, session: Session, group: str) -> None:
        """Add a session to a group; nothing if it is a member."""
        self._members.setdefault(group, {})[session] = None
        self._by_session.setdefault(session, set()).add(group)

    def leave(self, session: Session, group: str) -> None:
        """Remove a session from a group; nothing if it is no member."""
        members = self._members.get(group)
        if members is None or session not in members:
            return
        del members[session]
        if not members:
            del self._members[group]
        groups = self._by_session[session]
        groups.discard(group)
        if not groups:
            del self._by_session[session]

    def leave_all(self, session: Session) -> None:
        """Remove a session from all its groups."""
        for group in list(self._by_session.get(session, ())):
            self.leave(session, group)

    def of(self, session: Session) -> frozenset[str]:
        """The groups that a session is in."""
        return frozenset(self._by_session.get(session, ()))

    def members(self, group: str) -> Collection[Session]:
        """The sessions in a group, in the order in which they have joined."""
        return self._members.get(group, {}).keys()

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self._members)

    @property
    def memberships(self) -> int:
        """How many groups the sessions are in, all together."""
        return sum([len(groups) for groups in list(self._by_session.values())])

    def clear(self) -> None:
        """Forget all of them."""
        self._members.clear()
        self._by_session.clear()


def check_group(group: object) -> str:
    """Check the name of a group.

    Raises:
        TypeError: it is no str.
        ValueError: it is empty.
    """
    if not isinstance(group, str):
        raise TypeError(f"the name of a group is a str, not {type(group).__name__}")
    if not group:
        raise ValueError("the name of a group must not be empty")
    return group
