"""The interfaces between sessions and transports: `Transport`, and the `Sink`, `Inbox` and `Outbox` that it is bound to.

Also owns the entries of the write buffer. Does not know codecs, and does no I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import ClassVar, Protocol, Self

from gevent.hub import Waiter

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.websocket.items import Item
from engineio_wsgi.runtime.observer import Meter

__all__ = [
    "GOODBYE",
    "Candidate",
    "ClientClose",
    "CloseReason",
    "DuplexWire",
    "Entry",
    "Inbox",
    "Outbox",
    "Prepared",
    "Sink",
    "TrackedPacket",
    "Transport",
    "as_packet",
    "as_packets",
    "count_beyond",
    "size_of",
]


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
    RATE_LIMIT = "rate limit exceeded"
    EXPIRED = "authentication expired"


class ClientClose(str):
    """How a client has closed its session: what a ``close`` listener gets as the description of ``"transport close"``.

    It equals :data:`GOODBYE` if the client has said goodbye: by a close packet over any transport, or by a WebSocket close frame
    with the code 1000 or 1001, or with none. With another code, its text has the code and the reason. If the connection was lost,
    the description is no ``ClientClose``.

    Attributes:
        code: of the WebSocket close frame; ``None`` if it had none, or if there was no such frame.
        reason: of the frame; may be empty. It is the client's text.

    Example::

        @socket.on("close")
        def close(reason, description):
            if description == engineio_wsgi.GOODBYE:
                leave_room(user)
            else:
                wait_for_return(user)
    """

    __slots__ = ("code", "reason")

    code: int | None
    reason: str

    def __new__(cls, code: int | None = None, reason: str = "") -> Self:
        """Make the description of a close frame; without arguments, of a close packet."""
        is_goodbye = code is None or code in GOODBYE_CODES
        text = "the client said goodbye" if is_goodbye else f"close code {code}" + (f": {reason}" if reason else "")
        made = super().__new__(cls, text)
        made.code, made.reason = code, reason
        return made

    def __getnewargs__(self) -> tuple[int | None, str]:  # type: ignore[override]  # a copy is made from other arguments than a str
        """For copies."""
        return self.code, self.reason

    def __repr__(self) -> str:
        return f"ClientClose(code={self.code!r}, reason={self.reason!r})"


#: close codes of a client that has done what it wanted (1000), or leaves the page (1001): RFC 6455 section 7.4.1
GOODBYE_CODES = frozenset({1000, 1001})
#: the close description of a client that has said goodbye, and whose connection was not lost
GOODBYE = ClientClose()


class TrackedPacket(Packet):
    """A packet with a callback that is called when the packet has been written."""

    __slots__ = ("callback",)

    def __init__(self, packet: Packet, callback: Callable[[], object]) -> None:
        super().__init__(packet.type, packet.data, packet.compress)
        self.callback = callback


class Prepared:
    """One message for many sessions, or several that stay adjacent, encoded once for each encoding.

    ``forms`` maps what distinguishes an encoding (transport, revision, compression) to the bytes object that is written to every
    session with that encoding. ``key`` names what the message is a value of, if newer values replace it. ``callback`` is called
    when all of it has been written.
    """

    __slots__ = ("callback", "compress", "forms", "key", "messages", "size")

    def __init__(self, data: str | bytes | tuple[str | bytes, ...], compress: bool, key: str | None = None) -> None:
        self.messages = data if isinstance(data, tuple) else (data,)
        self.compress = compress
        self.key = key
        self.callback: Callable[[], object] | None = None
        self.size = sum(map(size_of, self.messages))
        self.forms: dict[tuple[object, ...], bytes] = {}

    def variant(self, key: str | None = None, callback: Callable[[], object] | None = None) -> Self:
        """The same messages, with the same encodings, under another key or with another callback."""
        other = copy(self)
        other.key, other.callback = key, callback
        return other


#: an entry of a write buffer; ``str`` and ``bytes`` are messages that may be compressed and have no callback
Entry = str | bytes | Packet | Prepared


def size_of(data: str | bytes) -> int:
    """The size of ``data`` on the wire in bytes, without framing (text is UTF-8)."""
    if isinstance(data, bytes) or data.isascii():
        return len(data)
    return len(data.encode("utf-8", "replace"))


def as_packet(entry: str | bytes | Packet) -> Packet:
    """Convert an entry of a write buffer that is one packet."""
    return entry if isinstance(entry, Packet) else Packet(PacketType.MESSAGE, entry)


def as_packets(entries: Iterable[Entry]) -> list[Packet]:
    """Convert entries of a write buffer to packets, in order."""
    packets: list[Packet] = []
    for entry in entries:
        if isinstance(entry, Prepared):
            packets += [Packet(PacketType.MESSAGE, data, entry.compress) for data in entry.messages]
        else:
            packets.append(as_packet(entry))
    return packets


def count_beyond(entries: Iterable[Entry]) -> int:
    """How many messages entries of a write buffer have beyond one each: a bundle has several."""
    return sum([len(entry.messages) - 1 for entry in entries if isinstance(entry, Prepared)])


class Outbox(Protocol):
    """What a transport needs of a session's write buffer."""

    @property
    def entries(self) -> list[Entry]:
        """The entries that wait; not to be changed."""
        ...

    @property
    def watched(self) -> bool:
        """Whether the sink's ``on_written`` has to be called with the entries that were written."""
        ...

    def take(self) -> list[Entry]:
        """Take all entries out, to write them."""
        ...

    def put_back(self, entries: list[Entry]) -> None:
        """Queue entries that were taken out and not written, before all others."""
        ...


