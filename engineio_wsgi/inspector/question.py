"""The questions of a page to a worker, and of that worker to the others: JSON, checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ORDERS", "Close", "Look", "read_question"]

#: characters of the text to search for
MAX_SEARCH = 100
#: workers whose history a page already has
MAX_WORKERS = 1000
#: how the sessions may be sorted
ORDERS = ("newest", "oldest", "traffic", "buffered", "slowest", "quietest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A question for the current state, with what the page shows of it.

    Attributes:
        order: how the sessions are sorted; one of `ORDERS`.
        search: a part of the short id, the address, the user or the transport.
        since: by worker, the period up to which the page has its history.
        watched: the session whose packets are shown: its worker, a dot and its number; empty for none.
        packet: the number of the last packet that the page has.
    """

    order: str = ORDERS[0]
    search: str = ""
    since: Mapping[str, int] = field(default_factory=dict)
    watched: str = ""
    packet: int = 0

    def __post_init__(self) -> None:
        checks = (
            self.order in ORDERS,
            isinstance(self.search, str) and len(self.search) <= MAX_SEARCH,
            isinstance(self.watched, str) and len(self.watched) <= MAX_SEARCH,
            _is_count(self.packet),
            isinstance(self.since, dict) and len(self.since) <= MAX_WORKERS and all(map(_is_count, self.since.values())),
        )
        if not all(checks):
            raise ValueError("a question with a wrong value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The request to close a session.

    Attributes:
        session: its worker, a dot and its number.
    """

    session: str

    def __post_init__(self) -> None:
        if not isinstance(self.session, str) or len(self.session) > MAX_SEARCH:
            raise ValueError("a question with a wrong value")


Question = Look | Close
_KINDS: dict[str, type[Look] | type[Close]] = {"look": Look, "close": Close}


def read_question(text: str | bytes) -> Question:
    """The question in a message of a page, or of another worker.

    Raises:
        ValueError: the message is not a question.
    """
    try:
        content: Any = json.loads(text)  # any JSON
        kind = _KINDS[content.pop("type")]
        return kind(**content)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"no question of the inspector: {error}") from error


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
