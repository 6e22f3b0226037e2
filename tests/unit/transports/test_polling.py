"""Polling over environs: GETs that wait, POSTs, and what of each is refused."""

from __future__ import annotations

import io
from typing import Any

import gevent
import pytest
from gevent import socket as gevent_socket
from gevent.event import Event
from support.fakesession import outcome, started
from support.fakesink import FakeSink

from engineio_wsgi.errors import PayloadTooLarge, RequestRefused
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.transports.base import CloseReason
from engineio_wsgi.transports.polling import PollingTransport

GET: dict[str, Any] = {"REQUEST_METHOD": "GET"}


def polling(protocol: int = 4, limit: int = 100, meter: Meter | None = None) -> tuple[PollingTransport, FakeSink]:
    """A transport and whom it serves."""
    transport, sink = PollingTransport(protocol, limit, meter=meter), FakeSink()
    sink.serve(transport)
    return transport, sink


def post(body: bytes, **more: Any) -> dict[str, Any]:
    """A POST."""
    return {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), **more}


def refused(call: Any, *args: Any) -> dict[str, Any]:
    """The context of the refusal that a call ends in."""
    with pytest.raises(RequestRefused) as refusal:
        call(*args)
    context: dict[str, Any] = refusal.value.context
    return context


# -- GET


def test_a_poll_is_answered_at_once_if_packets_wait() -> None:
    transport, sink = polling()
    sink.send("a", b"b")
    answer = transport.poll(GET)
    assert (answer.body, answer.compress) == (b"4a\x1ebYg==", True)
    assert dict(answer.headers)["Content-Type"] == "text/plain; charset=UTF-8"
    assert sink.log == [("stalled",), ("stalled",), ("written", "a", b"b")], "nobody was polling when it was sent"


@pytest.mark.parametrize(("entries", "body", "content_type"), [
    (["a"], b"2:4a", "text/plain; charset=UTF-8"), ([b"b"], b"\x01\x02\xff\x04b", "application/octet-stream"),
], ids=["text", "binary"])
def test_the_answer_to_a_client_of_revision_3(entries: list[str | bytes], body: bytes, content_type: str) -> None:
    transport, sink = polling(3)
    sink.send(*entries)
    answer = transport.poll(GET)
    assert (answer.body, dict(answer.headers)["Content-Type"]) == (body, content_type)


def test_a_poll_waits_for_a_packet() -> None:
    transport, sink = polling()
    waiting = started(transport.poll, GET)
    sink.send("a")
    sink.send("b")
    assert outcome(waiting).body == b"4a\x1e4b"
    assert sink.log == [("written", "a", "b")]


def test_a_nudge_answers_a_poll_with_a_noop() -> None:
    transport, _ = polling()
    transport.nudge()
    waiting = started(transport.poll, GET)
    transport.nudge()
    assert outcome(waiting).body == b"6"


def test_a_poll_of_an_upgraded_session_is_answered_with_a_noop() -> None:
    transport, sink = polling()
    waiting = started(transport.poll, GET)
    sink.outbox.begin_with([Packet(PacketType.MESSAGE, "for the other transport")])
    transport.discard()
    assert outcome(waiting).body == b"6"
    assert len(sink.outbox.entries) == 1


def test_a_poll_of_an_upgraded_session_that_has_ended_or_moved_is_answered_with_a_noop() -> None:
    transport, sink = polling()
    waiting = started(transport.poll, GET)
    transport.discard()
    sink.closed = True
    assert outcome(waiting).body == b"6"


def test_a_second_poll_ends_the_session() -> None:
    transport, sink = polling()
    waiting = started(transport.poll, GET)
    assert refused(transport.poll, GET) == {"name": "POLL_OVERLAP"}
    assert sink.log == [("end", "transport error")]
    transport.close("transport error")
    assert outcome(waiting).body == b"1"


def test_a_poll_of_a_closing_session_gets_what_is_left_and_the_close_packet() -> None:
    transport, sink = polling()
    sink.send("a")
    sink.closing = True
    assert transport.wake_to_close()
    assert transport.poll(GET).body == b"4a\x1e1"


