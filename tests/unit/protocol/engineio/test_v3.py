"""protocol/v3.py: packets and payloads of revisions 1 to 3."""

from __future__ import annotations

import pytest

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio.v3 import decode_packet, decode_payload, encode_packet, encode_payload

HELLO = Packet(PacketType.MESSAGE, "hello")
EURO = Packet(PacketType.MESSAGE, "\u20ac")
SMILE = Packet(PacketType.MESSAGE, "\U0001f600")
BINARY = Packet(PacketType.MESSAGE, b"\x01\x02\x03")

#: a packet and its frame
FRAMES = [
    (Packet(PacketType.OPEN, "{}"), "0{}"),
    (Packet(PacketType.PING, "probe"), "2probe"),
    (Packet(PacketType.PONG), "3"),
    (HELLO, "4hello"),
    (Packet(PacketType.MESSAGE), "4"),
    (Packet(PacketType.NOOP), "6"),
    (BINARY, b"\x04\x01\x02\x03"),
    (Packet(PacketType.MESSAGE, b""), b"\x04"),
]


@pytest.mark.parametrize(("packet", "frame"), FRAMES)
def test_frames(packet: Packet, frame: str | bytes) -> None:
    assert encode_packet(packet) == frame
    assert decode_packet(frame) == packet


def test_a_client_without_binary_frames() -> None:
    assert encode_packet(BINARY, binary=False) == "b4AQID"
    assert decode_packet("b4AQID") == BINARY
    assert encode_packet(HELLO, binary=False) == "4hello"


WRONG_FRAMES = [
    "",
    "7",
    "x",
    "\u0664",
    "b",
    "b7AQID",
    "bAQID",
    "b4A",
    "b4AQI",
    "b4AQID!",
    "b4 AQID",
    "b4\u00e9",
    b"",
    b"\x07",
    b"4hello",
    b"\xff",
]


