"""What the transports with a connection of their own have in common: when they read, and when they write.

Does not know what is on the connection.
"""

from __future__ import annotations

import logging
from typing import ClassVar

import gevent

from engineio_wsgi.log import shorten
from engineio_wsgi.runtime.greenlet_pool import GreenletPool
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.transports.base import Candidate, CloseReason, DuplexWire, Entry

__all__ = ["CLOSE_CODES", "ConnectedTransport"]

#: close codes by close reason (RFC 6455 section 7.4.1); a transport has one for all others
CLOSE_CODES: dict[str | None, int] = {
    CloseReason.SERVER_SHUTTING_DOWN: 1001,
    CloseReason.APPLICATION_ERROR: 1011,
    **dict.fromkeys((CloseReason.CLIENT_TOO_SLOW, CloseReason.RATE_LIMIT, CloseReason.EXPIRED), 1008),
    CloseReason.TRANSPORT_ERROR: 1002,
    CloseReason.PARSE_ERROR: 1002,
}


class ConnectedTransport(Candidate):
    """The connection of one session. The greenlet that reads then runs the listeners; only ``flush`` writes.

    Args:
        wire: the connection.
        greenlets: where it is read, and listeners run.
        meter: the counters of the traffic, if it is counted.
    """

    __slots__ = ("_close_code", "_greenlets", "_in_flight", "_loop", "_paused", "_scheduled", "wire")

    handles_upgrades = True
    #: what the log calls the connection
    title: ClassVar[str]
    logger: ClassVar[logging.Logger]

    wire: DuplexWire

    def __init__(self, wire: DuplexWire, greenlets: GreenletPool, meter: Meter | None) -> None:
        super().__init__(meter)
        self.wire = wire
        self._greenlets = greenlets
        self._loop = gevent.get_hub().loop
        #: the entries that the connection has not accepted completely, and their frames
        self._in_flight: tuple[list[Entry], list[bytes]] | None = None
        self._scheduled = False
        self._paused = False
        #: the code with which the connection is closed, if not by the reason; 0 if it is closed already
        self._close_code: int | None = None

    @property
    def unsent(self) -> int:
        """Bytes, framing included, that the connection has not accepted yet."""
        return self.wire.unsent

    # -- reading

    def open(self) -> None:
        """Start to read."""
        if self.logger.isEnabledFor(logging.DEBUG):
            self.logger.debug("= %s: its %s is open", shorten(self.sink.id), self.title)
        self.wire.call_when_drained(self._on_drained)
        self.wire.watch(self._on_readable)

    def pause(self) -> None:
        """Stop reading. The receive window then slows the client down."""
        self._paused = True
        self.wire.unwatch()

    def resume(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            self.wire.watch(self._on_readable)

    def _on_readable(self) -> None:
        """In the hub: have one batch read by the receiving greenlet, or by one of the pool. What it sends is written at once."""
        self.corked = True
        inbox = self.inbox
        if inbox.receiver is None:
            self._greenlets.attend(self)
            return
        try:
            inbox.take_receiver().switch(True)
        finally:
            self.flush()

    def describe(self) -> str:
        """The names of the listeners that reading calls."""
        return self.inbox.describe()

    # -- writing

    def wake(self) -> None:
        """Write soon, together with what the running greenlet still sends."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.run_callback(self.flush)

    def wake_to_close(self) -> bool:
        """Write what is left; ``False`` if nothing is left."""
        if self.outbox.entries:
            self.wake()
            return True
        return bool(self.wire.unsent)

    def flush(self) -> None:
        """Write all entries of the write buffer."""
        raise NotImplementedError

    def _on_drained(self) -> None:
        """The connection has accepted everything, or is lost."""
        raise NotImplementedError
