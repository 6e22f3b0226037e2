"""The move of a session from one transport to another: probe, answer, switch, and every way in which that can fail.

Owns the candidate connection until it has won. The session stays on its old transport, as if nothing were going on,
until the client says ``upgrade``; the switch itself is one step in the hub in which nobody else runs.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from engineio_wsgi.deadline import DeadlineTimer
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.connection import RECV_SIZE
from engineio_wsgi.transports.base import CloseReason, Entry, Transport
from engineio_wsgi.transports.websocket import WebSocketTransport

__all__ = ["CandidateSink", "Upgrade", "UpgradeState", "Upgrading"]

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


class Upgrading(Protocol):
    """What an upgrade needs of its session."""

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

    def notify(self, event: str, *args: object) -> None:
        """Have the listeners of an event called, in their turn."""
        ...

    def submit_turn(self) -> None:
        """Have what is queued dispatched soon, in a greenlet of the pool."""
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

    def __init__(self, session: Upgrading, candidate: WebSocketTransport, loop: Any, timeout: float,
                 on_ended: Callable[[bool], object] | None = None) -> None:
        self._session = session
        self._on_ended = on_ended
        self._candidate = candidate
        self._loop = loop
        self.state = UpgradeState.PROBING
        self._noop_timer: Any = None
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

    def _on_frames(self, items: list[Any]) -> None:
        for index, item in enumerate(items):
            if type(item) is str or type(item) is bytes:
                self._on_packet(self._candidate.decode(item), items[index + 1:])
            else:
                self._candidate.take([item])
            if not self._under_way:
                return

    def _on_packet(self, packet: Packet | None, rest: list[Any]) -> None:
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
        self._noop_timer = self._loop.timer(NOOP_PERIOD, NOOP_PERIOD)
        self._noop_timer.start(self._nudge)
        self._session.notify("upgrading", self._candidate)
        self._nudge()

    def _nudge(self) -> None:
        self._session.transport.nudge()

    def _switch(self, rest: list[Any]) -> None:
        session = self._session
        self._stop(UpgradeState.SWITCHED)
        session.switch_transport(self._candidate)
        self._candidate.take(rest)
        session.notify("upgrade", self._candidate)
        session.submit_turn()

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


class NoOutbox:
    """The write buffer of a candidate: it has nothing to write but the answer to the probe."""

    __slots__ = ()

    watched = False

    @property
    def entries(self) -> list[Entry]:
        """None."""
        return []

    def take(self) -> list[Entry]:
        """None."""
        return []

    def put_back(self, entries: list[Entry]) -> None:
        """Never called: nothing was taken."""


class CandidateSink:
    """What a candidate reports to: its end is that of the attempt, and the session goes on.

    A candidate has no messages and no packets of a session's: the upgrade reads them itself, and those behind its ``upgrade``
    packet are delivered when the session has moved.
    """

    __slots__ = ("_upgrade", "id", "remote_address")

    outbox = NoOutbox()
    closed = False
    closing = False
    close_reason: str | None = None
    reading_paused = False
    receiver: Any = None

    def __init__(self, upgrade: Upgrade, sid: str, remote_address: str | None) -> None:
        self._upgrade = upgrade
        self.id = sid
        self.remote_address = remote_address

    def end(self, reason: str, description: object = None) -> None:
        """The candidate failed."""
        self._upgrade.abandon(f"{reason}: {description}")

    def take_receiver(self) -> Any:
        """Nobody waits for a message of a candidate's."""

    def wait_for_room(self) -> None:
        """There is room."""

    def hear(self) -> None:
        """The session's own transport is what says whether its client is alive."""

    def deliver(self, data: str | bytes) -> None:
        """Never called."""

    def enqueue(self, messages: Sequence[str | bytes]) -> None:
        """Never called with messages."""

    def run_turn(self) -> None:
        """Nothing of the session's has to run because of a candidate."""

    def submit_turn(self) -> None:
        """Nothing of the session's has to run because of a candidate."""

    def on_packet(self, packet: Packet) -> None:
        """Never called."""

    def on_written(self, entries: Sequence[Entry]) -> None:
        """Never called."""

    def on_stalled(self, under_way: list[Entry] | None = None) -> None:
        """Never called."""
