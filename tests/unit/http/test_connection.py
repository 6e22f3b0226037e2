"""http/connection.py: waiting with a deadline, writing to a peer that is slow, letting go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import gevent
import pytest
from gevent import socket
from support.lateness import block_loop

from engineio_wsgi.http.connection import HttpConnection

BIG = b"x" * 4_000_000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    client, server = socket.socketpair()
    yield client, server
    client.close()
    server.close()


def test_what_comes_is_received(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    for part in (b"one", b"two"):
        receiving = gevent.spawn(connection.receive, 60)
        gevent.sleep(0)
        client.sendall(part)
        assert receiving.get() == part
    client.sendall(b"three")
    assert connection.receive(60, 2) == b"th"
    assert connection.receive(60) == b"ree"
    connection.close_watchers()


def test_the_end_of_the_stream(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.shutdown(socket.SHUT_WR)
    connection = HttpConnection(server)
    assert connection.receive(60) == b""
    assert not connection.fill(60)
    connection.close_watchers()


def test_a_first_request_that_has_come_needs_no_wait(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.sendall(b"one")
    connection = HttpConnection(server)
    assert connection.fill_first(60)
    assert connection.buffer == b"one"
    assert (connection._watcher, connection._timer) == (None, None)
    assert connection.fill_first(60)
    connection.close_watchers()


def test_a_first_request_that_comes_later_is_waited_for(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    filling = gevent.spawn(connection.fill_first, 60)
    while not connection._watching:
        gevent.sleep(0)
    client.sendall(b"one")
    assert filling.get()
    assert connection.buffer == b"one"
    connection.close_watchers()


def test_a_connection_ends_before_its_first_request(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    assert not connection.fill_first(0.01)
    client.close()
    assert not connection.fill_first(60)
    connection.close_watchers()
    server.close()
    assert not connection.fill_first(60)


def test_no_first_request_is_waited_for_when_the_server_stops(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = HttpConnection(ends[1])
    filling = gevent.spawn(connection.fill_first, 60)
    while not connection._parked:
        gevent.sleep(0)
    connection.stop_waiting()
    assert not filling.get()
    connection.close_watchers()


def test_a_first_request_is_read_after_what_was_readable_before(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.sendall(b"one")
    connection = HttpConnection(server)
    order: list[object] = []
    filling = gevent.spawn(connection.fill_first, 60)
    filling.rawlink(lambda filled: order.append(connection.buffer))
    gevent.get_hub().loop.run_callback(order.append, "others")
    filling.join()
    gevent.sleep(0)
    assert order == ["others", b"one"]
    connection.close_watchers()


def test_nothing_comes(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = HttpConnection(ends[1])
    for timeout in (0.01, 0.002, 0.03):
        with pytest.raises(TimeoutError):
            connection.receive(timeout)
    assert not connection.fill(0.01)
    connection.close_watchers()


def test_a_shorter_deadline_is_kept_after_a_longer_one(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    client.sendall(b"x")
    assert connection.receive(1000) == b"x"
    with pytest.raises(TimeoutError):
        connection.receive(0.01)
    connection.close_watchers()


def test_a_timer_that_is_due_too_early_is_harmless(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    client.sendall(b"x")
    assert connection.receive(0.01) == b"x"
    early = connection._due
    receiving = gevent.spawn(connection.receive, 1000)
    while connection._due <= early:
        gevent.sleep(0.001)
    assert not receiving.ready()
    client.sendall(b"y")
    assert receiving.get() == b"y"
    connection.close_watchers()


def test_bytes_that_a_late_loop_finds_are_taken(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    for part in (b"one", b"two"):
        block_loop(0.1, lambda part=part: client.sendall(part))  # type: ignore[misc]
        assert connection.receive(0.05) == part
    connection.close_watchers()


def test_bytes_that_are_there_need_no_time(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    client.sendall(b"x")
    assert connection.receive(0) == b"x"
    with pytest.raises(TimeoutError):
        connection.receive(0)
    with pytest.raises(TimeoutError):
        connection.receive(-1)


def test_a_client_has_its_time_although_the_loop_was_blocked_before(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = HttpConnection(ends[1])
    gevent.sleep(0)
    time.sleep(0.2)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.receive(0.1)
    assert time.monotonic() - began >= 0.1
    connection.close_watchers()


def test_room_that_a_late_loop_finds_is_used(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    room = 0
    with suppress(BlockingIOError):
        while True:
            room += connection.send(b"x" * 1000)
    block_loop(0.1, lambda: client._sock.recv(room, socket.MSG_WAITALL))
    connection.send_all(b"y" * 1000, 0.05)
    assert not connection.lost


def test_input_while_nobody_waits_does_not_keep_the_loop_busy(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    client.sendall(b"x")
    assert connection.receive(60) == b"x"
    client.sendall(b"y")
    gevent.sleep(0.01)
    assert not connection._watching
    assert connection.receive(60) == b"y"
    connection.close_watchers()


def test_what_is_in_the_buffer_need_not_be_waited_for(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = HttpConnection(ends[1])
    connection.buffer = b"x"
    assert connection.fill(0)
    assert connection.has_input()


def test_unread_input_is_seen(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    assert not connection.has_input()
    client.sendall(b"x")
    assert connection.has_input()
    assert connection.buffer == b"x"


def test_more_than_the_kernel_takes_at_once(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    sending = gevent.spawn(connection.send_all, BIG, 60)
    received = 0
    while received < len(BIG):
        received += len(client.recv(1 << 20))
    sending.get()
    assert not connection.lost


def test_a_client_that_takes_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = HttpConnection(ends[1])
    with pytest.raises(TimeoutError):
        connection.send_all(BIG, 0.01)
    assert connection.lost


def test_a_client_that_is_gone(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.close()
    connection = HttpConnection(server)
    with pytest.raises(OSError):
        connection.send_all(b"x", 60)
    assert connection.lost


def test_a_detached_connection_outlives_its_socket(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    connection = HttpConnection(server)
    connection.buffer = b"read ahead"
    wire = connection.detach()
    server.close()
    assert wire.recv(100) == b"read ahead"
    wire.write(b"still there")
    assert client.recv(100) == b"still there"
    wire.close()
    assert client.recv(100) == b""
