"""The WebSocket transport over a connection that does what the test says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import gevent
import pytest
from gevent import socket as gevent_socket
from gevent.hub import Waiter
from gevent.socket import wait_read
from support.fakesink import FakeConnection, FakeSink
from support.rawwebsocket import TEXT, frame_bytes

from engineio_wsgi import Bundle
from engineio_wsgi.errors import ErrorCode, RequestRefused
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.protocol.websocket.deflate import DeflateParameters, Deflater
from engineio_wsgi.protocol.websocket.frames import FrameDecoder, Opcode, encode_binary, encode_close, encode_frame, encode_text
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.session.outgoing import prepare
from engineio_wsgi.transports.base import Prepared, TrackedPacket
from engineio_wsgi.transports.frame_forms import message_head
from engineio_wsgi.transports.websocket import WebSocketTransport

PONG = Packet(PacketType.PONG)


class FakeGreenletPool:
    """Reads when something is readable, as the greenlet pool does."""

    def attend(self, connection: Any) -> None:
        """Read at once."""
        connection.read(0.0)
        connection.flush()


class Opened:
    """A transport, its connection and its sink."""

    def __init__(self, protocol: int = 4, masked: bool = False, **more: Any) -> None:
        self.wire, self.sink = FakeConnection(), FakeSink()
        wire: Any = self.wire
        greenlets: Any = FakeGreenletPool()
        self.transport = WebSocketTransport(wire, greenlets, FrameDecoder(100_000, masked=masked), protocol, **more)
        self.sink.serve(self.transport)
        self.transport.open()

    def arrive(self, data: bytes | OSError) -> list[Any]:
        """Have something arrive; what was reported."""
        self.sink.log.clear()
        self.wire.arriving.append(data)
        self.wire.readable()
        return self.sink.log

    def send(self, *entries: Any) -> bytes:
        """Send something; what was written."""
        self.wire.written.clear()
        self.sink.send(*entries)
        self.transport.flush()
        return b"".join(self.wire.written)


@pytest.fixture
def opened() -> Opened:
    """One of revision 4."""
    return Opened()


# -- reading


@pytest.mark.parametrize(("data", "reported"), [
    (encode_text("4a"), [("deliver", "a")]),
    (encode_binary(b"b"), [("deliver", b"b")]),
    (encode_text("3"), ["heard", PONG]),
    (encode_text("2"), ["heard", Packet(PacketType.PING), "run"]),
    (encode_text("4a") + encode_text("4b"), ["heard", ("enqueue", "a", "b"), "run"]),
    (encode_text("4a") + encode_text("3") + encode_binary(b"c"), ["heard", ("enqueue", "a"), PONG, ("enqueue", b"c"), "run"]),
    (encode_text("4a")[:2], ["heard", "run"]),
    (encode_frame(Opcode.PONG, b"x"), ["heard", "run"]),
], ids=["text", "binary", "pong", "ping", "two", "mixed", "a part", "control"])
def test_received_frames_are_reported(opened: Opened, data: bytes, reported: list[Any]) -> None:
    assert opened.arrive(data) == reported


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("ends", [[1_000], [1_000, 2_000], [3], [8, 9, 10]])
def test_a_large_message_that_arrives_in_pieces(protocol: int, ends: list[int]) -> None:
    """Over TLS, for example: the connection lends no descriptor."""
    opened = Opened(protocol, masked=True)
    frame = frame_bytes(TEXT, b"4" + b"x" * 3_000)
    for start, end in pairwise([0, *ends]):
        assert "heard" in opened.arrive(frame[start:end])
    message = "x" * 3_000
    assert opened.arrive(frame[ends[-1]:]) in ([("deliver", message)], ["heard", ("enqueue", message), "run"])
    assert opened.arrive(frame[:100]) in (["heard"], ["heard", "run"])
    assert opened.arrive(frame[100:] + frame) == ["heard", ("enqueue", message, message), "run"]


def test_binary_messages_of_revision_3_have_a_type() -> None:
    assert Opened(3).arrive(encode_binary(b"\x04b")) == ["heard", ("enqueue", b"b"), "run"]


@pytest.mark.parametrize(("data", "reason", "code"), [
    (encode_text("x"), "parse error", 1002),
    (encode_close(1001, "bye"), "transport close", 1001),
    (encode_frame(Opcode.CLOSE, b""), "transport close", 1000),
    (b"\xf1\x002", "transport error", 1002),
], ids=["no packet", "close", "close without a code", "violation"])
def test_frames_that_end_the_session(opened: Opened, data: bytes, reason: str, code: int) -> None:
    log = opened.arrive(data)
    assert ("end", reason) in log
    opened.transport.close()
    assert opened.wire.written[-1][2:4] == code.to_bytes(2)
    assert opened.wire.calls[-1] == "linger"
    opened.transport.close()
    assert opened.wire.calls.count("linger") == 1
    assert ("end", reason) not in opened.arrive(data), "and nothing more is taken in"


@pytest.mark.parametrize("data", [b"", ConnectionResetError()], ids=["end", "reset"])
def test_a_lost_connection(opened: Opened, data: bytes | OSError) -> None:
    assert opened.arrive(data) == [("end", "transport close"), "run"]
    opened.transport.close("transport close")
    assert (opened.wire.written, opened.wire.calls[-1]) == ([], "close")


def test_a_connection_with_nothing_to_read(opened: Opened) -> None:
    assert opened.arrive(BlockingIOError()) == []


def test_a_greenlet_that_waits_reads_for_itself(opened: Opened) -> None:
    opened.sink.receiver = waiter = Waiter()
    reading = gevent.spawn(lambda: (waiter.get(), opened.transport.read(0.0)))
    gevent.sleep(0)
    opened.wire.arriving.append(encode_text("4a"))
    gevent.get_hub().loop.run_callback(opened.wire.readable)
    reading.join(5)
    assert (opened.sink.log, opened.sink.receiver, opened.transport.corked) == ([("deliver", "a")], None, False)


def test_pings_are_answered_unless_too_much_waits(opened: Opened) -> None:
    opened.arrive(encode_frame(Opcode.PING, b"x"))
    assert opened.wire.written == [encode_frame(Opcode.PONG, b"x")]
    opened.wire.unsent = 1 << 20
    opened.arrive(encode_frame(Opcode.PING, b"y"))
    assert len(opened.wire.written) == 1


def test_pause_and_resume(opened: Opened) -> None:
    opened.transport.resume()
    opened.transport.pause()
    opened.transport.resume()
    assert opened.wire.calls == ["watch", "unwatch", "watch"]


@pytest.mark.parametrize(("frame", "packet"), [("2probe", Packet(PacketType.PING, "probe")), ("x", None)])
def test_decoding_for_an_upgrade(opened: Opened, frame: str, packet: Packet | None) -> None:
    assert opened.transport.decode(frame) == packet


# -- writing


@pytest.mark.parametrize(("entry", "frame"), [
    ("a", encode_text("4a")), ("ä", encode_text("4ä")), ("x" * 124, encode_text("4" + "x" * 124)),
    ("x" * 125, encode_text("4" + "x" * 125)), ("x" * 70_000, encode_text("4" + "x" * 70_000)), (b"b", encode_binary(b"b")),
    (Packet(PacketType.PING), encode_text("2")), (Prepared("p", True), encode_text("4p")),
    (Prepared(("p", b"q"), True), encode_text("4p") + encode_binary(b"q")),
    (TrackedPacket(Packet(PacketType.MESSAGE, "t"), print), encode_text("4t")),
], ids=lambda value: repr(value)[:20])
def test_frames(opened: Opened, entry: Any, frame: bytes) -> None:
    assert opened.send(entry) == frame


def test_heads_of_long_messages() -> None:
    assert message_head(65_534) + b"x" * 65_534 == encode_text("4" + "x" * 65_534)
    assert message_head(65_535) + b"x" * 65_535 == encode_text("4" + "x" * 65_535)


def test_a_broadcast_is_framed_once() -> None:
    message = Prepared("p", True)
    first, second = Opened(), Opened()
    first.send(message)
    second.send(message)
    assert len(message.forms) == 1
    assert first.wire.written == second.wire.written


def test_a_bundle_is_framed_once_for_all_sessions_that_it_is_sent_to() -> None:
    bundle = prepare(Bundle("p", b"q"), True)
    sessions = [Opened(), Opened(), Opened(binary=False)]
    for session in sessions:
        session.send("before", bundle)
    frames = list(bundle.forms.values())
    assert frames == [encode_text("4p") + encode_binary(b"q"), encode_text("4p") + encode_text("bcQ==")]
    assert [session.wire.written for session in sessions] == [[encode_text("4before") + frames[each]] for each in (0, 0, 1)]


def test_each_message_of_a_bundle_is_compressed_for_itself() -> None:
    deflated = Opened(deflater=Deflater(DeflateParameters()), deflate_threshold=100)
    written = deflated.send(Prepared(("a", "b" * 1000), True))
    assert written.startswith(encode_text("4a"))
    assert len(written) < 100
    assert deflated.send(Prepared(("a", "b" * 200), False)) == encode_text("4a") + encode_text("4" + "b" * 200)


def test_long_messages_are_compressed_and_short_ones_are_not() -> None:
    parameters = DeflateParameters()
    deflated = Opened(deflater=Deflater(parameters), deflate_threshold=100)
    assert deflated.send("a") == encode_text("4a")
    assert len(deflated.send("a" * 1000)) < 100
    assert deflated.send(Packet(PacketType.MESSAGE, "a" * 200, False)) == encode_text("4" + "a" * 200)


def test_all_entries_are_written_with_one_send_when_the_hub_runs(opened: Opened) -> None:
    opened.sink.send("a", "b")
    assert opened.wire.written == []
    gevent.sleep(0)
    assert opened.wire.written == [encode_text("4a") + encode_text("4b")]
    assert opened.sink.log == [], "nobody watches"


def test_entries_sent_while_reading_are_written_at_its_end(opened: Opened) -> None:
    opened.transport.corked = True
    opened.sink.send("a")
    opened.transport.flush()
    opened.transport.flush()
    assert opened.wire.written == [encode_text("4a")]


def test_bytes_that_the_kernel_does_not_accept_are_under_way(opened: Opened) -> None:
    opened.wire.takes = 5
    opened.send("a", "bc", "d")
    assert opened.sink.log == [("stalled", "a", "bc", "d")]
    assert opened.transport.unsent_entries() == ["bc", "d"]
    assert opened.transport.unsent == opened.wire.unsent
    opened.sink.send("later")
    opened.transport.flush()
    assert len(opened.wire.written) == 1
    opened.wire.drain()
    assert opened.sink.log[-1] == ("written", "a", "bc", "d")
    assert (opened.wire.written[1:], opened.transport.unsent_entries()) == ([encode_text("4later")], [])


def test_written_entries_are_reported_if_watched(opened: Opened) -> None:
    opened.sink.outbox.watch()
    opened.send("a")
    assert opened.sink.log == [("written", "a")]


def test_a_connection_that_is_lost_while_it_is_written_to(opened: Opened) -> None:
    opened.wire.lost = BrokenPipeError()
    opened.send("a")
    assert opened.sink.log == [("end", "transport close"), "submit"]
    assert opened.sink.outbox.entries == ["a"]


def test_a_connection_that_is_lost_with_bytes_under_way(opened: Opened) -> None:
    opened.wire.takes = 1
    opened.send("a")
    opened.wire.lost = BrokenPipeError()
    opened.wire.drained()
    assert ("end", "transport close") in opened.sink.log
    assert opened.transport.unsent_entries() == ["a"]


def test_a_ping_is_written_at_once_if_nothing_waits(opened: Opened) -> None:
    assert opened.transport.ping()
    assert opened.wire.written == [encode_text("2")]
    opened.sink.send("a")
    assert not opened.transport.ping()


def test_a_probe_is_answered_without_the_write_buffer(opened: Opened) -> None:
    opened.transport.send_now(Packet(PacketType.PONG, "probe"))
    assert opened.wire.written == [encode_text("3probe")]


def test_what_is_counted() -> None:
    meter = Meter()
    opened = Opened(meter=meter)
    opened.arrive(encode_text("4a"))
    opened.send("a")
    opened.send("b", Packet(PacketType.PING))
    opened.transport.ping()
    assert (meter.bytes_in, meter.bytes_out, meter.messages_out) == (4, 14, 2)


# -- the end


def test_whether_anything_is_left_to_write(opened: Opened) -> None:
    assert not opened.transport.wake_to_close()
    opened.sink.send("a")
    assert opened.transport.wake_to_close()
    opened.wire.takes = 1
    opened.transport.flush()
    assert opened.transport.wake_to_close(), "the kernel has not taken it"


@pytest.mark.parametrize(("reason", "code"), [
    ("forced close", 1000), ("server shutting down", 1001), ("application error", 1011),
])
def test_close_codes(opened: Opened, reason: str, code: int) -> None:
    opened.transport.close(reason)
    assert opened.wire.written == [encode_close(code, reason)]


def test_the_reason_of_a_refusal_is_its_json(opened: Opened) -> None:
    opened.transport.refuse(RequestRefused(ErrorCode.BAD_REQUEST))
    assert opened.wire.written == [encode_close(1008, '{"code":3,"message":"Bad request"}')]


def test_a_close_frame_that_cannot_be_written(opened: Opened) -> None:
    opened.wire.lost = BrokenPipeError()
    opened.transport.close("forced close")
    assert opened.wire.calls[-1] == "close"


# -- over a descriptor


class OverSockets:
    """A transport over one end of a pair of sockets; ``far`` is the other."""

    def __init__(self, **more: Any) -> None:
        near, self.far = gevent_socket.socketpair()
        self.wire, self.sink = Connection(detach(near)), FakeSink()
        greenlets: Any = FakeGreenletPool()
        self.transport = WebSocketTransport(self.wire, greenlets, FrameDecoder(100_000), 4, **more)
        self.sink.serve(self.transport)
        self.transport.open()

    def arrive(self, data: bytes) -> list[Any]:
        """Have something arrive; what was reported."""
        self.sink.log.clear()
        self.far.sendall(data)
        wait_read(self.wire.fileno())
        self.transport.read(7.0)
        return self.sink.log

    def fill(self) -> int:
        """Send until the kernel takes no more; returns the bytes of all frames."""
        size = 0
        while not self.wire.unsent:
            self.sink.send("x" * 5000)
            self.transport.flush()
            size += len(encode_text("4" + "x" * 5000))
        return size

    def read(self, size: int) -> bytes:
        """Bytes at the other end."""
        data = b""
        while len(data) < size:
            data += self.far.recv(1 << 20)
        return data


@pytest.fixture
def sockets() -> Iterator[OverSockets]:
    """One without compression."""
    pair = OverSockets()
    yield pair
    pair.wire.close()
    pair.far.close()


def client_text(text: str) -> bytes:
    """A text frame of a client, with a mask that changes nothing."""
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text.encode()


def test_frames_are_received_from_the_descriptor(sockets: OverSockets) -> None:
    assert sockets.arrive(client_text("4a")) == [("deliver", "a")]
    assert sockets.arrive(client_text("4a") + client_text("4b")) == ["heard", ("enqueue", "a", "b"), "run"]
    assert sockets.arrive(client_text("4a") + client_text("3")) == ["heard", ("enqueue", "a"), PONG, "run"]
    assert sockets.arrive(client_text("4abc")[:7]) == ["heard", "run"]
    assert sockets.arrive(client_text("4abc")[7:] + client_text("4d")) == ["heard", ("enqueue", "abc", "d"), "run"]
    assert sockets.arrive(client_text("4e")) == [("deliver", "e")]


def test_reading_from_the_descriptor_when_nothing_has_arrived(sockets: OverSockets) -> None:
    sockets.transport.read(7.0)
    assert sockets.sink.log == []


def test_the_end_of_the_stream_is_read_from_the_descriptor(sockets: OverSockets) -> None:
    sockets.far.close()
    sockets.transport.read(7.0)
    assert sockets.sink.log == [("end", "transport close"), "run"]


def test_what_a_descriptor_does_not_take_follows_in_order(sockets: OverSockets) -> None:
    size = sockets.fill()
    assert sockets.sink.log == [("stalled", "x" * 5000)]
    assert sockets.transport.unsent_entries() == ["x" * 5000]
    sockets.sink.send("later", "ä", b"b")
    sockets.transport.flush()
    last = encode_text("4later") + encode_text("4ä") + encode_binary(b"b")
    data = sockets.read(size + len(last))
    assert data == encode_text("4" + "x" * 5000) * (size // 5004) + last
    assert (sockets.sink.log[-1], sockets.transport.unsent) == (("written", "x" * 5000), 0)


def test_a_connection_that_is_lost_while_its_descriptor_is_sent_to(sockets: OverSockets) -> None:
    sockets.far.close()
    sockets.sink.send("a")
    sockets.transport.flush()
    assert sockets.sink.log == [("end", "transport close"), "submit"]
    assert sockets.sink.outbox.entries == ["a"]
    assert isinstance(sockets.wire.lost, OSError)
    sockets.transport.close("transport close")
    assert sockets.wire.closed


def test_nothing_is_sent_to_the_descriptor_after_the_close_frame(sockets: OverSockets) -> None:
    sockets.sink.end("forced close")
    sockets.transport.close()
    sockets.sink.send("a")
    sockets.transport.flush()
    assert sockets.read(4)[:2] == encode_close(1000)[:2]
    assert sockets.far.recv(100) == b""


def test_the_traffic_over_a_descriptor_is_counted() -> None:
    meter = Meter()
    pair = OverSockets(meter=meter)
    arriving = client_text("4a") + client_text("3")
    pair.arrive(arriving)
    pair.sink.send("a", "b")
    pair.transport.flush()
    assert (meter.bytes_in, meter.bytes_out, meter.messages_out) == (len(arriving), 2 * len(encode_text("4a")), 2)
    pair.wire.close()
    pair.far.close()
