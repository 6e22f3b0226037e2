"""A session: its state, its packets, its upgrade and its end.

`state` says which moves are legal, `dispatcher` runs the listeners, and applications have a `socket.Socket`, its facade. For the
hub's thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event
from gevent.hub import Hub

from engineio_wsgi.errors import SocketClosed
from engineio_wsgi.log import shorten
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.deadline import DeadlineTimer
from engineio_wsgi.runtime.loop import TimedLoop
from engineio_wsgi.runtime.threads import wait_in_thread
from engineio_wsgi.session.delivery import OnSlow
from engineio_wsgi.session.expiry import Expiry
from engineio_wsgi.session.heartbeat import Heartbeat
from engineio_wsgi.session.movable import MovableSession
from engineio_wsgi.session.ports import SessionRegistry
from engineio_wsgi.session.rate_limit import make_inbox
from engineio_wsgi.session.state import MOVES, Cause, SessionState
from engineio_wsgi.session.upgrade import Upgrade, UpgradeState
from engineio_wsgi.session.write_buffer import OVERHEAD, WriteBuffer
from engineio_wsgi.transports.base import (
    GOODBYE,
    Candidate,
    CloseReason,
    Entry,
    Prepared,
    TrackedPacket,
    Transport,
    as_packet,
    as_packets,
    size_of,
)

if TYPE_CHECKING:
    from engineio_wsgi.session.socket import Socket

__all__ = ["Session"]

logger = logging.getLogger("engine.socket")

#: seconds that the ``close`` listeners wait for a listener that is running; then they run beside it
CLOSE_GRACE = 1.0
#: seconds that a closing session waits until its client has received what is buffered; the reference server's value
CLOSE_TIMEOUT = 30.0

#: the close reason in a process that was forked from the one that has the session
FORKED = "it belongs to the process that this one was forked from"


class Session(MovableSession):
    """One client's session, over whichever transport.

    Args:
        registry: the sessions of the server.
        sid: its id.
        protocol: the revision, 1 to 4.
        remote_address: the client's address.
    """

    __slots__ = (
        "_close_reason", "_expiry", "_progress", "_timer", "_upgrade", "close_description", "creation_watched", "heartbeat", "id",
        "inbox", "loop", "outbox", "protocol", "registry", "remote_address", "state", "thread", "transport",
    )

    def __init__(self, registry: SessionRegistry, sid: str, protocol: int, remote_address: str | None = None) -> None:
        self.registry = registry
        self.id = sid
        self.protocol = protocol
        self.remote_address = remote_address
        #: the application's object for this session, until the session is over
        self.socket: Socket | None = None
        hub: Hub = gevent.get_hub()
        self.loop: TimedLoop = hub.loop
        #: the id of the hub's thread
        self.thread: int = hub.thread_ident
        self.state = SessionState.OPENING
        self.inbox = make_inbox(self)
        self.outbox = WriteBuffer(registry.options.max_buffered)
        self.stalled_since = 0.0
        #: whether there are listeners of ``packet_create``
        self.creation_watched = False
        if registry.observers.of_sends:
            self.outbox.announce(True)
        if self._has_buffer_listeners():
            self.outbox.watch()
        self._progress: Event | None = None
        self._expiry: Expiry | None = None
        self.heartbeat = Heartbeat(self, registry.heartbeat_timer, registry.options.ping_interval, registry.options.ping_timeout)
        self._upgrade: Upgrade | None = None
        #: why the session is closing or closed; ``None`` before that
        self._close_reason: str | None = None
        self.close_description: object = None
        self._timer: DeadlineTimer | None = None
        self.spawned: set[gevent.Greenlet] | None = None

    # -- state

    def _move(self, cause: Cause) -> bool:
        """Change the state as the table says. Returns ``False``, and changes nothing, if the move is not legal."""
        state = MOVES.get((self.state, cause))
        if state is None:
            return False
        self.state = state
        return True

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        return self.state.closed

    @property
    def closing(self) -> bool:
        """Whether the session ends as soon as its client has received what is buffered."""
        return self.state.closing

    @property
    def close_reason(self) -> str | None:
        """Why the session ended; ``None`` if it has not."""
        return self._close_reason if self.state.closed else None

    def present_as(self, socket: Socket) -> None:
        """Set the application's object for this session."""
        self.socket = socket

    def let_listeners_overlap(self) -> None:
        """Let a listener release its turn before it returns: see `OverlappingDispatcher`. Before the session is opened only."""
        self.inbox = make_inbox(self, overlaps=True)

    def open(self, transport: Transport, first: Sequence[Packet]) -> None:
        """Open the session over ``transport``; ``first`` are the packets that it begins with."""
        if not self._move(Cause.OPEN):
            raise RuntimeError(f"a session that is {self.state.value} cannot be opened")
        self._use(transport)
        self.outbox.begin_with(first)
        self.heartbeat.start()

    def _use(self, transport: Transport) -> None:
        self.transport = transport
        transport.bind(self)
        self.outbox.connect(transport)
        self.inbox.connect(transport)

    def on_listeners_changed(self, event: str, present: bool) -> None:
        """Listeners of ``event``, which is not about messages, were added or removed."""
        if event == "packet_create":
            self.creation_watched = present
            self.outbox.announce(present or bool(self.registry.observers.of_sends))
        elif event in ("flush", "drain") and present:
            self.outbox.watch()

    def on_inbox_emptied(self) -> None:
        """The transport was paused, and may read again."""
        self._tell_progress()
        if self.state.is_open:
            self.transport.resume()

    # -- writing

    def send_packet(self, packet: Packet) -> None:
        """Queue a packet of the engine. Never blocks: if the write buffer is full, the session ends, except for a ping."""
        if not self.state.is_open:
            return
        if self.outbox.size >= self.outbox.limit and packet.type is not PacketType.PING:
            self.end(CloseReason.CLIENT_TOO_SLOW, "the write buffer was full when a packet was answered")
            return
        self.append(packet, size_of(packet.data) + OVERHEAD)

    def send_prepared(self, message: Prepared, on_slow: OnSlow = OnSlow.CLOSE) -> None:
        """Queue a message of a broadcast. Never blocks: ``on_slow`` says what to do if the write buffer is full."""
        if not self.state.is_open:
            return
        outbox = self.outbox
        if message.key is not None:
            outbox.withdraw(message.key)
        elif outbox.size >= outbox.limit:
            if on_slow is OnSlow.CLOSE:
                self.end(CloseReason.CLIENT_TOO_SLOW, "the write buffer was full when a message was broadcast")
            return
        self.append(message, message.size)

    # -- groups

    def join(self, group: str) -> None:
        """Add the session to a group.

        Raises:
            SocketClosed: the session is closing or closed.
        """
        groups = self.registry.groups
        groups.join(self, group)
        # after joining, because another thread may end the session meanwhile
        if not self.state.is_open:
            groups.leave(self, group)
            raise SocketClosed(reason=self.close_reason, sid=self.id)

    def send_ping(self) -> None:
        """Send a ping."""
        if self.outbox.watched or not self.transport.ping():
            self.send_packet(Packet(PacketType.PING))

    def append(self, entry: Entry, size: int) -> None:
        """Queue ``entry``, whose payload has ``size`` bytes, behind all others."""
        if isinstance(entry, (TrackedPacket, Prepared)) and entry.callback is not None:
            self.outbox.watch()
        self.outbox.put(entry, size)

    def append_from_thread(self, entry: Entry, size: int) -> bool:
        """As :meth:`append`, for callers in other threads: soon. Returns ``False`` if the session has ended or moved before."""
        taken: list[bool] = []
        self.loop.run_callback_threadsafe(self._append_if_open, entry, size, taken)
        # a session that is about to move waits for what was sent before it was held, and not for anything later
        while self.heartbeat.held and not (taken or self.state.over):
            wait_in_thread()
        return taken[0] if taken else not (self.heartbeat.held or self.state.over)

    def _append_if_open(self, entry: Entry, size: int, taken: list[bool]) -> None:
        taken.append(self.state.is_open)
        if self.state.is_open:
            self.append(self.announce(entry) if self.creation_watched else entry, size)

    def announce(self, entry: Entry) -> Entry:
        """Call the ``packet_create`` listeners, which may change the packet before it is queued."""
        if isinstance(entry, Prepared):
            return self.announce_bundle(entry)
        packet = as_packet(entry)
        self.inbox.emit("packet_create", packet)
        return packet

    def announce_bundle(self, entry: Prepared) -> Prepared:
        """As :meth:`announce`, for each message of a bundle. If one was changed, the bundle is encoded for this session alone."""
        packets = as_packets([entry])
        for packet in packets:
            self.inbox.emit("packet_create", packet)
        messages, compress = tuple(packet.data for packet in packets), all(packet.compress for packet in packets)
        if (messages, compress) == (entry.messages, entry.compress):
            return entry
        return Prepared(messages, compress).variant(callback=entry.callback)

    def on_written(self, entries: Sequence[Entry]) -> None:
        """``entries`` were written."""
        self.stalled_since = 0.0
        outbox = self.outbox
        outbox.recount()
        if outbox.watched:
            self._tell_written(entries)
        if self._progress is not None:
            self._tell_progress()
        if self._close_reason is not None and not outbox.entries:
            self.end(self._close_reason)

    def _tell_written(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if isinstance(entry, (TrackedPacket, Prepared)) and entry.callback is not None:
                self.inbox.queue_call(entry.callback)
        packets = as_packets(entries)
        self.inbox.notify("flush", packets)
        for listener in self.registry.listeners_of("flush"):
            self.inbox.queue_call(listener, self.socket, packets)
        if not self.outbox.entries:
            self.inbox.notify("drain")
            for listener in self.registry.listeners_of("drain"):
                self.inbox.queue_call(listener, self.socket)
            # an entry under way may have a callback; those who wait for progress watch again before they go on waiting
            if not self.stalled_since and not self._has_buffer_listeners():
                self.outbox.unwatch()

    def _has_buffer_listeners(self) -> bool:
        return any(self.inbox.has(event) or self.registry.listeners_of(event) for event in ("flush", "drain"))

    def on_stalled(self, under_way: list[Entry] | None = None) -> None:
        """Entries cannot be written now. ``under_way`` were taken out, and the kernel has not accepted all of their bytes."""
        if under_way:
            self.outbox.recount(under_way)
        if not self.stalled_since:
            self.stalled_since = monotonic()

    def wait_progress(self, timeout: float | None) -> None:
        """Block until something was written or read, the session has ended, or ``timeout`` seconds have passed."""
        self.outbox.watch()
        if self._progress is None:
            self._progress = Event()
        self._progress.clear()
        self._progress.wait(timeout)

    def wait_for_room(self) -> None:
        """Block until the inbox has room again, or the session has ended."""
        while self.inbox.reading_paused and not self.closed:
            self.wait_progress(None)

    def _tell_progress(self) -> None:
        if self._progress is not None:
            self._progress.set()

    def wake_waiting(self) -> None:
        """Let those who wait for progress look again."""
        self._tell_progress()

    def prepare_to_move(self) -> None:
        """Abandon an upgrade whose client has got no answer to its probe yet; one that has it stops polling, and must go on."""
        if self._upgrade is not None and self._upgrade.state is UpgradeState.PROBING:
            self._upgrade.abandon("the session moves to another worker")

    # -- packets and transports

    def on_packet(self, packet: Packet) -> None:
        """A packet that is not a message was received."""
        if not ((self.state.is_open or self.state.closing) and self.inbox.count_control(1)):
            return
        self.inbox.notify("packet", packet)
        handle = _ON_PACKET.get(packet.type)
        if handle is not None:
            handle(self, packet)

    def _on_ping(self, packet: Packet) -> None:
        """A ping was received: revisions 1 to 3."""
        if self.protocol >= 4:
            self._refuse_beat("ping")
            return
        self.heartbeat.on_beat()
        self.send_packet(Packet(PacketType.PONG, packet.data))
        self.inbox.notify("heartbeat")

    def _on_pong(self, packet: Packet) -> None:
        """The answer to a ping was received: revision 4."""
        if self.protocol < 4:
            self._refuse_beat("pong")
            return
        seconds = self.heartbeat.on_beat()
        if seconds and self.registry.observers.of_round_trips:
            self.registry.observers.on_round_trip(self, seconds)
        self.inbox.notify("heartbeat")

    def _refuse_beat(self, name: str) -> None:
        self.end(CloseReason.TRANSPORT_ERROR, f"a {name} from the client, which revision {self.protocol} does not allow")

    # -- the upgrade

    def start_upgrade(self, candidate: Candidate, on_started: Callable[[], Callable[[bool], object] | None]) -> bool:
        """Start an upgrade to ``candidate``. Returns ``False`` if the session cannot be upgraded now.

        Args:
            on_started: called when the upgrade starts. The function that it returns is called with whether the upgrade succeeded.
        """
        if not self._move(Cause.UPGRADE):
            return False
        self._upgrade = Upgrade(self, candidate, self.loop, self.registry.options.upgrade_timeout, on_started())
        self._upgrade.start()
        return True

    def upgrade_abandoned(self) -> None:
        """The upgrade failed: the session keeps its transport."""
        self._upgrade = None
        self._move(Cause.ABANDON)

    def switch_transport(self, transport: Transport) -> None:
        """Use ``transport`` for everything unsent and everything newer. No other greenlet runs during the switch."""
        if not self._move(Cause.SWITCH):
            return
        self._upgrade = None
        # what waited for the next GET says nothing about the new connection
        self.stalled_since = 0.0
        old = self.transport
        self._use(transport)
        old.discard()
        transport.open()
        if self.inbox.reading_paused:
            transport.pause()
        if self.outbox.entries:
            transport.wake()
        elif self._close_reason is not None:
            self.end(self._close_reason)

    def catch_up(self) -> None:
        """Read what an upgrade's candidate has received, because it was sent before the present request. Never blocks."""
        if self._upgrade is not None:
            self._upgrade.catch_up()

    # -- the end

    def expire_at(self, at: float | None) -> None:
        """Let the session expire at a time, in seconds since the epoch; ``None``: never."""
        if self._expiry is None:
            self._expiry = Expiry(self)
        if self.state.is_open or self.state is SessionState.OPENING:
            self._expiry.set(at)

    def _stop_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.stop()

    @property
    def expires_at(self) -> float | None:
        """That time."""
        return None if self._expiry is None else self._expiry.at

    def end_when_drained(self, reason: str, description: object = None) -> None:
        """End when the client has received what is buffered, or after ``CLOSE_TIMEOUT`` seconds."""
        if not self._move(Cause.CLOSE):
            return
        self._stop_messages(reason)
        self.close_description = description
        self.outbox.watch()
        self._tell_progress()
        if self.transport.wake_to_close():
            self._timer = DeadlineTimer(self.loop, CLOSE_TIMEOUT, self.end, reason)
        else:
            self.end(reason)

    def _stop_messages(self, reason: str) -> None:
        """Accept no more messages, from the application or from the client."""
        self._close_reason = reason
        self._stop_expiry()
        self.outbox.close()
        self.inbox.close()

    def end_from_thread(self, reason: str, discard: bool) -> None:
        """As :meth:`end` or :meth:`end_when_drained`, for callers in other threads: soon."""
        self.loop.run_callback_threadsafe(self.end if discard else self.end_when_drained, reason)

    def end(self, reason: str, description: object = None) -> None:
        """End the session now. What was not sent is in ``outbox`` until the ``close`` listeners have returned."""
        if not self._move(Cause.END):
            return
        self._stop_messages(reason)
        self.inbox.warn_of_strangers()
        if description is not None:
            self.close_description = description
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("= %s: %s (%s)", shorten(self.id), reason, self.close_description)
        self.heartbeat.stop()
        if self._timer is not None:
            self._timer.close()
        if self._upgrade is not None:
            self._upgrade.abandon("the session has ended")
        self.outbox.put_back(self.transport.unsent_entries())
        self.transport.close(reason)
        self.registry.forget(self)
        self._tell_progress()
        if self.inbox.busy:
            self._timer = DeadlineTimer(self.loop, CLOSE_GRACE, self.registry.greenlets.run, self.on_last_turn)
        else:
            self.inbox.submit_turn()

    def on_last_turn(self) -> None:
        """Call the ``close`` listeners, once, and then release everything, if the session has ended."""
        if not self._move(Cause.TELL):
            return
        if self._timer is not None:
            self._timer.close()
        self.inbox.call_each("close", str(self.close_reason), self.close_description)
        spawned, self.spawned = self.spawned, None
        if spawned:
            gevent.killall(list(spawned), block=False)
        # no references to the application's objects are left
        self.inbox.release()
        self.outbox.clear()
        self.socket = None
        self._move(Cause.RELEASE)

    def spawn(self, task: gevent.Greenlet) -> None:
        """Start ``task``, and kill it when the session ends.

        Raises:
            SocketClosed: the session has ended.
        """
        if self.closed:
            raise SocketClosed(reason=self.close_reason, sid=self.id)
        if self.spawned is None:
            self.spawned = set()
        self.spawned.add(task)
        task.rawlink(self.spawned.discard)
        task.start()

    def after_fork(self) -> None:
        """In a forked child: drop the parent's session. Calls no listeners and sends nothing."""
        for cause in (Cause.END, Cause.TELL, Cause.RELEASE):
            self._move(cause)
        self._stop_messages(FORKED)
        self.heartbeat.stop()
        if self._timer is not None:
            self._timer.close()
        if self._upgrade is not None:
            self._upgrade.abandon(FORKED)
        self.outbox.clear()
        self.inbox.clear()


_ON_PACKET: dict[PacketType, Callable[[Session, Packet], None]] = {
    PacketType.PING: Session._on_ping, PacketType.PONG: Session._on_pong,
    PacketType.CLOSE: lambda session, packet: session.end(CloseReason.TRANSPORT_CLOSE, GOODBYE),
}  # fmt: skip
