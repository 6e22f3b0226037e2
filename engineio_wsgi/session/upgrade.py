"""The move of a session from one transport to another: probe, answer, switch, and every way in which that can fail.

Owns the candidate connection until it has won. The session stays on its old transport, as if nothing were going on,
until the client says ``upgrade``; the switch itself is one step in the hub in which nobody else runs.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import Protocol

from engineio_wsgi.clock import Loop, Timer
from engineio_wsgi.deadline import DeadlineTimer
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.websocket.items import Item
from engineio_wsgi.runtime.connection import RECV_SIZE
from engineio_wsgi.session.write_buffer import WriteBuffer
from engineio_wsgi.transports.base import CloseReason, Inbox, Sink, Transport
from engineio_wsgi.transports.websocket import WebSocketTransport

__all__ = ["CandidateSink", "Upgrade", "UpgradeState", "UpgradingSession"]

logger = logging.getLogger("engine.socket")

#: seconds between two noops to the polling client that is to stop polling; the reference server's
NOOP_PERIOD = 0.1


class UpgradeState(enum.Enum):
    """Where an upgrade is."""

    PROBING = "probing"
    PONGED = "ponged"
    SWITCHED = "switched"
    ABANDONED = "abandoned"


#: the moves that a client's packet makes; whatever is not here ends the attempt
MOVES: dict[tuple[UpgradeState, PacketType, str | bytes], UpgradeState] = {
    (UpgradeState.PROBING, PacketType.PING, "probe"): UpgradeState.PONGED,
    (UpgradeState.PONGED, PacketType.UPGRADE, ""): UpgradeState.SWITCHED,
}


class UpgradingInbox(Protocol):
    """What an upgrade needs of its session's inbox."""

    def notify(self, event: str, *args: object) -> None:
        """Queue a call of each listener of ``event``."""
        ...

    def submit_turn(self) -> None:
        """Run what is queued soon, in a greenlet of the pool."""
        ...


class UpgradingSession(Protocol):
    """What an upgrade needs of its session."""

    @property
    def inbox(self) -> UpgradingInbox:
        """Where received packets go."""
        ...

    @property
    def id(self) -> str:
        """The session id."""
        ...

    @property
    def transport(self) -> Transport:
        """What the session uses so far."""
        ...

    @property
    def remote_address(self) -> str | None:
        """The client's address."""
        ...

    def switch_transport(self, transport: Transport) -> None:
        """Everything unsent and everything newer goes to this transport."""
        ...

    def upgrade_abandoned(self) -> None:
        """The session stays where it is."""
        ...


class Upgrade:
    """One attempt. Abandoned after ``timeout`` seconds, when the candidate fails, or when the session ends.

    ``on_ended`` is called once, with whether the session has moved.
    """

    __slots__ = ("_candidate", "_loop", "_noop_timer", "_on_ended", "_session", "_timer", "state")

    def __init__(self, session: UpgradingSession, candidate: WebSocketTransport, loop: Loop, timeout: float,
                 on_ended: Callable[[bool], object] | None = None) -> None:
        self._session = session
        self._on_ended = on_ended
        self._candidate = candidate
        self._loop = loop
        self.state = UpgradeState.PROBING
        self._noop_timer: Timer | None = None
        self._timer = DeadlineTimer(loop, timeout, self.abandon, f"not finished within {timeout:g} s")
        # until it has won, what happens to the candidate happens to the attempt, not to the session
        candidate.bind(CandidateSink(self, session.id, session.remote_address))

    def start(self) -> None:
        """Listen to the candidate."""
        self._candidate.wire.watch(self._on_readable)

    def catch_up(self) -> None:
        """Read what has arrived at the candidate. Never blocks.

        For a request that comes on another connection: the event loop may hear of it before the packets that were sent before it.
        """
        while self._under_way and self._on_readable():
            pass

    @property
    def _under_way(self) -> bool:
        return self.state is UpgradeState.PROBING or self.state is UpgradeState.PONGED

    def _on_readable(self) -> bool:
        """Read once. Returns whether there was something."""
        wire = self._candidate.wire
        try:
            data = wire.recv(RECV_SIZE)
        except BlockingIOError:
            return False
        except OSError as error:
            self.abandon(str(error))
            return False
        if not data:
            self.abandon("the candidate was closed")
            return False
        if self._candidate.meter is not None:
            self._candidate.meter.on_bytes_in(len(data))
        self._on_frames(self._candidate.feed(data))
        return True

    def _on_frames(self, items: list[Item]) -> None:
        for index, item in enumerate(items):
            if type(item) is str or type(item) is bytes:
                self._on_packet(self._candidate.decode(item), items[index + 1:])
            else:
                self._candidate.take([item])
            if not self._under_way:
                return

    def _on_packet(self, packet: Packet | None, rest: list[Item]) -> None:
        state = None if packet is None else MOVES.get((self.state, packet.type, packet.data))
        if state is UpgradeState.PONGED:
            self._on_probe()
        elif state is UpgradeState.SWITCHED:
            self._switch(rest)
        else:
            self.abandon(f"{packet or 'something that is no packet'} while {self.state.value}")

    def _on_probe(self) -> None:
        self.state = UpgradeState.PONGED
        self._candidate.send_now(Packet(PacketType.PONG, "probe"))
        if self.state is not UpgradeState.PONGED:
            return  # the candidate was lost while it was written to
        self._noop_timer = timer = self._loop.timer(NOOP_PERIOD, NOOP_PERIOD)
        timer.start(self._nudge)
        self._session.inbox.notify("upgrading", self._candidate)
        self._nudge()

    def _nudge(self) -> None:
        self._session.transport.nudge()

    def _switch(self, rest: list[Item]) -> None:
        session = self._session
        self._stop(UpgradeState.SWITCHED)
        session.switch_transport(self._candidate)
        self._candidate.take(rest)
        session.inbox.notify("upgrade", self._candidate)
        session.inbox.submit_turn()

    def abandon(self, why: str = "") -> None:
        """Give up the candidate; the session goes on as it was."""
        if not self._under_way:
            return
        self._stop(UpgradeState.ABANDONED)
        self._session.upgrade_abandoned()
        logger.debug("= upgrade abandoned: %s", why)
        self._candidate.close(CloseReason.TRANSPORT_CLOSE)

    def _stop(self, state: UpgradeState) -> None:
        self.state = state
        self._timer.close()
        if self._noop_timer is not None:
            self._noop_timer.close()
        if self._on_ended is not None:
            self._on_ended(state is UpgradeState.SWITCHED)


class CandidateSink(Sink):
    """What a candidate reports to: its end is that of the attempt, and the session goes on.

    Everything else is ignored. The upgrade reads the candidate's packets itself; those behind its ``upgrade`` packet are
    delivered when the session has moved.
    """

    __slots__ = ("_upgrade", "id", "inbox", "outbox", "remote_address")

    def __init__(self, upgrade: Upgrade, sid: str, remote_address: str | None) -> None:
        self._upgrade = upgrade
        self.id = sid
        self.remote_address = remote_address
        self.inbox = Inbox()
        self.outbox = WriteBuffer(0)

    def end(self, reason: str, description: object = None) -> None:
        """The candidate failed."""
        self._upgrade.abandon(f"{reason}: {description}")
