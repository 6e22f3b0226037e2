"""http3/stream.py: the bytes of a session's stream, with a connection that takes what the test lets it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.fakeloop import FakeLoop

from engineio_wsgi.http3.stream import SEND_BUFFER, SessionStream


class Loop(FakeLoop):
    """The same with callbacks, which :meth:`run` calls."""

    def __init__(self) -> None:
        super().__init__()
        self.callbacks: list[Callable[[], object]] = []

    def run_callback(self, callback: Callable[..., object], *args: object) -> None:
        self.callbacks.append(lambda: callback(*args))

    def run(self) -> None:
        """Call until there is nothing left."""
        while self.callbacks:
            self.callbacks.pop(0)()


class Owner:
    """A connection."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.sent: list[bytes] = []
        self.ended = False
        self.acknowledged = 0
        self.takes = True
        self.reads: list[tuple[int, int]] = []
        self.attended: set[SessionStream] = set()
        self.closings: list[tuple[int, str]] = []

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self.sent.append(data)
        self.ended = self.ended or end

    def unacknowledged(self, stream_id: int) -> int:
        return sum(map(len, self.sent)) - self.acknowledged

    def is_delivered(self, stream_id: int) -> bool:
        return self.ended and not self.unacknowledged(stream_id)

    def can_send(self, stream_id: int) -> bool:
        return self.takes and not self.ended

    def on_read(self, stream_id: int, size: int, held: int) -> None:
        self.reads.append((size, held))

    def attend(self, stream: SessionStream) -> None:
        self.attended.add(stream)

    def neglect(self, stream: SessionStream) -> None:
        self.attended.discard(stream)

    def close_session(self, stream_id: int, code: int, reason: str) -> None:
        self.closings.append((code, reason))

    def acknowledge(self, size: int | None = None) -> None:
        """The client has acknowledged bytes; all of them by default."""
        self.acknowledged += self.unacknowledged(0) if size is None else size
        for stream in list(self.attended):
            stream.on_progress()


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Owner:
    owner = Owner()
    monkeypatch.setattr("engineio_wsgi.runtime.deadline.monotonic", owner.loop.monotonic)
    return owner


@pytest.fixture
def stream(owner: Owner) -> SessionStream:
    return SessionStream(owner, 4)


def test_reading(owner: Owner, stream: SessionStream) -> None:
    with pytest.raises(BlockingIOError):
        stream.recv(10)
    for data in (b"abc", b"def", b"ghijkl"):
        stream.on_data(data, False)
    assert stream.held == 12
    assert [stream.recv(size) for size in (2, 7, 100)] == [b"ab", b"cdef", b"ghijkl"]
    assert owner.reads == [(2, 10), (4, 6), (6, 0)]


def test_the_end(stream: SessionStream) -> None:
    stream.on_data(b"abc", True)
    assert (stream.recv(10), stream.recv(10), stream.recv(10)) == (b"abc", b"", b"")


def test_what_was_received_before_the_connection_was_lost(stream: SessionStream) -> None:
    stream.on_data(b"abc", False)
    stream.on_lost(ConnectionResetError("gone"))
    assert stream.recv(10) == b"abc"
    with pytest.raises(ConnectionResetError, match="gone"):
        stream.recv(10)
    with pytest.raises(ConnectionResetError, match="gone"):
        stream.write(b"x")


def test_callbacks_as_long_as_there_is_something_to_read(owner: Owner, stream: SessionStream) -> None:
    read: list[bytes] = []
    stream.on_data(b"abcdef", False)
    stream.watch(lambda: read.append(stream.recv(2)))
    owner.loop.run()
    assert read == [b"ab", b"cd", b"ef"]
    stream.on_data(b"g", False)
    assert read[-1] == b"g"
    stream.unwatch()
    stream.on_data(b"h", True)
    owner.loop.run()
    assert read[-1] == b"g"
    stream.watch(lambda: (read.append(stream.recv(2)), read[-1] or stream.unwatch()))
    owner.loop.run()
    assert read[-2:] == [b"h", b""]


def test_writing_beyond_the_buffer(owner: Owner, stream: SessionStream) -> None:
    drained: list[int] = []
    stream.call_when_drained(lambda: drained.append(stream.unsent))
    stream.write(bytes(SEND_BUFFER - 10))
    assert stream.unsent == 0
    stream.write(b"x" * 30)
    stream.write(b"y" * SEND_BUFFER)
    assert stream.unsent == 20 + SEND_BUFFER
    owner.acknowledge(100)
    assert stream.unsent == SEND_BUFFER - 80
    assert drained == []
    owner.acknowledge()
    owner.acknowledge()
    assert (stream.unsent, drained) == (0, [0])
    assert b"".join(owner.sent) == bytes(SEND_BUFFER - 10) + b"x" * 30 + b"y" * SEND_BUFFER
    assert not owner.attended


def test_a_client_that_takes_nothing_more(owner: Owner, stream: SessionStream) -> None:
    owner.takes = False
    with pytest.raises(BrokenPipeError):
        stream.write(b"x")


def test_finishing(owner: Owner, stream: SessionStream) -> None:
    stream.write(b"x" * (SEND_BUFFER + 5))
    stream.finish(7, "bye")
    assert (owner.ended, owner.closings) == (False, [])
    owner.acknowledge()
    assert (owner.ended, owner.closings) == (True, [])
    owner.acknowledge()
    assert owner.closings == [(7, "bye")]
    stream.finish(8, "again")
    assert owner.closings == [(7, "bye")]


def test_finishing_when_nothing_is_acknowledged(owner: Owner, stream: SessionStream) -> None:
    stream.write(b"x")
    stream.finish(7, "bye", timeout=5)
    owner.loop.advance(6)
    assert owner.closings == [(7, "bye")]


def test_finishing_a_lost_stream(owner: Owner, stream: SessionStream) -> None:
    stream.on_lost(ConnectionResetError("gone"))
    stream.finish(7, "bye")
    assert owner.closings == [(7, "bye")]


def test_a_client_that_says_goodbye(stream: SessionStream) -> None:
    stream.on_data(b"abc", False)
    stream.on_goodbye(0, "bye")
    assert (stream.recv(10), stream.recv(10), stream.goodbye) == (b"abc", b"", (0, "bye"))
    with pytest.raises(BrokenPipeError):
        stream.write(b"x")


def test_what_comes_after_the_end_is_dropped_and_makes_room(owner: Owner, stream: SessionStream) -> None:
    stream.on_data(b"abc", False)
    stream.close()
    stream.close()
    stream.on_data(b"def", False)
    assert owner.reads == [(3, 0), (3, 0)]
    assert owner.closings == [(0, "")]
    stream.watch(lambda: pytest.fail("it is closed"))
    owner.loop.run()
