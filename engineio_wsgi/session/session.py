"""A session: its state, its inbox, and the turns in which its listeners run.

Owns everything of a session that must happen once and in order; `state` says which moves are legal. The application does not
see it: a `socket.Socket` has it. Everything here belongs to the hub's thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gevent
from gevent.event import Event
from gevent.hub import Waiter

from engineio_wsgi.clock import monotonic
from engineio_wsgi.deadline import DeadlineTimer
from engineio_wsgi.errors import SocketClosed, UsageError
from engineio_wsgi.log import shorten
from engineio_wsgi.options.options import Options
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.greenlet_pool import Workers
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.session.events import Emitter, Listener
from engineio_wsgi.session.heartbeat import Heartbeat, HeartbeatTimer
from engineio_wsgi.session.state import MOVES, Cause, SessionState
from engineio_wsgi.session.upgrade import Upgrade
from engineio_wsgi.session.write_buffer import OVERHEAD, WriteBuffer
from engineio_wsgi.transports.base import CloseReason, Entry, Prepared, TrackedPacket, Transport, as_packet, size_of
from engineio_wsgi.transports.websocket import WebSocketTransport

__all__ = ["Host", "Session"]

logger = logging.getLogger("engine.socket")

#: seconds for which the ``close`` listeners wait for a listener that is still running; then they run beside it
CLOSE_GRACE = 1.0
#: seconds that a closing session waits for its client to fetch what is left; the reference server's
CLOSE_TIMEOUT = 30.0

#: exceptions raised by a listener that are logged and not propagated; gevent's timeouts are not an ``Exception``
LISTENER_ERRORS = (Exception, gevent.Timeout)

#: why a session is closed in a process that was forked from its own
FORKED = "it belongs to the process that this one was forked from"

_NO_MESSAGES: deque[str | bytes] = deque(maxlen=0)
_NO_EVENTS: deque[tuple[Listener, tuple[Any, ...]]] = deque(maxlen=0)


class Host(Protocol):
    """What a session needs of its server."""

    options: Options
    workers: Workers
    heartbeat_timer: HeartbeatTimer
    #: what `Socket.server` returns
    server: Any

    def forget(self, session: Any) -> None:
        """The session has ended."""
        ...

    def listeners_of(self, event: str) -> tuple[Listener, ...]:
        """The server's own listeners of an event."""
        ...


