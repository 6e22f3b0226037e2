"""The move of one session out of this server: from the decision to the moment at which it is somebody else's.

Owns the order of the steps. Does not know where the session goes: a `Carrier` takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import gevent
from gevent.event import AsyncResult
from gevent.lock import Semaphore

from engineio_wsgi.engine.gate import Gate
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.errors import BadMessage
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Stream
from engineio_wsgi.session.departure import Departure
from engineio_wsgi.session.movable import SessionSnapshot
from engineio_wsgi.session.session import Session

__all__ = ["Carrier", "Move", "move_all"]

#: sessions that move at the same time: each is frozen for as long as it takes, and to fill the channel, a few are enough
AT_ONCE = 16
#: seconds after which another session begins to move although so many are under way: their listeners have not returned
PATIENCE = 0.02
#: why sessions stay with which the move has not begun
OUT_OF_TIME = "there was no time left"
#: seconds between two looks whether a session has ended meanwhile
LOOK_PERIOD = 0.1


class Carrier(Protocol):
    """Takes sessions to another server."""

    def pack(self, snapshot: SessionSnapshot) -> bytes:
        """The bytes of a session.

        Raises:
            BadMessage: it is too large.
        """
        ...

    def take(self, sid: str, parcel: bytes, stream: Stream | None) -> AsyncResult:
        """Carry a session away. Does not block and does not fail: from now on the carrier alone decides what becomes of it.

        Args:
            sid: the session's id.
            parcel: what :meth:`pack` has returned.
            stream: the socket of its connection, which is the carrier's from now on; ``None`` if it polls.

        Returns:
            What will be ``None`` when the session has arrived, or else why it goes on here.
        """
        ...


class Move:
    """One session's move. The listener that runs ends first, then ``leave`` is called, then requests that are under way end.

    Args:
        registry: the session's.
        gate: in front of it.
        session: the session.
        carrier: takes it away.
        is_local: whether it stays in this process.
    """

    def __init__(self, registry: Registry, gate: Gate, session: Session, carrier: Carrier, is_local: bool = False) -> None:
        self._registry = registry
        self._gate = gate
        self._session = session
        self._carrier = carrier
        self._departure = Departure(session, is_local)
        self._deadline = 0.0
        self._is_over = False
        #: why the session stays; ``None`` if it has gone
        self._outcome = AsyncResult()
        #: what the carrier says, once it has the session
        self._arrival: AsyncResult | None = None

    def run(self, deadline: float) -> str | None:
        """Move the session. Blocks.

        Args:
            deadline: of the monotonic clock.

        Returns:
            Why the session stays, and goes on as before; ``None`` if it has gone, or ended meanwhile.
        """
        self._deadline = deadline
        session, departure = self._session, self._departure
        session.prepare_to_move()
        while session.state.upgrading and not self._is_late:
            departure.wait()
        reason = departure.obstacle
        if reason is not None:
            return None if session.closed else reason
        self._gate.close(session.id)
        departure.freeze()
        session.inbox.queue_call(self._in_turn)
        while not (self._outcome.ready() or self._is_late or session.closed):
            self._outcome.wait(min(LOOK_PERIOD, max(0.0, deadline - monotonic())))
        self._finish(None if session.closed else "a listener did not return in time")
        outcome: str | None = self._outcome.get() if self._arrival is None else self._arrival.get()
        return outcome

    @property
    def _is_late(self) -> bool:
        return monotonic() >= self._deadline

    def _finish(self, reason: str | None) -> None:
        """The move is over. Thaws the session if it has not gone."""
        if self._is_over:
            return
        self._is_over = True
        self._departure.thaw()
        self._gate.open(self._session.id)
        self._outcome.set(reason)

    def _in_turn(self) -> None:
        """In the session's turn: no listener runs, and none is called with a message."""
        session, departure = self._session, self._departure
        if self._is_over:
            return
        if not session.closed and self._registry.listeners_of("leave"):
            self._registry.tell_leave(session)
        while not self._is_over and not session.closed and not self._is_quiet():
            if self._is_late:
                self._finish("a request of it did not end in time")
                return
            departure.wait()
        if not self._is_over:
            self._finish(None if session.closed else self._go())

    def _is_quiet(self) -> bool:
        """Whether no request is under way, and no listener waits to be called for anything but a message."""
        departure = self._departure
        departure.keep_frozen()
        if departure.busy or not self._gate.is_empty(self._session.id):
            return False
        # a listener may block, and then look again
        return not departure.run_calls()

    def _go(self) -> str | None:
        """One step in the hub. Returns why the session stays; ``None`` if it has gone."""
        departure = self._departure
        reason = departure.obstacle
        if reason is not None:
            return reason
        try:
            parcel = self._carrier.pack(departure.snapshot())
        except (TypeError, ValueError, RecursionError) as error:
            return f"its data is not JSON: {error}"
        except BadMessage as error:
            return str(error)
        self._arrival = self._carrier.take(self._session.id, parcel, departure.let_go())
        return None


def move_all(registry: Registry, gate: Gate, carrier: Carrier, deadline: float, is_local: bool = False,
             stays: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Move every session that can. Blocks until all have arrived, or stay, also those that are opened meanwhile.

    See :class:`Move`.

    Args:
        stays: why sessions stay that are not to be moved, by their ids.

    Returns:
        Why sessions stay, by their ids, those of ``stays`` included.
    """
    reasons = dict(stays)
    tried = set(stays)
    under_way = Semaphore(AT_ONCE)

    def move(session: Session) -> None:
        reason = Move(registry, gate, session, carrier, is_local).run(deadline)
        if reason is not None:
            reasons[session.id] = reason

    while (left := [session for sid, session in registry.sessions.items() if sid not in tried]) and monotonic() < deadline:
        tasks: list[gevent.Greenlet] = []
        for session in left:
            tried.add(session.id)
            # a slow listener must not keep the others waiting for long
            is_free = under_way.acquire(timeout=PATIENCE)
            tasks.append(task := gevent.spawn(move, session))
            if is_free:
                task.rawlink(lambda _: under_way.release())
        gevent.joinall(tasks)
    return reasons | {session.id: OUT_OF_TIME for session in left}
