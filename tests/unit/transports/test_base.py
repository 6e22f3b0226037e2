"""What all transports have in common, and the entries of the write buffer."""

from __future__ import annotations

import pytest
from support.fakesink import FakeSink

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.transports.base import Entry, Prepared, TrackedPacket, Transport, as_packets, count_beyond, size_of


def test_a_transport_is_bound_to_its_sink() -> None:
    transport, first, second = Transport(), FakeSink(), FakeSink()
    transport.bind(first)
    transport.bind(second)
    assert (transport.sink, transport.outbox) == (second, second.outbox)


def test_defaults_of_a_transport_without_a_connection() -> None:
    transport = Transport()
    for nothing in (transport.open, transport.pause, transport.resume, transport.nudge, transport.discard):
        assert nothing() is None  # type: ignore[func-returns-value]
    transport.read(0.0)
    assert (transport.unsent, transport.unsent_entries(), transport.ping()) == (0, [], False)


def test_a_transport_has_to_say_how_it_writes_and_closes() -> None:
    transport = Transport()
    for own in (transport.wake, transport.wake_to_close, transport.close):
        with pytest.raises(NotImplementedError):
            own()


@pytest.mark.parametrize(("data", "size"), [
    ("abc", 3), ("äöü", 6), ("😀", 4), ("\ud800", 1), (b"\xff\xff", 2), ("", 0),
], ids=repr)
def test_the_size_of_a_message(data: str | bytes, size: int) -> None:
    assert size_of(data) == size


PACKET = Packet(PacketType.PING, "x")


@pytest.mark.parametrize(("entry", "packet"), [
    ("text", Packet(PacketType.MESSAGE, "text")), (b"bytes", Packet(PacketType.MESSAGE, b"bytes")), (PACKET, PACKET),
    (Prepared("a", False), Packet(PacketType.MESSAGE, "a", False)),
], ids=["text", "bytes", "packet", "prepared"])
def test_an_entry_as_a_packet(entry: Entry, packet: Packet) -> None:
    assert as_packets([entry]) == [packet]
    assert as_packets([entry])[0].compress is packet.compress


def test_a_bundle_is_several_packets_and_one_entry() -> None:
    bundle = Prepared(("a", b"b"), True)
    assert as_packets([bundle, "c"]) == [Packet(PacketType.MESSAGE, data) for data in ("a", b"b", "c")]
    assert (bundle.size, count_beyond(["c", bundle])) == (2, 1)


def test_a_variant_shares_the_encodings() -> None:
    message = Prepared("a", True)
    variant = message.variant("price", print)
    assert (variant.forms is message.forms, variant.key, variant.callback) == (True, "price", print)
    assert (message.key, message.callback) == (None, None)


def test_a_tracked_packet_is_the_packet_and_has_a_callback() -> None:
    tracked = TrackedPacket(Packet(PacketType.MESSAGE, "a", False), print)
    assert (tracked.type, tracked.data, tracked.compress, tracked.callback) == (PacketType.MESSAGE, "a", False, print)


def test_a_prepared_message_knows_its_size_and_has_no_forms_yet() -> None:
    assert (Prepared("ä", True).size, Prepared("ä", True).forms) == (2, {})
