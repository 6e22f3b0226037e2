"""Protocol revisions 1 to 3: encodes and decodes packets and payloads. No I/O, no state.

Source: the Engine.IO protocol, revision 3, sections "Encoding" and "Payload". Lengths in a text payload count UTF-16 code
units, because JavaScript's strings do.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections.abc import Iterator, Sequence

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.packet import Packet, PacketType

__all__ = ["decode_packet", "decode_payload", "encode_packet", "encode_payload"]

#: the maximum number of digits of a length; a larger length exceeds every limit
MAX_DIGITS = 10
#: the kinds of packets in a binary payload, by the first byte
TEXT, BINARY = 0, 1
#: the byte after the digits of a length in a binary payload
END_OF_LENGTH = 255

TYPES = {str(int(packet_type)): packet_type for packet_type in PacketType}
TYPES_BY_NUMBER = {int(packet_type): packet_type for packet_type in PacketType}


def encode_packet(packet: Packet, binary: bool = True) -> str | bytes:
    """The content of the WebSocket frame with ``packet``.

    Args:
        binary: whether the client accepts binary frames: the packet type is the first byte; if not, binary data is base64.
    """
    if isinstance(packet.data, bytes):
        if not binary:
            return f"b{packet.type:d}{b64encode(packet.data).decode()}"
        return bytes((packet.type,)) + packet.data
    return f"{packet.type:d}{packet.data}"


def decode_packet(frame: str | bytes) -> Packet:
    """Decode a WebSocket frame, or a part of a payload.

    Raises:
        ProtocolError: it is empty, does not start with a packet type, or is not valid base64.
    """
    if isinstance(frame, bytes):
        return _decode_binary(frame)
    if frame[:1] == "b":
        return _decode_base64(frame)
    packet_type = TYPES.get(frame[:1])
    if packet_type is None:
        raise ProtocolError(f"a packet starts with one of the digits 0 to 6, or with b, not with {frame[:1]!r}")
    return Packet(packet_type, frame[1:])


def _decode_binary(frame: bytes) -> Packet:
    packet_type = TYPES_BY_NUMBER.get(frame[0]) if frame else None
    if packet_type is None:
        raise ProtocolError(f"a binary packet starts with a byte from 0 to 6, not with {frame[:1]!r}")
    return Packet(packet_type, frame[1:])


def _decode_base64(frame: str) -> Packet:
    packet_type = TYPES.get(frame[1:2])
    if packet_type is None:
        raise ProtocolError(f"a base64 packet starts with b and a digit from 0 to 6, not with {frame[:2]!r}")
    try:
        return Packet(packet_type, binascii.a2b_base64(frame[2:], strict_mode=True))
    except ValueError as error:
        raise ProtocolError(f"a binary packet is not base64: {error}") from None


def encode_payload(packets: Sequence[Packet], binary: bool = True) -> bytes:
    """The body with ``packets``.

    Args:
        binary: whether the client accepts binary payloads. If it does, and a packet has binary data, the body is a binary payload
            (``application/octet-stream``); if not, it is text with base64, as UTF-8.
    """
    if binary and any(type(packet.data) is bytes for packet in packets):
        return b"".join(map(_encode_in_binary, packets))
    return b"".join(map(_encode_in_text, packets)) or b"0:"


def _encode_in_text(packet: Packet) -> bytes:
    if isinstance(packet.data, bytes):
        encoded = b"b%d" % packet.type + b64encode(packet.data)
        return b"%d:" % len(encoded) + encoded
    text = f"{packet.type:d}{packet.data}"
    if text.isascii():
        return f"{len(text)}:{text}".encode()
    units = text.encode("utf-16-le", "surrogatepass")
    return b"%d:" % (len(units) // 2) + units.decode("utf-16-le", "replace").encode()


def _encode_in_binary(packet: Packet) -> bytes:
    if isinstance(packet.data, bytes):
        return _length(BINARY, 1 + len(packet.data)) + bytes((packet.type,)) + packet.data
    text = f"{packet.type:d}{packet.data}".encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
    return _length(TEXT, len(text)) + text


def _length(kind: int, length: int) -> bytes:
    return bytes((kind, *map(int, str(length)), END_OF_LENGTH))


def decode_payload(body: bytes, binary: bool = False) -> list[Packet]:
    """Decode the packets in the body of a POST.

    Args:
        binary: whether the content type is ``application/octet-stream``.

    Raises:
        ProtocolError: it is empty or not UTF-8, a length is not a number or too large, or a packet cannot be decoded.
    """
    if not body:
        raise ProtocolError("the payload is empty")
    if binary:
        return list(_decode_binary_payload(body))
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the payload is not UTF-8: {error.reason} at byte {error.start}") from None
    if text.isascii():
        return list(_decode_ascii_payload(text))
    return list(_decode_text_payload(text.encode("utf-16-le")))


def _decode_ascii_payload(text: str) -> Iterator[Packet]:
    position = 0
    while position < len(text):
        colon = text.find(":", position, position + MAX_DIGITS + 1)
        length = _parse_length(text[position:colon] if colon > 0 else "")
        position = colon + 1 + length
        if position > len(text):
            raise _too_short(length, len(text) - colon - 1)
        yield decode_packet(text[colon + 1:position])


def _decode_text_payload(units: bytes) -> Iterator[Packet]:
    """As `_decode_ascii_payload`, over UTF-16 with two bytes for each unit, in which the lengths are counted."""
    position = 0
    colon_unit = ":".encode("utf-16-le")
    while position < len(units):
        colon = position
        while units[colon:colon + 2] not in (colon_unit, b"") and colon - position <= 2 * MAX_DIGITS:
            colon += 2
        length = _parse_length(units[position:colon].decode("utf-16-le", "replace"))
        position = colon + 2 + 2 * length
        if position > len(units):
            raise _too_short(length, (len(units) - colon) // 2 - 1)
        yield decode_packet(_text_of(units[colon + 2:position]))


def _text_of(units: bytes) -> str:
    try:
        return units.decode("utf-16-le")
    except UnicodeDecodeError:
        raise ProtocolError("a length ends within a character") from None


def _decode_binary_payload(body: bytes) -> Iterator[Packet]:
    position = 0
    while position < len(body):
        kind = body[position]
        end = body.find(END_OF_LENGTH, position + 1, position + MAX_DIGITS + 2)
        digits = body[position + 1:end] if end > 0 else b""
        if kind not in (TEXT, BINARY) or not digits or max(digits) > 9:
            raise ProtocolError("a packet of a binary payload starts with 0 or 1, the digits of its length, and 255")
        length = int("".join(map(str, digits)))
        position = end + 1 + length
        if position > len(body):
            raise _too_short(length, len(body) - end - 1)
        yield decode_packet(_utf8(body[end + 1:position]) if kind == TEXT else body[end + 1:position])


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a text packet is not UTF-8: {error.reason} at byte {error.start}") from None


def _parse_length(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit()) or len(digits) > MAX_DIGITS:
        raise ProtocolError(f"a packet of a text payload starts with its length and a colon, not with {digits[:16]!r}")
    return int(digits)


def _too_short(announced: int, rest: int) -> ProtocolError:
    return ProtocolError(f"a packet of {announced} was announced, and {max(0, rest)} follow")
