"""The two styles of handler, the order of things, and what happens when a listener fails."""

from __future__ import annotations

from typing import Any

import gevent
import gevent.event
import pytest
from support.clients import drain, open_session

pytestmark = pytest.mark.ours


# -- callbacks


def test_listeners_run_one_after_the_other_in_order(serve: Any, transport: str) -> None:
    served = serve(app=None)
    running: list[int] = []
    order: list[str] = []

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            running.append(1)
            assert len(running) == 1, "no two listeners of one session run at once"
            gevent.sleep(0.001 * (int(data) % 3))
            order.append(data)
            running.pop()
            socket.send(data)

    session = open_session(served, transport)
    sent = [str(i) for i in range(30)]
    session.say(*sent[:15])
    session.say(*sent[15:])
    assert session.hear_many(30) == order == sent


def test_connection_comes_before_messages(serve: Any, transport: str) -> None:
    served = serve(app=None)
    go = gevent.event.Event()
    order: list[str] = []

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        socket.on("message", order.append)
        go.wait()
        order.append("connected")

    session = open_session(served, transport)
    session.say("one", "two")
    served.settle()
    go.set()
    session.close()
    served.events.wait("close")
    assert order == ["connected", "one", "two"]


def test_a_blocked_session_holds_up_nobody_else(serve: Any, transport: str) -> None:
    served = serve(app=None)
    go = gevent.event.Event()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            if data == "block":
                go.wait()
            socket.send(data)

    blocked, free = (open_session(served, transport) for _ in range(2))
    blocked.say("block")
    free.say("x")
    assert free.hear() == "x"
    served.socket(blocked.sid).send("from elsewhere")
    assert blocked.hear() == "from elsewhere", "writes go on"
    go.set()
    assert blocked.hear() == "block"


def test_data_is_an_alias(serve: Any, transport: str) -> None:
    served = serve(app=None)
    served.server.on("connection", lambda socket: socket.on("data", socket.write))
    session = open_session(served, transport)
    session.say("x", b"\x00")
    assert session.hear_many(2) == ["x", b"\x00"]


def test_packet_events(serve: Any, transport: str) -> None:
    served = serve(app="echo")
    seen: list[tuple[str, str]] = []

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        socket.on("packet", lambda packet: seen.append(("in", packet.type.name)))
        socket.on("packet_create", lambda packet: seen.append(("out", packet.type.name)))

    session = open_session(served, transport)
    session.say("x")
    session.hear()
    assert ("in", "MESSAGE") in seen
    assert ("out", "MESSAGE") in seen


def test_flush_and_drain(serve: Any, transport: str) -> None:
    served = serve(app="silent")
    seen: list[Any] = []
    served.server.on("flush", lambda socket, packets: seen.append(("server flush", [p.data for p in packets])))
    served.server.on("drain", lambda socket: seen.append(("server drain", socket.id)))
    session = open_session(served, transport)
    served.settle()
    seen.clear()
    socket = served.socket(session.sid)
    socket.on("flush", lambda packets: seen.append(("flush", [p.data for p in packets])))
    socket.on("drain", lambda: seen.append(("drain", None)))
    socket.send("x")
    assert session.hear() == "x"
    served.settle()
    assert sorted(name for name, _ in seen) == ["drain", "flush", "server drain", "server flush"]
    assert ("flush", ["x"]) in seen
    assert ("server drain", session.sid) in seen


def test_once_and_off(serve: Any) -> None:
    served = serve(app=None)
    seen: list[str] = []

    def every(data: str) -> None:
        seen.append("every " + data)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        socket.once("message", lambda data: seen.append("once " + data))
        socket.on("message", every)
        socket.on("message", socket.send)

    session = open_session(served)
    session.say("one", "two")
    session.hear_many(2)
    served.socket(session.sid).off("message", every)
    session.say("three")
    session.hear()
    assert seen == ["once one", "every one", "every two"]


# -- straight-line code


def test_iteration(serve: Any, transport: str) -> None:
    served = serve(app=None)
    ended = gevent.event.Event()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        user = socket.request.cookies["user"]
        for message in socket:
            socket.send(f"{user}: {message}")
        ended.set()

    session = open_session(served, transport, 4, [("Cookie", "user=tobi")])
    session.say("one", "two")
    session.say("three")
    assert session.hear_many(3) == ["tobi: one", "tobi: two", "tobi: three"]
    session.close()
    assert ended.wait(60)


