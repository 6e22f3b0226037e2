"""The pump between two connections, and its timeout for a side that does not read."""

from __future__ import annotations

import socket as plain_socket
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket

from engineio_wsgi.cluster.pump import MAX_WAITING, Pump
from engineio_wsgi.runtime.connection import Connection, detach

#: far more than the pump and the kernel together take for who does not read
MUCH = b"x" * (MAX_WAITING + 16_000_000)

Sockets = tuple[plain_socket.socket, plain_socket.socket]


@pytest.fixture
def ends() -> Iterator[tuple[Sockets, Sockets]]:
    """Two connections: for each, the pump's end and the other."""
    pairs = socket.socketpair(), socket.socketpair()
    yield pairs
    for pair in pairs:
        for one in pair:
            one.close()


def start(ends: tuple[Sockets, Sockets], patience: float) -> Pump:
    """A pump between the two."""
    return Pump(Connection(detach(ends[0][0])), Connection(detach(ends[1][0])), patience)


def read_to_end(sock: plain_socket.socket) -> bytes:
    """What still comes; a reset is an end, too."""
    pieces = []
    try:
        while piece := sock.recv(1_000_000):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def test_everything_arrives_before_the_end(ends: tuple[Sockets, Sockets]) -> None:
    start(ends, 30)
    (_, one), (_, other) = ends
    sending = gevent.spawn(lambda: (one.sendall(MUCH), one.shutdown(socket.SHUT_WR)))
    assert read_to_end(other) == MUCH
    sending.join()
    assert one.recv(1) == b""


def test_a_side_that_reads_nothing_is_closed(ends: tuple[Sockets, Sockets]) -> None:
    start(ends, 0.1)
    (_, one), (_, other) = ends
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        one.sendall(MUCH)
    assert len(read_to_end(other)) < len(MUCH)


def test_close(ends: tuple[Sockets, Sockets]) -> None:
    pump = start(ends, 30)
    (_, one), (_, other) = ends
    one.sendall(b"before")
    assert other.recv(6) == b"before"
    pump.close()
    pump.close()
    assert one.recv(1) == other.recv(1) == b""


def test_bytes_under_way_arrive_although_the_client_sends(ends: tuple[Sockets, Sockets]) -> None:
    start(ends, 30)
    (_, client), (_, server) = ends
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server.sendall(b"x" * 200_000)
    server.close()
    gevent.sleep(0.05)
    client.sendall(b"pong")
    gevent.sleep(0.05)
    assert len(read_to_end(client)) == 200_000
