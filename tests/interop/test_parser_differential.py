"""The codecs beside the parsers of npm: engine.io-parser, its 2.x of the EIO 3 clients, the reference server's JSONP.

What ours writes is byte for byte what theirs write. What ours reads, theirs read the same; ours may refuse more, and
each thing that it refuses and theirs do not is named here.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.node import node_environment

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio import jsonp, v3, v4

CODECS: dict[int, Any] = {3: v3, 4: v4}
REVISIONS = pytest.mark.parametrize("revision", CODECS)
#: the machine may be busy, so there is no deadline
MANY = settings(max_examples=300)


class Ask(Protocol):
    """Has the reference do something; fails if it throws."""

    def __call__(self, operation: str, **request: Any) -> Any: ...


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    script = str(Path(__file__).with_name("parser_reference.js"))
    with subprocess.Popen(
        ["node", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=node_environment()
    ) as node:
        assert node.stdin is not None and node.stdout is not None
        reading, writing = node.stdout, node.stdin

        def converse(operation: str, **request: Any) -> Any:
            writing.write(json.dumps({"operation": operation, **request}).encode() + b"\n")
            writing.flush()
            answer = json.loads(reading.readline())
            assert "error" not in answer, answer
            return answer.get("result")

        yield converse
        writing.close()
        assert node.wait(60) == 0


# -- packets as the reference's JSON has them


def described(packet: Packet) -> dict[str, str]:
    name = packet.type.name.lower()
    if isinstance(packet.data, str):
        return {"type": name, "text": packet.data}
    return {"type": name, "base64": base64.b64encode(packet.data).decode()}


def sent_bytes(written: dict[str, Any]) -> bytes:
    return base64.b64decode(written["base64"])


texts = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(exclude_categories=[]), max_size=20),
    st.sampled_from(
        ["", "\U0001f600" * 3, "\u2028\u2029", "\ufeff", "\x00", "b4AAAA", "1:4", "x" * 130, "\u20ac" * 130, "\ud800"]
    ),
)
packets = st.one_of(
    st.builds(Packet, st.sampled_from(list(PacketType)), texts),
    st.builds(
        Packet,
        st.just(PacketType.MESSAGE),
        st.one_of(
            st.binary(max_size=40), st.sampled_from([b"x" * size for size in (125, 126, 254, 255, 256, 999, 1000)])
        ),
    ),
)
batches = st.lists(packets, min_size=1, max_size=6)


# -- writing


@REVISIONS
@MANY
@given(packet=packets, binary=st.booleans())
def test_frames_are_the_same(ask: Ask, revision: int, packet: Packet, binary: bool) -> None:
    theirs = ask("encodeFrame", revision=revision, packet=described(packet), binary=binary)
    frame = CODECS[revision].encode_packet(packet, binary)
    assert theirs["binary"] == isinstance(frame, bytes)
    if isinstance(frame, bytes):
        assert frame == sent_bytes(theirs)
    else:
        # a frame's lone surrogates are the frame codec's business
        clean = frame.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        assert clean.encode() == sent_bytes(theirs)


@REVISIONS
@MANY
@given(batch=batches, binary=st.booleans())
@example(batch=[Packet(PacketType.MESSAGE, "\U0001f600\ud800"), Packet(PacketType.MESSAGE, b"\xff")], binary=True)
@example(batch=[Packet(PacketType.MESSAGE, "\U0001f600\ud800"), Packet(PacketType.MESSAGE, b"\xff")], binary=False)
def test_payloads_are_the_same(ask: Ask, revision: int, batch: list[Packet], binary: bool) -> None:
    theirs = ask("encodePayload", revision=revision, packets=list(map(described, batch)), binary=binary)
    assert CODECS[revision].encode_payload(batch, binary) == sent_bytes(theirs)
    assert theirs["binary"] == (revision == 3 and binary and any(isinstance(packet.data, bytes) for packet in batch))


def test_an_empty_payload_is_the_same(ask: Ask) -> None:
    theirs = ask("encodePayload", revision=3, packets=[], binary=True)
    assert v3.encode_payload([]) == sent_bytes(theirs)


# -- reading


@REVISIONS
@MANY
@given(packet=packets, binary=st.booleans())
def test_their_frames_can_be_read(ask: Ask, revision: int, packet: Packet, binary: bool) -> None:
    theirs = ask("encodeFrame", revision=revision, packet=described(packet), binary=binary)
    frame = sent_bytes(theirs) if theirs["binary"] else sent_bytes(theirs).decode()
    assert described(CODECS[revision].decode_packet(frame)) == ask(
        "decodeFrame", revision=revision, base64=theirs["base64"], binary=theirs["binary"]
    )


@REVISIONS
@MANY
@given(batch=batches, binary=st.booleans())
def test_their_payloads_can_be_read(ask: Ask, revision: int, batch: list[Packet], binary: bool) -> None:
    if revision == 4:
        batch = [
            Packet(packet.type, packet.data.replace("\x1e", "")) if isinstance(packet.data, str) else packet
            for packet in batch
        ]
    theirs = ask("encodePayload", revision=revision, packets=list(map(described, batch)), binary=binary)
    decoded = CODECS[revision].decode_payload(sent_bytes(theirs), theirs["binary"])
    assert len(decoded) == len(batch)
    assert list(map(described, decoded)) == ask(
        "decodePayload", revision=revision, base64=theirs["base64"], binary=theirs["binary"]
    )


# -- garbage

scraps = st.one_of(
    st.sampled_from(
        [
            "4",
            "b",
            "b4",
            "bAQID",
            "b4AQID",
            "\x1e",
            ":",
            "0:",
            "1:4",
            "2:4\u20ac",
            "3:4\U0001f600",
            "6:4hello",
            "9" * 12,
            "x",
            "7",
            "=",
            "1:7",
            "\u20ac",
            "b4AQ",
            "2:b4",
        ]
    ),
    st.integers(0, 9).map(lambda size: f"{size}:"),
    st.sampled_from(["+1:4", " 1:4", "1.0:4", "1e0:4", "0x1:4", "00000000001:4", "-1:4", "1 1:4"]),
    st.text(max_size=4),
)
bodies = st.lists(scraps, max_size=6).map("".join)
#: what only ours refuses in texts, by what it says: base64 that is none, and, in revision 3, packets of no length,
#: other ways to write a number (JavaScript's are many), and a character that was cut in two
LENIENT = {
    4: re.compile("is not base64"),
    3: re.compile(r"is not base64|not with ''$|length and a colon, not with '(?!\d{1,10}')|ends within a character"),
}


def is_refused(packets: Any) -> bool:
    return any(packet.get("type") in (None, "error") for packet in packets)


@REVISIONS
@MANY
@given(body=bodies)
def test_texts_that_anybody_may_send(ask: Ask, revision: int, body: str) -> None:
    theirs = ask("decodePayload", revision=revision, base64=base64.b64encode(body.encode()).decode(), binary=False)
    try:
        ours = CODECS[revision].decode_payload(body.encode())
    except ProtocolError as error:
        assert is_refused(theirs) or LENIENT[revision].search(str(error))
    else:
        assert list(map(described, ours)) == theirs


binary_scraps = st.one_of(
    st.sampled_from(
        [
            b"\x00\x01\xff4",
            b"\x01\x04\xff\x04\x01\x02\x03",
            b"\x00\x06\xffb4AQID",
            b"\x01\x01\xff\x04",
            b"\x00\x01\xff",
            b"\x00\x04\xff4\xe2\x82\xac",
            b"\x01\x01\x00\xff\x04123456789",
            b"\x00\x02\xff4\xff",
            b"\x00",
            b"\x01\xff",
        ]
    ),
    st.binary(max_size=3),
)


@MANY
@given(st.lists(binary_scraps, min_size=1, max_size=5).map(b"".join))
def test_what_is_read_of_binary_payloads(ask: Ask, body: bytes) -> None:
    """Theirs take a payload that was cut short, numbers with digits over 9 and so on; so only one way."""
    try:
        ours = v3.decode_payload(body, binary=True)
    except ProtocolError:
        return
    theirs = ask("decodePayload", revision=3, base64=base64.b64encode(body).decode(), binary=True)
    assert list(map(described, ours)) == theirs


@MANY
@given(
    st.lists(
        st.sampled_from(
            [
                b"\x00\x01\xff4",
                b"\x01\x04\xff\x04\x01\x02\x03",
                b"\x00\x06\xffb4AQID",
                b"\x01\x01\xff\x04",
                b"\x00\x04\xff4\xe2\x82\xac",
                b"\x01\x01\x00\xff\x04123456789",
            ]
        ),
        min_size=1,
        max_size=5,
    )
)
def test_all_of_a_binary_payload_is_read(ask: Ask, parts: list[bytes]) -> None:
    body = b"".join(parts)
    theirs = ask("decodePayload", revision=3, base64=base64.b64encode(body).decode(), binary=True)
    assert len(theirs) == len(parts)
    assert list(map(described, v3.decode_payload(body, binary=True))) == theirs


# -- JSONP

forms = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(["\\", "n", "\n", "\\n", "\\\\n", "4", "+", "%", "&", "=", "\u20ac", "\U0001f600", "\r"]),
        max_size=12,
    ).map("".join),
)


@MANY
@given(forms)
def test_forms_are_read_the_same(ask: Ask, content: str) -> None:
    """Newline escapes of every kind, in whatever order."""
    form = b"x=1&d=" + quote_plus(content).encode() + b"&y"
    theirs = ask("decodeForm", base64=base64.b64encode(form).decode())
    assert jsonp.decode_body(form).decode() == theirs


@MANY
@given(
    st.one_of(
        st.text(max_size=40), st.sampled_from(["\u2028\u2029", "</script>", "\"\\'", "\r\n\x00", "<!--", "\U0001f600"])
    ),
    st.integers(0, 10**9 - 1),
)
def test_scripts_call_the_page_with_the_payload(ask: Ask, payload: str, index: int) -> None:
    script = jsonp.encode_response(payload.encode(), index)
    assert ask("runScript", script=script.decode(), index=index) == [[payload]]
