"""A session as its transports see it: state, buffers, and the turns in which its listeners run.

Owns the one state machine of a session and everything that must happen once and in order. The half that the
application sees is `socket.Socket`. Everything here belongs to the hub's thread.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gevent
from gevent.event import Event

from engineio_wsgi.clock import monotonic
from engineio_wsgi.deadline import DeadlineTimer
from engineio_wsgi.errors import SocketClosed
from engineio_wsgi.events import Emitter, Listener
from engineio_wsgi.heartbeat import Heartbeat, HeartbeatTimer
from engineio_wsgi.log import shorten
from engineio_wsgi.meter import Meter
from engineio_wsgi.options import Options
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.transports.base import CloseReason, Entry, TrackedPacket, Transport, as_packet, size_of
from engineio_wsgi.upgrade import Upgrade
from engineio_wsgi.workers import Workers

__all__ = ["Host", "ReadyState", "Session"]

logger = logging.getLogger("engine.socket")

#: seconds for which the ``close`` listeners wait for a listener that is still running; then they run beside it
CLOSE_GRACE = 1.0
#: seconds that a closing session waits for its client to fetch what is left; the reference server's
CLOSE_TIMEOUT = 30.0

#: bytes that a queued call of a listener, and a packet without data, count for in the bounds of the buffers
OVERHEAD = 64
#: what may leave a listener without being anybody else's affair; gevent's timeouts are not an ``Exception``
LISTENER_ERRORS = (Exception, gevent.Timeout)

_NO_MESSAGES: deque[str | bytes] = deque(maxlen=0)
_NO_EVENTS: deque[tuple[Listener, tuple[Any, ...]]] = deque(maxlen=0)


class ReadyState(enum.Enum):
    """The states of a session, in their order; it never goes back."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Host(Protocol):
    """What a session needs of its server."""

    options: Options
    workers: Workers
    heartbeat_timer: HeartbeatTimer

    def forget(self, session: Any) -> None:
        """The session has ended."""
        ...

    def listeners_of(self, event: str) -> tuple[Listener, ...]:
        """The server's own listeners of an event."""
        ...


