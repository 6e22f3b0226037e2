"""What both codecs have in common, and which of them a session uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engineio_wsgi.packet import Packet
from engineio_wsgi.protocol.engineio import v3, v4

__all__ = ["Codec", "codec_of"]


class Codec(Protocol):
    """The packets and payloads of one or several protocol revisions, as bytes and back: a module's functions."""

    def encode_packet(self, packet: Packet, binary: bool = True) -> str | bytes:
        """The content of the WebSocket frame that carries ``packet``; ``binary``: whether the client takes binary frames."""
        ...

    def decode_packet(self, frame: str | bytes) -> Packet:
        """The packet in a WebSocket frame.

        Raises:
            ProtocolError: there is none.
        """
        ...

    def encode_payload(self, packets: Sequence[Packet], binary: bool = True) -> bytes:
        """The body that carries ``packets``; ``binary``: whether the client takes binary payloads."""
        ...

    def decode_payload(self, body: bytes, binary: bool = False) -> list[Packet]:
        """The packets in the body of a POST; ``binary``: whether its content type says so.

        Raises:
            ProtocolError: it is no payload.
        """
        ...


def codec_of(revision: int) -> Codec:
    """The codec of a protocol revision, 1 to 4."""
    return v4 if revision == 4 else v3
