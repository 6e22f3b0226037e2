"""http/connection.py: waiting with a deadline, writing to a peer that is slow, letting go."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent import socket

from engineio_wsgi.http.connection import Connection

BIG = b"x" * 4_000_000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    client, server = socket.socketpair()
    yield client, server
    client.close()
    server.close()


def test_what_comes_is_received(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = Connection(server)
    for part in (b"one", b"two"):
        receiving = gevent.spawn(connection.receive, 5)
        gevent.sleep(0)
        client.sendall(part)
        assert receiving.get(timeout=5) == part
    client.sendall(b"three")
    assert connection.receive(5, 2) == b"th"
    assert connection.receive(5) == b"ree"
    connection.close_watchers()


def test_the_end_of_the_stream(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.shutdown(socket.SHUT_WR)
    connection = Connection(server)
    assert connection.receive(5) == b""
    assert not connection.fill(5)
    connection.close_watchers()


def test_nothing_comes(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = Connection(ends[1])
    for timeout in (0.01, 0.002, 0.03):
        with pytest.raises(TimeoutError):
            connection.receive(timeout)
    assert not connection.fill(0.01)
    connection.close_watchers()


def test_a_shorter_deadline_is_kept_after_a_longer_one(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = Connection(server)
    client.sendall(b"x")
    assert connection.receive(1000) == b"x"
    with pytest.raises(TimeoutError):
        connection.receive(0.01)
    connection.close_watchers()


def test_a_timer_that_is_due_too_early_is_harmless(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = Connection(server)
    client.sendall(b"x")
    assert connection.receive(0.01) == b"x"
    receiving = gevent.spawn(connection.receive, 1000)
    gevent.sleep(0.03)
    assert not receiving.ready()
    client.sendall(b"y")
    assert receiving.get(timeout=5) == b"y"
    connection.close_watchers()


def test_input_while_nobody_waits_does_not_keep_the_loop_busy(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = Connection(server)
    client.sendall(b"x")
    assert connection.receive(5) == b"x"
    client.sendall(b"y")
    gevent.sleep(0.01)
    assert not connection._watching
    assert connection.receive(5) == b"y"
    connection.close_watchers()


def test_what_is_in_the_buffer_need_not_be_waited_for(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = Connection(ends[1])
    connection.buffer = b"x"
    assert connection.fill(0)
    assert connection.has_input()


def test_unread_input_is_seen(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = Connection(server)
    assert not connection.has_input()
    client.sendall(b"x")
    assert connection.has_input()
    assert connection.buffer == b"x"


def test_more_than_the_kernel_takes_at_once(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = Connection(server)
    sending = gevent.spawn(connection.send_all, BIG, 5)
    received = 0
    while received < len(BIG):
        received += len(client.recv(1 << 20))
    sending.get(timeout=5)
    assert not connection.lost


def test_a_client_that_takes_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = Connection(ends[1])
    with pytest.raises(TimeoutError):
        connection.send_all(BIG, 0.01)
    assert connection.lost


def test_a_client_that_is_gone(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.close()
    connection = Connection(server)
    with pytest.raises(OSError):
        connection.send_all(b"x", 5)
    assert connection.lost


def test_letting_go(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = Connection(server)
    connection.buffer = b"read ahead"
    wire = connection.release()
    assert connection.released
    server.close()
    assert wire.recv(100) == b"read ahead"
    wire.write(b"still there")
    assert client.recv(100) == b"still there"
    wire.close()
    assert client.recv(100) == b""