class Session(Emitter):
    """See the module. ``Socket`` is the only subclass."""

    __slots__ = (
        "__weakref__", "_close_emitted", "_ending", "_hub", "_loop", "_progress", "_timer", "busy", "busy_with",
        "close_description", "close_reason", "creation_watched", "direct_listeners", "events", "heard", "heartbeat", "host", "id",
        "inbox", "inbox_size", "max_buffered", "message_listeners", "outbox", "outbox_size", "over", "packet_watched", "protocol",
        "reading_paused", "receiver", "spawned", "stalled_since", "state", "transport", "turn_began",
        "upgrade", "upgraded", "watched",
    )

    transport: Transport

    def __init__(self, host: Host, sid: str, protocol: int) -> None:
        super().__init__()
        self.host = host
        self.id = sid
        self.protocol = protocol
        self._hub: Any = gevent.get_hub()
        self._loop = self._hub.loop
        self.state = ReadyState.OPENING
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
        self.outbox: list[Entry] = []
        self.outbox_size = 0
        #: bytes in the outbox with which a sender has to stop and look: no more than 0 when the session ends
        self.max_buffered = host.options.max_buffered
        self.stalled_since = 0.0
        #: whether there are listeners of ``packet_create``
        self.creation_watched = False
        #: whether there are listeners of ``packet``, who have to be told of messages, too
        self.packet_watched = False
        #: whether anybody has to be told when entries were written; if not, ``outbox_size`` is all there is to it
        self.watched = bool(host.listeners_of("flush") or host.listeners_of("drain"))
        self._progress: Event | None = None
        self.heard = 0.0
        #: when the listeners that run now were called, or came back from `receive`; only where turns are timed
        self.turn_began = 0.0
        options = host.options
        self.heartbeat = Heartbeat(self, host.heartbeat_timer, options.ping_interval, options.ping_timeout)
        self.upgrade: Upgrade | None = None
        self.upgraded = False
        self.close_reason: str | None = None
        self.close_description: object = None
        self._close_emitted = False
        #: whether the ``close`` listeners have returned
        self.over = False
        self._ending: str | None = None
        self._timer: Any = None
        self.spawned: set[gevent.Greenlet] | None = None

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        return self.state is ReadyState.CLOSED

    @property
    def closing(self) -> bool:
        """Whether the session ends as soon as its client has fetched what is left."""
        return self.state is ReadyState.CLOSING

    def _set(self, event: str, listeners: tuple[Listener, ...]) -> None:
        super()._set(event, listeners)
        if event in ("message", "data", "packet"):
            self.packet_watched = "packet" in self._listeners
            self.message_listeners = (*self._listeners.get("message", ()), *self._listeners.get("data", ()))
            self.direct_listeners = () if self.packet_watched or self._ending is not None else self.message_listeners
            if self.inbox and not self.busy:
                self.submit_turn()
        elif event == "packet_create":
            self.creation_watched = bool(listeners)
        elif event in ("flush", "drain"):
            self.watched = self.watched or bool(listeners)

    # -- turns: the listeners run one after the other

    def deliver(self, data: str | bytes) -> None:
        """One message, from the worker greenlet that read it. Calls the listeners unless others are running."""
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
        if self.inbox or self.events or self._ending is not None:
            self.run_turn()

    def enqueue(self, messages: Sequence[str | bytes]) -> None:
        """Messages for later, in this order. Reading stops when too many bytes wait."""
        if not messages or self._ending is not None:
            return
        if self.transport.meter is not None:
            self.transport.meter.messages_in += len(messages)
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
            receiver, self.receiver = self.receiver, None
            self._loop.run_callback(receiver.switch, False)

    def inbox_emptied(self) -> None:
        """Whoever took the last message out calls this; the transport may go on reading."""
        self.inbox = _NO_MESSAGES
        self.inbox_size = 0
        if self.reading_paused:
            self.reading_paused = False
            self._tell_progress()
            if self.state is ReadyState.OPEN:
                self.transport.resume()

    @property
    def remote_address(self) -> str | None:
        """The client's address."""
        raise NotImplementedError

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
        if self._ending is not None and not self._close_emitted:
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
            elif self.inbox and self.message_listeners and not self._close_emitted:
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
        if self.state is not ReadyState.OPEN:
            return
        if self.outbox_size >= self.host.options.max_buffered and packet.type is not PacketType.PING:
            self.end(CloseReason.CLIENT_TOO_SLOW, "it makes the server answer, and does not take the answers")
            return
        self.append(packet, size_of(packet.data) + OVERHEAD)

    def send_ping(self) -> None:
        """Ask the client for a sign of life."""
        if self.watched or not self.transport.ping():
            self.send_packet(Packet(PacketType.PING))

    def append(self, entry: Entry, size: int) -> None:
        """Queue ``entry``, whose payload has ``size`` bytes, behind all others."""
        self.outbox.append(entry)
        self.outbox_size += size
        if type(entry) is TrackedPacket:
            self.watched = True
        if not self.transport.corked:
            self.transport.wake()

    def on_written(self, entries: Sequence[Entry]) -> None:
        """``entries`` have left."""
        self.stalled_since = 0.0
        if not self.outbox:
            self.outbox_size = 0
        else:
            self.outbox_size = sum(size_of(as_packet(entry).data) for entry in self.outbox)
        if self.watched:
            self._tell_written(entries)
        if self._progress is not None:
            self._tell_progress()
        if self._ending is not None and not self.outbox:
            self.end(self._ending)

    def _tell_written(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if type(entry) is TrackedPacket:
                self.queue_call(entry.callback)
        packets = [as_packet(entry) for entry in entries]
        self.notify("flush", packets)
        for listener in self.host.listeners_of("flush"):
            self.queue_call(listener, self, packets)
        if not self.outbox:
            self.notify("drain")
            for listener in self.host.listeners_of("drain"):
                self.queue_call(listener, self)

    def on_stalled(self) -> None:
        """Something waits that the client does not take."""
        if not self.stalled_since:
            self.stalled_since = monotonic()

    def wait_progress(self, timeout: float | None) -> None:
        """Block until something was written or read, the session ended, or ``timeout`` seconds passed."""
        self.watched = True
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
        if self.state not in (ReadyState.OPEN, ReadyState.CLOSING):
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

    def switch_transport(self, transport: Transport) -> None:
        """Everything unsent and everything newer goes to ``transport`` from now on. One step, in the hub."""
        old, self.transport = self.transport, transport
        transport.session = self
        self.upgraded = True
        old.discard()
        transport.open()
        if self.reading_paused:
            transport.pause()
        if self.outbox:
            transport.wake()
        elif self._ending is not None:
            self.end(self._ending)

    # -- the end

    def end_when_drained(self, reason: str) -> None:
        """End as soon as the client has taken what is left, or some time later if it does not."""
        if self.state is not ReadyState.OPEN:
            return
        self.state = ReadyState.CLOSING
        self._ending = reason
        self.max_buffered = 0
        self.watched = True
        self.direct_listeners = ()
        self._tell_progress()
        self._wake_receiver()
        if self.transport.wake_to_close():
            self._timer = DeadlineTimer(self._loop, CLOSE_TIMEOUT, self.end, reason)
        else:
            self.end(reason)

    def end(self, reason: str, description: object = None) -> None:
        """The session ends now, once. What it left is in ``outbox`` until the ``close`` listeners have run."""
        if self.state is ReadyState.CLOSED:
            return
        self.state = ReadyState.CLOSED
        self._ending = self.close_reason = reason
        self.max_buffered = 0
        self.direct_listeners = ()
        self.close_description = description
        logger.debug("= %s: %s (%s)", shorten(self.id), reason, description)
        self.heartbeat.stop()
        if self._timer is not None:
            self._timer.close()
        if self.upgrade is not None:
            self.upgrade.abandon("the session has ended")
        self.outbox = self.transport.unsent_entries() + self.outbox
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
        if self._close_emitted or self.state is not ReadyState.CLOSED:
            return
        self._close_emitted = True
        if self._timer is not None:
            self._timer.close()
        self._call_each("close", str(self.close_reason), self.close_description)
        spawned, self.spawned = self.spawned, None
        gevent.killall(list(spawned or ()), block=False)
        self.let_go()

    def let_go(self) -> None:
        """Drop what refers to the application's objects, so that nothing of the session outlives its end."""
        self._listeners.clear()
        self.message_listeners = ()
        if not self.busy:
            self.inbox = _NO_MESSAGES
            self.events = _NO_EVENTS
        self.outbox = []
        self.outbox_size = 0
        self.over = True


_ON_PACKET: dict[PacketType, Callable[[Session, Packet], None]] = {
    PacketType.PING: Session._on_beat, PacketType.PONG: Session._on_beat, PacketType.CLOSE: Session._on_close_packet,
}  # fmt: skip
