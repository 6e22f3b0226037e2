"""The counters of a server's traffic, and the observers that are told of its sessions.

Counting is plain arithmetic in the hub's thread, once for each batch that was read or written together. Knows nothing of how the
counters are published. `observers` has the list of a server's observers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Protocol
from wsgiref.types import StartResponse, WSGIEnvironment

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["TURN_BOUNDS", "EngineCall", "Listener", "Meter", "ObservedSession", "ObservedTransport", "Observer", "SessionMeter"]

Listener = Callable[..., object]
EngineCall = Callable[[WSGIEnvironment, StartResponse | None], Iterable[bytes]]

#: upper bounds, in seconds, of the classes into which turns are counted; the last class has no bound
TURN_BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
_SHORT = TURN_BOUNDS[0]


class Meter:
    """The counts of all sessions of a server while they use one transport.

    Bytes are those of WebSocket frames, and of the bodies that carry payloads before HTTP compresses them.
    """

    __slots__ = ("bytes_in", "bytes_out", "longer_turns", "messages_in", "messages_out", "turn_seconds", "turns")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Set all counts to 0."""
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

    def on_broadcast(self, meters: Sequence[Meter | None], size: int, messages: int) -> None:
        """The same was written to each of the sessions that have ``meters``, of which this is one.

        Args:
            size: bytes of each copy.
            messages: of each copy.
        """
        self.bytes_out += size * len(meters)
        self.messages_out += messages * len(meters)

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


class SessionMeter(Meter):
    """The counts of one session while it uses one transport. They are added to those of all sessions as well.

    Args:
        total: the counts of all sessions.
    """

    __slots__ = ("_total",)

    def __init__(self, total: Meter) -> None:
        self._total = total
        super().__init__()

    def on_bytes_in(self, size: int) -> None:
        """See :class:`Meter`."""
        super().on_bytes_in(size)
        self._total.on_bytes_in(size)

    def on_bytes_out(self, size: int) -> None:
        """See :class:`Meter`."""
        super().on_bytes_out(size)
        self._total.on_bytes_out(size)

    def on_messages_in(self, count: int) -> None:
        """See :class:`Meter`."""
        super().on_messages_in(count)
        self._total.on_messages_in(count)

    def on_batch(self, size: int, entries: Sequence[object]) -> None:
        """See :class:`Meter`."""
        self.bytes_out += size
        self._total.bytes_out += size
        self.on_sent(entries)

    def on_sent(self, entries: Sequence[object]) -> None:
        """See :class:`Meter`."""
        super().on_sent(entries)
        self._total.on_sent(entries)

    def on_more_sent(self, count: int) -> None:
        """See :class:`Meter`."""
        super().on_more_sent(count)
        self._total.on_more_sent(count)

    def on_broadcast(self, meters: Sequence[Meter | None], size: int, messages: int) -> None:
        """See :class:`Meter`."""
        for meter in meters:
            if meter is not None:
                meter.on_bytes_out(size)
                meter.on_more_sent(messages)

    def deliver(self, listeners: Sequence[Callable[..., object]], data: str | bytes, since: float) -> None:
        """See :class:`Meter`."""
        self.messages_in += 1
        self._total.deliver(listeners, data, since)

    def on_turn(self, since: float) -> None:
        """See :class:`Meter`."""
        self._total.on_turn(since)


class ObservedTransport(Protocol):
    """What an observer sees of a transport."""

    #: the counters of its traffic, if it is counted
    meter: Meter | None

    @property
    def name(self) -> str:
        """The value of the ``transport`` query parameter."""
        ...


class ObservedSession(Protocol):
    """What an observer sees of a session."""

    #: the session id. It is a credential
    id: str
    #: the revision, 1 to 4
    protocol: int
    #: the client's
    remote_address: str | None

    @property
    def transport(self) -> ObservedTransport:
        """The transport in use."""
        ...

    @property
    def close_reason(self) -> str | None:
        """Why it has ended; ``None`` if it has not."""
        ...


class Observer:
    """Is told of a server's sessions, in the hub's thread. A method that is not overridden costs nothing.

    An exception that a method raises is not caught.
    """

    __slots__ = ()

    #: the public function that adds such an observer, for the error if it is called twice
    added_by: ClassVar[str] = "observe"
    #: whether it reads the counters of the traffic
    counts: ClassVar[bool] = False
    #: whether it reads them session by session, which costs more
    counts_sessions: ClassVar[bool] = False

    def after_fork(self) -> None:
        """Forget everything that belongs to the parent: this process was forked from one that was observed."""

    # -- reports

    def on_open(self, session: ObservedSession) -> None:
        """A handshake has become a session. Called in the greenlet of the request, before the first packet is written."""

    def on_refused(self, code: int, error: Exception, environ: WSGIEnvironment) -> None:
        """A request was refused with ``code`` of the error table.

        Args:
            error: a `RequestRefused`, whose ``context`` has the details, or a `PayloadTooLarge`.
            environ: of the request.
        """

    def on_upgrade(self, session: ObservedSession, environ: WSGIEnvironment) -> Callable[[bool], object] | None:
        """An upgrade has begun.

        Args:
            session: it still has the old transport, also when the returned function is called.
            environ: of the request that began it.

        Returns:
            A function that is called with whether the upgrade succeeded, when it has ended.
        """
        return None

    def on_closed(self, session: ObservedSession) -> None:
        """A session has ended. Its ``close`` listeners have not been called yet."""

    def on_moved(self, session: ObservedSession, direction: str) -> None:
        """A session has come from another worker (``"in"``), or has gone to one (``"out"``)."""

    def on_drain(self) -> None:
        """The server stops, and begins to close its sessions."""

    def on_round_trip(self, session: ObservedSession, seconds: float) -> None:
        """The client of a session has answered a ping: revision 4 only."""

    def on_lag(self, seconds: float) -> None:
        """The event loop was so late. Called up to ten times a second while there are sessions."""

    # -- around what the engine does. These may wrap it, and must let it happen once

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse | None, application: EngineCall) -> Iterable[bytes]:
        """Called in place of the engine with each request that does not go over the lane.

        Args:
            start_response: ``None`` if the request is a WebSocket that has been accepted already.
            application: the engine.
        """
        return application(environ, start_response)

    def stand_in(self, session: ObservedSession, event: str, listener: Listener) -> Listener:
        """Return what is called for a listener of a session: itself, or an `events.StandIn`.

        Args:
            event: that it listens to. Of the server's events, ``connection`` is among them: one call for all its listeners.
        """
        return listener

    def sending(self, session: ObservedSession, size: int) -> AbstractContextManager[object]:
        """The context in which the application sends a message, or a bundle, of ``size`` bytes to a session."""
        return nullcontext()

    def departing(self, hop: str, worker: str, carrier: dict[str, str]) -> AbstractContextManager[object]:
        """The context in which something is sent to another worker.

        Args:
            hop: what: ``"hand_over"`` of a connection, ``"relay"`` of a request, or the name of a call: ``"send"``,
                ``"disconnect"``, ``"count"``, ``"broadcast"``, ``"publish"``.
            worker: the other worker's id; empty for all.
            carrier: headers that reach the other worker together with it, by names in small letters. To be added to.
        """
        return nullcontext()

    def arriving(self, hop: str, carrier: Mapping[str, str]) -> AbstractContextManager[object]:
        """The context in which something of another worker is carried out here.

        Args:
            hop: as above.
            carrier: the headers.
        """
        return nullcontext()
