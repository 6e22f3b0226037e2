"""The write buffer of a session: the entries that were sent and not yet taken by the transport, and their size in bytes.

Does no I/O and never blocks; the session wakes senders that wait for room. For the hub's thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import maxsize

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.threads import current_thread
from engineio_wsgi.session.plain_messages import MessageQueue
from engineio_wsgi.transports.base import Entry, Prepared, Transport, as_packet, size_of

__all__ = ["OVERHEAD", "WriteBuffer", "entry_size"]

#: the size, in bytes, that a packet of the engine and a queued call of a listener count for in the limits of the buffers
OVERHEAD = 64
#: a limit that is never reached
UNLIMITED = 1 << 62


class WriteBuffer(MessageQueue):
    """The entries that wait for a session's transport.

    Args:
        limit: the size at which the buffer is full, in bytes.
    """

    __slots__ = ("watched",)

    def __init__(self, limit: int) -> None:
        self.entries = []
        self.size = 0
        self.limit = min(limit, maxsize)
        self._thread = current_thread()
        self._is_announced = False
        #: whether the session is to be told which entries were written, and not only how many bytes wait
        self.watched = False

    def connect(self, transport: Transport) -> None:
        """Wake ``transport`` from now on when an entry is queued."""
        self._transport = transport

    def begin_with(self, packets: Sequence[Packet]) -> None:
        """Queue a session's first packets. They do not count, and the transport is not woken: it writes when it is opened."""
        self.entries.extend(packets)

    def append(self, entry: Entry, size: int) -> None:
        """Queue ``entry``, whose payload has ``size`` bytes, behind all others. The caller sees to it that it is written."""
        self.entries.append(entry)
        self.size += size

    def put(self, entry: Entry, size: int) -> None:
        """Queue ``entry``, whose payload has ``size`` bytes, behind all others, and wake the transport."""
        self.entries.append(entry)
        self.size += size
        if not self._transport.corked:
            self._transport.wake()

    def announce(self, announced: bool) -> None:
        """Whether listeners or observers have to see each message before it is queued: ``put_message`` then queues none."""
        self._is_announced = announced

    def withdraw(self, key: str) -> None:
        """Drop the message of a broadcast with this key that still waits, if there is one."""
        for position, entry in enumerate(self.entries):
            if isinstance(entry, Prepared) and entry.key == key:
                del self.entries[position]
                self.size -= entry.size
                return

    def take(self) -> list[Entry]:
        """Take all entries out, to write them.

        Unless watched, they count as written from now on; call :meth:`recount` with those that the kernel did not accept.
        """
        entries = self.entries
        self.entries = []
        if not self.watched:
            self.size = 0
        return entries

    def put_back(self, entries: list[Entry]) -> None:
        """Queue entries that were taken out and not written, before all others."""
        self.entries = entries + self.entries
        self.recount()

    def recount(self, under_way: list[Entry] | None = None) -> None:
        """Count the bytes of all entries, and of those that the kernel has not accepted."""
        entries = [*under_way, *self.entries] if under_way else self.entries
        self.size = sum(map(entry_size, entries)) if entries else 0

    def watch(self) -> None:
        """Tell the session from now on which entries were written."""
        self.watched = True

    def unwatch(self) -> None:
        """Stop telling the session: nothing waits, and there is no listener and no callback."""
        self.watched = False

    def close(self) -> None:
        """Accept no more entries; those that are queued may be taken out."""
        self.limit = 0

    def clear(self) -> None:
        """Drop all entries."""
        self.entries = []
        self.size = 0

    # -- in another process

    def lift_limit(self) -> None:
        """Accept any number of entries until :meth:`restore_limit`: nobody may wait while the session is about to move."""
        self.limit = UNLIMITED

    def restore_limit(self, limit: int) -> None:
        """The session has not moved: the buffer is full at ``limit`` bytes again."""
        self.limit = limit

    def restore(self, entries: list[Entry], under_way: list[Entry]) -> None:
        """Go on with the entries of another process. ``under_way`` were taken out, and not sent completely."""
        self.entries = entries
        self.recount(under_way)


def entry_size(entry: Entry) -> int:
    """The size of an entry in bytes."""
    if isinstance(entry, (str, bytes)):
        return size_of(entry)
    if isinstance(entry, Prepared):
        return entry.size
    packet = as_packet(entry)
    return size_of(packet.data) + (0 if packet.type is PacketType.MESSAGE else OVERHEAD)
