"""The connection behind a request: where it is found, and how its end is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from engineio_wsgi.handoff.client_socket import EndWatch, client_socket
from engineio_wsgi.vendors.gevent_servers import buffered_reader


class Pair:
    """A connection: ``near`` is the server's end, ``far`` the client's; ``ended`` counts what a watch said."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.ended = 0
        self._told = Event()
        self.watches: list[Any] = []

    def on_end(self) -> None:
        """The client is gone."""
        self.ended += 1
        self._told.set()

    def watch(self, sock: Any = None) -> Any:
        """A watch of the server's end."""
        self.watches.append(EndWatch({"engineio.socket": sock or self.near}, self.on_end))
        return self.watches[-1]

    def wait(self) -> None:
        """Until somebody has said that it has ended."""
        assert self._told.wait(60)

    def close(self) -> None:
        """All of it."""
        for watch in self.watches:
            watch.stop()
        self.near.close()
        self.far.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connection for the time of the test."""
    made = Pair()
    yield made
    made.close()


def turns() -> None:
    """Let the loop look at its watchers, more often than it takes."""
    for _ in range(5):
        gevent.sleep(0.001)


# -- where it is


@pytest.mark.parametrize("key", ["engineio.socket", "gunicorn.socket", "gunicorn.sock"])
def test_a_socket_in_the_environ(key: str) -> None:
    sock = object()
    assert client_socket({"wsgi.input": object(), key: sock}) is sock


def test_our_socket_comes_first_and_none_is_skipped() -> None:
    ours, other = object(), object()
    assert client_socket({"gunicorn.socket": other, "engineio.socket": ours}) is ours
    assert client_socket({"gunicorn.socket": other, "engineio.socket": None}) is other


def test_a_socket_behind_the_input(pair: Pair) -> None:
    """gevent's pywsgi keeps its buffered reader in the input; of an upgrade, the reader is the input."""
    with pair.near.makefile("rb") as reader:
        for body in (SimpleNamespace(rfile=reader), reader):
            assert buffered_reader(body) is reader
            assert client_socket({"wsgi.input": body}) is pair.near


@pytest.mark.parametrize("environ", [{}, {"wsgi.input": None}, {"wsgi.input": object()}])
def test_no_socket(environ: dict[str, Any]) -> None:
    assert client_socket(environ) is None


# -- its end


def test_a_client_that_closes(pair: Pair) -> None:
    pair.watch()
    turns()
    assert pair.ended == 0
    pair.far.close()
    pair.wait()
    turns()
    assert pair.ended == 1


def test_a_client_that_closes_its_sending_side(pair: Pair) -> None:
    pair.watch()
    pair.far.shutdown(socket.SHUT_WR)
    pair.wait()


def test_a_client_that_resets(pair: Pair) -> None:
    pair.near.sendall(b"it does not read this")
    watch = pair.watch()
    pair.far.close()
    watch._on_readable()
    assert pair.ended == 1
    turns()
    assert pair.ended == 1


def test_the_next_request_is_not_taken_for_the_end_and_stays_unread(pair: Pair) -> None:
    pair.watch()
    pair.far.sendall(b"GET / HTTP/1.1\r\n\r\n")
    turns()
    assert pair.ended == 0
    assert pair.near.recv(100) == b"GET / HTTP/1.1\r\n\r\n"
    pair.far.close()
    turns()
    assert pair.ended == 0, "whoever reads it will find the end"


def test_a_false_alarm_does_not_end_the_watch(pair: Pair) -> None:
    watch = pair.watch()
    watch._on_readable()
    assert pair.ended == 0
    pair.far.close()
    pair.wait()


def test_a_watch_that_was_stopped(pair: Pair) -> None:
    watch = pair.watch()
    watch.stop()
    watch.stop()
    pair.far.close()
    turns()
    assert pair.ended == 0


def test_a_connection_that_cannot_be_found_or_is_closed(pair: Pair) -> None:
    pair.watches.append(EndWatch({}, pair.on_end))
    pair.watch(SimpleNamespace(fileno=lambda: -1))
    pair.far.close()
    turns()
    assert pair.ended == 0


# -- under TLS the end comes as an alert

ALERT_12 = b"\x15\x03\x03\x00\x1a" + 26 * b"x"
ALERT_13 = b"\x17\x03\x03\x00\x13" + 19 * b"x"
DATA_13 = b"\x17\x03\x03\x00\x60" + 96 * b"x"


@pytest.mark.parametrize(("tls", "record", "ended"), [
    (True, ALERT_12, 1), (True, ALERT_13, 1), (True, DATA_13, 0),
    (False, ALERT_12, 0), (False, ALERT_13, 0),
], ids=["alert, 1.2", "alert, 1.3", "data", "1.2, no TLS", "1.3, no TLS"])
def test_an_alert(pair: Pair, tls: bool, record: bytes, ended: int) -> None:
    if tls:
        pair.watch(SimpleNamespace(_sock=pair.near._sock, _sslobj=object(), fileno=pair.near.fileno))
    else:
        pair.watch()
    pair.far.sendall(record)
    turns()
    assert pair.ended == ended
    assert pair.near.recv(100 + len(record)) == record


def test_a_tls_client_that_vanishes(pair: Pair) -> None:
    pair.watch(SimpleNamespace(_sock=pair.near._sock, _sslobj=object(), fileno=pair.near.fileno))
    pair.far.close()
    pair.wait()