def test_receive(serve: Any, transport: str) -> None:
    import engineio_wsgi

    served = serve(app=None)
    outcome: gevent.event.AsyncResult = gevent.event.AsyncResult()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        first = socket.receive()
        try:
            socket.receive(timeout=0.01)
        except TimeoutError as error:
            timed_out: BaseException | None = error
        else:
            timed_out = None
        socket.send("go on")
        second = socket.receive(timeout=60)
        try:
            socket.receive()
        except engineio_wsgi.SocketClosed as error:
            outcome.set((first, timed_out, second, error.reason))

    session = open_session(served, transport)
    session.say("one")
    assert session.hear() == "go on"
    session.say(b"two")
    session.close()
    first, timed_out, second, reason = outcome.get(timeout=60)
    assert (first, second, str(reason)) == ("one", b"two", "transport close")
    assert isinstance(timed_out, TimeoutError)


def test_messages_wait_for_whoever_receives(serve: Any, transport: str) -> None:
    served = serve(app=None)
    session = open_session(served, transport)
    served.events.wait("connection")
    session.say("one", "two")
    socket = served.socket(session.sid)
    assert [socket.receive(timeout=60) for _ in range(2)] == ["one", "two"]


def test_what_was_received_before_the_end_is_still_read(serve: Any, transport: str) -> None:
    served = serve(app=None)
    received: list[str] = []
    done = gevent.event.Event()
    go = gevent.event.Event()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        received.append(socket.receive())
        go.wait()
        received.extend(socket)
        done.set()

    session = open_session(served, transport)
    session.say("one", "two", "three")
    session.close()
    served.settle()
    go.set()
    assert done.wait(60)
    assert received == ["one", "two", "three"]


def test_a_spawned_greenlet_ends_with_the_session(serve: Any, transport: str) -> None:
    served = serve(app=None)
    spawned: list[Any] = []

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        def chatter(word: str) -> None:
            socket.send(word)
            gevent.sleep(1000)

        spawned.append(socket.spawn(chatter, "hi"))

    session = open_session(served, transport)
    assert session.hear() == "hi"
    session.close()
    spawned[0].join(60)
    assert spawned[0].ready()


# -- what must not be sent


@pytest.mark.parametrize("data", [None, 1, 1.5, ["x"], {"a": 1}, object()], ids=lambda data: type(data).__name__)
def test_only_text_and_bytes_are_sent(serve: Any, data: Any) -> None:
    served = serve(app="silent")
    session = open_session(served)
    with pytest.raises(TypeError, match=type(data).__name__):
        served.socket(session.sid).send(data)
    with pytest.raises(TypeError, match=type(data).__name__):
        served.server.broadcast(data)


def test_whatever_is_like_bytes_is_sent(serve: Any, transport: str) -> None:
    served = serve(app="silent")
    session = open_session(served, transport)
    socket = served.socket(session.sid)
    buffer = bytearray(b"one")
    assert socket.send(buffer) is socket
    buffer[:] = b"xxx"
    socket.send(memoryview(b"--two--")[2:5])
    assert session.hear_many(2) == [b"one", b"two"]


# -- failures


@pytest.mark.complains
def test_a_connection_listener_that_fails(serve: Any, transport: str, caplog: Any) -> None:
    served = serve(app=None)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        socket.send("first")
        raise RuntimeError("boom")

    session = open_session(served, transport)
    # the client learns that its session has ended, over both transports, and gets what was sent before
    assert drain(session) == ["4first"]
    closed = served.events.wait("close")
    assert (closed["reason"], str(closed["description"])) == ("application error", "boom")
    assert "boom" in caplog.text
    assert session.sid not in caplog.text


@pytest.mark.complains
def test_a_listener_that_fails_after_its_session_has_ended(serve: Any, transport: str, caplog: Any) -> None:
    served = serve(app=None)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        for _ in socket:
            pass
        raise RuntimeError("could not save")

    session = open_session(served, transport)
    session.close()
    served.events.wait("close")
    assert "could not save" in caplog.text


