"""A wire over a real socket pair, in both roles and to both ends."""

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
    wire = Connection(detach(near))
    yield wire, far
    wire.close()
    far.close()


def fill(wire: Connection) -> int:
    """Write until the kernel takes no more; returns how many bytes were written."""
    written = 0
    while not wire.unsent:
        wire.write(b"x" * 65536)
        written += 65536
    return written


def test_reads_pending_bytes_before_the_connection(pair):
    near, far = gevent_socket.socketpair()
    wire = Connection(detach(near), b"abc")
    far.sendall(b"def")
    assert wire.recv(2) == b"ab"
    assert wire.recv(10) == b"c"
    wait_read(wire.fileno())
    assert wire.recv(10) == b"def"
    wire.close()
    far.close()


def test_watch_calls_back_at_once_for_pending_bytes():
    near, far = gevent_socket.socketpair()
    wire = Connection(detach(near), b"abc")
    called = Event()
    wire.watch(called.set)
    assert called.wait(60)
    wire.close()
    far.close()


def test_watch_and_unwatch(pair):
    wire, far = pair
    received: list[bytes] = []
    called = Event()

    def on_readable():
        received.append(wire.recv(100))
        called.set()

    wire.watch(on_readable)
    far.sendall(b"one")
    assert called.wait(60)
    wire.unwatch()
    far.sendall(b"two")
    wait_read(wire.fileno())
    gevent.sleep(0)
    assert received == [b"one"]
    wire.watch(on_readable)
    called.clear()
    assert called.wait(60)
    assert received == [b"one", b"two"]


def test_nothing_to_read_is_an_error_of_its_own(pair):
    wire, _ = pair
    with pytest.raises(BlockingIOError):
        wire.recv(1)


def test_what_the_kernel_refuses_follows_in_order(pair):
    wire, far = pair
    drained = Event()
    wire.call_when_drained(drained.set)
    written = fill(wire)
    wire.write(b"last")
    got = 0
    tail = b""
    while got < written + 4:
        chunk = far.recv(1 << 20)
        got += len(chunk)
        tail = (tail + chunk)[-4:]
    assert tail == b"last"
    assert drained.wait(60)
    assert wire.unsent == 0


def test_a_lost_connection_keeps_count_of_what_never_left(pair):
    wire, far = pair
    lost = Event()
    wire.call_when_drained(lost.set)
    fill(wire)
    far.close()
    assert lost.wait(60)
    assert wire.lost is not None
    assert wire.unsent > 0
    with pytest.raises(OSError):
        wire.write(b"more")


def test_close_is_told_once_and_repeated_close_is_harmless(pair):
    wire, far = pair
    closed: list[int] = []
    wire.on_closed(lambda: closed.append(1))
    wire.close()
    wire.close()
    assert closed == [1]
    assert wire.closed
    assert far.recv(1) == b""
    wire.on_closed(lambda: closed.append(2))
    assert closed == [1, 2]
    assert wire.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        wire.write(b"x")


def test_waiting_for_the_end_does_not_replace_the_callback(pair):
    wire, _ = pair
    closed: list[int] = []
    wire.on_closed(lambda: closed.append(1))
    waiting = [gevent.spawn(wire.wait_closed) for _ in range(2)]
    gevent.idle()
    assert not any(one.dead for one in waiting)
    wire.close()
    gevent.joinall(waiting, 60, raise_error=True)
    assert all(one.dead for one in waiting)
    assert closed == [1]
    wire.wait_closed()


def test_linger_lets_the_peer_have_the_last_bytes(pair):
    wire, far = pair
    written = fill(wire)
    closed = Event()
    wire.on_closed(closed.set)
    far.sendall(b"still talking")
    wire.linger()
    got = 0
    while chunk := far.recv(1 << 20):
        got += len(chunk)
    assert got == written
    assert not wire.closed
    far.close()
    assert closed.wait(60)


def test_linger_does_not_wait_for_ever(pair):
    wire, _ = pair
    closed = Event()
    wire.on_closed(closed.set)
    wire.linger(0.01)
    assert closed.wait(60)


def test_linger_is_patient_when_the_loop_was_late(pair):
    """The peer reads the rest although the loop was blocked for longer than the connection lingers."""
    wire, far = pair
    written = fill(wire)
    received = bytearray()

    def read_all():
        while True:
            try:
                received.extend(far._sock.recv(1 << 20))
            except BlockingIOError:
                return

    wire.linger(0.1)
    block_loop(0.2, read_all)
    gevent.sleep(0)
    while chunk := far.recv(1 << 20):
        received += chunk
    assert len(received) == written
