"""The inbox of a session: the listeners, and what waits until they are called with it.

Owns the listeners, the queues of messages and of other calls, and the rule that at most one greenlet at a time runs listeners of
a session: a turn. Does not know how packets arrive. Everything here belongs to the hub's thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Protocol, cast

import gevent
from gevent.hub import Waiter
from greenlet import greenlet

from engineio_wsgi.errors import SocketClosed, UsageError
from engineio_wsgi.log import shorten
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.blame import LONG, calling_function, describe_function, stood_still
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import TimedLoop
from engineio_wsgi.runtime.observer import Meter, ObservedSession
from engineio_wsgi.session.events import Events, Listener
from engineio_wsgi.session.first_message import is_connect_packet, warn_of_socket_io
from engineio_wsgi.session.ports import SessionRegistry
from engineio_wsgi.session.state import SessionState
from engineio_wsgi.session.write_buffer import OVERHEAD
from engineio_wsgi.transports.base import Inbox, Transport, size_of

__all__ = ["LISTENER_ERRORS", "Dispatcher", "failure_text"]

logger = logging.getLogger("engine.socket")

#: exceptions raised by a listener that are logged and not propagated; gevent's timeouts are not an ``Exception``
LISTENER_ERRORS = (Exception, gevent.Timeout)

#: seconds that the rest of a turn of the event loop may take before a message of it is read
TURN_LENGTH = 0.05

_NO_MESSAGES: deque[str | bytes] = deque(maxlen=0)
_NO_CALLS: deque[tuple[Listener, tuple[object, ...]]] = deque(maxlen=0)


def failure_text(error: BaseException, outcome: str) -> str:
    """The text that is logged about a listener's exception, with a placeholder for the listener's name."""
    if isinstance(error, SocketClosed):
        return (f"a listener (%s) failed: another session, which it sent to, is closed; {outcome}. In a loop over sessions, "
                "catch SocketClosed at each send(): those behind the closed one got nothing")
    return f"a listener (%s) failed; {outcome}"


class DispatchedSession(Protocol):
    """What a dispatcher needs of its session."""

    id: str
    state: SessionState
    loop: TimedLoop
    registry: SessionRegistry

    def on_listeners_changed(self, event: str, present: bool) -> None:
        """Listeners of ``event``, which is not about messages, were added or removed."""
        ...

    def on_inbox_emptied(self) -> None:
        """The transport, which was paused, may read again."""
        ...

    def end(self, reason: str, description: object = None) -> None:
        """End the session now."""
        ...

    def on_last_turn(self) -> None:
        """A turn has ended, and the session is closing or closed."""
        ...


class Dispatcher(Events, Inbox):
    """Calls the listeners of one session, one after the other, with what its client sent.

    Args:
        session: the session whose listeners these are.
    """

    __slots__ = (
        "_examined", "_session", "_size", "_transport", "_turn_began", "busy", "calls", "closed", "direct_listeners", "greenlet",
        "last_seen", "message_listeners", "messages", "packet_watched", "reading_paused", "receiver",
    )

    _transport: Transport
    reading_paused: bool
    receiver: Waiter[bool] | None

    def __init__(self, session: DispatchedSession) -> None:
        super().__init__()
        self._session = session
        self.message_listeners: tuple[Listener, ...] = ()
        #: the listeners that may be called with a message at once, if nothing is queued
        self.direct_listeners: tuple[Listener, ...] = ()
        #: whether the first messages have been looked at; ``None`` as long as the only one may be that of a Socket.IO client
        self._examined: bool | None = False
        # a deque is 0.7 KB, so idle sessions share empty ones
        self.messages = _NO_MESSAGES
        self.calls = _NO_CALLS
        #: bytes that have been queued since the inbox was last empty
        self._size = 0
        #: whether a greenlet runs listeners now
        self.busy = False
        #: the greenlet that runs what was queued, if one does
        self.greenlet: greenlet | None = None
        self.receiver = None
        self.reading_paused = False
        #: whether there are listeners of ``packet``, which are called for messages as well
        self.packet_watched = False
        #: whether nothing more is queued, because the session is closing or closed
        self.closed = False
        #: the time of the last packet, on the monotonic clock
        self.last_seen = 0.0
        #: when the listeners that run now were called, or returned from waiting; only if turns are timed
        self._turn_began = 0.0

    def connect(self, transport: Transport) -> None:
        """Pause ``transport`` from now on when too much waits."""
        self._transport = transport

    def add(self, event: str, listener: Listener, once: bool) -> None:
        """See :class:`Events`. An observer may have the listener called by its own function."""
        observers = self._session.registry.observers
        if observers.of_listeners:
            listener = observers.stand_in(cast("ObservedSession", self._session), event, listener)
        self._add(event, listener, once)

    def _set(self, event: str, listeners: tuple[Listener, ...]) -> None:
        super()._set(event, listeners)
        if event not in ("message", "data", "packet"):
            self._session.on_listeners_changed(event, bool(listeners))
            return
        self.packet_watched = "packet" in self._listeners
        # tuple + () is the same tuple: 64 bytes less for a session than a copy
        self.message_listeners = self._listeners.get("message", ()) + self._listeners.get("data", ())
        self._choose_direct_listeners()
        if self.messages and not self.busy:
            self.submit_turn()

    def _choose_direct_listeners(self) -> None:
        is_direct = bool(self._examined) and not self.packet_watched and not self.closed
        self.direct_listeners = self.message_listeners if is_direct else ()

    # -- from the transport

    def hear(self) -> None:
        """The client is alive: something was received from it."""
        self.last_seen = monotonic()

    def deliver(self, data: str | bytes, now: float) -> None:
        """Call the listeners with one message, in this greenlet of the pool, unless others are running."""
        self.last_seen = now
        listeners = self.direct_listeners
        if self.busy or self.messages or not listeners:
            self._queue((data,))
            self.run_turn()
            return
        self.busy = True
        try:
            if self._transport.meter is None:
                for listener in listeners:
                    listener(data)
            else:
                self._transport.meter.deliver(listeners, data, self.last_seen)
        except LISTENER_ERRORS as error:
            self._on_listener_failed("message", error)
        finally:
            self.busy = False
        if self.messages or self.calls or self.closed:
            self.run_turn()

    def enqueue(self, messages: Sequence[str | bytes]) -> None:
        """Queue messages, in this order. Pauses the transport when too many bytes wait."""
        if not messages or self.closed:
            return
        if not self._examined:
            self._examine(messages)
        if self._transport.meter is not None:
            self._transport.meter.on_messages_in(len(messages))
        if not self.messages:
            self.messages = deque()
        self.messages.extend(messages)
        if self.packet_watched:
            for data in messages:
                self.notify("packet", Packet(PacketType.MESSAGE, data))
        if self.busy or not self.message_listeners:
            self._count_in(sum(map(size_of, messages)) + OVERHEAD * len(messages))
        self.wake_receiver()

    #: as `enqueue`, also where a subclass overrides that
    _queue = enqueue

    def _examine(self, messages: Sequence[str | bytes]) -> None:
        """Look at the first messages. A Socket.IO client sends one, and no other before it is answered."""
        waits = self._examined is False and len(messages) == 1 and is_connect_packet(messages[0])
        self._examined = None if waits else True
        self._choose_direct_listeners()

    def _count_in(self, size: int) -> None:
        # counted up only, and reset when the inbox is empty: nothing is counted a second time when it is taken out
        self._size += size
        if self._is_full:
            self._pause_reading()

    @property
    def _is_full(self) -> bool:
        return self._size > self._session.registry.options.max_inbox

    def _pause_reading(self) -> None:
        if not self.reading_paused:
            self.reading_paused = True
            self._transport.pause()

    def _resume_reading(self) -> None:
        self.reading_paused = False
        self._session.on_inbox_emptied()

    # -- for the greenlet that receives

    def wake_receiver(self) -> None:
        """Wake the greenlet that waits for a message, if one does."""
        if self.receiver is not None:
            self._session.loop.run_callback(self.take_receiver().switch, False)

    def take_receiver(self) -> Waiter[bool]:
        """Return the `Waiter` of the greenlet that waits for a message; the caller has to switch to it."""
        receiver, self.receiver = self.receiver, None
        return receiver

    def next_message(self) -> str | bytes:
        """Take out the message that has waited longest."""
        data = self.messages.popleft()
        if not self.messages:
            self._on_emptied()
        return data

    def run_own_call(self) -> bool:
        """Run a queued call if the running greenlet is the one that has to; returns whether there was one.

        A listener that waits for a message would otherwise hold up the calls that are queued behind it.
        """
        if not self.calls or self.greenlet is not gevent.getcurrent():
            return False
        self._run_call()
        return True

    def describe(self) -> str:
        """The names of the ``message`` listeners; if there are none, of the ``connection`` listeners, which receive."""
        listeners = self.message_listeners or self._session.registry.listeners_of("connection")
        return f"a listener: {', '.join(map(describe_function, listeners))}" if listeners else "a listener"

    def wait_for_message(self, timeout: float | None) -> None:
        """Block until there may be a message or a call, or ``timeout`` seconds have passed.

        Raises:
            UsageError: another greenlet is receiving already.
        """
        if self.receiver is not None:
            raise UsageError("another greenlet is receiving from this session already")
        self._note_blockage()
        self.receiver = waiter = Waiter()
        timer = None
        if timeout is not None:
            timer = self._session.loop.timer(timeout)
            timer.start(waiter.switch, False)
        try:
            readable = self._pause_turn(waiter)
        finally:
            if self.receiver is waiter:
                self.receiver = None
            if timer is not None:
                timer.close()
        if readable:
            # this greenlet was woken instead of one of the pool, and reads for itself
            self._transport.read(monotonic())

    def _note_blockage(self) -> None:
        """Note the function that receives if it has blocked the event loop since the last message."""
        session, now = self._session, monotonic()
        if now - self.last_seen >= LONG and stood_still(session.loop, now - self.last_seen - TURN_LENGTH):
            session.registry.greenlets.blame.note(self.last_seen, now, f"a listener: {calling_function()}")

    def _pause_turn(self, waiter: Waiter[bool]) -> bool:
        """Wait. Where turns are timed, this time does not count."""
        meter = self._transport.meter if self.greenlet is gevent.getcurrent() else None
        if meter is None:
            return bool(waiter.get())
        meter.on_turn(self._turn_began)
        try:
            return bool(waiter.get())
        finally:
            self._turn_began = monotonic()

    def _on_emptied(self) -> None:
        """The last message was taken out: the transport may go on reading."""
        self.messages = _NO_MESSAGES
        self._size = 0
        if self.reading_paused:
            self._resume_reading()

    # -- turns

    def notify(self, event: str, *args: object) -> None:
        """Queue a call of each listener of ``event``."""
        for listener in self._listeners.get(event, ()):
            self.queue_call(listener, *args)

    def queue_call(self, listener: Listener, *args: object) -> None:
        """Queue the call ``listener(*args)``."""
        if not self.calls:
            self.calls = deque()
        self.calls.append((listener, args))
        if not self.busy:
            self.submit_turn()
        else:
            # a client could cause any number of calls while a listener is busy
            self._count_in(OVERHEAD)
            self.wake_receiver()

    def submit_turn(self) -> None:
        """Run what is queued soon, in a greenlet of the pool."""
        self._session.registry.greenlets.submit(self.run_turn)

    def run_turn(self) -> None:
        """Run what is queued, in this greenlet, until nothing is left. Does nothing if another greenlet does so."""
        if self.busy:
            return
        self.busy = True
        self.greenlet = gevent.getcurrent()
        try:
            if self._transport.meter is None:
                self._run_queued()
            else:
                self._run_timed(self._transport.meter)
        finally:
            self.busy = False
            self.greenlet = None
        if self.closed:
            self._session.on_last_turn()

    def _run_timed(self, meter: Meter) -> None:
        """Run what is queued, and count how long it took."""
        self._turn_began = monotonic()
        has_work = bool(self.calls or (self.messages and self.message_listeners))
        self._run_queued()
        if has_work:
            meter.on_turn(self._turn_began)

    def _run_queued(self) -> None:
        while True:
            if self.calls:
                self._run_call()
            elif self.messages and self.message_listeners and not self._session.state.told:
                self._run_messages(self.messages)
            else:
                break
        self.calls = _NO_CALLS
        if self._size and not self.messages:
            self._on_emptied()

    def _run_call(self) -> None:
        """Run the call that has waited longest."""
        listener, args = self.calls.popleft()
        try:
            listener(*args)
        except LISTENER_ERRORS as error:
            self._on_listener_failed(getattr(listener, "__name__", "listener"), error)

    def _run_messages(self, messages: deque[str | bytes]) -> None:
        """Call the listeners with messages until none is left, or another call is queued."""
        try:
            while messages and not self.calls:
                data = messages.popleft()
                for listener in self.message_listeners:
                    listener(data)
        except LISTENER_ERRORS as error:
            self._on_listener_failed("message", error)
        if not self.messages:
            self._on_emptied()

    def call_each(self, event: str, *args: object) -> None:
        """Call every listener of ``event`` now; one that fails does not keep the others from being called."""
        for listener in self._listeners.get(event, ()):
            try:
                listener(*args)
            except LISTENER_ERRORS as error:
                self._on_listener_failed(event, error)

    def is_own(self, error: BaseException) -> bool:
        """Whether an exception says that this session has ended, which is no failure of a listener."""
        if not isinstance(error, SocketClosed) or self._session.state.is_open:
            return False
        return error.sid in (None, self._session.id)

    def _on_listener_failed(self, event: str, error: BaseException) -> None:
        if self.is_own(error):
            logger.debug("= %s: a listener (%s) found the session closed", shorten(self._session.id), event)
            return
        logger.exception(failure_text(error, "the session goes on"), event, exc_info=error)
        if event != "error":
            self.call_each("error", error)

    # -- the end

    def close(self) -> None:
        """Queue no more messages. What is queued is still run; the greenlet that receives is woken."""
        self.closed = True
        self.direct_listeners = ()
        self.wake_receiver()

    def warn_of_strangers(self) -> None:
        """The session has ended: log a warning if its only message was that of a Socket.IO client."""
        if self._examined is None:
            warn_of_socket_io(self._session.registry.options.path)

    def release(self) -> None:
        """Drop the listeners, and what is queued unless it is being run: nothing of the application's outlives its session."""
        self._listeners.clear()
        self.message_listeners = ()
        if not self.busy:
            self.clear()

    def clear(self) -> None:
        """Drop what is queued."""
        self.messages, self.calls = _NO_MESSAGES, _NO_CALLS

    # -- in another process

    def take_messages(self) -> list[str | bytes]:
        """Take out the messages that no listener has seen, as if listeners had been called with them."""
        messages = list(self.messages)
        self._on_emptied()
        return messages

    def put_back(self, messages: Sequence[str | bytes]) -> None:
        """Queue messages that were taken out, before all others."""
        if messages:
            self.messages = deque([*messages, *self.messages])
            self._count_in(sum(map(size_of, messages)) + OVERHEAD * len(messages))
            self.submit_turn()

    def restore(self, messages: Sequence[str | bytes], last_seen: float) -> None:
        """Go on where another process has stopped: the client has sent other messages before these."""
        self.last_seen = last_seen
        self._examined = True
        self._choose_direct_listeners()
        self.put_back(messages)