class Inbox:
    """Where a transport puts what it has received. This one drops everything; a session's is a `Dispatcher`."""

    __slots__ = ()

    @property
    def reading_paused(self) -> bool:
        """Whether the inbox is full."""
        return False

    def describe(self) -> str:
        """The names of the application's listeners, for the log."""
        return "an upgrade"

    @property
    def receiver(self) -> Waiter[bool] | None:
        """The `Waiter` of the greenlet that waits for a message, if one does."""
        return None

    def take_receiver(self) -> Waiter[bool]:
        """Return the same, if there is one; the caller has to switch to it."""
        raise NotImplementedError

    def hear(self) -> None:
        """Something was received: the client is alive."""

    def deliver(self, data: str | bytes, now: float) -> None:
        """One message was received ``now``, and nothing else. The caller is a greenlet of the pool; listeners may block it."""

    def count_control(self, number: int) -> bool:
        """So many packets or frames were received that are no messages. Returns ``False`` if the session ends because of them."""
        return True

    def enqueue(self, messages: Sequence[str | bytes]) -> None:
        """Queue messages, in this order."""

    def run_turn(self) -> None:
        """Run what is queued. The caller is a greenlet of the pool."""

    def submit_turn(self) -> None:
        """Run what is queued soon, in a greenlet of the pool."""


class Sink:
    """What a transport reports to: a session, or an upgrade whose candidate it is. Reports that are not overridden are ignored.

    Attributes:
        id: the session id.
        remote_address: the client's address.
        inbox: where received packets go.
        outbox: the entries to write.
    """

    __slots__ = ()

    id: str
    remote_address: str | None
    inbox: Inbox
    outbox: Outbox

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        return False

    @property
    def closing(self) -> bool:
        """Whether the session ends as soon as its client has received what is buffered."""
        return False

    @property
    def close_reason(self) -> str | None:
        """Why the session has ended; ``None`` if it has not."""
        return None

    def wait_for_room(self) -> None:
        """Block until the inbox has room again, or the session has ended."""

    def on_packet(self, packet: Packet) -> None:
        """A packet that is not a message was received."""

    def on_written(self, entries: Sequence[Entry]) -> None:
        """The entries were written."""

    def on_stalled(self, under_way: list[Entry] | None = None) -> None:
        """Entries cannot be written now. ``under_way`` were taken out, and the kernel has not accepted all of their bytes."""

    def end(self, reason: str, description: object = None) -> None:
        """End the session now."""
        raise NotImplementedError


