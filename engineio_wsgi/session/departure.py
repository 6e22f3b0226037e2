"""The departure of a session: it is frozen between two turns of its listeners, and then either moves or goes on.

Owns what the client sends meanwhile. While a session is frozen, its transport is bound to a `FrozenSink`, so that no other object
has to ask whether it is. For the hub's thread only.
"""

from __future__ import annotations

from collections.abc import Sequence

from gevent.event import Event

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Stream
from engineio_wsgi.session.movable import SessionSnapshot
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports.base import Entry, Inbox, Sink

__all__ = ["Departure"]

#: seconds between two looks at a session that has to finish something; nearly always an event ends the wait before that
LOOK_PERIOD = 0.01


class FrozenInbox(Inbox):
    """Keeps the messages of a frozen session, in order.

    Args:
        session: the session.
        messages: that no listener has seen when it was frozen.
    """

    __slots__ = ("_session", "messages")

    def __init__(self, session: Session, messages: list[str | bytes]) -> None:
        self._session = session
        self.messages = messages

    def hear(self) -> None:
        """The client is alive."""
        self._session.inbox.hear()

    def deliver(self, data: str | bytes, now: float) -> None:
        """One message was received."""
        self.hear()
        self.enqueue((data,))

    def enqueue(self, messages: Sequence[str | bytes]) -> None:
        """Keep messages, unless the session is closing."""
        session = self._session
        if session.inbox.closed:
            return
        self.messages.extend(messages)
        if session.transport.meter is not None:
            session.transport.meter.on_messages_in(len(messages))
        if session.inbox.packet_watched:
            for data in messages:
                session.inbox.notify("packet", Packet(PacketType.MESSAGE, data))


class FrozenSink(Sink):
    """What the transport of a frozen session reports to."""

    __slots__ = ("_progress", "_session", "id", "inbox", "outbox", "remote_address")

    def __init__(self, session: Session, inbox: FrozenInbox, progress: Event) -> None:
        self._session = session
        self._progress = progress
        self.id = session.id
        self.remote_address = session.remote_address
        self.inbox = inbox
        self.outbox = session.outbox

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        return self._session.closed

    @property
    def closing(self) -> bool:
        """Whether the session ends as soon as its client has received what is buffered."""
        return self._session.closing

    @property
    def close_reason(self) -> str | None:
        """Why the session has ended."""
        return self._session.close_reason

    def on_packet(self, packet: Packet) -> None:
        """A packet that is not a message was received."""
        self._session.on_packet(packet)

    def on_written(self, entries: Sequence[Entry]) -> None:
        """The entries were written: a poll was answered, or a connection has taken them."""
        self._session.on_written(entries)
        self._progress.set()

    def on_stalled(self, under_way: list[Entry] | None = None) -> None:
        """Entries cannot be written now."""
        self._session.on_stalled(under_way)

    def end(self, reason: str, description: object = None) -> None:
        """End the session now."""
        self._session.end(reason, description)
        self._progress.set()


class Departure:
    """One session that is about to move.

    Args:
        session: the session.
        is_local: whether it stays in this process, and only its server changes.
    """

    def __init__(self, session: Session, is_local: bool = False) -> None:
        self._session = session
        self._is_local = is_local
        self._inbox = FrozenInbox(session, [])
        #: set whenever something may have changed
        self._progress = Event()
        self._sink = FrozenSink(session, self._inbox, self._progress)
        self._frozen = False
        #: whether what other threads sent before it was frozen is in its write buffer
        self._is_settled = False
        #: from when on the client's deadlines do not count; on the monotonic clock
        self._held_since = 0.0

    def freeze(self) -> None:
        """Read nothing more, and call no listener with a message. The listener that runs goes on; it can send without limit."""
        session = self._session
        self._frozen = True
        self._held_since = monotonic()
        session.hold_deadlines()
        # behind what other threads have sent before
        session.loop.run_callback_threadsafe(self._on_settled)
        session.outbox.lift_limit()
        self.keep_frozen()
        # senders that wait for room, and a POST that waits until the inbox has room
        session.wake_waiting()

    def _on_settled(self) -> None:
        self._is_settled = True
        self._progress.set()

    def keep_frozen(self) -> None:
        """Freeze what a request has changed that was under way: it may have completed an upgrade, or may wait for packets."""
        session = self._session
        session.prepare_to_move()
        transport = session.transport
        if transport.sink is not self._sink:
            transport.pause()
            # behind those of the transport before
            self._inbox.messages.extend(session.inbox.take_messages())
            transport.bind(self._sink)
            # taking the messages may have resumed it
            transport.pause()
        transport.nudge()

    def thaw(self) -> None:
        """Go on as before. Harmless if the session has ended, or was not frozen."""
        session = self._session
        if not self._frozen:
            return
        self._frozen = False
        session.release_deadlines(self._seconds_held())
        if not session.state.told:
            # the listeners of `close` are called behind those of these messages
            session.inbox.put_back(self._inbox.messages)
        if session.closed:
            return
        session.transport.bind(session)
        if session.state.is_open:
            session.outbox.restore_limit(session.registry.options.max_buffered)
        if not session.inbox.reading_paused:
            session.transport.resume()

    def wait(self) -> None:
        """Block until something may have changed."""
        self._progress.wait(LOOK_PERIOD)
        self._progress.clear()

    @property
    def obstacle(self) -> str | None:
        """Why the session cannot move; ``None`` if it can."""
        return self._session.obstacle(self._is_local)

    @property
    def busy(self) -> bool:
        """Whether an upgrade is under way, a request of the session, or what another thread has sent."""
        return self._session.state.upgrading or self._session.transport.busy or not self._is_settled

    def run_calls(self) -> bool:
        """In the session's turn: call the listeners that are queued for anything but messages. May block.

        Returns:
            Whether there were any.
        """
        has_called = False
        while self._session.inbox.run_own_call():
            has_called = True
        return has_called

    def snapshot(self) -> SessionSnapshot:
        """What another process needs, if there is no :attr:`obstacle`. See `MovableSession`."""
        # it is still held here: other threads must not send to it any more
        self._session.put_off_deadlines(self._seconds_held())
        return self._session.snapshot(self._inbox.messages)

    def _seconds_held(self) -> float:
        """The seconds since it was held, or since the last call."""
        begin, self._held_since = self._held_since, monotonic()
        return self._held_since - begin

    def let_go(self) -> Stream | None:
        """The session goes on in another process. See `MovableSession`."""
        self._frozen = False
        return self._session.let_go()
