"""A byte connection over a real socket pair, in both roles and to both ends."""

from __future__ import annotations

import gevent
import pytest
from gevent import socket as gevent_socket
from gevent.event import Event
from gevent.socket import wait_read
from support.lateness import block_loop

from engineio_wsgi.runtime.connection import Connection, detach


@pytest.fixture
def pair():
    near, far = gevent_socket.socketpair()
    connection = Connection(detach(near))
    yield connection, far
    connection.close()
    far.close()


def fill(connection: Connection) -> int:
    """Write until the kernel takes no more; returns how many bytes were written."""
    written = 0
    while not connection.unsent:
        connection.write(b"x" * 65536)
        written += 65536
    return written


def test_reads_pending_bytes_before_the_connection(pair):
    near, far = gevent_socket.socketpair()
    connection = Connection(detach(near), b"abc")
    far.sendall(b"def")
    assert connection.recv(2) == b"ab"
    assert connection.recv(10) == b"c"
    wait_read(connection.fileno())
    assert connection.recv(10) == b"def"
    connection.close()
    far.close()


def test_the_descriptor_is_lent_for_reading_when_the_pending_bytes_are_read():
    near, far = gevent_socket.socketpair()
    connection = Connection(detach(near), b"abc")
    assert connection.recv_fd == -1
    connection.recv(2)
    assert connection.recv_fd == -1
    connection.recv(2)
    assert connection.recv_fd == connection.send_fd == connection.fileno()
    connection.close()
    assert connection.recv_fd == connection.send_fd == -1
    far.close()


def test_what_a_borrower_could_not_send_follows(pair):
    connection, far = pair
    drained = Event()
    connection.call_when_drained(drained.set)
    connection.keep(b"first ")
    connection.write(b"second")
    assert connection.unsent == 12
    assert drained.wait(60)
    assert far.recv(100) == b"first second"


def test_a_borrower_reports_that_the_connection_is_lost(pair):
    connection, _ = pair
    connection.lose(ConnectionResetError("reset"))
    with pytest.raises(ConnectionResetError):
        connection.write(b"x")


def test_the_descriptor_is_not_lent_for_sending_after_the_end(pair):
    connection, far = pair
    written = fill(connection)
    connection.linger()
    got = 0
    while got < written:
        got += len(far.recv(1 << 20))
    assert far.recv(1) == b""
    assert connection.send_fd == -1


def test_watch_calls_back_at_once_for_pending_bytes():
    near, far = gevent_socket.socketpair()
    connection = Connection(detach(near), b"abc")
    called = Event()
    connection.watch(called.set)
    assert called.wait(60)
    connection.close()
    far.close()


def test_watch_and_unwatch(pair):
    connection, far = pair
    received: list[bytes] = []
    called = Event()

    def on_readable():
        received.append(connection.recv(100))
        called.set()

    connection.watch(on_readable)
    far.sendall(b"one")
    assert called.wait(60)
    connection.unwatch()
    far.sendall(b"two")
    wait_read(connection.fileno())
    gevent.sleep(0)
    assert received == [b"one"]
    connection.watch(on_readable)
    called.clear()
    assert called.wait(60)
    assert received == [b"one", b"two"]


def test_nothing_to_read_raises_blocking_io_error(pair):
    connection, _ = pair
    with pytest.raises(BlockingIOError):
        connection.recv(1)


def test_what_the_kernel_refuses_follows_in_order(pair):
    connection, far = pair
    drained = Event()
    connection.call_when_drained(drained.set)
    written = fill(connection)
    connection.write(b"last")
    got = 0
    tail = b""
    while got < written + 4:
        chunk = far.recv(1 << 20)
        got += len(chunk)
        tail = (tail + chunk)[-4:]
    assert tail == b"last"
    assert drained.wait(60)
    assert connection.unsent == 0


def test_a_lost_connection_keeps_count_of_what_never_left(pair):
    connection, far = pair
    lost = Event()
    connection.call_when_drained(lost.set)
    fill(connection)
    far.close()
    assert lost.wait(60)
    assert connection.lost is not None
    assert connection.unsent > 0
    with pytest.raises(OSError):
        connection.write(b"more")


