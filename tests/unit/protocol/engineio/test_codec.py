"""The codec of each protocol revision, and what all codecs have in common."""

from __future__ import annotations

import pytest

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio import v3, v4
from engineio_wsgi.protocol.engineio.codec import codec_of

PACKETS = [Packet(PacketType.MESSAGE, "text \u20ac"), Packet(PacketType.MESSAGE, b"\x00\xff"), Packet(PacketType.PING, "probe")]


@pytest.mark.parametrize(("revision", "codec"), [(1, v3), (2, v3), (3, v3), (4, v4)])
def test_the_codec_of_a_revision(revision: int, codec: object) -> None:
    assert codec_of(revision) is codec


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("revision", [3, 4])
def test_what_a_codec_encodes_it_decodes(revision: int, binary: bool) -> None:
    codec = codec_of(revision)
    assert [codec.decode_packet(codec.encode_packet(packet, binary)) for packet in PACKETS] == PACKETS
    assert codec.decode_payload(codec.encode_payload(PACKETS, binary), binary and revision == 3) == PACKETS
