"""The drain: the sessions of a server that stops are closed one by one, so that their clients do not all reconnect at once.

Owns the order and the times of the closes. Does not know how a session is closed, nor how long its client may take to fetch what
waits for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from gevent import sleep

from engineio_wsgi.runtime.clock import monotonic

__all__ = ["RETRY_PERIODS", "drain", "drain_seconds"]

#: share of the time to stop after which every session has been told: the clients of the last ones have the rest to fetch what
#: waits for them
SHARE = 0.8
#: seconds after which a client that was refused may try again, of which each gets another number: what clients of Socket.IO wait
RETRY_PERIODS = (1, 5)


class Closable(Protocol):
    """A session."""

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        ...


AnySession = TypeVar("AnySession", bound=Closable)


def drain_seconds(count: int, rate: int | None, timeout: float) -> float:
    """The seconds over which sessions are closed.

    Args:
        count: the number of sessions.
        rate: sessions that are closed in a second; ``None`` for all of them at once.
        timeout: seconds that the server has to stop. If the rate would take longer than it allows, more are closed in a second.
    """
    return 0.0 if rate is None else min(count / rate, SHARE * max(timeout, 0.0))


def drain(sessions: Collection[AnySession], seconds: float, close: Callable[[AnySession], object]) -> None:
    """Call ``close`` with each session, in random order, evenly spread over ``seconds``. Blocks until the last call.

    Sessions that end meanwhile are left out, and take no time.
    """
    order = list(sessions)
    random.shuffle(order)
    due, step = monotonic(), seconds / max(len(order), 1)
    for session in order:
        if session.closed:
            continue
        wait = due - monotonic()
        if wait > 0:
            sleep(wait)
        if not session.closed:
            close(session)
            due += step
