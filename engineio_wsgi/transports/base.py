"""What every transport is, seen from the session, and what a session is, seen from a transport.

Owns the two ports between the session and its transports, and the entries of the write buffer. Knows no codec, no I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.observer import Meter

__all__ = ["CloseReason", "Entry", "Outbox", "Prepared", "Sink", "TrackedPacket", "Transport", "as_packet", "size_of"]


class CloseReason(enum.StrEnum):
    """Why a session ended: the first argument of a ``close`` listener."""

    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"
    PING_TIMEOUT = "ping timeout"
    PARSE_ERROR = "parse error"
    FORCED_CLOSE = "forced close"
    SERVER_SHUTTING_DOWN = "server shutting down"
    CLIENT_TOO_SLOW = "client too slow"
    APPLICATION_ERROR = "application error"


class TrackedPacket(Packet):
    """A packet whose sender wants to be told when it has been written out."""

    __slots__ = ("callback",)

    def __init__(self, packet: Packet, callback: Callable[[], object]) -> None:
        super().__init__(packet.type, packet.data, packet.compress)
        self.callback = callback


class Prepared:
    """One message for many sessions: each transport keeps its encoded form here, so that it is encoded once.

    ``forms`` maps whatever distinguishes the encodings (transport, revision, compression) to the bytes object that
    is written to every session alike.
    """

    __slots__ = ("compress", "data", "forms", "size")

    def __init__(self, data: str | bytes, compress: bool) -> None:
        self.data = data
        self.compress = compress
        self.size = size_of(data)
        self.forms: dict[Any, bytes] = {}


#: what waits in a write buffer; ``str`` and ``bytes`` are messages with nothing special about them
Entry = str | bytes | Packet | Prepared


def size_of(data: str | bytes) -> int:
    """The bytes that ``data`` takes on the wire, without framing (text is UTF-8)."""
    if isinstance(data, bytes) or data.isascii():
        return len(data)
    return len(data.encode("utf-8", "replace"))


def as_packet(entry: Entry) -> Packet:
    """The packet that a write buffer's entry stands for."""
    if isinstance(entry, Packet):
        return entry
    if isinstance(entry, Prepared):
        return Packet(PacketType.MESSAGE, entry.data, entry.compress)
    return Packet(PacketType.MESSAGE, entry)


class Outbox(Protocol):
    """What a transport may do to a session's write buffer."""

    @property
    def entries(self) -> list[Entry]:
        """What waits; not to be changed."""
        ...

    @property
    def watched(self) -> bool:
        """Whether the sink has to be told what was written, by ``on_written``."""
        ...

    def take(self) -> list[Entry]:
        """Take all entries out, to write them."""
        ...

    def put_back(self, entries: list[Entry]) -> None:
        """Queue what was taken out and not written before all others."""
        ...


class Sink(Protocol):
    """What a transport may ask of, and report to, whom it serves: a session, or an upgrade whose candidate it is."""

    @property
    def id(self) -> str:
        """The session id."""
        ...

    @property
    def outbox(self) -> Outbox:
        """What there is to write."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        ...

    @property
    def closing(self) -> bool:
        """Whether the session ends as soon as its client has fetched what is left."""
        ...

    @property
    def close_reason(self) -> str | None:
        """Why the session has ended."""
        ...

    @property
    def remote_address(self) -> str | None:
        """The client's address."""
        ...

    @property
    def reading_paused(self) -> bool:
        """Whether the session has as much as it may hold."""
        ...

    @property
    def receiver(self) -> Any:
        """The `Waiter` of the greenlet that waits for a message, if one does."""
        ...

    def take_receiver(self) -> Any:
        """The same; the caller has to switch to it."""
        ...

    def wait_for_room(self) -> None:
        """Block until messages may be enqueued again."""
        ...

    def hear(self) -> None:
        """Something was received: the client is alive."""
        ...

    def deliver(self, data: str | bytes) -> None:
        """One message was received, and nothing else; the caller is a greenlet of the pool and may be kept by the listeners."""
        ...

    def enqueue(self, messages: Sequence[str | bytes]) -> None:
        """Messages have arrived, in this order; they are dispatched later."""
        ...

    def run_turn(self) -> None:
        """Dispatch what is queued; the caller is a greenlet of the pool."""
        ...

    def submit_turn(self) -> None:
        """Have what is queued dispatched soon, in a greenlet of the pool."""
        ...

    def on_packet(self, packet: Packet) -> None:
        """A packet that is not a message has arrived."""
        ...

    def on_written(self, entries: Sequence[Entry]) -> None:
        """The entries have left; their senders may be told."""
        ...

    def on_stalled(self, under_way: list[Entry] | None = None) -> None:
        """What there is to write cannot be written now. ``under_way`` was taken out, and the kernel has not taken all of it."""
        ...

    def end(self, reason: str, description: object = None) -> None:
        """The session ends now."""
        ...


class Transport:
    """One way of carrying packets between a session and its client."""

    __slots__ = ("corked", "meter", "outbox", "sink")

    #: as it stands in the ``transport`` query parameter
    name: ClassVar[str] = ""
    #: the transports that a session may move to from this one
    upgrades_to: ClassVar[tuple[str, ...]] = ()
    #: whether it lives on a connection of its own, which a WebSocket handshake opens
    handles_upgrades: ClassVar[bool] = False

    #: whom it serves, and what that one wants to have written; see :meth:`bind`
    sink: Sink
    outbox: Outbox

    def __init__(self, meter: Meter | None = None) -> None:
        #: where the traffic is counted, if it is
        self.meter = meter
        #: whether somebody will flush the write buffer anyway as soon as the running greenlet yields
        self.corked = False

    def bind(self, sink: Sink) -> None:
        """Report to ``sink`` from now on."""
        self.sink = sink
        self.outbox = sink.outbox

    def open(self) -> None:
        """Start to read, for transports that have a connection."""

    def read(self) -> None:
        """Read what is there for the greenlet that waits in ``receive``; for transports that have a connection."""

    @property
    def unsent(self) -> int:
        """Bytes that were handed to the connection and that the kernel has not taken."""
        return 0

    def unsent_entries(self) -> list[Entry]:
        """What was taken out of the write buffer and has not left completely."""
        return []

    def wake(self) -> None:
        """The write buffer has something to write: write it as soon as possible. Never blocks."""
        raise NotImplementedError

    def ping(self) -> bool:
        """Write a ping at once, past an empty write buffer; ``False`` if it has to be queued like any packet."""
        return False

    def wake_to_close(self) -> bool:
        """The session wants to end as soon as its client has everything; ``False`` if it has it already."""
        raise NotImplementedError

    def pause(self) -> None:
        """Stop reading: the session has as much as it may hold."""

    def resume(self) -> None:
        """Go on reading."""

    def nudge(self) -> None:
        """Let a request that waits for packets end with a ``noop``, if there is one."""

    def discard(self) -> None:
        """The session has moved to another transport; end what still hangs on this one."""

    def close(self, reason: str | None = None) -> None:
        """The session has ended: tell the client if it can be told, and let go. Never blocks; harmless if repeated."""
        raise NotImplementedError
