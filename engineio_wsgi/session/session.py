"""A session: its state, its inbox, and the turns in which its listeners run.

Owns everything of a session that must happen once and in order; `state` says which moves are legal. The application does not
see it: a `socket.Socket` has it. Everything here belongs to the hub's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event
from gevent.hub import Hub

from engineio_wsgi.clock import Loop, monotonic
from engineio_wsgi.deadline import DeadlineTimer
from engineio_wsgi.errors import SocketClosed
from engineio_wsgi.log import shorten
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.session.dispatcher import Dispatcher
from engineio_wsgi.session.heartbeat import Heartbeat
from engineio_wsgi.session.ports import SessionRegistry
from engineio_wsgi.session.state import MOVES, Cause, SessionState
from engineio_wsgi.session.upgrade import Upgrade
from engineio_wsgi.session.write_buffer import OVERHEAD, WriteBuffer
from engineio_wsgi.transports.base import CloseReason, Entry, Prepared, Sink, TrackedPacket, Transport, as_packet, size_of
from engineio_wsgi.transports.websocket import WebSocketTransport

if TYPE_CHECKING:
    from engineio_wsgi.session.socket import Socket

__all__ = ["Session"]

logger = logging.getLogger("engine.socket")

#: seconds for which the ``close`` listeners wait for a listener that is still running; then they run beside it
CLOSE_GRACE = 1.0
#: seconds that a closing session waits for its client to fetch what is left; the reference server's
CLOSE_TIMEOUT = 30.0

#: why a session is closed in a process that was forked from its own
FORKED = "it belongs to the process that this one was forked from"



class Session(Sink):
    """One client's session, whatever carries it at the moment.

    Args:
        registry: the registry that the session belongs to.
        sid: its id.
        protocol: the revision, 1 to 4.
        remote_address: the client's address.
    """

    __slots__ = (
        "_close_reason", "_progress", "_timer", "_upgrade", "close_description", "creation_watched", "heartbeat", "id", "inbox",
        "loop", "outbox", "protocol", "registry", "remote_address", "socket", "spawned", "stalled_since", "state", "thread",
        "transport",
    )

    transport: Transport
    inbox: Dispatcher
    outbox: WriteBuffer

    def __init__(self, registry: SessionRegistry, sid: str, protocol: int, remote_address: str | None = None) -> None:
        self.registry = registry
        self.id = sid
        self.protocol = protocol
        self.remote_address = remote_address
        #: what the application sees of it, until it is over
        self.socket: Socket | None = None
        hub: Hub = gevent.get_hub()
        self.loop: Loop = hub.loop
        #: the id of the hub's thread
        self.thread: int = hub.thread_ident
        self.state = SessionState.OPENING
        self.inbox = Dispatcher(self)
        self.outbox = WriteBuffer(registry.options.max_buffered)
        self.stalled_since = 0.0
        #: whether there are listeners of ``packet_create``
        self.creation_watched = False
        if registry.listeners_of("flush") or registry.listeners_of("drain"):
            self.outbox.watch()
        self._progress: Event | None = None
        options = registry.options
        self.heartbeat = Heartbeat(self, registry.heartbeat_timer, options.ping_interval, options.ping_timeout)
        self._upgrade: Upgrade | None = None
        #: why the session ends; ``None`` as long as it does not
        self._close_reason: str | None = None
        self.close_description: object = None
        self._timer: DeadlineTimer | None = None
        self.spawned: set[gevent.Greenlet] | None = None

    # -- its state

    def _move(self, cause: Cause) -> bool:
        """Make a move of the table; ``False`` if it is not legal, and then nothing changes."""
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
        """Whether the session ends as soon as its client has fetched what is left."""
        return self.state.closing

    @property
    def close_reason(self) -> str | None:
        """Why the session has ended; ``None`` if it has not."""
        return self._close_reason if self.state.closed else None

    def present_as(self, socket: Socket) -> None:
        """``socket`` is what the application sees of this session."""
        self.socket = socket

    def open(self, transport: Transport, first: Sequence[Packet]) -> None:
        """The handshake was admitted: the session uses ``transport``, and begins with the packets ``first``."""
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
        elif event in ("flush", "drain") and present:
            self.outbox.watch()

    def on_inbox_emptied(self) -> None:
        """The transport was paused, and may read again."""
        self._tell_progress()
        if self.state.is_open:
            self.transport.resume()

    # -- writing

    def send_packet(self, packet: Packet) -> None:
        """Queue a packet of the engine's own. It waits for nobody: where the write buffer is full, the session ends."""
        if not self.state.is_open:
            return
        if self.outbox.size >= self.outbox.limit and packet.type is not PacketType.PING:
            self.end(CloseReason.CLIENT_TOO_SLOW, "it makes the server answer, and does not take the answers")
            return
        self.append(packet, size_of(packet.data) + OVERHEAD)

    def send_prepared(self, message: Prepared) -> bool:
        """Queue one message of a broadcast, without waiting; ``False`` if the client was too slow and is dropped."""
        if not self.state.is_open:
            return True
        if self.outbox.size >= self.outbox.limit:
            self.end(CloseReason.CLIENT_TOO_SLOW, "its write buffer was full when a broadcast came")
            return False
        self.append(message, message.size)
        return True

    def send_ping(self) -> None:
        """Ask the client for a sign of life."""
        if self.outbox.watched or not self.transport.ping():
            self.send_packet(Packet(PacketType.PING))

    def append(self, entry: Entry, size: int) -> None:
        """Queue ``entry``, whose payload has ``size`` bytes, behind all others."""
        if type(entry) is TrackedPacket:
            self.outbox.watch()
        self.outbox.put(entry, size)

    def append_from_thread(self, entry: Entry, size: int) -> None:
        """The same, soon, for callers in other threads; nothing if the session ends before."""
        self.loop.run_callback_threadsafe(self._append_if_open, entry, size)

    def _append_if_open(self, entry: Entry, size: int) -> None:
        if self.state.is_open:
            self.append(self.announce(entry) if self.creation_watched else entry, size)

    def announce(self, entry: Entry) -> Entry:
        """Let the listeners of ``packet_create`` see, and change, what is about to be queued."""
        packet = as_packet(entry)
        self.inbox.emit("packet_create", packet)
        return packet

    def on_written(self, entries: Sequence[Entry]) -> None:
        """``entries`` have left."""
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
            if type(entry) is TrackedPacket:
                self.inbox.queue_call(entry.callback)
        packets = [as_packet(entry) for entry in entries]
        self.inbox.notify("flush", packets)
        for listener in self.registry.listeners_of("flush"):
            self.inbox.queue_call(listener, self.socket, packets)
        if not self.outbox.entries:
            self.inbox.notify("drain")
            for listener in self.registry.listeners_of("drain"):
                self.inbox.queue_call(listener, self.socket)

    def on_stalled(self, under_way: list[Entry] | None = None) -> None:
        """Something waits that the client does not take. ``under_way`` was taken out, and the kernel has not taken all of it."""
        if under_way:
            self.outbox.recount(under_way)
        if not self.stalled_since:
            self.stalled_since = monotonic()

    def wait_progress(self, timeout: float | None) -> None:
        """Block until something was written or read, the session ended, or ``timeout`` seconds passed."""
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

    # -- packets and transports

    def on_packet(self, packet: Packet) -> None:
        """A packet that is not a message."""
        if not (self.state.is_open or self.state.closing):
            return
        self.inbox.notify("packet", packet)
        handle = _ON_PACKET.get(packet.type)
        if handle is not None:
            handle(self, packet)

    def _on_beat(self, packet: Packet) -> None:
        """A ping of revisions 1 to 3, or what answers ours in 4."""
        if (packet.type is PacketType.PING) is (self.protocol >= 4):
            name = packet.type.name.lower()
            self.end(CloseReason.TRANSPORT_ERROR, f"a {name} from the client, which revision {self.protocol} does not have")
            return
        self.heartbeat.on_beat()
        if packet.type is PacketType.PING:
            self.send_packet(Packet(PacketType.PONG, packet.data))
        self.inbox.notify("heartbeat")

    def _on_close_packet(self, packet: Packet) -> None:
        self.end(CloseReason.TRANSPORT_CLOSE)

    # -- the upgrade

    def start_upgrade(self, candidate: WebSocketTransport, on_started: Callable[[], Callable[[bool], object] | None]) -> bool:
        """Try to move to ``candidate``; ``False`` if the session is not to move.

        Args:
            on_started: called when the attempt begins. What it returns is called with whether the session has moved.
        """
        if not self._move(Cause.UPGRADE):
            return False
        self._upgrade = Upgrade(self, candidate, self.loop, self.registry.options.upgrade_timeout, on_started())
        self._upgrade.start()
        return True

    def upgrade_abandoned(self) -> None:
        """The session stays where it is."""
        self._upgrade = None
        self._move(Cause.ABANDON)

    def switch_transport(self, transport: Transport) -> None:
        """Everything unsent and everything newer goes to ``transport`` from now on. One step, in the hub."""
        if not self._move(Cause.SWITCH):
            return
        self._upgrade = None
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
        """Read what a candidate for an upgrade has sent: it was sent before the request that comes now. Never blocks."""
        if self._upgrade is not None:
            self._upgrade.catch_up()

    # -- the end

    def end_when_drained(self, reason: str) -> None:
        """End as soon as the client has taken what is left, or some time later if it does not."""
        if not self._move(Cause.CLOSE):
            return
        self._stop_sending(reason)
        self.outbox.watch()
        self._tell_progress()
        if self.transport.wake_to_close():
            self._timer = DeadlineTimer(self.loop, CLOSE_TIMEOUT, self.end, reason)
        else:
            self.end(reason)

    def _stop_sending(self, reason: str) -> None:
        """Nobody may send from now on, and messages are not delivered past the queue."""
        self._close_reason = reason
        self.outbox.close()
        self.inbox.close()

    def end_from_thread(self, reason: str, discard: bool) -> None:
        """End the session, soon, for callers in other threads."""
        self.loop.run_callback_threadsafe(self.end if discard else self.end_when_drained, reason)

    def end(self, reason: str, description: object = None) -> None:
        """The session ends now, once. What it left is in ``outbox`` until the ``close`` listeners have run."""
        if not self._move(Cause.END):
            return
        self._stop_sending(reason)
        self.close_description = description
        logger.debug("= %s: %s (%s)", shorten(self.id), reason, description)
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
        """The last listener has returned: call the ``close`` listeners, once, and then drop everything."""
        if not self._move(Cause.TELL):
            return
        if self._timer is not None:
            self._timer.close()
        self.inbox.call_each("close", str(self.close_reason), self.close_description)
        spawned, self.spawned = self.spawned, None
        gevent.killall(list(spawned or ()), block=False)
        self._release()

    def spawn(self, task: gevent.Greenlet) -> None:
        """Start ``task``, and kill it when the session ends.

        Raises:
            SocketClosed: it has ended already.
        """
        if self.closed:
            raise SocketClosed(reason=self.close_reason)
        if self.spawned is None:
            self.spawned = set()
        self.spawned.add(task)
        task.rawlink(self.spawned.discard)
        task.start()

    def forsake(self) -> None:
        """In a forked child: the session is the parent's. Nobody is told, nothing is sent, and nothing of it runs any more."""
        for cause in (Cause.END, Cause.TELL, Cause.RELEASE):
            self._move(cause)
        self._stop_sending(FORKED)
        self.heartbeat.stop()
        if self._timer is not None:
            self._timer.close()
        if self._upgrade is not None:
            self._upgrade.abandon(FORKED)
        self.outbox.clear()
        self.inbox.clear()

    def _release(self) -> None:
        """Drop what refers to the application's objects, so that nothing of the session outlives its end."""
        self.inbox.release()
        self.outbox.clear()
        self.socket = None
        self._move(Cause.RELEASE)


_ON_PACKET: dict[PacketType, Callable[[Session, Packet], None]] = {
    PacketType.PING: Session._on_beat, PacketType.PONG: Session._on_beat, PacketType.CLOSE: Session._on_close_packet,
}  # fmt: skip
