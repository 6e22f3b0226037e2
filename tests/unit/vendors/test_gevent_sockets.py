"""The private names of gevent's sockets, hubs and loop that this package relies on."""

from __future__ import annotations

import _socket
import os
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import monkey, socket
from gevent import ssl as gevent_ssl

from engineio_wsgi.vendors.gevent_sockets import c_socket, forget_descriptor, has_hub, is_tls, take_c_socket, tls_object

Pair = tuple[Any, Any]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two sockets that are connected to each other."""
    near, far = socket.socketpair()
    yield near, far
    near.close()
    far.close()


@pytest.fixture
def tls(pair: Pair) -> Iterator[Any]:
    """The client's side of a TLS connection, before its handshake."""
    context = gevent_ssl.SSLContext(gevent_ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    secure = context.wrap_socket(pair[0], do_handshake_on_connect=False)
    yield secure
    secure.close()


def test_a_gevent_socket_holds_a_c_socket_of_the_same_descriptor(pair: Pair) -> None:
    inner = c_socket(pair[0])
    assert isinstance(inner, _socket.socket)
    assert not isinstance(inner, socket.socket)
    assert inner.fileno() == pair[0].fileno()
    assert c_socket(inner) is inner


def test_the_c_socket_is_taken_out_of_a_gevent_socket(pair: Pair) -> None:
    number = pair[0].fileno()
    inner = take_c_socket(pair[0])
    assert inner is not None
    assert inner.fileno() == number
    assert inner.gettimeout() == 0
    assert (pair[0].fileno(), pair[0].closed) == (-1, True)
    pair[0].close()
    gevent.sleep(0)
    inner.send(b"still open")
    assert pair[1].recv(16) == b"still open"
    inner.close()


def test_nothing_is_taken_out_of_other_sockets(pair: Pair) -> None:
    number = pair[0].detach()
    plain = _socket.socket(fileno=number)
    assert take_c_socket(plain) is None
    assert plain.fileno() == number
    plain.close()


def test_the_c_socket_never_waits(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        c_socket(pair[0]).recv(1)


def test_a_tls_socket_holds_a_c_socket_as_well(tls: Any) -> None:
    assert c_socket(tls).fileno() == tls.fileno()


def test_a_tls_socket_holds_the_object_of_openssl(tls: Any) -> None:
    inner = tls_object(tls)
    assert is_tls(tls)
    with pytest.raises(ssl.SSLWantReadError):
        inner.read(1)
    with pytest.raises(ssl.SSLError):
        inner.write(b"before the handshake")
    assert callable(inner.shutdown)


def test_another_socket_has_no_object_of_openssl(pair: Pair) -> None:
    assert tls_object(pair[0]) is None
    assert not is_tls(pair[0])
    assert not is_tls(c_socket(pair[0]))


def test_a_thread_has_a_hub_when_it_has_used_one() -> None:
    seen: list[bool] = []

    def look() -> None:
        seen.append(has_hub())
        hub = gevent.get_hub()
        seen.append(has_hub())
        hub.destroy()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [False, True]


def test_the_loop_is_libevs_and_says_which_epoll_it_has() -> None:
    loop = gevent.get_hub().loop
    assert loop.backend == "epoll"
    assert os.readlink(f"/proc/self/fd/{loop.fileno()}") == "anon_inode:[eventpoll]"


def test_a_descriptor_that_the_loop_has_watched_is_forgotten(pair: Pair) -> None:
    with gevent.Timeout(0, False):
        pair[0].recv(1)
    gevent.sleep(0)
    loop = gevent.get_hub().loop
    watcher = loop.io(pair[0].fileno(), 1)
    watcher.start(lambda: None)
    gevent.sleep(0)
    number = pair[0].fileno()
    forget_descriptor(number)
    watcher.stop()
    watcher.close()
    epoll = monkey.get_original("select", "epoll").fromfd(os.dup(loop.fileno()))
    with pytest.raises(FileNotFoundError):
        epoll.unregister(number)
    epoll.close()


def test_a_descriptor_that_the_loop_has_never_watched(pair: Pair) -> None:
    forget_descriptor(pair[0].fileno())
