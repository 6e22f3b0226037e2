"""Requests of sessions that are moving: each is sent to where its session is, or is about to be.

Owns the order in which the two processes are asked. Does not know how a request is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TypeVar

import gevent

from engineio_wsgi.cluster.handover.worker_names import WorkerNames
from engineio_wsgi.cluster.local.names import FORMER
from engineio_wsgi.cluster.messages import Refusal
from engineio_wsgi.engine.registry import WORKER_ID_SIZE
from engineio_wsgi.errors import OwnerGone, SessionMoves
from engineio_wsgi.runtime.deadline import Deadline

__all__ = ["follow"]

T = TypeVar("T")

#: seconds for which a request is sent again
TIMEOUT = 5.0
#: seconds until it is sent again, at first and at most
FIRST_PERIOD, LAST_PERIOD = 0.002, 0.05


def follow(sid: str, names: WorkerNames, sessions: Container[str], forward: Callable[[str], T],
           whereabouts: Callable[[str], Refusal]) -> T | None:
    """Forward a request to the worker of its session; if the session is moving, follow the session. Blocks.

    Args:
        sid: the session's id.
        names: of this process.
        sessions: of this process.
        forward: sends the request to the worker with a name.
        whereabouts: says where a session is that this process does not have, although it has its worker's name.

    Returns:
        What ``forward`` has returned; ``None`` if the session has arrived here meanwhile.

    Raises:
        OwnerGone, OwnerRefused: as ``forward`` does.
    """
    owner = sid[:WORKER_ID_SIZE]
    deadline = Deadline(TIMEOUT)
    is_at_former = names.is_own(owner)
    period = FIRST_PERIOD
    while True:
        try:
            return forward(owner + FORMER if is_at_former else owner)
        except SessionMoves as error:
            is_at_former = error.is_at_former
            if deadline.has_passed():
                raise
        except OwnerGone:
            # the session may have arrived, and the process that has had it may have ended
            if not is_at_former or deadline.has_passed():
                raise
            is_at_former = False
        if sid in sessions:
            return None
        if names.is_own(owner):
            _check_expected(sid, whereabouts)
            is_at_former = True
        gevent.sleep(period)
        period = min(2 * period, LAST_PERIOD)


def _check_expected(sid: str, whereabouts: Callable[[str], Refusal]) -> None:
    """Raise `OwnerGone` if the session cannot be with the process that had the name of its worker before."""
    if whereabouts(sid) is not Refusal.FORMER:
        raise OwnerGone("the process that had the session is gone")