def test_close_is_reported_once_and_repeated_close_is_harmless(pair):
    connection, far = pair
    closed: list[int] = []
    connection.on_closed(lambda: closed.append(1))
    connection.close()
    connection.close()
    assert closed == [1]
    assert connection.closed
    assert far.recv(1) == b""
    connection.on_closed(lambda: closed.append(2))
    assert closed == [1, 2]
    assert connection.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        connection.write(b"x")


def test_waiting_for_the_end_does_not_replace_the_callback(pair):
    connection, _ = pair
    closed: list[int] = []
    connection.on_closed(lambda: closed.append(1))
    waiting = [gevent.spawn(connection.wait_closed) for _ in range(2)]
    gevent.idle()
    assert not any(one.dead for one in waiting)
    connection.close()
    gevent.joinall(waiting, 60, raise_error=True)
    assert all(one.dead for one in waiting)
    assert closed == [1]
    connection.wait_closed()


def test_linger_lets_the_peer_have_the_last_bytes(pair):
    connection, far = pair
    written = fill(connection)
    closed = Event()
    connection.on_closed(closed.set)
    far.sendall(b"still talking")
    connection.linger()
    got = 0
    while chunk := far.recv(1 << 20):
        got += len(chunk)
    assert got == written
    assert not connection.closed
    far.close()
    assert closed.wait(60)


def test_linger_does_not_wait_for_ever(pair):
    connection, _ = pair
    closed = Event()
    connection.on_closed(closed.set)
    connection.linger(0.01)
    assert closed.wait(60)


def test_linger_drops_no_more_than_some(pair, monkeypatch):
    """Whatever a peer has to say after the end, it does not cost the process much."""
    monkeypatch.setattr("engineio_wsgi.runtime.connection.MAX_DROPPED", 100_000)
    connection, far = pair
    closed = Event()
    connection.on_closed(closed.set)
    connection.linger(60)
    far.sendall(bytes(100_000))
    gevent.sleep(0.01)
    assert not connection.closed
    far.sendall(b"x")
    assert closed.wait(60)


def test_linger_is_patient_when_the_loop_was_late(pair):
    """The peer reads the rest although the loop was blocked for longer than the connection lingers."""
    connection, far = pair
    written = fill(connection)
    received = bytearray()

    def read_all():
        while True:
            try:
                received.extend(far._sock.recv(1 << 20))
            except BlockingIOError:
                return

    connection.linger(0.1)
    block_loop(0.2, read_all)
    gevent.sleep(0)
    while chunk := far.recv(1 << 20):
        received += chunk
    assert len(received) == written


def test_the_same_bytes_to_several_connections():
    ends = [gevent_socket.socketpair() for _ in range(4)]
    connections = [Connection(detach(near)) for near, _ in ends]
    assert Connection.write_to_all(connections, b"first")
    ends[1][1].close()
    connections[2].close()
    assert not Connection.write_to_all(connections, b"second")
    assert [type(connection.lost) for connection in connections] == [type(None), BrokenPipeError, BrokenPipeError, type(None)]
    assert [ends[number][1].recv(100) for number in (0, 3)] == [b"firstsecond"] * 2
    for connection, (_, far) in zip(connections, ends, strict=True):
        connection.close()
        far.close()


def test_what_the_kernel_does_not_take_of_them_follows():
    ends = [gevent_socket.socketpair() for _ in range(2)]
    connections = [Connection(detach(near)) for near, _ in ends]
    data = bytes(range(256)) * 40_000
    assert not Connection.write_to_all(connections, data)
    assert all(connection.unsent > 0 for connection in connections)
    for connection, (_, far) in zip(connections, ends, strict=True):
        received = bytearray()
        while len(received) < len(data):
            received += far.recv(1 << 20)
        assert received == data
        assert connection.wait_drained(60)
        connection.close()
        far.close()
