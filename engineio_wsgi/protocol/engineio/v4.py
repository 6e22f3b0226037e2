"""Protocol revision 4: encodes and decodes packets and payloads. No I/O, no state.

Source: the Engine.IO protocol, revision 4, sections "Packet encoding" and "HTTP long-polling".
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections.abc import Sequence

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.packet import Packet, PacketType

__all__ = ["decode_packet", "decode_payload", "encode_packet", "encode_payload", "encode_text"]

#: separates the packets of a payload: the record separator, which JSON contains in escaped form only
SEPARATOR = b"\x1e"

TYPES = {str(int(packet_type)): packet_type for packet_type in PacketType}


def encode_packet(packet: Packet, binary: bool = True) -> str | bytes:
    """The content of the WebSocket frame with ``packet``: binary messages unchanged, all others as text.

    Args:
        binary: whether the client accepts binary frames; if not (``b64=1``), binary messages are base64 in text.
    """
    if isinstance(packet.data, bytes):
        return packet.data if binary else "b" + b64encode(packet.data).decode()
    return f"{packet.type:d}{packet.data}"


def decode_packet(frame: str | bytes) -> Packet:
    """Decode a WebSocket frame, or a part of a payload.

    Raises:
        ProtocolError: it is empty, does not start with a packet type, or is not valid base64.
    """
    if isinstance(frame, bytes):
        return Packet(PacketType.MESSAGE, frame)
    packet_type = TYPES.get(frame[:1])
    if packet_type is not None:
        return Packet(packet_type, frame[1:])
    if frame[:1] == "b":
        return _decode_base64(frame)
    raise ProtocolError(f"a packet starts with one of the digits 0 to 6, or with b, not with {frame[:1]!r}")


def encode_payload(packets: Sequence[Packet], binary: bool = True) -> bytes:
    """The body with ``packets``, as UTF-8. ``binary`` is ignored: this revision has text payloads only.

    Lone surrogates, which UTF-8 cannot express, become U+FFFD, as in a browser.
    """
    if len(packets) == 1:
        return _encode_one(packets[0])
    return SEPARATOR.join([_encode_one(packet) for packet in packets])


def _encode_one(packet: Packet) -> bytes:
    data = packet.data
    if isinstance(data, bytes):
        return b"b" + b64encode(data)
    return _encode(f"{packet.type:d}{data}")


def encode_text(data: str) -> bytes:
    """The body with one message, of text."""
    return _encode("4" + data)


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def decode_payload(body: bytes, binary: bool = False) -> list[Packet]:
    """Decode the packets in the body of a POST.

    Raises:
        ProtocolError: it is not UTF-8, or a packet is empty, of an unknown type, or not valid base64.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the payload is not UTF-8: {error.reason} at byte {error.start}") from None
    if "\x1e" not in text:
        return [decode_packet(text)]
    return [decode_packet(part) for part in text.split("\x1e")]


def _decode_base64(part: str) -> Packet:
    try:
        return Packet(PacketType.MESSAGE, binascii.a2b_base64(part[1:], strict_mode=True))
    except ValueError as error:
        raise ProtocolError(f"a binary packet is not base64: {error}") from None
