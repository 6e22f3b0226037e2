"""Connections that another server or process accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from support.lateness import block_loop

import engineio_wsgi
from engineio_wsgi.handoff.adopter import Adopter
from engineio_wsgi.http import roster


class Pair:
    """An adopted connection and its client's end; ``release`` lets requests for ``/wait`` be answered."""

    def __init__(self, **options: Any) -> None:
        self.release, self.asked = Event(), Event()
        self.adopter = Adopter(self.application, **options)
        self.client: Any = None

    def application(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Says where a request came from."""
        if environ["PATH_INFO"] == "/wait":
            self.asked.set()
            self.release.wait()
        names = ("REMOTE_ADDR", "wsgi.url_scheme", "SERVER_NAME", "PATH_INFO")
        body = " ".join(environ[name] for name in names).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def adopt(self, read_ahead: bytes = b"") -> gevent.Greenlet:
        """A connection, with its client in ``client``."""
        self.client, far = socket.socketpair()
        self.client.settimeout(60)
        return self.adopter.adopt(far, ("192.0.2.7", 5021), read_ahead=read_ahead,
                                  environ={"wsgi.url_scheme": "https", "SERVER_NAME": "example.org"})

    def receive(self, end: bytes) -> bytes:
        """What comes, up to ``end``."""
        received = b""
        while not received.endswith(end):
            data = self.client.recv(65536)
            assert data, received
            received += data
        return received


@pytest.fixture
def adopting() -> Iterator[Callable[..., Pair]]:
    """A factory of pairs, whose clients hang up in the end."""
    pairs: list[Pair] = []

    def make(**options: Any) -> Pair:
        pairs.append(Pair(**options))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.client.close()
        pair.adopter.close(60)


def test_requests_whose_beginning_was_read(adopting: Callable[..., Pair]) -> None:
    pair = adopting()
    pair.adopt(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /sec")
    assert pair.receive(b"192.0.2.7 https example.org /first").startswith(b"HTTP/1.1 200 OK\r\n")
    pair.client.sendall(b"ond HTTP/1.1\r\nHost: a\r\n\r\n")
    pair.receive(b"192.0.2.7 https example.org /second")
    assert len(pair.adopter.roster) == 1


def test_file_descriptor_and_end(adopting: Callable[..., Pair]) -> None:
    pair = adopting(limit=1)
    pair.client, far = socket.socketpair()
    greenlet = pair.adopter.adopt(far.detach(), ("192.0.2.7", 5021))
    assert pair.adopter.full
    pair.client.close()
    greenlet.join(60)
    assert not pair.adopter.full
    assert not len(pair.adopter.roster)


def test_close_ends_what_waits(adopting: Callable[..., Pair]) -> None:
    pair = adopting()
    greenlet = pair.adopt()
    gevent.sleep(0)
    assert pair.adopter.close(60)
    assert greenlet.dead
    assert pair.client.recv(1) == b""
    assert pair.adopter.full, "nothing more is taken"


GET = b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n"


def test_close_answers_what_a_client_asks_that_has_just_connected(adopting: Callable[..., Pair]) -> None:
    pair = adopting()
    pair.adopt()
    gevent.sleep(0)
    closing = gevent.spawn(pair.adopter.close, 60)
    gevent.sleep(0)
    pair.client.sendall(GET)
    assert b"\r\nConnection: close\r\n" in pair.receive(b"/late")
    assert closing.get()


def test_close_answers_what_a_client_asks_that_has_just_been_answered(adopting: Callable[..., Pair]) -> None:
    pair = adopting()
    pair.adopt(GET)
    assert b"\r\nConnection: close\r\n" not in pair.receive(b"/late")
    closing = gevent.spawn(pair.adopter.close, 60)
    gevent.sleep(0)
    pair.client.sendall(GET)
    assert b"\r\nConnection: close\r\n" in pair.receive(b"/late")
    assert closing.get()


def test_close_waits_for_the_rest_of_a_request(adopting: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "KEPT_PERIOD", 0.01)
    pair = adopting()
    pair.adopt(GET[:5])
    gevent.sleep(0)
    assert not pair.adopter.close(0.1)
    pair.client.sendall(GET[5:])
    assert b"\r\nConnection: close\r\n" in pair.receive(b"/late")
    assert pair.adopter.close(60)


def test_close_answers_requests_that_arrived_while_the_loop_was_blocked(
        adopting: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "KEPT_PERIOD", 0.1)
    pair = adopting()
    pair.adopt()
    gevent.sleep(0)
    block_loop(0.3, lambda: pair.client.sendall(GET))
    assert pair.adopter.close(60)
    assert b"\r\nConnection: close\r\n" in pair.receive(b"/late")


def test_connection_that_comes_when_the_server_stops(
        adopting: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """It has been accepted, and its greenlet has not begun."""
    monkeypatch.setattr(roster, "KEPT_PERIOD", 0.1)
    pair = adopting()
    greenlet = pair.adopt()
    assert pair.adopter.close(60)
    assert greenlet.dead
    assert pair.client.recv(1) == b""


def test_close_lets_a_request_be_answered(adopting: Callable[..., Pair]) -> None:
    pair = adopting()
    pair.adopt(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    pair.asked.wait(60)
    assert not pair.adopter.close(0.01)
    gevent.spawn_later(0.01, pair.release.set)
    assert pair.adopter.close(60)
    assert b"\r\nConnection: close\r\n" in pair.receive(b"/wait")
    assert pair.client.recv(1) == b""


def test_websocket_leaves_the_roster(adopting: Callable[..., Pair]) -> None:
    """A session's WebSocket is the engine's; no greenlet is left for it."""
    server = engineio_wsgi.Server()
    pair = adopting()
    pair.adopter.application = server.wrap(pair.application)
    greenlet = pair.adopt(b"GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
                          b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                          b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
    pair.receive(b"}")
    greenlet.join(60)
    assert not len(pair.adopter.roster)
    assert server.clients_count == 1
    pair.client.close()
    server.close(timeout=0)
