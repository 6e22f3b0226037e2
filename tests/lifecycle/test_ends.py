"""Ends that come at a bad moment, from anywhere, more than once: ``close`` is emitted once, with its reason."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import pytest
from support.clients import PollingSession, open_session, probe
from support.rawhttp import ConnectionEnded
from support.rawwebsocket import Closed

pytestmark = pytest.mark.ours


def in_a_thread(function: Callable[..., object]) -> None:
    """Call it in a plain thread."""
    done = gevent.get_hub().loop.async_()
    waiter = gevent.event.Event()
    done.start(waiter.set)
    threading.Thread(target=lambda: (function(), done.send())).start()
    waiter.wait()
    done.close()


def fetch(session: PollingSession) -> None:
    """Poll as a client does, until the session is over."""
    with contextlib.suppress(AssertionError, ConnectionEnded, OSError):
        while True:
            if not session.polling:
                session.start_poll()
            if "1" in session.end_poll():
                return


WAYS: dict[str, tuple[Callable[[Any, Any], object], str]] = {
    "close": (lambda server, socket: socket.close(), "forced close"),
    "discard": (lambda server, socket: socket.close(discard=True), "forced close"),
    "twice": (lambda server, socket: (socket.close(), socket.close(discard=True), socket.close()), "forced close"),
    "from two greenlets": (lambda server, socket: gevent.joinall([gevent.spawn(socket.close, True) for _ in range(2)]),
                           "forced close"),
    "from a thread": (lambda server, socket: in_a_thread(lambda: socket.close(discard=True)), "forced close"),
    "the server": (lambda server, socket: server.close(0.5), "server shutting down"),
    "the server, from a thread": (lambda server, socket: in_a_thread(lambda: server.close(0.5)), "server shutting down"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", ["probing", "switched"])
def test_during_an_upgrade(serve: Any, stage: str, way: str) -> None:
    served = serve()
    polling = PollingSession(served).open()
    polling.start_poll()
    candidate = probe(polling)
    socket = served.socket(polling.sid)
    if stage == "switched":
        candidate.send("5")
    end, reason = WAYS[way]
    gevent.spawn(fetch, polling)
    end(served.server, socket)
    assert served.events.wait("close")["reason"] == reason
    with pytest.raises((Closed, ConnectionEnded, ConnectionError)):
        while True:
            candidate.recv()
    served.settle()
    assert len(served.events.of("close")) == 1


@pytest.mark.parametrize("way", WAYS)
def test_from_a_listener(serve: Any, transport: str, way: str) -> None:
    served = serve(app=None)
    end, reason = WAYS[way]

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        socket.on("message", lambda data: end(served.server, socket))

    session = open_session(served, transport)
    session.send("4end")
    if isinstance(session, PollingSession):
        gevent.spawn(fetch, session)
    assert served.events.wait("close")["reason"] == reason
    served.settle()
    assert len(served.events.of("close")) == 1
