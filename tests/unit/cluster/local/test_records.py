"""Records over a stream: as over a socket that keeps them apart."""

from __future__ import annotations

import _socket
import array
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from engineio_wsgi.cluster.local import records
from engineio_wsgi.cluster.local.channel import _BESIDE_SIZE
from engineio_wsgi.cluster.local.records import StreamRecords, descriptors_in, make_socket, records_of

SIZE = 1000


class End:
    """One end of a connection.

    Attributes:
        sock: the C socket.
        records: what sends and receives.
        descriptors: those that have come.
    """

    def __init__(self, number: int) -> None:
        self.sock: Any = _socket.socket(fileno=number)
        self.sock.setblocking(False)
        self.descriptors: list[int] = []
        self.records = records_of(self.sock, self.keep)

    def keep(self, beside: Any) -> None:
        """Take descriptors down."""
        self.descriptors += descriptors_in(beside)

    def send(self, data: bytes, *descriptors: int) -> int:
        """Send a record."""
        beside = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        return self.records.sendmsg([memoryview(data)], beside, records.NO_SIGNAL)

    def receive(self) -> tuple[bytes, int]:
        """A record, and the flags that came with it."""
        data, beside, flags, _ = self.records.recvmsg(SIZE, _BESIDE_SIZE, records.CLOSE_ON_EXEC)
        self.keep(beside)
        return bytes(data), flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC)


@pytest.fixture(params=[_socket.SOCK_STREAM, _socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    """Both ends of a connection of either kind."""
    pair = tuple(End(each.detach()) for each in _socket.socketpair(_socket.AF_UNIX, request.param))
    yield pair[0], pair[1]
    for end in pair:
        end.sock.close()
        for number in end.descriptors:
            os.close(number)


@pytest.fixture
def stream() -> Iterator[tuple[End, Any]]:
    """One end with records, and the bare socket at the other."""
    near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    end = End(near.detach())
    yield end, far
    end.sock.close()
    far.close()


def test_the_kind_decides(ends: tuple[End, End]) -> None:
    is_stream = ends[0].sock.type == _socket.SOCK_STREAM
    assert isinstance(ends[0].records, StreamRecords) is is_stream
    assert (ends[0].records is ends[0].sock) is not is_stream


def test_records_stay_apart(ends: tuple[End, End]) -> None:
    near, far = ends
    sent = [bytes([number]) * (number * 300 + 1) for number in range(4)]
    assert [near.send(data) for data in sent] == [len(data) for data in sent]
    assert [far.receive() for _ in sent] == [(data, 0) for data in sent]
    with pytest.raises(BlockingIOError):
        far.receive()
    near.send(b"one more")
    assert far.records.recv(SIZE) == b"one more"
    near.sock.close()
    assert far.receive() == (b"", 0)


def test_a_record_that_is_too_long(ends: tuple[End, End]) -> None:
    near, far = ends
    near.send(b"x" * (SIZE + 1))
    assert far.receive()[1] == _socket.MSG_TRUNC


def test_descriptors_come_with_their_record(ends: tuple[End, End]) -> None:
    near, far = ends
    pipe = os.pipe()
    try:
        near.send(b"none")
        near.send(b"one", pipe[0])
        near.send(b"two", *pipe)
        seen = [(far.receive()[0], len(far.descriptors)) for _ in range(3)]
    finally:
        for number in pipe:
            os.close(number)
    assert seen == [(b"none", 0), (b"one", 1), (b"two", 3)]
    assert not any(os.get_inheritable(number) for number in far.descriptors)


@pytest.mark.parametrize("missing", ["CLOSE_ON_EXEC", "NO_SIGNAL"])
def test_a_platform_without_a_flag(ends: tuple[End, End], missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, missing, 0)
    near, far = ends
    near.send(b"data", near.sock.fileno())
    assert far.receive() == (b"data", 0)
    assert [os.get_inheritable(number) for number in far.descriptors] == [False]
    far.sock.close()
    with pytest.raises(OSError, match="Broken pipe"):
        near.send(b"nobody")


def test_a_record_that_is_sent_in_pieces(ends: tuple[End, End]) -> None:
    """The kernel has room for a part: the same record is sent again until all of it has gone, and arrives once."""
    near, far = ends
    record = bytes(range(250)) * 4
    count = 0
    with suppress(BlockingIOError):
        while True:
            near.send(record)
            count += 1
    for _ in range(2 * count):
        with suppress(BlockingIOError):
            assert far.receive() == (record, 0)
            count -= 1
        with suppress(BlockingIOError):
            near.send(record)
            count += 1
    while count:
        assert far.receive() == (record, 0)
        count -= 1


def test_a_record_that_comes_in_pieces(stream: tuple[End, Any]) -> None:
    end, far = stream
    for byte in struct.pack("!I", 3) + b"ab":
        far.send(bytes([byte]))
        with pytest.raises(BlockingIOError):
            end.receive()
    far.send(b"c")
    assert end.receive() == (b"abc", 0)


@pytest.mark.parametrize("part", [b"\0", struct.pack("!I", 3), struct.pack("!I", 3) + b"ab"])
def test_a_record_that_never_comes_whole(stream: tuple[End, Any], part: bytes) -> None:
    """What came beside it is known at once, so that it can be closed."""
    end, far = stream
    far.sendmsg([part], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [far.fileno()]))])
    with pytest.raises(BlockingIOError):
        end.receive()
    assert len(end.descriptors) == 1
    os.close(end.descriptors.pop())
    far.close()
    assert end.receive() == (b"", 0)


def test_where_sockets_cannot_keep_records_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    sock = make_socket()
    assert sock.type == _socket.SOCK_SEQPACKET
    sock.close()

    class Missing:
        AF_UNIX, SOCK_STREAM, SOCK_SEQPACKET = _socket.AF_UNIX, _socket.SOCK_STREAM, _socket.SOCK_SEQPACKET

        @staticmethod
        def socket(family: int, kind: int) -> Any:
            raise OSError("Protocol not supported")

    monkeypatch.setattr(records, "_socket", Missing)
    assert records._choose_kind() == _socket.SOCK_STREAM
