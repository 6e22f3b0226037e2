"""The write buffer of a session: what was sent and has not been taken by the transport, and how many bytes that is.

Knows no I/O, and nobody waits in it: the session tells those who wait. Belongs to the hub's thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.transports.base import Entry, Transport, as_packet, size_of

__all__ = ["OVERHEAD", "WriteBuffer", "entry_size"]

#: bytes that a packet of the engine's own, and a queued call of a listener, count for in the bounds of the buffers
OVERHEAD = 64


class WriteBuffer:
    """The entries that wait for a session's transport.

    Args:
        limit: bytes with which the buffer is full.
    """

    __slots__ = ("_transport", "entries", "limit", "size", "watched")

    _transport: Transport

    def __init__(self, limit: int) -> None:
        self.entries: list[Entry] = []
        #: bytes that wait here, and those that the kernel has not taken
        self.size = 0
        #: 0 once nothing may be put in any more, so that a sender has one number to look at
        self.limit = limit
        #: whether somebody has to be told when entries were written; if not, ``size`` is all there is to it
        self.watched = False

    def connect(self, transport: Transport) -> None:
        """``transport`` is woken from now on when something is put in."""
        self._transport = transport

    def begin_with(self, packets: Sequence[Packet]) -> None:
        """Queue what a session begins with. It does not count, and the transport is not woken: it writes when it is opened."""
        self.entries.extend(packets)

    def put(self, entry: Entry, size: int) -> None:
        """Queue ``entry``, whose payload has ``size`` bytes, behind all others, and wake the transport."""
        self.entries.append(entry)
        self.size += size
        if not self._transport.corked:
            self._transport.wake()

    def take(self) -> list[Entry]:
        """Take all entries out, to write them.

        Where nobody watches they count as written from now on; :meth:`recount` with those that the kernel did not take.
        """
        entries = self.entries
        self.entries = []
        if not self.watched:
            self.size = 0
        return entries

    def put_back(self, entries: list[Entry]) -> None:
        """Queue what was taken out and not written before all others."""
        self.entries = entries + self.entries
        self.recount()

    def recount(self, under_way: list[Entry] | None = None) -> None:
        """Count the bytes of all entries, and of those that the kernel has not taken."""
        entries = [*under_way, *self.entries] if under_way else self.entries
        self.size = sum(map(entry_size, entries)) if entries else 0

    def watch(self) -> None:
        """Somebody has to be told from now on when entries were written."""
        self.watched = True

    def close(self) -> None:
        """Nothing more may be put in; what is there may be taken out."""
        self.limit = 0

    def clear(self) -> None:
        """Drop what was never written."""
        self.entries = []
        self.size = 0


def entry_size(entry: Entry) -> int:
    """The bytes that an entry counts for."""
    if isinstance(entry, (str, bytes)):
        return size_of(entry)
    packet = as_packet(entry)
    return size_of(packet.data) + (0 if packet.type is PacketType.MESSAGE else OVERHEAD)
