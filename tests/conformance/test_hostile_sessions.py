"""Clients and listeners that ask for more than there is: memory stays within bounds, and nobody else notices."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import gevent
import gevent.event
import pytest
from support.clients import PollingSession, WebSocketSession, open_session
from support.rawhttp import HttpConnection

pytestmark = pytest.mark.ours


@pytest.mark.complains
def test_a_timeout_that_leaves_a_listener_is_the_listeners_affair(serve: Any, transport: str, caplog: Any) -> None:
    served = serve(app=None)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            if data == "wait":
                with gevent.Timeout(0.01):
                    gevent.sleep(10)
            socket.send(data)

    session = open_session(served, transport)
    with caplog.at_level(logging.ERROR, "engine"):
        session.say("wait")
        session.say("after")
        assert session.hear() == "after"
    assert "Timeout" in caplog.text


def test_pings_that_are_never_read_do_not_fill_the_memory(serve: Any) -> None:
    served = serve(app="silent", max_buffered=20_000)
    session = WebSocketSession(served, 3, http=HttpConnection(served.address, receive_buffer=4096)).open()
    socket = served.socket(session.sid)
    while not served.events.of("close"):
        with contextlib.suppress(OSError):
            for _ in range(100):
                session.ws.send("2" + "x" * 100)
        gevent.sleep(0)
        assert socket.buffered < 500_000
    assert served.events.wait("close")["reason"] in ("client too slow", "transport close")


def test_a_post_that_waits_for_room_ends_with_its_client(serve: Any) -> None:
    served = serve(app=None, max_inbox=1000, ping_interval=1000.0)
    never = gevent.event.Event()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        socket.on("message", lambda data: never.wait())

    session = PollingSession(served).open()
    session.say("first")
    session.posting.start("POST", session.target(), [("Content-Type", "text/plain")], b"4" + b"x" * 5000)
    while not served.socket(session.sid)._session.inbox.reading_paused:
        served.settle()
    session.posting.close()
    assert served.events.wait("close")["reason"] == "transport close"
    never.set()
