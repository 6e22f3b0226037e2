"""transports/webtransport.py: packets between the stream of a session and its session, and the end of both."""

from __future__ import annotations

import logging
from typing import Any

import gevent
import pytest
from support.fakesink import FakeConnection, FakeSink

from engineio_wsgi.errors import Forbidden
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.engineio.stream import StreamDecoder, encode_frame, frame_head
from engineio_wsgi.protocol.websocket.items import Violation
from engineio_wsgi.runtime.greenlet_pool import GreenletPool
from engineio_wsgi.transports.base import CloseReason, Prepared
from engineio_wsgi.transports.webtransport import WebTransportTransport

LIMIT = 100_000


class FakeStream(FakeConnection):
    """A `PacketStream` that a test controls."""

    def __init__(self) -> None:
        super().__init__()
        self.goodbye: tuple[int, str] | None = None
        self.finished: tuple[int, str] | None = None

    def finish(self, code: int, reason: str) -> None:
        """Close after everything was sent."""
        self.closed = True
        self.finished = (code, reason)


class FakeMeter:
    """Counts in a list."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def on_bytes_in(self, size: int) -> None:
        """So many were received."""
        self.log.append(("in", size))

    def on_bytes_out(self, size: int) -> None:
        """So many were sent."""
        self.log.append(("out", size))

    def on_batch(self, size: int, entries: list[Any]) -> None:
        """Entries were sent."""
        self.log.append(("batch", size, len(entries)))

    def on_more_sent(self, count: int) -> None:
        """Bundles have so many more messages."""
        self.log.append(("more", count))


class Session:
    """A session over WebTransport."""

    def __init__(self, meter: Any = None) -> None:
        self.stream = FakeStream()
        self.transport = WebTransportTransport(self.stream, GreenletPool(), LIMIT, meter)
        self.sink = FakeSink()
        self.sink.id = "abcd1"
        self.sink.describe = lambda: "the listeners"
        self.sink.serve(self.transport)
        self.transport.open()

    @property
    def log(self) -> list[Any]:
        """What was reported."""
        return self.sink.log

    def receive(self, data: bytes | OSError) -> list[Any]:
        """The client sends something; returns what was reported."""
        self.stream.arriving.append(data)
        self.transport.read(0.0)
        return self.log

    def sent(self) -> list[Any]:
        """The packets that were written."""
        packets = StreamDecoder(1 << 20).feed(b"".join(self.stream.written))
        self.stream.written.clear()
        return packets


@pytest.fixture
def session() -> Session:
    return Session()


# -- reading


@pytest.mark.parametrize(("content", "message"), [("4hello", "hello"), (b"\x00", b"\x00"), ("4", ""), (b"", b"")])
def test_one_message(session: Session, content: str | bytes, message: str | bytes) -> None:
    frame = frame_head(0, True) if content == b"" else encode_frame(content)
    assert session.receive(frame) == [("deliver", message)]
    # read once, and watched again
    assert session.stream.calls[-1] == "watch"


def test_several_messages(session: Session) -> None:
    frames = b"".join(map(encode_frame, ["4a", b"b", "4c"]))
    assert session.receive(frames) == ["heard", ("enqueue", "a", b"b", "c"), "run"]


def test_messages_and_other_packets_keep_their_order(session: Session) -> None:
    frames = b"".join(map(encode_frame, ["4a", "3", "bAAE="]))
    log = session.receive(frames)
    assert log[:2] == ["heard", ("enqueue", "a")]
    assert (log[2].type, log[3:]) == (PacketType.PONG, [("enqueue", b"\x00\x01"), "run"])


def test_a_packet_in_pieces(session: Session) -> None:
    assert session.receive(b"\x064he") == ["heard", "run"]
    assert session.receive(b"llo")[2:] == [("deliver", "hello")]


def test_nothing_to_read(session: Session) -> None:
    assert session.receive(BlockingIOError()) == []


@pytest.mark.parametrize(("frame", "code"), [(b"\x00", 1002), (b"\x019", 1002), (frame_head(LIMIT + 1, True), 1009)],
                         ids=["empty", "type 9", "too large"])  # fmt: skip
def test_a_violation(session: Session, caplog: pytest.LogCaptureFixture, frame: bytes, code: int) -> None:
    caplog.set_level(logging.INFO, "engine.webtransport")
    log = session.receive(encode_frame("4before") + frame + encode_frame("4behind"))
    assert ("enqueue", "before") in log
    assert ("end", "parse error") in log
    assert f"close code {code}" in caplog.text
    session.transport.close(CloseReason.PARSE_ERROR)
    assert session.stream.finished == (code, "")
    # a second one says nothing
    session.transport.take([Violation(1002, "again")])
    assert log.count(("end", "parse error")) == 1


@pytest.mark.parametrize("how", [b"", ConnectionResetError("lost")], ids=["end", "lost"])
@pytest.mark.parametrize("goodbye", [None, (0, ""), (4000, "done")], ids=str)
def test_the_end_of_the_stream(session: Session, how: Any, goodbye: tuple[int, str] | None) -> None:
    session.stream.goodbye = goodbye
    assert session.receive(how) == [("end", "transport close"), "run"]
    session.transport.close(CloseReason.TRANSPORT_CLOSE)
    assert session.stream.calls[-1] == "close"


def test_reading_may_pause(session: Session) -> None:
    session.transport.resume()
    assert session.stream.calls == ["watch"]
    session.transport.pause()
    session.receive(encode_frame("4hello"))
    assert session.stream.calls == ["watch", "unwatch"]
    session.transport.resume()
    assert session.stream.calls == ["watch", "unwatch", "watch"]


def test_a_greenlet_of_the_pool_reads(session: Session) -> None:
    session.stream.arriving.append(encode_frame("4hello"))
    session.sink.send("an answer")
    session.stream.readable()
    with gevent.Timeout(60):
        while ("deliver", "hello") not in session.log:
            gevent.sleep(0)
    assert session.sent() == ["4an answer"]
    assert session.transport.describe() == "the listeners"


def test_the_greenlet_that_waits_for_a_message_reads(session: Session) -> None:
    waiter = gevent.hub.Waiter()
    session.sink.receiver = waiter
    reading = gevent.spawn(lambda: (waiter.get(), session.receive(encode_frame("4hello"))))
    gevent.sleep(0)
    gevent.get_hub().loop.run_callback(session.stream.readable)
    reading.get(timeout=60)
    assert session.log == [("deliver", "hello")]


def test_decoding_for_an_upgrade(session: Session) -> None:
    assert session.transport.feed(encode_frame("2probe")) == ["2probe"]
    assert session.transport.decode("2probe") == Packet(PacketType.PING, "probe")
    assert session.transport.decode("9") is None
    session.transport.send_now(Packet(PacketType.PONG, "probe"))
    assert session.sent() == ["3probe"]


# -- writing


def test_entries_of_every_kind(session: Session) -> None:
    session.sink.send("text", "ü", b"\x00", b"", Packet(PacketType.PING), Prepared(("a", b"b"), True))
    session.transport.flush()
    assert session.sent() == ["4text", "4ü", b"\x00", "b", "2", "4a", b"b"]


def test_a_broadcast_is_encoded_once() -> None:
    message = Prepared("to all", True)
    written = []
    for each in (Session(), Session()):
        each.sink.send(message)
        each.transport.flush()
        written.append(each.stream.written[0])
    assert written[0] is written[1]


def test_what_is_sent_wakes_it_once(session: Session) -> None:
    assert not session.transport.wake_to_close()
    session.sink.send("a", "b")
    session.transport.wake()
    assert session.transport.wake_to_close()
    gevent.sleep(0)
    assert session.stream.written == [encode_frame("4a") + encode_frame("4b")]


def test_a_client_that_takes_less(session: Session) -> None:
    session.stream.takes = 5
    session.sink.send("a", "b", "c")
    session.transport.flush()
    assert session.log == [("stalled", "a", "b", "c")]
    assert session.transport.unsent == 4
    assert session.transport.unsent_entries() == ["b", "c"]
    assert session.transport.wake_to_close()
    session.sink.send("d")
    session.transport.flush()
    assert session.sent() == ["4a", "4b", "4c"]
    session.stream.drain()
    assert session.log[1] == ("written", "a", "b", "c")
    assert session.sent() == ["4d"]
    assert session.transport.unsent_entries() == []


def test_a_stream_that_is_lost_with_bytes_unsent(session: Session) -> None:
    session.stream.takes = 0
    session.sink.send("a")
    session.transport.flush()
    session.stream.drained()
    assert session.log == [("stalled", "a")]
    session.stream.unsent = 0
    assert session.transport.unsent_entries() == []


@pytest.mark.parametrize("how", ["buffered", "at once"])
def test_a_stream_that_cannot_be_written(session: Session, how: str) -> None:
    session.stream.lose(BrokenPipeError())
    session.sink.send("kept")
    if how == "buffered":
        session.transport.flush()
        assert session.sink.outbox.entries == ["kept"]
    else:
        session.transport.send_now(Packet(PacketType.PONG, "probe"))
    assert session.log == [("end", "transport close"), "submit"]


def test_what_is_counted() -> None:
    meter = FakeMeter()
    session = Session(meter)
    session.receive(encode_frame("4hello"))
    session.sink.send("a", Prepared(("b", "c"), True))
    session.transport.flush()
    session.transport.send_now(Packet(PacketType.PONG))
    assert meter.log == [("in", 7), ("batch", 9, 2), ("more", 1), ("out", 2)]


# -- the end


@pytest.mark.parametrize(("reason", "code"), [
    (CloseReason.FORCED_CLOSE, 0), (CloseReason.PING_TIMEOUT, 0), (CloseReason.SERVER_SHUTTING_DOWN, 1001),
    (CloseReason.APPLICATION_ERROR, 1011), (CloseReason.CLIENT_TOO_SLOW, 1008), (CloseReason.RATE_LIMIT, 1008),
    (CloseReason.EXPIRED, 1008),
], ids=str)  # fmt: skip
def test_the_server_closes(session: Session, caplog: pytest.LogCaptureFixture, reason: CloseReason, code: int) -> None:
    caplog.set_level(logging.DEBUG, "engine.webtransport")
    session.transport.close(reason)
    assert session.stream.finished == (code, str(reason))
    assert "its WebTransport session is closed" in caplog.text


def test_a_refusal(session: Session) -> None:
    session.transport.refuse(Forbidden("not you"))
    assert session.stream.finished == (1008, '{"code":4,"message":"not you"}')


def test_it_stays_in_its_process(session: Session) -> None:
    assert session.transport.obstacle() == "its QUIC connection ends in this process"
    assert session.transport.title == "WebTransport stream"
