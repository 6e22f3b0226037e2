"""The upgrade of a session from one transport to another: probe, answer, switch, and every way in which it can fail.

Owns the candidate connection until the switch. The session uses its old transport until the client sends ``upgrade``. No other
greenlet runs during the switch.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import Protocol

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.websocket.items import Item
from engineio_wsgi.runtime.connection import RECV_SIZE
from engineio_wsgi.runtime.deadline import DeadlineTimer
from engineio_wsgi.runtime.loop import Loop, Timer
from engineio_wsgi.session.write_buffer import WriteBuffer
from engineio_wsgi.transports.base import Candidate, CloseReason, Inbox, Sink, Transport

__all__ = ["CandidateSink", "Upgrade", "UpgradeState", "UpgradingSession"]

logger = logging.getLogger("engine.socket")

#: seconds between two noops to a client that is to stop polling; the reference server's value
NOOP_PERIOD = 0.1


class UpgradeState(enum.Enum):
    """The states of an upgrade."""

    PROBING = "probing"
    PONGED = "ponged"
    SWITCHED = "switched"
    ABANDONED = "abandoned"


#: the legal moves, by state and packet; any other packet abandons the upgrade
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
        """The transport in use."""
        ...

    @property
    def remote_address(self) -> str | None:
        """The client's address."""
        ...

    def switch_transport(self, transport: Transport) -> None:
        """Use this transport for everything unsent and everything newer."""
        ...

    def upgrade_abandoned(self) -> None:
        """The upgrade failed: the session keeps its transport."""
        ...


class Upgrade:
    """One attempt to upgrade a session. Abandoned after ``timeout`` seconds, if the candidate fails, or if the session ends.

    ``on_ended`` is called once, with whether the upgrade succeeded.
    """

    __slots__ = ("_candidate", "_loop", "_noop_timer", "_on_ended", "_session", "_timer", "state")

    def __init__(self, session: UpgradingSession, candidate: Candidate, loop: Loop, timeout: float,
                 on_ended: Callable[[bool], object] | None = None) -> None:
        self._session = session
        self._on_ended = on_ended
        self._candidate = candidate
        self._loop = loop
        self.state = UpgradeState.PROBING
        self._noop_timer: Timer | None = None
        self._timer = DeadlineTimer(loop, timeout, self.abandon, f"not finished within {timeout:g} s")
        # until the switch, the candidate reports to the attempt and not to the session
        candidate.bind(CandidateSink(self, session.id, session.remote_address))

    def start(self) -> None:
        """Start to read from the candidate."""
        self._candidate.wire.watch(self._on_readable)

    def catch_up(self) -> None:
        """Read what the candidate has received. Never blocks.

        For a request on another connection: the event loop may read it before packets that were sent earlier.
        """
        while self._is_under_way and self._on_readable():
            pass

    @property
    def _is_under_way(self) -> bool:
        return self.state is UpgradeState.PROBING or self.state is UpgradeState.PONGED

    def _on_readable(self) -> bool:
        """Read once. Returns whether anything was received."""
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
            if not self._is_under_way:
                return

    def _on_packet(self, packet: Packet | None, rest: list[Item]) -> None:
        state = None if packet is None else MOVES.get((self.state, packet.type, packet.data))
        if state is UpgradeState.PONGED:
            self._on_probe()
        elif state is UpgradeState.SWITCHED:
            self._switch(rest)
        else:
            self.abandon(f"{packet or 'a frame that is no packet'} while {self.state.value}")

    def _on_probe(self) -> None:
        self.state = UpgradeState.PONGED
        self._candidate.send_now(Packet(PacketType.PONG, "probe"))
        if self.state is not UpgradeState.PONGED:
            return  # writing to the candidate failed
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
        """Close the candidate; the session keeps its transport."""
        if not self._is_under_way:
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
    """What a candidate reports to: if the candidate fails, the upgrade is abandoned and the session goes on.

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
