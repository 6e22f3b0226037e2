"""Back-pressure in both directions: what a slow side may cost the other."""

from __future__ import annotations

import socket as stdlib_socket
from typing import Any

import gevent
import gevent.event
import pytest
from support.clients import PollingSession, WebSocketSession, open_session
from support.rawhttp import HttpConnection
from support.rawwebsocket import TEXT, frame_bytes

pytestmark = pytest.mark.ours

KILO = "x" * 1024


def slow_reader(served: Any) -> WebSocketSession:
    """A WebSocket client whose kernel takes little."""
    return WebSocketSession(served, http=HttpConnection(served.address, receive_buffer=4096)).open()


def fill(socket: Any, message: str = KILO * 32) -> int:
    """Send until the buffer is full; returns how many messages were taken."""
    import engineio_wsgi

    count = 0
    try:
        while count < 10_000:
            socket.send(f"{count} {message}", timeout=0.05)
            count += 1
    except engineio_wsgi.WriteTimeout:
        return count
    raise AssertionError("the buffer has no bound")


# -- towards the client


def test_a_slow_websocket_blocks_the_sender(serve: Any) -> None:
    served = serve(app="silent", max_buffered=200_000)
    session = slow_reader(served)
    socket = served.socket(session.sid)
    count = fill(socket)
    assert 100_000 < socket.buffered <= 200_000 + 33 * 1024
    blocked = gevent.spawn(socket.send, f"{count} last")
    served.settle()
    assert not blocked.ready()
    received = session.hear_many(count + 1)
    assert [str(data).split()[0] for data in received] == [str(i) for i in range(count + 1)], (
        "what timed out was not queued"
    )
    blocked.get(timeout=60)
    socket.flush(timeout=60)
    assert socket.buffered == 0


def test_a_slow_polling_client_blocks_the_sender(serve: Any) -> None:
    served = serve(app="silent", max_buffered=200_000)
    session = open_session(served)
    socket = served.socket(session.sid)
    count = fill(socket)
    assert 3 <= count <= 8
    blocked = gevent.spawn(socket.send, f"{count} last")
    served.settle()
    assert not blocked.ready()
    assert [str(data).split()[0] for data in session.hear_many(count + 1)] == [str(i) for i in range(count + 1)]
    blocked.get(timeout=60)


def test_senders_get_their_turn_in_order(serve: Any) -> None:
    served = serve(app="silent", max_buffered=10_000)
    session = open_session(served)
    socket = served.socket(session.sid)
    senders = [gevent.spawn(socket.send, f"{i} " + KILO * 4) for i in range(20)]
    received = [str(data).split()[0] for data in session.hear_many(20)]
    gevent.joinall(senders, timeout=60, raise_error=True)
    assert received == [str(i) for i in range(20)]


def test_a_message_larger_than_the_buffer_is_sent(serve: Any, transport: str) -> None:
    served = serve(app="silent", max_buffered=1000)
    session = open_session(served, transport)
    sender = gevent.spawn(served.socket(session.sid).send, KILO * 100)
    assert session.hear() == KILO * 100
    sender.get(timeout=60)


def test_a_client_that_takes_nothing_is_closed(serve: Any) -> None:
    """It answers every ping, and reads nothing: it is alive, but too slow."""
    served = serve(app="silent", max_buffered=200_000, ping_interval=0.2, ping_timeout=0.2)
    session = slow_reader(served)
    fill(served.socket(session.sid))
    while not served.events.of("close"):
        session.send("3")
        gevent.sleep(0.02)
    assert served.events.wait("close")["reason"] == "client too slow"


def test_one_slow_client_delays_no_other(serve: Any) -> None:
    served = serve(app="echo", max_buffered=200_000)
    slow, quick = slow_reader(served), open_session(served, "websocket")
    fill(served.socket(slow.sid))
    quick.say("x")
    assert quick.hear() == "x"


def test_a_broadcast_waits_for_nobody(serve: Any) -> None:
    served = serve(app="echo", max_buffered=200_000)
    slow, quick = slow_reader(served), open_session(served, "websocket")
    fill(served.socket(slow.sid))
    broadcasting = gevent.spawn(served.server.broadcast, "news")
    assert quick.hear() == "news"
    broadcasting.kill()


# -- from the client


def blocking_app(server: Any, go: gevent.event.Event, received: list[str]) -> None:
    """A listener that does not get on."""

    @server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            go.wait()
            received.append(data.split()[0])


def test_a_slow_handler_stops_a_websocket_client(serve: Any) -> None:
    served = serve(app=None, max_inbox=100_000)
    go, received = gevent.event.Event(), []  # type: ignore[var-annotated]
    blocking_app(served.server, go, received)
    session = WebSocketSession(served).open()
    sock = session.ws.http.sock
    sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 65536)
    sock.settimeout(2)
    count, rest = 0, b""
    with pytest.raises(TimeoutError):
        while count < 5000:
            rest = frame_bytes(TEXT, f"4{count} {KILO * 16}".encode())
            while rest:
                rest = rest[sock.send(rest) :]
            count += 1
    assert count < 2000, "what waits is with the kernels"
    go.set()
    sock.settimeout(60)
    sock.sendall(rest)
    session.say("end")
    while received[-1:] != ["end"]:
        served.settle()
    assert received == [*(str(i) for i in range(count + 1)), "end"]


def test_a_slow_handler_stops_a_polling_client(serve: Any) -> None:
    served = serve(app=None, max_inbox=100_000)
    go, received = gevent.event.Event(), []  # type: ignore[var-annotated]
    blocking_app(served.server, go, received)
    session = PollingSession(served).open()
    count = 0

    def talk() -> None:
        nonlocal count
        while not go.is_set():
            session.say(f"{count} {KILO * 16}")
            count += 1

    talking = gevent.spawn(talk)
    while not served.socket(session.sid)._session.inbox.reading_paused:
        served.settle()
    served.settle()
    stopped_at = count
    assert 3 <= stopped_at <= 20
    served.settle()
    assert count == stopped_at
    go.set()
    talking.get(timeout=60)
    assert count > stopped_at, "it goes on with the next message"
    session.say("end")
    while received[-1:] != ["end"]:
        served.settle()
    assert received == [*(str(i) for i in range(count)), "end"]


def test_a_full_inbox_is_no_dead_client(serve: Any) -> None:
    served = serve(app=None, max_inbox=1000, ping_interval=0.1, ping_timeout=0.1)
    go, received = gevent.event.Event(), []  # type: ignore[var-annotated]
    blocking_app(served.server, go, received)
    session = open_session(served, "websocket")
    for i in range(50):
        session.say(f"{i} {KILO}")
    for _ in range(5):
        assert session.recv() == "2", "pings go on, the answers wait behind the messages"
        session.send("3")
    go.set()
    while len(received) < 50:
        served.settle()
    assert served.events.of("close") == []
