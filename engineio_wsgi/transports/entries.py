"""Entries of a write buffer as plain values, for another process. Does not know how they are encoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.transports.base import Entry, Prepared, TrackedPacket

__all__ = ["EntrySnapshot", "has_callback", "restore_entries", "snapshots_of"]


class EntrySnapshot(NamedTuple):
    """One entry.

    Attributes:
        packet: the type of a packet; -1 for a message that may be compressed, or for messages that stay adjacent.
        messages: the data of the packet, or of each message.
        is_shared: whether the messages are one entry of type `Prepared`.
        compress: whether the transport may compress it.
        key: what a message is a value of, if newer values replace it.
    """

    packet: int
    messages: tuple[str | bytes, ...]
    is_shared: bool
    compress: bool
    key: str | None


def has_callback(entries: Iterable[Entry]) -> bool:
    """Whether a function of the application has to be called when one of the entries has been written."""
    return any(isinstance(entry, (TrackedPacket, Prepared)) and entry.callback is not None for entry in entries)


def snapshots_of(entries: Iterable[Entry]) -> tuple[EntrySnapshot, ...]:
    """Entries as plain values, without callbacks."""
    return tuple(map(_snapshot_of, entries))


def _snapshot_of(entry: Entry) -> EntrySnapshot:
    if isinstance(entry, Prepared):
        return EntrySnapshot(-1, entry.messages, True, entry.compress, entry.key)
    if isinstance(entry, Packet):
        return EntrySnapshot(int(entry.type), (entry.data,), False, entry.compress, None)
    return EntrySnapshot(-1, (entry,), False, True, None)


def restore_entries(snapshots: Sequence[EntrySnapshot]) -> list[Entry]:
    """The entries with these values.

    Raises:
        ValueError: there is no such entry.
    """
    return [_restore(snapshot) for snapshot in snapshots]


def _restore(snapshot: EntrySnapshot) -> Entry:
    if snapshot.is_shared and snapshot.messages:
        return Prepared(snapshot.messages, snapshot.compress, snapshot.key)
    (data,) = snapshot.messages
    return data if snapshot.packet < 0 else Packet(PacketType(snapshot.packet), data, snapshot.compress)
