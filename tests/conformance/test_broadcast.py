"""Broadcasts, sends from OS threads, and middlewares for the engine's own requests."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.clients import PollingSession, Session, WebSocketSession, open_session, upgrade
from support.rawwebsocket import Refused

pytestmark = pytest.mark.ours


def everybody(served: Any) -> list[Session]:
    """One client of each kind."""
    sessions = [open_session(served, transport, eio) for transport in ("polling", "websocket") for eio in (4, 3)]
    return [*sessions, upgrade(PollingSession(served).open())]


def test_everybody_gets_a_broadcast(serve: Any) -> None:
    served = serve(app="silent")
    sessions = everybody(served)
    for data in ("é\U0001f600\u2028", b"\x00\xff", ""):
        served.server.broadcast(data)
        assert [session.hear() for session in sessions] == [data] * 5


def test_some_are_left_out(serve: Any) -> None:
    served = serve(app="silent")
    sessions = everybody(served)
    served.server.broadcast("one", exclude=[served.socket(sessions[0].sid), served.socket(sessions[1].sid)])
    served.server.broadcast("two")
    assert [session.hear() for session in sessions] == ["two", "two", "one", "one", "one"]


def test_broadcasts_and_sends_keep_their_order(serve: Any) -> None:
    served = serve(app="silent")
    sessions = everybody(served)
    for i in range(10):
        served.server.broadcast(f"all {i}")
        for session in sessions:
            served.socket(session.sid).send(f"one {i}")
    expected = [f"{who} {i}" for i in range(10) for who in ("all", "one")]
    for session in sessions:
        assert session.hear_many(20) == expected


def test_a_closed_session_is_no_obstacle(serve: Any) -> None:
    served = serve(app="silent")
    gone, here = open_session(served, "websocket"), open_session(served, "websocket")
    gone.vanish()
    served.server.broadcast("x")
    served.events.wait("close")
    served.server.broadcast("y")
    assert here.hear_many(2) == ["x", "y"]


def test_a_broadcast_without_sessions(serve: Any) -> None:
    serve(app="silent").server.broadcast("x")


# -- threads


def in_threads(count: int, work: Any) -> list[threading.Thread]:
    """Real threads, which run beside the hub."""
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_send_from_threads(serve: Any, transport: str) -> None:
    served = serve(app="silent")
    session = open_session(served, transport)
    socket = served.socket(session.sid)

    def work(thread: int) -> None:
        for i in range(200):
            socket.send(f"{thread} {i}")

    threads = in_threads(4, work)
    received = [str(data).split() for data in session.hear_many(800)]
    for thread in threads:
        thread.join()
    for number in range(4):
        assert [i for thread, i in received if thread == str(number)] == [str(i) for i in range(200)]


def test_a_full_buffer_blocks_a_thread(serve: Any) -> None:
    served = serve(app="silent", max_buffered=10_000)
    session = open_session(served)
    socket = served.socket(session.sid)

    def work(thread: int) -> None:
        for i in range(50):
            socket.send(f"{i} " + "x" * 1000)

    (thread,) = in_threads(1, work)
    assert [str(data).split()[0] for data in session.hear_many(50)] == [str(i) for i in range(50)]
    thread.join()


def test_a_write_timeout_in_a_thread(serve: Any) -> None:
    import gevent

    import engineio_wsgi

    served = serve(app="silent", max_buffered=1000)
    socket = served.socket(open_session(served).sid)
    socket.send("x" * 1000)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            socket.send("y" * 1000, timeout=0.05)
        except engineio_wsgi.WriteTimeout as error:
            caught.append(error)

    gevent.get_hub().threadpool.apply(work)
    assert len(caught) == 1


def test_broadcast_and_close_from_a_thread(serve: Any, transport: str) -> None:
    served = serve(app="silent")
    session = open_session(served, transport)
    socket = served.socket(session.sid)

    def work(thread: int) -> None:
        served.server.broadcast("one")
        socket.send("two")
        socket.close()

    threads = in_threads(1, work)
    assert session.hear_many(2) == ["one", "two"]
    if isinstance(session, PollingSession):
        assert session.recv() == "1"
    assert served.events.wait("close")["reason"] == "forced close"
    threads[0].join()


@pytest.mark.complains
def test_send_from_a_thread_to_a_closed_session(serve: Any) -> None:
    import gevent

    import engineio_wsgi

    served = serve(app="silent")
    socket = served.socket(open_session(served).sid)
    socket.close(discard=True)
    served.events.wait("close")
    with pytest.raises(engineio_wsgi.SocketClosed):
        gevent.get_hub().threadpool.apply(socket.send, ("x",))


# -- use(middleware)


def add_header_and_user(app: Any) -> Any:
    """What a session middleware does: it reads a cookie, sets a key, adds a header."""

    def middleware(environ: dict[str, Any], start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Middleware", "1")], *([exc_info] if exc_info else []))

        environ["my.user"] = "tobi"
        return app(environ, start)

    return middleware


def guard(app: Any) -> Any:
    """What an authentication does: some never get in."""

    def middleware(environ: dict[str, Any], start_response: Any) -> Any:
        if "HTTP_X_TOKEN" in environ:
            return app(environ, start_response)
        start_response("401 Unauthorized", [("Content-Type", "text/plain"), ("Content-Length", "7")])
        return [b"no token"[:7]]

    return middleware


def test_a_middleware_sees_the_engines_requests(serve: Any, transport: str) -> None:
    served = serve(app="echo")
    served.server.use(add_header_and_user)
    session = open_session(served, transport)
    assert served.socket(session.sid).request.environ["my.user"] == "tobi"
    session.say("x")
    assert session.hear() == "x"
    if isinstance(session, PollingSession):
        assert session.last is not None
        assert session.last.header("X-Middleware") == "1"
    assert served.connect().get("/elsewhere").header("X-Middleware") is None


@pytest.mark.own_handler
def test_a_middleware_adds_headers_to_an_upgrade(serve: Any) -> None:
    served = serve(app="echo")
    served.server.use(add_header_and_user)
    session = WebSocketSession(served).open()
    assert session.ws.response.header("X-Middleware") == "1"


def test_a_middleware_refuses(serve: Any, transport: str) -> None:
    served = serve(app="echo")
    served.server.use(guard)
    target = f"{served.path}?EIO=4&transport={transport}"
    if transport == "polling":
        response = served.connect().get(target)
        assert (response.status, response.body) == (401, b"no toke")
    elif served.handler != "stock":
        with pytest.raises(Refused) as refused:
            WebSocketSession(served)
        assert refused.value.response.status == 401
    else:
        WebSocketSession(served).ws.wait_closed()
    assert served.events.of("connection") == []
    session = open_session(served, transport, 4, [("X-Token", "1")])
    session.say("x")
    assert session.hear() == "x"


def test_middlewares_run_in_the_order_of_use(serve: Any) -> None:
    served = serve(app="echo")
    seen: list[str] = []

    def named(name: str) -> Any:
        def factory(app: Any) -> Any:
            def middleware(environ: dict[str, Any], start_response: Any) -> Any:
                seen.append(name)
                return app(environ, start_response)

            return middleware

        return factory

    served.server.use(named("first"))
    served.server.use(named("second"))
    open_session(served)
    assert seen == ["first", "second"]
