"""protocol/v4.py: packets and payloads of revision 4."""

from __future__ import annotations

import pytest

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio.v4 import decode_packet, decode_payload, encode_packet, encode_payload

HELLO = Packet(PacketType.MESSAGE, "hello")

#: a packet and its frame
FRAMES = [
    (Packet(PacketType.OPEN, '{"sid":"x"}'), '0{"sid":"x"}'),
    (Packet(PacketType.CLOSE), "1"),
    (Packet(PacketType.PING), "2"),
    (Packet(PacketType.PING, "probe"), "2probe"),
    (Packet(PacketType.PONG, "probe"), "3probe"),
    (HELLO, "4hello"),
    (Packet(PacketType.MESSAGE), "4"),
    (Packet(PacketType.MESSAGE, "b"), "4b"),
    (Packet(PacketType.UPGRADE), "5"),
    (Packet(PacketType.NOOP), "6"),
    (Packet(PacketType.MESSAGE, b"\x01\x02\x03"), b"\x01\x02\x03"),
    (Packet(PacketType.MESSAGE, b""), b""),
]


@pytest.mark.parametrize(("packet", "frame"), FRAMES)
def test_frames(packet: Packet, frame: str | bytes) -> None:
    assert encode_packet(packet) == frame
    assert decode_packet(frame) == packet


def test_a_client_without_binary_frames() -> None:
    packet = Packet(PacketType.MESSAGE, b"\x01\x02\x03")
    assert encode_packet(packet, binary=False) == "bAQID"
    assert decode_packet("bAQID") == packet
    assert encode_packet(HELLO, binary=False) == "4hello"


@pytest.mark.parametrize(
    "frame", ["", "7", "9x", "x", "\u0664", "B", " 4", "b=", "bA", "bAQI", "b AQID", "bAQID!", "b\u00e9"]
)
def test_invalid_frames(frame: str) -> None:
    with pytest.raises(ProtocolError):
        decode_packet(frame)
    with pytest.raises(ProtocolError):
        decode_payload(b"4x\x1e" + frame.encode())


#: packets and the body that carries them
PAYLOADS = [
    ([HELLO], b"4hello"),
    ([HELLO, Packet(PacketType.PING), Packet(PacketType.MESSAGE, "\u20ac")], b"4hello\x1e2\x1e4\xe2\x82\xac"),
    ([HELLO, Packet(PacketType.MESSAGE, b"\x01\x02\x03\x04")], b"4hello\x1ebAQIDBA=="),
    ([Packet(PacketType.MESSAGE, b"")], b"b"),
    ([Packet(PacketType.MESSAGE), Packet(PacketType.MESSAGE)], b"4\x1e4"),
    ([Packet(PacketType.MESSAGE, "\U0001f600\u2028\ufeff\x00")], "4\U0001f600\u2028\ufeff\x00".encode()),
]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("packets", "body"), PAYLOADS)
def test_payloads(packets: list[Packet], body: bytes, binary: bool) -> None:
    assert encode_payload(packets, binary) == body
    assert decode_payload(body, binary) == packets


@pytest.mark.parametrize(
    "body", [b"", b"\x1e", b"4x\x1e", b"\x1e4x", b"4\xff", b"4\xed\xa0\x80", b"4\xc0\x80", b"bAQ\xc3\xa9="]
)
def test_invalid_payloads(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_payload(body)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("\ud800", "\ufffd"),
        ("a\udc00b", "a\ufffdb"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_surrogates_are_encoded_as_in_a_browser(text: str, sent: str) -> None:
    assert encode_payload([HELLO, Packet(PacketType.MESSAGE, text)]) == b"4hello\x1e4" + sent.encode()


def test_packets_are_not_counted() -> None:
    packets = [Packet(PacketType.MESSAGE, str(number)) for number in range(10_000)]
    assert decode_payload(encode_payload(packets)) == packets
