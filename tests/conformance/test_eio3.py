"""Protocol revisions 1 to 3: the clients of 2012 to 2020."""

from __future__ import annotations

from typing import Any

import pytest
from support import codec
from support.clients import PollingSession, WebSocketSession, upgrade

TEXTS = ["", "hello", "é ü ß", "\U0001f600\U0001f680", "\u2028", "\n", "1:4", "b4AA==", "\\n"]
OCTETS = ("Content-Type", "application/octet-stream")


def polling(served: Any, eio: int = 3, **query: str) -> PollingSession:
    return PollingSession(served, eio, **query).open()


def test_lengths_count_utf16_code_units(serve: Any) -> None:
    session = polling(serve())
    assert session.posting.post(session.target(), "5:4\U0001f600é12:4é".encode()).body == b"ok"
    response = session.getting.get(session.target())
    received = codec.decode_v3(response.body)
    if len(received) == 1:
        received += session.poll()
    assert received == ["4\U0001f600é1", "4é"]
    assert response.body.startswith("5:4\U0001f600é1".encode())


def test_texts(serve: Any) -> None:
    session = polling(serve(), b64="1")
    session.say(*TEXTS)
    assert session.hear_many(len(TEXTS)) == TEXTS


def test_binary_payload_out(serve: Any) -> None:
    session = polling(serve(app="told"))
    session.send('4["send", ["é\U0001f600", {"hex": "00ff"}, ""]]')
    assert session.hear_many(3) == ["é\U0001f600", b"\x00\xff", ""]
    assert session.last is not None
    assert session.last.header("Content-Type") == "application/octet-stream"


def test_base64_out(serve: Any) -> None:
    session = polling(serve(app="told"), b64="1")
    session.send('4["send", ["é", {"hex": "00ff"}]]')
    response = session.getting.get(session.target())
    assert (response.header("Content-Type") or "").startswith("text/plain")
    assert response.body == "2:4é6:b4AP8=".encode()


def test_binary_payload_in(serve: Any) -> None:
    session = polling(serve())
    sent = ["4é\U0001f600", b"\x00\xff", b"", "4", bytes(range(256)) * 300]
    body = codec.encode_v3_binary(sent)
    assert session.posting.post(session.target(), body, [OCTETS]).body == b"ok"
    assert [session.recv() for _ in sent] == sent


def test_base64_in(serve: Any) -> None:
    session = polling(serve())
    assert session.posting.post(session.target(), b"6:b4AP8=4:4one").body == b"ok"
    assert session.hear_many(2) == [b"\x00\xff", "one"]


def test_base64_on_a_websocket(serve: Any) -> None:
    session = WebSocketSession(serve(), 3).open()
    session.ws.send("b4AP8=")
    assert session.hear() == b"\x00\xff"


def test_base64_to_a_websocket(serve: Any) -> None:
    session = WebSocketSession(serve(), 3, b64="1").open()
    session.ws.send("b4AP8=")
    assert session.ws.recv() == "b4AP8="


def test_a_session_in_full(serve: Any) -> None:
    session = polling(serve())
    session.send("2")
    assert session.recv() == "3"
    moved = upgrade(session)
    moved.send("2")
    assert moved.recv() == "3"
    moved.say("é", b"\x00")
    assert moved.hear_many(2) == ["é", b"\x00"]
    moved.close()
    assert moved.served.events.wait("close")["reason"] == "transport close"


@pytest.mark.parametrize("revision", [1, 2])
@pytest.mark.differs("calls all of them revision 3")
def test_older_revisions(serve: Any, revision: int) -> None:
    served = serve()
    session = polling(served, revision)
    session.say("é\U0001f600", "two")
    assert session.hear_many(2) == ["é\U0001f600", "two"]
    session.send("2")
    assert session.recv() == "3"
    assert served.events.wait("connection")["protocol"] == revision
    moved = upgrade(session)
    moved.say("moved")
    assert moved.hear() == "moved"


def test_no_revision_means_three(serve: Any) -> None:
    served = serve()
    response = served.connect().get(f"{served.path}?transport=polling")
    assert response.status == 200
    assert codec.decode_v3(response.body)[0][:2] == "0{"
    assert served.events.wait("connection")["protocol"] == 3


BAD = [
    b"",
    b":",
    b"5:4hi",
    b"x:4hi",
    b"-1:4",
    b"1e1:4123456789",
    b"2:9x",
    b"4hello",
    b"2:4x3",
    b"9" * 400 + b":4",
    b"4:b4A!",
    "2:4\U0001f600".encode(),
    b"2:4\xff",
    b"0:",
]


@pytest.mark.differs("answers ok")
@pytest.mark.parametrize("body", BAD, ids=lambda body: repr(body[:20]))
def test_a_bad_body_is_not_ok(serve: Any, body: bytes) -> None:
    session = polling(serve())
    assert session.posting.post(session.target(), body).status == 400
    assert session.served.events.wait("close")["reason"] == "parse error"


BAD_BINARY = [
    b"\x00",
    b"\x01\xff",
    b"\x00\x05\xff4hi",
    b"\x02\x02\xff4h",
    b"\x00\x0a\xff4",
    b"\x00\x02\xff4\xff",
    b"\x00" + b"\x09" * 400 + b"\xff4",
    b"\x01\x02\xff\x09x",
    b"\x00\x02\xff9x",
]


@pytest.mark.differs("answers ok, or never")
@pytest.mark.parametrize("body", BAD_BINARY, ids=lambda body: repr(body[:20]))
def test_a_bad_binary_body_is_not_ok(serve: Any, body: bytes) -> None:
    session = polling(serve())
    assert session.posting.post(session.target(), body, [OCTETS]).status == 400
    assert session.served.events.wait("close")["reason"] == "parse error"
