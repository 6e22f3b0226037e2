"""Long polling: payloads, overlaps, limits, bodies, ends."""

from __future__ import annotations

import logging
from typing import Any

import gevent
import pytest
from support import codec
from support.clients import PollingSession
from support.rawhttp import PLAIN_TEXT

TEXTS = [
    "",
    "hello",
    "é ü ß",
    "\U0001f600 emoji",
    "\u2028 and \u2029",
    "\n",
    "\r\n",
    "\\n \\ \\\\",
    '"quoted"',
    "\x00\x7f",
]
BINARIES = [b"", b"\x00", bytes(range(256)), b"\xff" * 1000]


def polling(served: Any, eio: int = 4, **query: str) -> PollingSession:
    return PollingSession(served, eio, **query).open()


# -- payloads


def test_a_waiting_get_is_answered_by_a_message(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    session.park()
    session.say("one")
    assert session.end_poll() == ["4one"]


def test_a_get_finds_what_has_happened_before(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    session.say("one", "two")
    session.say("three")
    assert session.hear_many(3) == ["one", "two", "three"]


def test_texts(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    session.say(*TEXTS)
    assert session.hear_many(len(TEXTS)) == TEXTS


def test_binaries(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    session.say(*BINARIES, "between", b"last")
    assert session.hear_many(len(BINARIES) + 2) == [*BINARIES, "between", b"last"]


@pytest.mark.parametrize("count", [1000, 20_000])
def test_any_number_of_packets_in_a_payload(serve: Any, eio: int, count: int) -> None:
    session = polling(serve(), eio)
    messages = [str(i) for i in range(count)]
    session.say(*messages)
    assert session.hear_many(count) == messages


def test_response_headers(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    posted = session.post("4x")
    assert (posted.status, posted.body) == (200, b"ok")
    assert posted.header("Content-Type") == "text/html"
    assert posted.header("Cache-Control") == "no-store"
    session.recv()
    assert session.last is not None
    assert (session.last.header("Content-Type") or "").lower() == "text/plain; charset=utf-8"
    assert session.last.header("Cache-Control") == "no-store"
    assert session.last.header("Content-Length") == str(len(session.last.body))


def test_both_requests_share_a_connection(serve: Any) -> None:
    session = polling(serve())
    session.posting = session.getting
    for i in range(5):
        session.say(str(i))
        assert session.hear() == str(i)


def test_a_connection_for_each_request(serve: Any) -> None:
    session = polling(serve())
    for number in range(3):
        for answer in (
            session.served.connect().post(session.target(), f"4{number}".encode(), [PLAIN_TEXT, ("Connection", "close")]),
            session.served.connect().get(session.target(), [("Connection", "close")]),
        ):
            assert answer.status == 200
        assert answer.text == f"4{number}"
    assert session.served.events.of("close") == []


def test_a_message_as_large_as_allowed(serve: Any, eio: int) -> None:
    session = polling(serve(max_http_buffer_size=100_000), eio)
    head = 1 if eio == 4 else len("99993:4")
    session.say("x" * (100_000 - head))
    assert len(session.hear()) == 100_000 - head


# -- bodies


def test_a_chunked_body(serve: Any) -> None:
    session = polling(serve())
    payload = codec.encode_v4(["4one", "4\U0001f600", b"\x00\x01"])
    session.posting.send(session.posting.head("POST", session.target(), [("Transfer-Encoding", "chunked")]))
    for i in range(0, len(payload), 3):
        piece = payload[i : i + 3]
        session.posting.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    session.posting.send(b"0\r\n\r\n")
    response = session.posting.response()
    assert (response.status, response.body) == (200, b"ok")
    assert session.hear_many(3) == ["one", "\U0001f600", b"\x00\x01"]


def test_a_body_that_comes_in_pieces(serve: Any) -> None:
    session = polling(serve())
    payload = "4\U0001f600".encode()
    session.posting.send(session.posting.head("POST", session.target(), [("Content-Length", str(len(payload)))]))
    for i in range(len(payload)):
        session.posting.send(payload[i : i + 1])
        gevent.sleep(0)
    assert session.posting.response().status == 200
    assert session.hear() == "\U0001f600"


@pytest.mark.parametrize("body", [b"9x", b"x", b"4\xff\xfe", b"bnot base64!", b"4a\x1e", b"\x1e"], ids=repr)
@pytest.mark.differs("answers ok, or keeps the session")
def test_a_bad_body_is_not_ok(serve: Any, body: bytes) -> None:
    session = polling(serve())
    assert session.posting.post(session.target(), body).status == 400
    assert session.served.events.wait("close")["reason"] == "parse error"


@pytest.mark.differs("an empty body is not ok there either, but is answered so")
def test_an_empty_body_is_not_ok(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    assert session.posting.post(session.target(), b"").status == 400
    assert session.served.events.wait("close")["reason"] == "parse error"


def test_a_binary_body_is_refused(serve: Any) -> None:
    session = polling(serve())
    response = session.posting.post(session.target(), b"4x", [("Content-Type", "application/octet-stream")])
    assert response.status == 400
    assert session.served.events.wait("close")["reason"] == "transport error"


@pytest.mark.differs("delivers what stands before the bad packet")
def test_messages_of_a_body_that_is_not_ok(serve: Any) -> None:
    session = polling(serve())
    session.park()
    assert session.posting.post(session.target(), b"4one\x1e9").status == 400
    assert "4one" not in session.end_poll(), "a message that was not answered with ok is not dispatched"


# -- limits


@pytest.mark.differs("reads what it refuses")
@pytest.mark.parametrize("size", [1001, 10**9, 10**18])
def test_too_large_is_refused_before_it_is_sent(serve: Any, size: int, caplog: Any) -> None:
    session = polling(serve(max_http_buffer_size=1000))
    with caplog.at_level(logging.INFO):
        session.posting.send(session.posting.head("POST", session.target(), [("Content-Length", str(size))]))
        assert session.posting.response().status == 413
    assert any(str(size) in r.getMessage() and "1000" in r.getMessage() for r in caplog.records), "size and limit"


def test_too_large(serve: Any, eio: int) -> None:
    session = polling(serve(max_http_buffer_size=1000), eio)
    assert session.post("4" + "x" * 1001).status == 413


@pytest.mark.differs("closes the connection or not, as it happens")
@pytest.mark.own_loop("has read on to the end by the time it would refuse")
def test_too_large_a_chunked_body(serve: Any) -> None:
    session = polling(serve(max_http_buffer_size=1000))
    session.posting.send(session.posting.head("POST", session.target(), [("Transfer-Encoding", "chunked")]))
    session.posting.send(b"3e8\r\n" + b"4" * 1000 + b"\r\n")
    session.posting.send(b"1\r\nx\r\n")
    assert session.posting.response().status == 413


@pytest.mark.differs("refuses the connection")
@pytest.mark.own_loop("refuses it, and logs that")
@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "+5", "5, 5", ""])
def test_an_invalid_content_length_is_refused(serve: Any, length: str) -> None:
    session = polling(serve())
    session.posting.send(session.posting.head("POST", session.target(), [("Content-Length", length)]))
    assert 400 <= session.posting.response().status < 500


# -- overlaps


def test_a_second_get_while_one_is_open(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    session.park()
    session.say("first")
    assert session.end_poll() == ["4first"]
    session.park()
    other = session.served.connect().get(session.target())
    assert other.status == 400
    assert session.end_poll() == ["1"]
    assert session.served.events.wait("close")["reason"] == "transport error"


@pytest.mark.near("a request is relayed once it is complete")
def test_a_second_post_while_one_is_open(serve: Any) -> None:
    session = polling(serve())
    session.posting.send(session.posting.head("POST", session.target(), [("Content-Length", "5")]) + b"4")
    session.served.settle()
    assert session.served.connect().post(session.target(), b"4other").status == 400
    assert session.served.events.wait("close")["reason"] == "transport error"


def test_a_post_goes_beside_a_get(serve: Any) -> None:
    session = polling(serve(app="silent"))
    session.park()
    for i in range(3):
        session.say(str(i))
    session.send("1")
    assert session.end_poll() == ["6"]


# -- ends


def test_the_client_closes(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    session.park()
    session.close()
    assert session.end_poll() == ["6"]
    assert session.served.events.wait("close")["reason"] == "transport close"


@pytest.mark.alone("what comes to another worker comes at another time")
def test_a_get_that_was_sent_before_the_close_packet(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    for connection in (session.getting, session.posting):
        connection.get("/")  # both handlers wait already: the loop may hear of the later of two events first
    session.start_poll()
    session.close()
    assert session.end_poll() == ["6"]
    assert session.served.events.wait("close")["reason"] == "transport close"


def test_messages_before_the_close_packet_are_delivered(serve: Any, eio: int) -> None:
    session = polling(serve(app="told"), eio)
    session.park()
    session.send('4["send", ["x"]]', "1")
    received = session.end_poll()
    assert received in (["4x"], ["6"], ["4x", "6"]), "whether there is still time to answer is open"
    assert session.served.events.wait("close")["reason"] == "transport close"


def test_the_server_closes_while_a_get_waits(serve: Any, eio: int) -> None:
    session = polling(serve(app="told"), eio)
    session.park()
    session.send('4["close"]')
    assert session.end_poll() == ["1"]
    assert session.served.events.wait("close")["reason"] == "forced close"


def test_the_server_closes_while_no_get_waits(serve: Any, eio: int) -> None:
    session = polling(serve(app="told"), eio)
    session.send('4["then_close", ["bye"]]')
    received = session.poll()
    while "1" not in received:
        received += session.poll()
    assert [packet for packet in received if packet != "6"] == ["4bye", "1"]
    assert session.served.events.wait("close")["reason"] == "forced close"


@pytest.mark.differs("calls it a transport error")
def test_an_aborted_get_closes_the_session(serve: Any, eio: int) -> None:
    session = polling(serve(), eio)
    session.vanish()
    assert session.served.events.wait("close")["reason"] == "transport close"


@pytest.mark.differs("calls it a transport error")
def test_a_get_aborted_with_a_reset_closes_the_session(serve: Any) -> None:
    session = polling(serve())
    session.park()
    session.getting.reset()
    assert session.served.events.wait("close")["reason"] == "transport close"


@pytest.mark.ours
def test_what_never_left_is_still_there_when_the_session_closes(serve: Any) -> None:
    session = polling(serve(app="silent"))
    socket = session.served.socket(session.sid)
    session.park()
    socket.send("left")
    assert session.end_poll() == ["4left"]
    socket.send("one")
    socket.send(b"two")
    socket.close(discard=True)
    closed = session.served.events.wait("close")
    assert closed["unsent"] == ["one", b"two"]


@pytest.mark.differs("a session that goes away in a POST is a transport error")
def test_an_aborted_post_closes_the_session(serve: Any) -> None:
    session = polling(serve())
    session.posting.send(session.posting.head("POST", session.target(), [("Content-Length", "5")]) + b"4")
    session.posting.close()
    assert session.served.events.wait("close")["reason"] in ("transport close", "transport error")


def test_other_sessions_do_not_notice(serve: Any) -> None:
    served = serve()
    first, second = polling(served), polling(served)
    first.park()
    second.park()
    first.close()
    first.end_poll()
    second.say("x")
    assert second.end_poll() == ["4x"]
