"""Packets and their types."""

from __future__ import annotations

from engineio_wsgi.packet import Packet, PacketType


def test_the_value_of_a_type_is_its_digit_on_the_wire() -> None:
    assert [(packet_type.name.lower(), int(packet_type)) for packet_type in PacketType] == [
        ("open", 0), ("close", 1), ("ping", 2), ("pong", 3), ("message", 4), ("upgrade", 5), ("noop", 6)]


def test_a_packet_has_no_data_and_may_be_compressed_unless_it_says_otherwise() -> None:
    packet = Packet(PacketType.NOOP)
    assert (packet.data, packet.compress) == ("", True)


def test_packets_are_equal_by_their_parts() -> None:
    assert Packet(PacketType.MESSAGE, "a") == Packet(PacketType.MESSAGE, "a")
    assert Packet(PacketType.MESSAGE, "a") != Packet(PacketType.MESSAGE, b"a")
    assert Packet(PacketType.MESSAGE, "a") != Packet(PacketType.PING, "a")
