"""The private names of redis-py's connections that this package relies on."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry

from engineio_wsgi.vendors.redis_connections import (
    GeventConnection,
    GeventSSLConnection,
    GeventUnixConnection,
    Parser,
    detach_socket,
    set_timeout,
)


def answer(sock: Any, address: Any) -> None:
    """A Redis that answers everything but ``PING`` with OK, as often as it is asked."""
    while data := sock.recv(1000):
        count = data.count(b"*") - data.count(b"PING")
        sock.sendall(b"+OK\r\n" * count)


@pytest.fixture
def redis() -> Iterator[tuple[str, int]]:
    """Its address."""
    server = StreamServer(("127.0.0.1", 0), answer)
    server.start()
    yield server.address
    server.stop()


class Seen(GeventConnection):
    """Knows its sockets."""

    sockets: tuple[Any, ...] = ()

    def on_socket(self, sock: Any) -> None:
        """Take it down."""
        self.sockets = (*self.sockets, sock)


def connect(address: tuple[str, int]) -> Seen:
    """A connection over gevent's sockets."""
    connection = Seen(host=address[0], port=address[1], protocol=2, socket_timeout=60, socket_connect_timeout=60,
                      parser_class=Parser, retry=Retry(NoBackoff(), 0))
    connection.connect()
    return connection


@pytest.mark.parametrize("kind", [Connection, SSLConnection, UnixDomainSocketConnection])
def test_a_connection_makes_its_socket_in_a_method_that_can_be_replaced(kind: type[Connection]) -> None:
    assert list(inspect.signature(kind._connect).parameters) == ["self"]


def test_a_connection_is_made_over_the_socket_of_gevent(redis: tuple[str, int]) -> None:
    connection = connect(redis)
    (sock,) = connection.sockets
    assert type(sock) is socket.socket
    assert connection._sock is sock
    assert isinstance(connection._parser, Parser)
    connection.send_command("SUBSCRIBE")
    assert connection.read_response(disable_decoding=True) in (b"OK", "OK")
    connection.disconnect()


def test_a_detached_socket_is_not_closed_by_its_connection(redis: tuple[str, int]) -> None:
    connection = connect(redis)
    sock = detach_socket(connection)
    connection.disconnect()
    sock.sendall(b"*1\r\n$3\r\nGET\r\n")
    assert sock.recv(100) == b"+OK\r\n"
    sock.close()


def test_a_read_takes_as_long_as_was_set(redis: tuple[str, int]) -> None:
    connection = connect(redis)
    set_timeout(connection, 0.001)
    connection.send_command("PING", check_health=False)
    with gevent.Timeout(60), pytest.raises(RedisTimeout):
        connection.read_response()
    connection.disconnect()


def test_a_connection_by_a_unix_socket_has_the_settings_that_are_read() -> None:
    connection = GeventUnixConnection(path="/run/redis", socket_timeout=1, socket_connect_timeout=2)
    assert (connection.path, connection.socket_timeout, connection.socket_connect_timeout) == ("/run/redis", 1, 2)


def test_a_tls_connection_has_the_settings_that_are_read() -> None:
    connection = GeventSSLConnection(host="localhost", port=1)
    for name in ("check_hostname", "cert_reqs", "ca_certs", "ca_path", "ca_data", "certfile", "keyfile", "certificate_password"):
        assert hasattr(connection, name), name