class Transport:
    """One way of carrying packets between a session and its client."""

    __slots__ = ("corked", "inbox", "meter", "outbox", "sink")

    #: the value of the ``transport`` query parameter
    name: ClassVar[str] = ""
    #: the transports that a session may be upgraded to from this one
    upgrades_to: ClassVar[tuple[str, ...]] = ()
    #: whether it has a connection of its own, which a WebSocket handshake opens
    handles_upgrades: ClassVar[bool] = False
    #: whether its handshakes come through the HTTP server that polls come through
    over_http: ClassVar[bool] = True

    #: what it reports to; see :meth:`bind`
    sink: Sink
    inbox: Inbox
    outbox: Outbox

    def __init__(self, meter: Meter | None = None) -> None:
        #: the counters of the traffic, if it is counted
        self.meter = meter
        #: whether the write buffer will be flushed when the running greenlet yields, so that waking is not necessary
        self.corked = False

    def bind(self, sink: Sink) -> None:
        """Report to ``sink`` from now on."""
        self.sink = sink
        self.inbox = sink.inbox
        self.outbox = sink.outbox

    def count_with(self, meter: Meter | None) -> None:
        """Count its traffic with ``meter`` from now on; ``None``: do not count it."""
        self.meter = meter

    def open(self) -> None:
        """Start to read, in transports that have a connection."""

    def read(self, now: float) -> None:
        """Read once, ``now`` on the monotonic clock, in the greenlet that called ``receive``; in those with a connection."""

    @property
    def unsent(self) -> int:
        """Bytes that were written to the connection and that the kernel has not accepted."""
        return 0

    def unsent_entries(self) -> list[Entry]:
        """The entries that were taken out of the write buffer and have not been sent completely."""
        return []

    def wake(self) -> None:
        """Write what is in the write buffer, soon. Never blocks."""
        raise NotImplementedError

    def ping(self) -> bool:
        """Write a ping at once if the write buffer is empty; ``False`` if the ping has to be queued."""
        return False

    def wake_to_close(self) -> bool:
        """Write what is in the write buffer, because the session is closing; ``False`` if nothing is left."""
        raise NotImplementedError

    def pause(self) -> None:
        """Stop reading: the inbox is full."""

    def resume(self) -> None:
        """Read again."""

    def nudge(self) -> None:
        """Answer the request that waits for packets with a ``noop``, if there is one."""

    def discard(self) -> None:
        """The session uses another transport now: end the requests that wait on this one."""

    def close(self, reason: str | None = None) -> None:
        """The session has ended: tell the client, if possible, and close. Never blocks; harmless if repeated."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        """Whether a request is under way that has to end before the session can go on in another process."""
        return False

    def obstacle(self, is_local: bool = False) -> str | None:
        """Why it cannot go on in another process; ``None`` if it can.

        Args:
            is_local: whether it stays in this process, and only its server changes.
        """
        return None


class Wire(Protocol):
    """What an upgrade needs of a candidate's connection."""

    def recv(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; ``b""`` at the end. Raises ``BlockingIOError`` instead of waiting, ``OSError`` if it is lost."""
        ...

    def watch(self, on_readable: Callable[[], object], /) -> None:
        """Call ``on_readable()`` in the hub, repeatedly, as long as there is something to read."""
        ...


class DuplexWire(Wire, Protocol):
    """What a transport needs of its connection."""

    @property
    def unsent(self) -> int:
        """Bytes that were written, and that the connection has not accepted yet."""
        ...

    def unwatch(self) -> None:
        """Stop calling back."""
        ...

    def call_when_drained(self, callback: Callable[[], object], /) -> None:
        """Call ``callback()`` in the hub whenever ``unsent`` becomes 0, and when the connection is lost with bytes unsent."""
        ...


class Candidate(Transport):
    """A transport with a connection of its own, to which a session that polls may be upgraded."""

    __slots__ = ()

    #: its connection, which the upgrade reads until the session uses the transport
    wire: Wire

    def feed(self, data: bytes) -> list[Item]:
        """Decode what was received."""
        raise NotImplementedError

    def decode(self, item: str | bytes) -> Packet | None:
        """The packet in an item that was decoded; ``None`` if there is none."""
        raise NotImplementedError

    def take(self, items: list[Item]) -> None:
        """Queue the messages among decoded ``items``, and process the others, in order. Runs no listener."""
        raise NotImplementedError

    def send_now(self, packet: Packet) -> None:
        """Write one packet without the write buffer."""
        raise NotImplementedError