class Session(Emitter):
    """One client's session, whatever carries it at the moment.

    Args:
        host: the registry that the session belongs to.
        sid: its id.
        protocol: the revision, 1 to 4.
        remote_address: the client's address.
    """

    __slots__ = (
        "_close_reason", "_hub", "_loop", "_progress", "_timer", "_upgrade", "busy", "busy_with", "close_description",
        "creation_watched", "direct_listeners", "events", "heard", "heartbeat", "host", "id", "inbox", "inbox_size",
        "message_listeners", "outbox", "packet_watched", "protocol", "reading_paused", "receiver", "remote_address", "socket",
        "spawned", "stalled_since", "state", "thread", "transport", "turn_began",
    )

    transport: Transport

    def __init__(self, host: Host, sid: str, protocol: int, remote_address: str | None = None) -> None:
        super().__init__()
        self.host = host
        self.id = sid
        self.protocol = protocol
        self.remote_address = remote_address
        #: what the application sees of it, until it is over
        self.socket: Any = None
        self._hub: Any = gevent.get_hub()
        self._loop = self._hub.loop
        #: the id of the hub's thread
        self.thread: int = self._hub.thread_ident
        self.state = SessionState.OPENING
        self.message_listeners: tuple[Listener, ...] = ()
        #: those to which a message may go without being queued, if nothing else is
        self.direct_listeners: tuple[Listener, ...] = ()
        # messages that wait, and calls of other listeners; a deque is 0.7 KB, so idle sessions share an empty one
        self.inbox = _NO_MESSAGES
        self.inbox_size = 0
        self.events = _NO_EVENTS
        self.busy = False
        self.busy_with: Any = None
        self.receiver: Any = None
        self.reading_paused = False
        self.outbox = WriteBuffer(host.options.max_buffered)
        self.stalled_since = 0.0
        #: whether there are listeners of ``packet_create``
        self.creation_watched = False
        #: whether there are listeners of ``packet``, who have to be told of messages, too
        self.packet_watched = False
        if host.listeners_of("flush") or host.listeners_of("drain"):
            self.outbox.watch()
        self._progress: Event | None = None
        self.heard = 0.0
        #: when the listeners that run now were called, or came back from `receive`; only where turns are timed
        self.turn_began = 0.0
        options = host.options
        self.heartbeat = Heartbeat(self, host.heartbeat_timer, options.ping_interval, options.ping_timeout)
        self._upgrade: Upgrade | None = None
        #: why the session ends; ``None`` as long as it does not
        self._close_reason: str | None = None
        self.close_description: object = None
        self._timer: Any = None
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

    def present_as(self, socket: object) -> None:
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

    def hear(self) -> None:
        """The client is alive: something was received from it."""
        self.heard = monotonic()

    def _set(self, event: str, listeners: tuple[Listener, ...]) -> None:
        super()._set(event, listeners)
        if event in ("message", "data", "packet"):
            self.packet_watched = "packet" in self._listeners
            self.message_listeners = (*self._listeners.get("message", ()), *self._listeners.get("data", ()))
            self.direct_listeners = () if self.packet_watched or self._close_reason is not None else self.message_listeners
            if self.inbox and not self.busy:
                self.submit_turn()
        elif event == "packet_create":
            self.creation_watched = bool(listeners)
        elif event in ("flush", "drain") and listeners:
            self.outbox.watch()

    # -- turns: the listeners run one after the other

    def deliver(self, data: str | bytes) -> None:
        """One message, from the worker greenlet that read it. Calls the listeners unless others are running."""
        self.heard = monotonic()
        listeners = self.direct_listeners
        if self.busy or self.inbox or not listeners:
            self.enqueue((data,))
            self.run_turn()
            return
        self.busy = True
        try:
            if self.transport.meter is None:
                for listener in listeners:
                    listener(data)
            else:
                self.transport.meter.deliver(listeners, data, self.heard)
        except LISTENER_ERRORS as error:
            self._listener_failed("message", error)
        finally:
            self.busy = False
        if self.inbox or self.events or self._close_reason is not None:
            self.run_turn()

    def enqueue(self, messages: Sequence[str | bytes]) -> None:
        """Messages for later, in this order. Reading stops when too many bytes wait."""
        if not messages or self._close_reason is not None:
            return
        if self.transport.meter is not None:
            self.transport.meter.on_messages_in(len(messages))
        if not self.inbox:
            self.inbox = deque()
        self.inbox.extend(messages)
        if self.packet_watched:
            for data in messages:
                self.notify("packet", Packet(PacketType.MESSAGE, data))
        if self.busy or not self.message_listeners:
            self._count_in(sum(map(size_of, messages)) + OVERHEAD * len(messages))
        self._wake_receiver()

    def _count_in(self, size: int) -> None:
        # counted up only, and reset when the inbox has run empty: nothing is counted twice on the way out
        self.inbox_size += size
        if self.inbox_size > self.host.options.max_inbox and not self.reading_paused:
            self.reading_paused = True
            self.transport.pause()

    def _wake_receiver(self) -> None:
        if self.receiver is not None:
            self._loop.run_callback(self.take_receiver().switch, False)

    def take_receiver(self) -> Any:
        """The `Waiter` of the greenlet that waits for a message; the caller has to switch to it."""
        receiver, self.receiver = self.receiver, None
        return receiver

    def next_message(self) -> str | bytes:
        """Take the message out that has waited longest."""
        data = self.inbox.popleft()
        if not self.inbox:
            self.inbox_emptied()
        return data

    def wait_for_message(self, timeout: float | None) -> None:
        """Block until there may be a message to take out, or something else to do, or ``timeout`` seconds have passed.

        Raises:
            UsageError: another greenlet is receiving already.
        """
        if self.receiver is not None:
            raise UsageError("another greenlet is receiving from this session already")
        self.receiver = waiter = Waiter()
        timer = None
        if timeout is not None:
            timer = self._loop.timer(timeout)
            timer.start(waiter.switch, False)
        try:
            readable = self._pause_turn(waiter)
        finally:
            if self.receiver is waiter:
                self.receiver = None
            if timer is not None:
                timer.close()
        if readable:
            # this greenlet was woken instead of a worker, and reads for itself
            self.transport.read()

    def _pause_turn(self, waiter: Any) -> Any:
        """Wait. Where turns are timed, this is none of the listener's time."""
        meter = self.transport.meter if self.busy_with is gevent.getcurrent() else None
        if meter is None:
            return waiter.get()
        meter.on_turn(self.turn_began)
        try:
            return waiter.get()
        finally:
            self.turn_began = monotonic()

    def inbox_emptied(self) -> None:
        """Whoever took the last message out calls this; the transport may go on reading."""
        self.inbox = _NO_MESSAGES
        self.inbox_size = 0
        if self.reading_paused:
            self.reading_paused = False
            self._tell_progress()
            if self.state.is_open:
                self.transport.resume()

    def notify(self, event: str, *args: object) -> None:
        """Have the listeners of ``event``, if there are any, called in their turn."""
        for listener in self._listeners.get(event, ()):
            self.queue_call(listener, *args)

    def queue_call(self, listener: Listener, *args: Any) -> None:
        """Have ``listener(*args)`` called in its turn."""
        if not self.events:
            self.events = deque()
        self.events.append((listener, args))
        if not self.busy:
            self.submit_turn()
        else:
            # a client could cause calls without end while a listener is busy
            self._count_in(OVERHEAD)
            self._wake_receiver()

    def submit_turn(self) -> None:
        """Have what is queued dispatched soon, in a worker greenlet."""
        self.host.workers.submit(self.run_turn)

    def run_turn(self) -> None:
        """Dispatch what is queued, in this greenlet, until nothing is left."""
        if self.busy:
            return
        self.busy = True
        self.busy_with = gevent.getcurrent()
        try:
            if self.transport.meter is None:
                self._run_queued()
            else:
                self._run_timed(self.transport.meter)
        finally:
            self.busy = False
            self.busy_with = None
        if self.state.closed:
            self._emit_close()

    def _run_timed(self, meter: Meter) -> None:
        """The same, for somebody who wants to know how long the listeners take."""
        self.turn_began = monotonic()
        has_work = bool(self.events or (self.inbox and self.message_listeners))
        self._run_queued()
        if has_work:
            meter.on_turn(self.turn_began)

    def _run_queued(self) -> None:
        while True:
            if self.events:
                self.run_event()
            elif self.inbox and self.message_listeners and not self.state.told:
                self._run_messages(self.inbox)
            else:
                break
        if self.inbox_size and not self.inbox:
            self.inbox_emptied()

    def run_event(self) -> None:
        """Call the listener that has waited longest."""
        listener, args = self.events.popleft()
        try:
            listener(*args)
        except LISTENER_ERRORS as error:
            self._listener_failed(getattr(listener, "__name__", "listener"), error)

    def _run_messages(self, inbox: deque[str | bytes]) -> None:
        """Dispatch messages until none is left or another listener has to be called first."""
        try:
            while inbox and not self.events:
                data = inbox.popleft()
                for listener in self.message_listeners:
                    listener(data)
        except LISTENER_ERRORS as error:
            self._listener_failed("message", error)
        if not self.inbox:
            self.inbox_emptied()

    def _call_each(self, event: str, *args: object) -> None:
        """Call the listeners of ``event`` now, each whatever became of the others."""
        for listener in self._listeners.get(event, ()):
            try:
                listener(*args)
            except LISTENER_ERRORS as error:
                self._listener_failed(event, error, tell=event != "error")

    def _listener_failed(self, what: str, error: BaseException, tell: bool = True) -> None:
        if isinstance(error, SocketClosed):
            logger.debug("= %s: a listener (%s) found the session closed", shorten(self.id), what)
            return
        logger.exception("a listener (%s) failed; the session goes on", what, exc_info=error)
        if tell:
            self._call_each("error", error)

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
        self._loop.run_callback_threadsafe(self._append_if_open, entry, size)

    def _append_if_open(self, entry: Entry, size: int) -> None:
        if self.state.is_open:
            self.append(self.announce(entry) if self.creation_watched else entry, size)

    def announce(self, entry: Entry) -> Entry:
        """Let the listeners of ``packet_create`` see, and change, what is about to be queued."""
        packet = as_packet(entry)
        self.emit("packet_create", packet)
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
                self.queue_call(entry.callback)
        packets = [as_packet(entry) for entry in entries]
        self.notify("flush", packets)
        for listener in self.host.listeners_of("flush"):
            self.queue_call(listener, self.socket, packets)
        if not self.outbox.entries:
            self.notify("drain")
            for listener in self.host.listeners_of("drain"):
                self.queue_call(listener, self.socket)

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
        while self.reading_paused and not self.closed:
            self.wait_progress(None)

    def _tell_progress(self) -> None:
        if self._progress is not None:
            self._progress.set()

    # -- packets and transports

    def on_packet(self, packet: Packet) -> None:
        """A packet that is not a message."""
        if not (self.state.is_open or self.state.closing):
            return
        self.notify("packet", packet)
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
        self.notify("heartbeat")

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
        self._upgrade = Upgrade(self, candidate, self._loop, self.host.options.upgrade_timeout, on_started())
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
        if self.reading_paused:
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
        self._wake_receiver()
        if self.transport.wake_to_close():
            self._timer = DeadlineTimer(self._loop, CLOSE_TIMEOUT, self.end, reason)
        else:
            self.end(reason)

    def _stop_sending(self, reason: str) -> None:
        """Nobody may send from now on, and messages are not delivered past the queue."""
        self._close_reason = reason
        self.outbox.close()
        self.direct_listeners = ()

    def end_from_thread(self, reason: str, discard: bool) -> None:
        """End the session, soon, for callers in other threads."""
        self._loop.run_callback_threadsafe(self.end if discard else self.end_when_drained, reason)

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
        self.host.forget(self)
        self._wake_receiver()
        self._tell_progress()
        if self.busy:
            self._timer = DeadlineTimer(self._loop, CLOSE_GRACE, self.host.workers.run, self._emit_close)
        else:
            self.submit_turn()

    def _emit_close(self) -> None:
        """Call the ``close`` listeners, once, and then let go of everything."""
        if not self._move(Cause.TELL):
            return
        if self._timer is not None:
            self._timer.close()
        self._call_each("close", str(self.close_reason), self.close_description)
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
        self.inbox, self.events = _NO_MESSAGES, _NO_EVENTS

    def _release(self) -> None:
        """Drop what refers to the application's objects, so that nothing of the session outlives its end."""
        self._listeners.clear()
        self.message_listeners = ()
        if not self.busy:
            self.inbox = _NO_MESSAGES
            self.events = _NO_EVENTS
        self.outbox.clear()
        self.socket = None
        self._move(Cause.RELEASE)


_ON_PACKET: dict[PacketType, Callable[[Session, Packet], None]] = {
    PacketType.PING: Session._on_beat, PacketType.PONG: Session._on_beat, PacketType.CLOSE: Session._on_close_packet,
}  # fmt: skip