@pytest.mark.parametrize(("reason", "body"), [(CloseReason.TRANSPORT_CLOSE, b"6"), (CloseReason.FORCED_CLOSE, b"1")])
def test_a_poll_of_a_session_that_has_ended(reason: str, body: bytes) -> None:
    transport, sink = polling()
    waiting = started(transport.poll, GET)
    sink.end(reason)
    transport.close(reason)
    assert outcome(waiting).body == body


def test_the_session_ends_when_its_client_closes_the_connection_of_a_poll() -> None:
    transport, sink = polling()
    near, far = gevent_socket.socketpair()
    waiting = started(transport.poll, {**GET, "engineio.socket": near})
    far.close()
    outcome(waiting)
    assert sink.log == [("end", "transport close")]
    near.close()


# -- POST


def test_the_packets_of_a_post_are_processed_in_order() -> None:
    transport, sink = polling()
    assert transport.post(post(b"4a\x1ebYg==\x1e3\x1e4c")).body == b"ok"
    assert sink.log == ["heard", ("enqueue", "a", b"b"), Packet(PacketType.PONG), ("enqueue", "c"), "submit"]


def test_a_post_waits_for_room_or_the_end_of_its_client() -> None:
    transport, sink = polling()
    sink.reading_paused = True
    go_on = Event()
    sink.room = lambda: go_on.wait(5)
    waiting = started(transport.post, post(b"4a"))
    assert refused(transport.post, post(b"4b")) == {"name": "DATA_OVERLAP"}
    go_on.set()
    assert outcome(waiting).body == b"ok"
    near, far = gevent_socket.socketpair()
    go_on.clear()
    waiting = started(transport.post, post(b"4a", **{"engineio.socket": near}))
    far.close()
    with gevent.Timeout(5):
        while ("end", "transport close") not in sink.log:
            gevent.sleep(0.001)
    go_on.set()
    outcome(waiting)
    near.close()


@pytest.mark.parametrize(("environ", "name", "reason"), [
    (post(b"x"), "BAD_PAYLOAD", "parse error"),
    (post(b"4a", CONTENT_TYPE="application/octet-stream"), "INVALID_CONTENT", "transport error"),
    ({**post(b"4a"), "CONTENT_LENGTH": "50"}, "BODY_INCOMPLETE", "transport error"),
], ids=["no payload", "binary", "incomplete"])
def test_a_post_that_is_refused_ends_the_session(environ: dict[str, Any], name: str, reason: str) -> None:
    transport, sink = polling()
    assert refused(transport.post, environ)["name"] == name
    assert sink.log == [("end", reason)]


def test_a_post_that_is_too_large_is_refused_and_the_session_goes_on() -> None:
    transport, sink = polling(limit=10)
    with pytest.raises(PayloadTooLarge):
        transport.post(post(b"4" + b"x" * 10))
    assert sink.log == []
    assert transport.post(post(b"4a")).body == b"ok"


def test_what_is_counted() -> None:
    meter = Meter()
    transport, sink = polling(meter=meter)
    transport.post(post(b"4abc"))
    sink.send("a", Packet(PacketType.PING))
    transport.poll(GET)
    assert (meter.bytes_in, meter.bytes_out, meter.messages_out) == (4, 4, 1)


def test_a_close_packet_is_answered_before_the_session_ends() -> None:
    """A GET that was sent before it, on another connection, may be read after it. The POST need not wait for that."""
    transport, sink = polling()
    close = Packet(PacketType.CLOSE)
    assert transport.receive([Packet(PacketType.MESSAGE, "a"), close, Packet(PacketType.MESSAGE, "b")], 5)
    assert ("enqueue", "a") in sink.log
    assert close not in sink.log
    waiting = started(transport.poll, GET)
    with gevent.Timeout(60):
        while close not in sink.log:
            gevent.sleep(0.001)
    assert ("enqueue", "b") not in sink.log
    transport.close("transport close")
    assert outcome(waiting).body == b"6"
