"""How broadcasts are written: at once, together with others, and in pieces. Sessions over socket pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from support.fakesession import FakeHost

from engineio_wsgi.protocol.websocket.frames import FrameDecoder, encode_text
from engineio_wsgi.runtime.connection import Connection, detach
from engineio_wsgi.session import broadcasts
from engineio_wsgi.session.broadcasts import Broadcasts
from engineio_wsgi.session.delivery import Delivery
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports.base import Prepared
from engineio_wsgi.transports.websocket import WebSocketTransport

FIRST, SECOND = encode_text("4first"), encode_text("4second")


class Audience:
    """Some sessions, and the clients' ends of their connections."""

    def __init__(self, count: int) -> None:
        host: Any = FakeHost()
        self.broadcasts = Broadcasts(gevent.get_hub().loop)
        self.sessions: list[Session] = []
        self.clients: list[Any] = []
        for number in range(count):
            near, far = socket.socketpair()
            session = Session(host, f"session {number}", 4)
            session.open(WebSocketTransport(Connection(detach(near)), host.greenlets, FrameDecoder(1000), 4), [])
            session.transport.open()
            self.sessions.append(session)
            self.clients.append(far)

    def broadcast(self, data: str, **options: Any) -> None:
        """Broadcast to all sessions."""
        self.broadcasts.deliver(Prepared(data, True), Delivery(**options), self.sessions)

    def received(self) -> list[bytes]:
        """What each client's kernel has, without waiting."""
        parts = []
        for client in self.clients:
            client.setblocking(False)
            try:
                parts.append(client.recv(1000))
            except BlockingIOError:
                parts.append(b"")
        return parts


@pytest.fixture
def audience() -> Iterator[Audience]:
    """Five sessions."""
    these = Audience(5)
    yield these
    for session in these.sessions:
        session.end("of the test")
    gevent.idle()
    for client in these.clients:
        client.close()


def test_the_first_broadcast_of_a_turn_is_written_at_once(audience: Audience) -> None:
    audience.broadcast("first", exclude=["session 1"])
    audience.broadcast("second")
    assert audience.received() == [FIRST, b"", FIRST, FIRST, FIRST]
    assert [session.outbox.size for session in audience.sessions] == [len("second")] * 5
    gevent.idle()
    assert audience.received() == [SECOND] * 5
    audience.broadcast("first")
    assert audience.received() == [FIRST] * 5


def test_what_waits_already_is_written_before(audience: Audience) -> None:
    audience.sessions[2].append("second", 6)
    audience.broadcast("first")
    assert audience.received() == [FIRST, FIRST, b"", FIRST, FIRST]
    gevent.idle()
    assert audience.received() == [b"", b"", SECOND + FIRST, b"", b""]


def test_a_large_broadcast_is_written_in_pieces(audience: Audience, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcasts, "AT_ONCE", 2)
    audience.broadcast("first")
    assert audience.received() == [FIRST, FIRST, b"", b"", b""]
    assert [session.outbox.size for session in audience.sessions] == [0, 0, 5, 5, 5]
    audience.sessions[3].append("second", 6)
    audience.sessions[4].end("before its turn")
    while any(session.outbox.entries for session in audience.sessions[:4]):
        gevent.sleep(0)
    assert audience.received()[:4] == [b"", b"", FIRST, FIRST + SECOND]
    assert [session.outbox.size for session in audience.sessions[:4]] == [0] * 4


def test_a_watched_buffer_is_told_of_each_message(audience: Audience) -> None:
    written: list[Any] = []
    audience.sessions[0].inbox.on("flush", lambda packets: written.extend(packets))
    audience.broadcast("first")
    gevent.idle()
    gevent.idle()
    assert audience.received() == [FIRST] * 5
    assert [packet.data for packet in written] == ["first"]


def test_a_forked_child_writes_nothing_of_its_parent(audience: Audience, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcasts, "AT_ONCE", 2)
    audience.broadcast("first")
    audience.broadcasts.after_fork()
    gevent.sleep(0.01)  # a timer that was started before would have fired
    assert audience.received() == [FIRST, FIRST, b"", b"", b""]
