"""Clients that go away: the server notices it from the kernel, long before any heartbeat, and keeps nothing of them."""

from __future__ import annotations

import gc
from typing import Any

import gevent
import gevent.event
import pytest
from support.clients import PollingSession, WebSocketSession, open_session, probe, upgrade
from support.rawhttp import HttpConnection

pytestmark = pytest.mark.ours

#: heartbeats that never fire in a test: whatever is noticed is noticed without them
NEVER = {"ping_interval": 1000.0, "ping_timeout": 1000.0}


@pytest.mark.parametrize("kind", ["polling", "websocket", "upgraded"])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_the_end_of_the_connection_is_noticed(serve: Any, kind: str, end: str, eio: int) -> None:
    session = open_session(serve(**NEVER), kind, eio)
    if isinstance(session, PollingSession):
        session.park()
        connection = session.getting
    else:
        assert isinstance(session, WebSocketSession)
        session.served.settle()
        connection = session.ws.http
    getattr(connection, end)()
    assert session.served.events.wait("close")["reason"] == "transport close"


def test_the_end_is_noticed_while_a_listener_is_busy(serve: Any, transport: str) -> None:
    served = serve(app=None, **NEVER)
    ended = gevent.event.Event()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            socket.wait_closed(timeout=60)
            if socket.ready_state == "closed":
                ended.set()

    session = open_session(served, transport)
    session.say("x")
    session.vanish()
    assert ended.wait(60)


@pytest.mark.own_handler
def test_half_a_handshake_leaves_nothing(serve: Any) -> None:
    served = serve(**NEVER)
    for text in ("GET", "GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n"):
        connection = served.connect()
        connection.send(text.encode())
        connection.close()
    served.settle()
    assert served.server.clients_count == 0


# -- nothing is left


def engine_objects(but: frozenset[int] = frozenset()) -> list[Any]:
    """The sessions and transports that the process holds, ``but`` for those that another test has left to its timers."""
    import engineio_wsgi

    gc.collect()
    kinds = (engineio_wsgi.Socket, engineio_wsgi.Transport)
    return [thing for thing in gc.get_objects() if isinstance(thing, kinds) and id(thing) not in but]


def greenlets() -> int:
    gc.collect()
    return sum(1 for thing in gc.get_objects() if isinstance(thing, gevent.Greenlet) and not thing.ready())


def closed_by_packet(served: Any) -> None:
    open_session(served).close()


def closed_websocket(served: Any) -> None:
    open_session(served, "websocket").close()


def vanished_poll(served: Any) -> None:
    open_session(served).vanish()


def vanished_websocket(served: Any) -> None:
    open_session(served, "websocket", 3).vanish()


def upgraded_and_closed(served: Any) -> None:
    upgrade(PollingSession(served).open()).close()


def vanished_while_probing(served: Any) -> None:
    polling = PollingSession(served).open()
    candidate = probe(polling)
    candidate.vanish()
    polling.vanish()


def garbage(served: Any) -> None:
    session = open_session(served, "websocket")
    assert isinstance(session, WebSocketSession)
    session.ws.send_frame(3)
    session.ws.wait_closed()
    session.vanish()


def discarded(served: Any) -> None:
    session = open_session(served)
    socket = served.socket(session.sid)
    socket.send("never read", callback=lambda *args: None)
    socket.spawn(gevent.sleep, 1000)
    socket.close(discard=True)


def refused(served: Any) -> None:
    connection = served.connect()
    connection.get(f"{served.path}?EIO=4&transport=tobi")
    connection.get(f"{served.path}?EIO=4&transport=polling&sid=tobi")


#: pywsgi and the kernel's delayed acknowledgements make every poll under gevent-websocket's handler take 40 ms
ROUNDS = {"ours": 200, "laneless": 40, "stock": 40}
KINDS = [
    closed_by_packet,
    closed_websocket,
    vanished_poll,
    vanished_websocket,
    upgraded_and_closed,
    vanished_while_probing,
    garbage,
    discarded,
    refused,
]


def run_all(served: Any, rounds: int) -> None:
    """Sessions of every kind come and go."""
    for _ in range(rounds):
        for kind in KINDS:
            kind(served)
        HttpConnection.close_all()
    served.events.wait("close", len(served.events.of("connection")))
    served.events.entries.clear()
    while served.server.clients_count:
        served.settle()


@pytest.mark.deadline(600)
def test_nothing_is_left_behind(serve: Any) -> None:
    served = serve(app="echo", **NEVER)
    others = frozenset(map(id, engine_objects()))
    run_all(served, 3)
    while engine_objects(but=others):
        gevent.sleep(0.01)  # lingering connections
    before_greenlets = greenlets()
    # what a session leaves is left each time; what other tests have started may make objects once
    grown = [growth_of(served, others) for _ in range(2)]
    assert min(grown) < 2 * ROUNDS[served.handler], "a few objects are the test's own; ten sessions a round leave none"
    assert greenlets() - before_greenlets < 10


def growth_of(served: Any, others: frozenset[int]) -> int:
    """How many objects more there are after some rounds."""
    before = len(gc.get_objects())
    run_all(served, ROUNDS[served.handler])
    while engine_objects(but=others):
        gevent.sleep(0.01)
    gc.collect()
    return len(gc.get_objects()) - before


def test_an_idle_session_holds_no_greenlet(serve: Any) -> None:
    served = serve(app="echo", **NEVER)
    before = greenlets()
    sessions = [open_session(served, "websocket") for _ in range(50)]
    for session in sessions:
        session.say("x")
        assert session.hear() == "x"
    served.settle()
    assert greenlets() - before < 10
