"""Packets, their types, and their data. Does not know how they are encoded."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Packet", "PacketType"]


class PacketType(enum.IntEnum):
    """The packet types of all protocol revisions; the value is the digit on the wire."""

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