def test_a_listener_that_finds_its_session_closed(serve: Any, transport: str, caplog: Any) -> None:
    served = serve(app=None)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        socket.send("goodbye").close()
        socket.send("too late")

    assert drain(open_session(served, transport)) == ["4goodbye"]
    assert served.events.wait("close")["reason"] == "forced close"
    assert not [record for record in caplog.records if record.name.startswith("engine")]


@pytest.mark.complains
@pytest.mark.parametrize("spawned", [False, True])
def test_a_closed_session_that_ends_a_loop_over_sessions(serve: Any, transport: str, caplog: Any, spawned: bool) -> None:
    served = serve(app=None)
    members: list[Any] = []
    tasks: list[Any] = []
    started = gevent.event.Event()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        def send_all(data: str) -> None:
            for member in members:
                member.send(data)

        def message(data: str) -> None:
            tasks.append(socket.spawn(send_all, data))
            started.set()

        members.append(socket)
        socket.on("message", message if spawned else send_all)

    gone, staying = open_session(served, transport), open_session(served, transport)
    gone.close()
    served.events.wait("close")
    staying.say("hello")
    if spawned:
        started.wait(60)
        tasks[0].join()
        assert str(tasks[0].exception) == "the session is closed (transport close)"
    else:
        assert str(served.events.wait("error")["error"]) == "the session is closed (transport close)"
        assert "another session, which it sent to, is closed; the session goes on" in caplog.text


@pytest.mark.complains
def test_another_listener_that_fails(serve: Any, transport: str, caplog: Any) -> None:
    served = serve(app=None)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            if data == "boom":
                raise RuntimeError("boom")
            socket.send(data)

    session = open_session(served, transport)
    session.say("one", "boom", "two")
    assert session.hear_many(2) == ["one", "two"]
    assert "boom" in caplog.text
    assert served.events.of("close") == []


@pytest.mark.complains
def test_error_listeners_are_told_of_failures(serve: Any, transport: str, caplog: Any) -> None:
    """Once for each, whichever listener it was; one that fails itself is logged, and stops no other."""
    served = serve(app=None)
    told: list[str] = []

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("error")
        def fails_itself(error: BaseException) -> None:
            raise RuntimeError("in the error listener")

        @socket.on("error")
        def error(error: BaseException) -> None:
            told.append(str(error))

        @socket.on("message")
        def message(data: str) -> None:
            if data == "late":
                # what finds the session closed has not failed
                socket.close(discard=True)
                socket.send("too late")
            raise RuntimeError(data)

        @socket.on("close")
        def close(reason: str, description: object) -> None:
            raise RuntimeError(reason)

    session = open_session(served, transport)
    session.say("boom", "late")
    served.events.wait("close")
    with gevent.Timeout(60):
        while len(told) < 2:
            gevent.sleep(0)
    assert told == ["boom", "forced close"]
    assert caplog.text.count("in the error listener") == 2 * 2, "each traceback names it twice"


@pytest.mark.complains
def test_a_close_listener_that_fails_stops_no_other(serve: Any, transport: str) -> None:
    served = serve(app=None)
    seen: list[str] = []

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        socket.on("message", lambda data: None)

        @socket.on("close")
        def first(reason: str, description: object) -> None:
            raise RuntimeError("boom")

        socket.on("close", lambda reason, description: seen.append(reason))

    session = open_session(served, transport)
    session.close()
    served.events.wait("close")
    with gevent.Timeout(60):
        while not seen:
            gevent.sleep(0)
    assert served.server.clients_count == 0
    assert seen == ["transport close"]


def test_sending_to_a_session_that_has_closed(serve: Any, transport: str) -> None:
    """A listener need not catch what happens when the client goes away under it."""
    served = serve(app=None)
    tried = gevent.event.Event()
    go = gevent.event.Event()

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            go.wait()
            try:
                socket.send("too late")
            finally:
                tried.set()

    session = open_session(served, transport)
    session.say("x")
    served.settle()
    served.socket(session.sid).close(discard=True)
    go.set()
    assert tried.wait(60)
    served.events.wait("close")


def test_a_killed_listener_ends_no_other(serve: Any) -> None:
    served = serve(app=None)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            if data == "exit":
                raise gevent.GreenletExit
            socket.send(data)

    first, second = open_session(served), open_session(served)
    first.say("exit")
    second.say("x")
    assert second.hear() == "x"
