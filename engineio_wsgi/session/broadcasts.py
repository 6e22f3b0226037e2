"""How a broadcast is written: at once to all sessions for which nothing waits, and to the others by their write buffers.

For the hub's thread only.
"""

from __future__ import annotations

from collections.abc import Collection

from engineio_wsgi.runtime.loop import IoLoop
from engineio_wsgi.session.delivery import Delivery
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports.base import Prepared
from engineio_wsgi.transports.websocket import WebSocketTransport

__all__ = ["AT_ONCE", "Broadcasts"]

#: sessions that a broadcast is written to at once; about 5 ms. The event loop runs before it is written to the others
AT_ONCE = 1000


class Broadcasts:
    """Delivers the broadcasts of one server to sessions of this process.

    The first broadcast in a turn of the event loop is written at once. Those that follow in the same turn are put into the write
    buffers, so that each session gets all of them with one system call.

    Args:
        loop: gevent's event loop.
    """

    __slots__ = ("_loop", "_written")

    def __init__(self, loop: IoLoop) -> None:
        self._loop = loop
        #: whether a broadcast was written in this turn of the loop
        self._written = False

    def deliver(self, message: Prepared, delivery: Delivery, sessions: Collection[Session]) -> None:
        """Send a message to ``sessions``, except to those that are excluded. Never blocks."""
        receivers = list(sessions)
        if exclude := delivery.exclude:
            receivers = [session for session in receivers if session.id not in exclude]
        if not self._written:
            self._written = True
            self._loop.run_callback(self._on_turn_over)
            receivers = self._write(message, receivers[:AT_ONCE]) + receivers[AT_ONCE:]
        for session in receivers:
            session.send_prepared(message, delivery.on_slow)

    def _on_turn_over(self) -> None:
        self._written = False

    @staticmethod
    def _write(message: Prepared, sessions: list[Session]) -> list[Session]:
        """Write a message to the sessions for which nothing waits. Returns the others."""
        idle: dict[tuple[object, ...], list[WebSocketTransport]] = {}
        others: list[Session] = []
        for session in sessions:
            outbox = session.outbox
            # no calls here: they would take a tenth of the time of the system call
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
