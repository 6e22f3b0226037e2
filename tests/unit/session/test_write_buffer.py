"""The write buffer: order, and how many bytes wait."""

from __future__ import annotations

from typing import Any

import pytest

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.session.write_buffer import OVERHEAD, WriteBuffer, entry_size
from engineio_wsgi.transports.base import Entry, Prepared, TrackedPacket, as_packets


class FakeTransport:
    """Counts how often it is woken."""

    def __init__(self) -> None:
        self.corked = False
        self.wakes = 0

    def wake(self) -> None:
        """There is something to write."""
        self.wakes += 1


def connected(limit: int = 100) -> tuple[WriteBuffer, FakeTransport]:
    """A buffer and what is woken."""
    buffer, transport = WriteBuffer(limit), FakeTransport()
    waking: Any = transport
    buffer.connect(waking)
    return buffer, transport


def test_entries_are_taken_out_once_and_in_order() -> None:
    buffer, transport = connected()
    buffer.put("a", 1)
    buffer.put(b"bc", 2)
    assert (buffer.size, transport.wakes) == (3, 2)
    assert buffer.take() == ["a", b"bc"]
    assert (buffer.take(), buffer.size) == ([], 0)


def test_a_corked_transport_is_not_woken() -> None:
    buffer, transport = connected()
    transport.corked = True
    buffer.put("a", 1)
    assert transport.wakes == 0


def test_the_first_packets_do_not_count() -> None:
    buffer, transport = connected()
    first = Packet(PacketType.OPEN, "{}")
    buffer.begin_with([first])
    assert (buffer.entries, buffer.size, transport.wakes) == ([first], 0, 0)


def test_entries_that_were_not_written_precede_newer_ones() -> None:
    buffer, _ = connected()
    buffer.put("ab", 2)
    taken = buffer.take()
    buffer.put("c", 1)
    buffer.put_back(taken)
    assert (buffer.entries, buffer.size) == (["ab", "c"], 3)


def test_entries_that_were_taken_out_count_until_a_recount_if_watched() -> None:
    buffer, _ = connected()
    buffer.watch()
    buffer.put("ab", 2)
    buffer.take()
    assert buffer.size == 2
    buffer.recount()
    assert buffer.size == 0


def test_entries_under_way_count() -> None:
    buffer, _ = connected()
    buffer.put("ab", 2)
    under_way = buffer.take()
    buffer.put("c", 1)
    buffer.recount(under_way)
    assert buffer.size == 3
    buffer.recount()
    assert buffer.size == 1


def test_a_closed_buffer_is_full_and_can_be_emptied() -> None:
    buffer, _ = connected(limit=10)
    buffer.put("a", 1)
    assert buffer.size < buffer.limit
    buffer.close()
    assert buffer.size >= buffer.limit
    assert buffer.take() == ["a"]
    assert buffer.size >= buffer.limit


def test_a_cleared_buffer_is_empty() -> None:
    buffer, _ = connected()
    buffer.put("a", 1)
    buffer.clear()
    assert (buffer.entries, buffer.size) == ([], 0)


@pytest.mark.parametrize(("entry", "size"), [
    ("abc", 3), ("äöü", 6), (b"\xff\xff", 2), ("", 0),
    (Packet(PacketType.MESSAGE, "abc"), 3), (Packet(PacketType.PING), OVERHEAD), (Packet(PacketType.PONG, "x"), OVERHEAD + 1),
    (TrackedPacket(Packet(PacketType.MESSAGE, "ab"), print), 2), (Prepared("abcd", True), 4),
], ids=["ASCII", "UTF-8", "bytes", "empty", "message", "ping", "pong", "tracked", "prepared"])
def test_the_size_of_an_entry(entry: Entry, size: int) -> None:
    assert entry_size(entry) == size


def test_a_value_that_still_waits_is_withdrawn() -> None:
    buffer, _ = connected()
    buffer.put("before", 6)
    buffer.put(Prepared("old", True, "price"), 3)
    buffer.put(Prepared("other", True, "stock"), 5)
    buffer.withdraw("price")
    buffer.withdraw("nothing")
    assert [packet.data for packet in as_packets(buffer.entries)] == ["before", "other"]
    assert buffer.size == 11


def test_an_entry_may_be_queued_without_waking_the_transport() -> None:
    buffer, transport = connected()
    buffer.append("a", 1)
    assert (buffer.take(), transport.wakes) == (["a"], 0)