@pytest.mark.parametrize("frame", WRONG_FRAMES)
def test_invalid_frames(frame: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_packet(frame)


#: packets and the text that carries them: lengths are UTF-16 code units
TEXTS = [
    ([HELLO], "6:4hello"),
    ([HELLO, Packet(PacketType.PING)], "6:4hello1:2"),
    ([EURO, HELLO], "2:4\u20ac6:4hello"),
    ([SMILE, EURO, HELLO], "3:4\U0001f6002:4\u20ac6:4hello"),
    ([BINARY], "6:b4AQID"),
    ([EURO, BINARY], "2:4\u20ac6:b4AQID"),
    ([Packet(PacketType.MESSAGE)], "1:4"),
    ([Packet(PacketType.MESSAGE, "1:4")], "4:41:4"),
    ([Packet(PacketType.MESSAGE, "x" * 123)], "124:4" + "x" * 123),
]


@pytest.mark.parametrize(("packets", "text"), TEXTS)
def test_text_payloads(packets: list[Packet], text: str) -> None:
    assert encode_payload(packets, binary=False) == text.encode()
    assert decode_payload(text.encode()) == packets


#: packets and the binary payload that carries them: lengths are bytes, a digit each
BINARIES = [
    ([BINARY], b"\x01\x04\xff\x04\x01\x02\x03"),
    ([HELLO, BINARY], b"\x00\x06\xff4hello\x01\x04\xff\x04\x01\x02\x03"),
    ([EURO, BINARY], b"\x00\x04\xff4\xe2\x82\xac\x01\x04\xff\x04\x01\x02\x03"),
    ([SMILE, BINARY], b"\x00\x05\xff4\xf0\x9f\x98\x80\x01\x04\xff\x04\x01\x02\x03"),
    ([Packet(PacketType.MESSAGE, b"\xff" * 209)], b"\x01\x02\x01\x00\xff\x04" + b"\xff" * 209),
    ([Packet(PacketType.MESSAGE, b"")], b"\x01\x01\xff\x04"),
]


@pytest.mark.parametrize(("packets", "body"), BINARIES)
def test_binary_payloads(packets: list[Packet], body: bytes) -> None:
    assert encode_payload(packets) == body
    assert decode_payload(body, binary=True) == packets


def test_without_binary_data_a_payload_is_text() -> None:
    assert encode_payload([HELLO, EURO], binary=True) == encode_payload([HELLO, EURO], binary=False)


def test_texts_of_a_binary_payload_can_be_base64() -> None:
    assert decode_payload(b"\x00\x06\xffb4AQID", binary=True) == [BINARY]


def test_an_empty_payload() -> None:
    assert encode_payload([]) == encode_payload([], binary=False) == b"0:"


WRONG_TEXTS = [
    b"",
    b":",
    b"6",
    b"0:",
    b"4hello",
    b"7:4hello",
    b"5:4hello",
    b"-1:4",
    b"+1:4",
    b"1.0:4",
    b" 1:4",
    b"1e0:4",
    b"0x1:4",
    b"1:7",
    b"1:b",
    b"6:4hello:",
    b"6:4hello1",
    b"6:4hello1:",
    b"9" * 400 + b":4",
    b"9" * 5000,
    b"99999999999:4",
    "\u0661:4".encode(),
    "1:4\u20ac".encode(),
    "2:4\u20ac9:4".encode(),
    "2:4\u20ac9".encode(),
    "2:4\U0001f600".encode(),
    "2:4\u20ac".encode() + b"9" * 400 + b":4",
    "2:4\u20ac99999999999:4".encode(),
    "2:4\u20ac-1:4".encode(),
    b"2:4\xff",
    b"00000000001:4",
    "2:4\u20ac00000000001:4".encode(),
    b"2:4\xed\xa0\x80",
]


@pytest.mark.parametrize("body", WRONG_TEXTS, ids=ascii)
def test_invalid_text_payloads(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_payload(body)


WRONG_BINARIES = [
    b"",
    b"\x00",
    b"\x01\xff",
    b"\x00\x01",
    b"\x00\xff4",
    b"\x02\x01\xff4",
    b"4hello",
    b"\x00\x0a\xff4",
    b"\x00\x02\xff4",
    b"\x00\x00\xff",
    b"\x01\x00\xff",
    b"\x01\x01\xff\x07",
    b"\x01\x01\xff4",
    b"\x00\x01\xff7",
    b"\x00\x02\xff4\xff",
    b"\x00\x0a\xff4hello1234",
    b"\x02\x01\xff\x04",
    b"\xff\x01\xff\x04",
    b"\x00\x01\xff4\x00",
    b"\x00" + b"\x09" * 400 + b"\xff4",
    b"\x00" + b"\x09" * 5000,
]


@pytest.mark.parametrize("body", WRONG_BINARIES, ids=ascii)
def test_invalid_binary_payloads(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_payload(body, binary=True)


def test_the_error_of_a_short_payload_has_its_lengths() -> None:
    with pytest.raises(ProtocolError, match="9 was announced, and 2 follow"):
        decode_payload(b"9:4x")
    with pytest.raises(ProtocolError, match="9 was announced, and 2 follow"):
        decode_payload("2:4\u20ac9:4x".encode())
    with pytest.raises(ProtocolError, match="9 was announced, and 2 follow"):
        decode_payload(b"\x00\x09\xff4x", binary=True)


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
    packets, cleaned = [Packet(PacketType.MESSAGE, text), BINARY], [Packet(PacketType.MESSAGE, sent), BINARY]
    assert encode_payload(packets, binary=False) == encode_payload(cleaned, binary=False)
    assert encode_payload(packets) == encode_payload(cleaned)


@pytest.mark.parametrize("data", ["x", "\u20ac", b"x"])
def test_packets_are_not_counted(data: str | bytes) -> None:
    packets = [Packet(PacketType.MESSAGE, data)] * 10_000
    assert decode_payload(encode_payload(packets), binary=isinstance(data, bytes)) == packets
