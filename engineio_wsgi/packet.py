"""What travels: packets, their types, and the data they carry. Knows nothing of how they are written down."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Packet", "PacketType"]


class PacketType(enum.IntEnum):
    """The packet types of every protocol revision; the value is the digit on the wire."""

    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


@dataclass(slots=True)
class Packet:
    """One Engine.IO packet.

    ``data`` is ``str`` for text, ``bytes`` for binary (messages only); ``compress`` allows the transport to compress it.
    """

    type: PacketType
    data: str | bytes = ""
    compress: bool = True
