"""A second implementation of the packet encoding, independent of the package's codecs.

A packet is the ``str`` that stands in a text frame (``"4hello"``), or ``bytes`` for a binary message.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import quote_plus

Packet = str | bytes

SEPARATOR = "\x1e"


def encode_v4(packets: Iterable[Packet]) -> bytes:
    """A payload of revision 4."""
    return SEPARATOR.join(p if isinstance(p, str) else "b" + base64.b64encode(p).decode() for p in packets).encode()


def decode_v4(body: bytes) -> list[Packet]:
    """The packets of a payload of revision 4."""
    return [base64.b64decode(p[1:], validate=True) if p[:1] == "b" else p for p in body.decode().split(SEPARATOR)]


def utf16_length(text: str) -> int:
    """The length of ``text`` as JavaScript counts it."""
    return len(text.encode("utf-16-le")) // 2


def encode_v3(packets: Iterable[Packet]) -> bytes:
    """A text payload of revisions 1 to 3; binary messages in base64."""
    texts = [p if isinstance(p, str) else "b4" + base64.b64encode(p).decode() for p in packets]
    return "".join(f"{utf16_length(text)}:{text}" for text in texts).encode()


def encode_v3_binary(packets: Iterable[Packet]) -> bytes:
    """A binary payload of revision 3."""
    return b"".join(_binary_packet(p) for p in packets)


def _binary_packet(packet: Packet) -> bytes:
    data = packet.encode() if isinstance(packet, str) else b"\x04" + packet
    kind = b"\x00" if isinstance(packet, str) else b"\x01"
    return kind + bytes(int(digit) for digit in str(len(data))) + b"\xff" + data


def decode_v3(body: bytes) -> list[Packet]:
    """The packets of a text payload of revisions 1 to 3."""
    rest = body.decode().encode("utf-16-le")
    packets: list[Packet] = []
    while rest:
        digits, _, rest = rest.partition(":".encode("utf-16-le"))
        end = 2 * int(digits.decode("utf-16-le"))
        if end > len(rest):
            raise ValueError(f"truncated payload: {body[:80]!r}")
        text, rest = rest[:end].decode("utf-16-le"), rest[end:]
        packets.append(base64.b64decode(text[2:], validate=True) if text[:2] == "b4" else text)
    return packets


def decode_v3_binary(body: bytes) -> list[Packet]:
    """The packets of a binary payload of revision 3."""
    packets: list[Packet] = []
    while body:
        head, _, rest = body.partition(b"\xff")
        if head[0] not in (0, 1) or max(head[1:]) > 9:
            raise ValueError(f"not a binary payload: {body[:80]!r}")
        size = int("".join(map(str, head[1:])))
        data, body = rest[:size], rest[size:]
        if len(data) < size:
            raise ValueError("truncated payload")
        packets.append(data.decode() if head[0] == 0 else data[1:])
    return packets


def decode(body: bytes, eio: int, content_type: str) -> list[Packet]:
    """The packets of a poll's response."""
    if eio == 4:
        return decode_v4(body)
    return decode_v3_binary(body) if content_type == "application/octet-stream" else decode_v3(body)


def encode(packets: Iterable[Packet], eio: int) -> bytes:
    """The body of a POST."""
    return encode_v4(packets) if eio == 4 else encode_v3(packets)


def jsonp_form(payload: bytes) -> bytes:
    """The body that a JSONP client posts: newlines escaped as the reference client does, then form-encoded."""
    text = payload.decode().replace("\\n", "\\\\n").replace("\n", "\\n")
    return b"d=" + quote_plus(text).encode()
