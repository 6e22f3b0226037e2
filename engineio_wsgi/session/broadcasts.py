"""How a broadcast or a ping is written: at once to sessions for which nothing waits, and to the others by their write buffers.

For the hub's thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

from engineio_wsgi.runtime.loop import IoLoop
from engineio_wsgi.session.delivery import Delivery, OnSlow
from engineio_wsgi.session.heartbeat import ping_each
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports.base import Prepared
from engineio_wsgi.transports.websocket import WebSocketTransport

__all__ = ["AT_ONCE", "Broadcasts", "ping_all"]

#: sessions that a broadcast is written to at once; about 5 ms. The event loop runs before it is written to as many others
AT_ONCE = 1000


class Broadcasts:
    """Delivers the broadcasts of one server to sessions of this process.

    The first broadcast in a turn of the event loop is written at once. Those that follow in the same turn are put into the write
    buffers, so that each session gets all of them with one system call.

    Args:
        loop: gevent's event loop.
    """

    __slots__ = ("_loop", "_timer", "_waiting", "_written")

    def __init__(self, loop: IoLoop) -> None:
        self._loop = loop
        #: whether a broadcast was written in this turn of the loop
        self._written = False
        #: the messages in write buffers whose transports will not be woken, in the order in which they are written
        self._waiting: deque[tuple[Session, Prepared]] = deque()
        # a callback of the loop would not do: gevent runs 50 of them before it looks at connections and timers
        self._timer = loop.timer(0.0)

    def deliver(self, message: Prepared, delivery: Delivery, sessions: Collection[Session]) -> None:
        """Send a message to ``sessions``, except to those that are excluded. Never blocks."""
        receivers = list(sessions)
        if exclude := delivery.exclude:
            receivers = [session for session in receivers if session.id not in exclude]
        self.send(message, receivers, delivery.on_slow)

    def send(self, message: Prepared, receivers: list[Session], on_slow: OnSlow) -> None:
        """Send a message to all of ``receivers``. Never blocks."""
        if not self._written:
            self._written = True
            self._loop.run_callback(self._on_turn_over)
            receivers = [*self._write(message, receivers[:AT_ONCE]), *self._put_off(message, receivers[AT_ONCE:])]
        self._queue(message, receivers, on_slow)

    @staticmethod
    def _queue(message: Prepared, sessions: list[Session], on_slow: OnSlow) -> None:
        """Put a message into the write buffers."""
        size = message.size
        for session in sessions:
            outbox = session.outbox
            if outbox.size < outbox.limit and message.key is None and session.state.is_open:
                # the same, without two calls: 300 broadcasts at once cost a sixth less
                outbox.put(message, size)
            else:
                session.send_prepared(message, on_slow)

    def _on_turn_over(self) -> None:
        self._written = False

    @staticmethod
    def _write(message: Prepared, sessions: Iterable[Session]) -> list[Session]:
        """Write a message to the sessions for which nothing waits. Returns the others."""
        idle: dict[tuple[object, ...], list[WebSocketTransport]] = {}
        others: list[Session] = []
        for session in sessions:
            outbox = session.outbox
            # `_writable` without its call, which would take a tenth of the time of the system call
            if session.state.is_open and not outbox.entries and not outbox.watched:
                transport = session.transport
                if type(transport) is WebSocketTransport and not transport.wire.unsent:
                    form = transport.shared_form
                    if form is not None:
                        idle.setdefault(form, []).append(transport)
                        continue
            others.append(session)
        for transports in idle.values():
            WebSocketTransport.write_to_all(transports, message)
        return others

    def _put_off(self, message: Prepared, sessions: list[Session]) -> list[Session]:
        """Put a message into the write buffers of the sessions for which nothing waits, to write it soon. Returns the others."""
        others: list[Session] = []
        for session in sessions:
            # the type first: of 10,000 sessions that poll, each call would take a quarter of what a broadcast to them costs
            if type(session.transport) is not WebSocketTransport or session.outbox.entries or _writable(session) is None:
                others.append(session)
            else:
                session.outbox.append(message, message.size)
                self._waiting.append((session, message))
        if self._waiting:
            self._timer.start(self._write_next)
        return others

    def _write_next(self) -> None:
        """Write to as many sessions as at once, after the event loop has looked at connections and timers."""
        ready: dict[tuple[Prepared, object], list[WebSocketTransport]] = {}
        for _ in range(min(AT_ONCE, len(self._waiting))):
            session, message = self._waiting.popleft()
            entries, transport = session.outbox.entries, _writable(session)
            if transport is not None and len(entries) == 1 and entries[0] is message:
                session.outbox.take()
                ready.setdefault((message, transport.shared_form), []).append(transport)
            elif entries:
                session.transport.wake()
        for (message, _), transports in ready.items():
            WebSocketTransport.write_to_all(transports, message)
        if self._waiting:
            self._timer.start(self._write_next)

    def after_fork(self) -> None:
        """In a forked child: drop what was put off, because the sessions are the parent's."""
        self._waiting.clear()
        self._timer.close()


def ping_all(sessions: Sequence[Session]) -> None:
    """Send a ping to each of ``sessions``: in one loop to those for which nothing waits. Never blocks."""
    idle: list[WebSocketTransport] = []
    others: list[Session] = []
    for session in sessions:
        transport = _writable(session)
        if transport is None or session.outbox.entries:
            others.append(session)
        else:
            idle.append(transport)
    if idle:
        WebSocketTransport.ping_all(idle)
    ping_each(others)


def _writable(session: Session) -> WebSocketTransport | None:
    """The transport of a session, if it is one that a broadcast may be written to without the write buffer."""
    transport = session.transport if session.state.is_open else None
    if type(transport) is not WebSocketTransport or transport.shared_form is None:
        return None
    return None if transport.wire.unsent or session.outbox.watched else transport
