"""The codecs of polling: what was written can be read, and what cannot be read is a `ProtocolError`, nothing else."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_from_bytes, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio import jsonp, v3, v4

CODECS = pytest.mark.parametrize("codec", [v3, v4], ids=["v3", "v4"])
#: examples of a property; the machine may be busy, so none has a deadline
FEW = settings(max_examples=200)
MANY = settings(max_examples=1000)

texts = st.one_of(st.text(max_size=40), st.text("\x1e:0149b\\n\n\U0001f600\u20ac\xff", max_size=20))
types = st.sampled_from(list(PacketType))
plain_packets = st.builds(Packet, types, texts)
binary_packets = st.builds(Packet, st.just(PacketType.MESSAGE), st.binary(max_size=300))
packets = st.one_of(plain_packets, binary_packets)
batches = st.lists(packets, min_size=1, max_size=8)

#: what a careless or malicious client might put together
scraps = st.one_of(
    st.sampled_from(
        [
            b"4",
            b"6:4hello",
            b"b",
            b"b4",
            b"bAQID",
            b"\x1e",
            b":",
            b"0:",
            b"1:",
            b"\x00",
            b"\x01",
            b"\xff",
            b"9" * 400,
            b"\x00\x01\xff",
            b"\x01\x04\xff",
            "2:4\u20ac".encode(),
            "3:4\U0001f600".encode(),
            b"\xed\xa0\x80",
            b"=",
        ]
    ),
    st.binary(max_size=6),
    st.integers(0, 12).map(lambda size: b"%d:" % size),
    batches.map(v4.encode_payload),
    batches.map(v3.encode_payload),
    batches.map(lambda batch: v3.encode_payload(batch, False)),
)
bodies = st.one_of(st.binary(max_size=100), st.lists(scraps, max_size=8).map(b"".join))


def without_separator(batch: list[Packet]) -> list[Packet]:
    """As revision 4 can carry it: nothing stands for the separator in there."""
    return [
        packet if isinstance(packet.data, bytes) else Packet(packet.type, packet.data.replace("\x1e", ""))
        for packet in batch
    ]


# -- round trips


@CODECS
@FEW
@given(packet=packets, binary=st.booleans())
def test_frames(codec: Any, packet: Packet, binary: bool) -> None:
    frame = codec.encode_packet(packet, binary)
    assert codec.decode_packet(frame) == packet
    assert binary or isinstance(frame, str)


@FEW
@given(batches.map(without_separator), st.booleans())
def test_v4_payloads(batch: list[Packet], binary: bool) -> None:
    assert v4.decode_payload(v4.encode_payload(batch, binary)) == batch


@MANY
@given(batches, st.booleans())
def test_v3_payloads(batch: list[Packet], binary: bool) -> None:
    is_binary = binary and any(isinstance(packet.data, bytes) for packet in batch)
    assert v3.decode_payload(v3.encode_payload(batch, binary), is_binary) == batch


@CODECS
@FEW
@given(batch=batches.map(without_separator), more=batches.map(without_separator))
def test_payloads_are_the_sum_of_their_packets(codec: Any, batch: list[Packet], more: list[Packet]) -> None:
    separator = v4.SEPARATOR if codec is v4 else b""
    one, two = codec.encode_payload(batch, False), codec.encode_payload(more, False)
    assert codec.encode_payload(batch + more, False) == one + separator + two


@CODECS
@FEW
@given(data=st.text(st.characters(exclude_categories=[]), max_size=20), binary=st.booleans())
@example(data="\ud83d\ude00", binary=False)
@example(data="\ude00\ud83d", binary=True)
def test_any_python_string_can_be_sent(codec: Any, data: str, binary: bool) -> None:
    """Surrogates as well: they arrive as what JavaScript would have sent."""
    batch = [Packet(PacketType.MESSAGE, data.replace("\x1e", "")), Packet(PacketType.MESSAGE, b"\x00")]
    body = codec.encode_payload(batch, binary)
    received = codec.decode_payload(body, binary and codec is v3)[0].data
    units = data.replace("\x1e", "").encode("utf-16-le", "surrogatepass")
    assert received == units.decode("utf-16-le", "replace")


# -- refusals


@CODECS
@MANY
@given(body=bodies, binary=st.booleans())
def test_any_body_is_packets_or_a_protocol_error(codec: Any, body: bytes, binary: bool) -> None:
    try:
        decoded = codec.decode_payload(body, binary)
    except ProtocolError as error:
        assert len(str(error)) < 200
        return
    assert decoded
    assert all(type(packet.type) is PacketType and type(packet.data) in (str, bytes) for packet in decoded)
    # whatever was read can be passed on
    again = codec.encode_payload(decoded, False)
    assert codec.decode_payload(again) == decoded


@CODECS
@FEW
@given(frame=st.one_of(st.text(max_size=20), st.text("b0123456789=AQ", max_size=8), st.binary(max_size=20)))
def test_any_frame_is_a_packet_or_a_protocol_error(codec: Any, frame: str | bytes) -> None:
    try:
        packet = codec.decode_packet(frame)
    except ProtocolError:
        return
    assert type(packet.type) is PacketType
    assert codec.decode_packet(codec.encode_packet(packet, isinstance(frame, bytes))) == packet


@FEW
@given(batches, st.booleans(), st.data())
def test_a_v3_payload_that_was_cut_short_is_refused_or_shorter(
    batch: list[Packet], binary: bool, data: st.DataObject
) -> None:
    is_binary = binary and any(isinstance(packet.data, bytes) for packet in batch)
    body = v3.encode_payload(batch, binary)
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    try:
        decoded = v3.decode_payload(cut, is_binary)
    except ProtocolError:
        return
    assert decoded == batch[: len(decoded)]
    assert len(decoded) < len(batch)


# -- JSONP


def escaped(payload: str) -> str:
    r"""What clients make of newlines before they fill in the form: ``\n`` first, then the newlines themselves."""
    return payload.replace("\\n", "\\\n").replace("\n", "\\n")


@FEW
@given(texts, st.integers(0, 10**9 - 1))
def test_jsonp_responses(payload: str, index: int) -> None:
    script = jsonp.encode_response(payload.encode(), index).decode("ascii")
    head, foot = f"___eio[{index}](", ");"
    assert script.startswith(head) and script.endswith(foot)
    literal = script[len(head) : -len(foot)]
    assert json.loads(literal) == payload
    assert literal.isprintable() and not set("<>&") & set(literal)


@FEW
# the clients' escaping itself takes a backslash before a newline for the escape of one
@given(
    texts.filter(lambda payload: "\\\n" not in payload),
    st.sampled_from([quote_plus, lambda text: quote_from_bytes(text.encode())]),
)
@example("\\n\n\\\\n\\", quote_plus)
def test_jsonp_bodies(payload: str, quote: Any) -> None:
    assert jsonp.decode_body(b"d=" + quote(escaped(payload)).encode()) == payload.encode()


@CODECS
@MANY
@given(
    form=st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.one_of(
                scraps, st.sampled_from([b"d=", b"&", b"%", b"+", b"\\", b"n", b"\\n", b"%5Cn", b"%E2%82%AC", b"%ff"])
            ),
            max_size=10,
        ).map(b"".join),
    )
)
def test_any_form_is_packets_or_a_protocol_error(codec: Any, form: bytes) -> None:
    try:
        decoded = codec.decode_payload(jsonp.decode_body(form))
    except ProtocolError:
        return
    assert decoded


@FEW
@given(st.one_of(st.none(), st.text(max_size=12), st.text("0123456789\u0661\xb2-+", max_size=12)))
def test_any_index_is_a_number_or_a_protocol_error(value: str | None) -> None:
    try:
        index = jsonp.parse_index(value)
    except ProtocolError:
        return
    assert value is not None and set(value) <= set("0123456789")
    assert index == int(value)
