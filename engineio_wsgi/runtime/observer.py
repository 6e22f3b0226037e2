"""The counters of a server's traffic, and the observer that is told of its sessions.

Counting is plain arithmetic in the hub's thread, once for each batch that was read or written together. Knows nothing of how the
counters are published.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from engineio_wsgi.clock import monotonic
from engineio_wsgi.packet import Packet, PacketType

__all__ = ["TURN_BOUNDS", "Meter", "Observer"]

#: upper bounds, in seconds, of the classes into which turns are counted; the last class has no bound
TURN_BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
_SHORT = TURN_BOUNDS[0]


class Meter:
    """The counts of all sessions of a server while they use one transport.

    Bytes are those of WebSocket frames, and of the bodies that carry payloads before HTTP compresses them.
    """

    __slots__ = ("bytes_in", "bytes_out", "longer_turns", "messages_in", "messages_out", "turn_seconds", "turns")

    def __init__(self) -> None:
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        #: how often listeners of a session ran without an interruption by the engine, and for how many seconds in all
        self.turns = 0
        self.turn_seconds = 0.0
        #: turns that took longer than the first bound, by the largest bound that they exceeded
        self.longer_turns = [0] * len(TURN_BOUNDS)

    def on_bytes_in(self, size: int) -> None:
        """``size`` bytes were received."""
        self.bytes_in += size

    def on_bytes_out(self, size: int) -> None:
        """``size`` bytes were written."""
        self.bytes_out += size

    def on_messages_in(self, count: int) -> None:
        """``count`` messages were queued for the listeners."""
        self.messages_in += count

    def on_batch(self, size: int, entries: Sequence[object]) -> None:
        """``entries`` of a write buffer were written, in ``size`` bytes."""
        self.bytes_out += size
        if len(entries) == 1 and type(entries[0]) is str:
            self.messages_out += 1
        else:
            self.on_sent(entries)

    def on_sent(self, entries: Sequence[object]) -> None:
        """``entries`` of a write buffer were written. Packets that are not messages do not count."""
        self.messages_out += len(entries)
        # nearly always there is none: one check of all entries
        if Packet in map(type, entries):
            self.messages_out -= sum([type(entry) is Packet and entry.type is not PacketType.MESSAGE for entry in entries])

    def on_more_sent(self, count: int) -> None:
        """The entries that were written had ``count`` messages beyond one each."""
        self.messages_out += count

    def deliver(self, listeners: Sequence[Callable[..., object]], data: str | bytes, since: float) -> None:
        """Call the listeners of one message, and count the turn. Most traffic comes here: :meth:`on_turn` is repeated inline."""
        self.messages_in += 1
        try:
            for listener in listeners:
                listener(data)
        finally:
            seconds = monotonic() - since
            self.turns += 1
            self.turn_seconds += seconds
            if seconds > _SHORT:
                self._on_long_turn(seconds)

    def on_turn(self, since: float) -> None:
        """Listeners ran from ``since``, a time of the monotonic clock, until now."""
        seconds = monotonic() - since
        self.turns += 1
        self.turn_seconds += seconds
        if seconds > _SHORT:
            self._on_long_turn(seconds)

    def _on_long_turn(self, seconds: float) -> None:
        self.longer_turns[bisect_left(TURN_BOUNDS, seconds) - 1] += 1


class Observer:
    """Is told of a server's sessions, in the hub's thread. This base class counts nothing, and costs nothing."""

    __slots__ = ()

    def after_fork(self) -> None:
        """Forget all counts: this process was forked from the one that counted."""

    def meter(self, transport: str) -> Meter | None:
        """The counters of the traffic over ``transport``; ``None`` if it is not counted."""
        return None

    def on_open(self, transport: str) -> None:
        """A handshake over ``transport`` has become a session."""

    def on_refused(self, code: int) -> None:
        """A request was refused with ``code`` of the error table."""

    def on_upgrade(self) -> Callable[[bool], object] | None:
        """An upgrade has begun. Returns a function that is called with whether it succeeded, when it has ended."""
        return None

    def on_closed(self, reason: str) -> None:
        """A session has ended."""

    def on_drain(self) -> None:
        """The server stops, and begins to close its sessions."""
