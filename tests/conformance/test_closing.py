"""The ends of a session: each happens once, has the right reason, and wakes all waiting greenlets."""

from __future__ import annotations

from typing import Any

import gevent
import gevent.event
import pytest
from gevent.lock import Semaphore
from support.clients import PollingSession, Session, drain, open_session, probe

pytestmark = pytest.mark.ours


def socket_of(session: Session) -> Any:
    return session.served.socket(session.sid)


def test_close_waits_for_the_write_buffer(serve: Any, transport: str, eio: int) -> None:
    session = open_session(serve(app="silent"), transport, eio)
    socket = socket_of(session)
    for i in range(100):
        socket.send(f"{i} " + "x" * 5000)
    assert socket.close() is socket
    assert [data[:4].split()[0] for data in drain(session)] == [f"4{i}" for i in range(100)]
    assert session.served.events.wait("close")["reason"] == "forced close"
    assert socket.ready_state == "closed"


def test_discard_does_not_wait(serve: Any) -> None:
    session = open_session(serve(app="silent"))
    socket = socket_of(session)
    socket.send("one")
    socket.send(b"two")
    assert socket.close(discard=True) is socket
    closed = session.served.events.wait("close")
    assert (closed["reason"], closed["unsent"]) == ("forced close", ["one", b"two"])
    assert session.sid not in session.served.server.clients


def test_discard_of_a_close_that_waits(serve: Any) -> None:
    session = open_session(serve(app="silent"))
    socket = socket_of(session)
    socket.send("never read")
    socket.close()
    assert socket.ready_state == "closing"
    assert session.served.events.of("close") == []
    socket.close(discard=True)
    assert session.served.events.wait("close")["reason"] == "forced close"


def test_a_close_whose_client_never_reads(serve: Any) -> None:
    session = open_session(serve(app="silent", ping_interval=0.1, ping_timeout=0.1))
    socket = socket_of(session)
    socket.send("never read")
    socket.close()
    closed = session.served.events.wait("close")
    assert closed["unsent"] == ["never read"]


def test_close_twice(serve: Any, transport: str) -> None:
    session = open_session(serve(app="silent"), transport)
    socket = socket_of(session)
    socket.close()
    socket.close()
    drain(session)
    session.served.events.wait("close")
    socket.close()
    socket.close(discard=True)
    session.served.settle()
    assert len(session.served.events.of("close")) == 1


