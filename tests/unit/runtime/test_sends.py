"""One frame to many sockets: what the part in C does is what the one in Python does."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator

import pytest

from engineio_wsgi.protocol.websocket.batches import accelerated
from engineio_wsgi.runtime.sends import send_to_all, send_to_all_in_python

Send = Callable[[list[int], bytes], list[tuple[int, int]]]

#: what this installation uses, and the reference
SENDERS = [send_to_all, send_to_all_in_python]


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Five pairs, whose nearer ends do not block."""
    made = [socket.socketpair() for _ in range(5)]
    for near, far in made:
        near.setblocking(False)
        far.settimeout(60)
    yield made
    for pair in made:
        for end in pair:
            end.close()


def fill(near: socket.socket) -> None:
    """Send until the kernel takes no more."""
    try:
        while True:
            near.send(b"x" * 65536)
    except BlockingIOError:
        pass


@pytest.mark.parametrize("send", SENDERS)
def test_all_get_the_same(send: Send, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    assert send([near.fileno() for near, _ in pairs], b"frame") == []
    assert [far.recv(100) for _, far in pairs] == [b"frame"] * 5


@pytest.mark.parametrize("send", SENDERS)
def test_those_that_do_not_take_all_are_named(send: Send, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    fill(pairs[1][0])
    pairs[2][1].close()
    descriptors = [near.fileno() for near, _ in pairs]
    descriptors[3] = -1
    assert send(descriptors, b"frame") == [(1, -errno.EAGAIN), (2, -errno.EPIPE), (3, -errno.EBADF)]
    assert [pairs[number][1].recv(100) for number in (0, 4)] == [b"frame"] * 2


@pytest.mark.parametrize("send", SENDERS)
def test_a_part_is_counted(send: Send, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    near, far = pairs[0]
    data = b"x" * 10_000_000
    [(position, sent)] = send([near.fileno()], data)
    assert position == 0
    assert 0 < sent < len(data)
    near.close()
    received = 0
    while part := far.recv(1 << 20):
        received += len(part)
    assert received == sent


@pytest.mark.parametrize("send", SENDERS)
def test_no_connections_and_no_bytes(send: Send, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    assert send([], b"frame") == []
    assert send([pairs[0][0].fileno()], b"") == []


@pytest.mark.skipif(not accelerated, reason="it is about the part in C, which test_ci_has_the_part_in_c asks for")
def test_wrong_arguments_are_refused() -> None:
    for arguments in [(), ([],), ((), b""), ([], "text"), ([], bytearray())]:
        with pytest.raises(TypeError):
            send_to_all(*arguments)  # type: ignore[arg-type]
    assert send_to_all([1 << 70, -5, "1"], b"x") == [(0, -errno.EBADF), (1, -errno.EBADF), (2, -errno.EBADF)]  # type: ignore[list-item]