def test_the_server_closes_its_sessions_one_by_one(serve: Any, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are served until their turn comes, and new clients are told when to come again."""
    next_turn = Semaphore(0)
    monkeypatch.setattr("engineio_wsgi.engine.drain.sleep", lambda seconds: next_turn.acquire())
    served = serve(drain_rate=1)
    left = {session.sid: session for session in [open_session(served, transport) for _ in range(3)]}
    closing = gevent.spawn(served.server.close, 1000)
    while left:
        gevent.idle()
        states = {sid: served.socket(sid).ready_state if sid in served.server.clients else "closed" for sid in left}
        told = [sid for sid, state in states.items() if state != "open"]
        assert len(told) == 1
        drain(left.pop(told[0]))
        for session in left.values():
            session.say("still here")
            assert session.hear() == "still here"
        refused = served.connect().get("/engine.io/?EIO=4&transport=polling")
        assert (refused.status, refused.json()["code"]) == (503, 3)
        assert 1 <= int(refused.header("Retry-After")) <= 5
        next_turn.release()
    closing.join()
    assert {closed["reason"] for closed in served.events.of("close")} == {"server shutting down"}


def test_a_second_close_without_time_ends_the_drain(serve: Any, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    never = gevent.event.Event()
    monkeypatch.setattr("engineio_wsgi.engine.drain.sleep", lambda seconds: never.wait())
    served = serve(drain_rate=1)
    for _ in range(3):
        open_session(served, transport)
    closing = gevent.spawn(served.server.close, 1000)
    gevent.idle()
    served.server.close(0)
    assert served.server.clients_count == 0
    never.set()
    closing.join()


def test_close_in_the_connection_listener(serve: Any, transport: str) -> None:
    served = serve(app=None)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        socket.send("not today")
        socket.close()

    session = open_session(served, transport)
    assert drain(session) == ["4not today"]
    assert served.events.wait("close")["reason"] == "forced close"


def test_close_in_a_close_listener(serve: Any, transport: str) -> None:
    served = serve(app=None)
    served.server.on("connection", lambda socket: socket.on("close", lambda reason, description: socket.close()))
    session = open_session(served, transport)
    session.close()
    served.events.wait("close")
    served.settle()
    assert len(served.events.of("close")) == 1


def test_another_reason(serve: Any, transport: str) -> None:
    session = open_session(serve(app="silent"), transport)
    socket_of(session).close(reason="application error")
    drain(session)
    assert session.served.events.wait("close")["reason"] == "application error"


def test_sending_after_the_end(serve: Any, transport: str) -> None:
    import engineio_wsgi

    session = open_session(serve(app="silent"), transport)
    socket = socket_of(session)
    socket.send("one")
    socket.close()
    with pytest.raises(engineio_wsgi.SocketClosed):
        socket.send("while closing")
    assert drain(session) == ["4one"]
    session.served.events.wait("close")
    with pytest.raises(engineio_wsgi.SocketClosed) as refused:
        socket.send("after")
    assert str(refused.value.reason) == "forced close"


@pytest.mark.complains
def test_all_waiting_greenlets_are_woken(serve: Any) -> None:
    import engineio_wsgi

    served = serve(app=None, max_buffered=1000)
    session = open_session(served)
    socket = socket_of(session)
    served.events.wait("connection")
    socket.send("x" * 1000)
    waiting = {
        "receive": gevent.spawn(socket.receive),
        "send": gevent.spawn(socket.send, "y" * 1000),
        "flush": gevent.spawn(socket.flush),
        "wait_closed": gevent.spawn(socket.wait_closed),
    }
    served.settle()
    assert not any(greenlet.ready() for greenlet in waiting.values())
    socket.close(discard=True)
    gevent.joinall(list(waiting.values()), timeout=60)
    assert all(greenlet.ready() for greenlet in waiting.values())
    assert isinstance(waiting["receive"].exception, engineio_wsgi.SocketClosed)
    assert isinstance(waiting["send"].exception, engineio_wsgi.SocketClosed)
    assert waiting["wait_closed"].exception is None


def test_wait_closed_with_a_timeout(serve: Any) -> None:
    session = open_session(serve(app="silent"))
    socket = socket_of(session)
    socket.wait_closed(timeout=0.01)
    assert socket.ready_state == "open"


def test_flush(serve: Any) -> None:
    session = open_session(serve(app="silent"))
    socket = socket_of(session)
    socket.flush(timeout=60)
    socket.send("one")
    flushing = gevent.spawn(socket.flush)
    session.served.settle()
    assert not flushing.ready()
    assert session.hear() == "one"
    flushing.get(timeout=60)
    assert (socket.buffered, list(socket.write_buffer)) == (0, [])


def test_callback(serve: Any, transport: str) -> None:
    session = open_session(serve(app="silent"), transport)
    socket = socket_of(session)
    called: list[str] = []
    done = gevent.event.Event()
    socket.send("one", callback=lambda *args: called.append("one"))
    socket.send("two")
    socket.send("three", callback=lambda *args: (called.append("three"), done.set()))
    if transport == "polling":
        session.served.settle()
        assert called == []
    assert session.hear_many(3) == ["one", "two", "three"]
    assert done.wait(60)
    assert called == ["one", "three"]


def test_callbacks_across_the_upgrade(serve: Any) -> None:
    session = open_session(serve(app="silent"))
    assert isinstance(session, PollingSession)
    socket = socket_of(session)
    called: list[int] = []
    for i in range(5):
        socket.send(str(i), callback=lambda *args, i=i: called.append(i))
    candidate = probe(session)
    for i in range(5, 10):
        socket.send(str(i), callback=lambda *args, i=i: called.append(i))
    candidate.send("5")
    assert candidate.hear_many(10) == [str(i) for i in range(10)]
    session.served.settle()
    assert called == list(range(10)), "each exactly once"


def test_callbacks_of_what_was_never_sent(serve: Any) -> None:
    session = open_session(serve(app="silent"))
    socket = socket_of(session)
    called: list[int] = []
    socket.send("x", callback=lambda *args: called.append(1))
    socket.close(discard=True)
    session.served.events.wait("close")
    session.served.settle()
    assert called == []


def test_the_server_closes(serve: Any) -> None:
    served = serve(app="silent")
    polling, parked, websocket = open_session(served), open_session(served), open_session(served, "websocket")
    assert isinstance(parked, PollingSession)
    parked.park()
    for session in (parked, websocket):
        socket_of(session).send("bye")
    closing = gevent.spawn(served.server.close, timeout=0.1)
    assert drain(websocket) == ["4bye"]
    assert [p for p in parked.end_poll() if p != "1"] == ["4bye"]
    closing.get(timeout=60)
    assert [closed["reason"] for closed in served.events.of("close")] == ["server shutting down"] * 3
    assert served.server.clients_count == 0
    response = polling.served.connect().get(f"{served.path}?EIO=4&transport=polling")
    assert 400 <= response.status < 600, "a server that closes takes no sessions"
    assert len(served.events.of("connection")) == 3


def test_the_states(serve: Any) -> None:
    served = serve(app=None)
    states: list[tuple[str, str]] = []

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        states.append(("connection", str(socket.ready_state)))
        socket.on("message", lambda data: None)
        socket.on("close", lambda *args: states.append(("close", str(socket.ready_state))))

    session = open_session(served)
    session.close()
    served.events.wait("close")
    served.settle()
    assert states == [("connection", "open"), ("close", "closed")]


@pytest.mark.own_handler
def test_close_listeners_do_not_wait_for_a_listener_that_blocks(serve: Any) -> None:
    served = serve(app=None)
    go = gevent.event.Event()
    done = gevent.event.Event()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            go.wait()
            done.set()

    session = open_session(served, "websocket")
    session.say("x")
    served.settle()
    session.vanish()
    assert served.events.wait("close")["reason"] == "transport close"
    go.set()
    assert done.wait(60)
    served.settle()
    assert len(served.events.of("close")) == 1
