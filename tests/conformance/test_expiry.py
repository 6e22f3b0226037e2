"""Sessions whose client's authentication expires."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import gevent
import gevent.event
import pytest
from support.clients import Session, drain, open_session
from support.rawwebsocket import Closed

import engineio_wsgi
from engineio_wsgi.session import expiry

pytestmark = pytest.mark.ours
SOON = 0.05
LATER = 3600.0


def socket_of(session: Session) -> Any:
    """The application's object."""
    return session.served.socket(session.sid)


def end_of(session: Session) -> str:
    """Wait for the end. Returns its reason."""
    return str(session.served.events.wait("close")["reason"])


@pytest.mark.parametrize("seconds", [SOON, 0.0, -LATER])
def test_the_session_is_closed_when_the_time_has_come(serve: Any, transport: str, eio: int, seconds: float) -> None:
    session = open_session(serve("silent"), transport, eio)
    socket_of(session).expire_at(time.time() + seconds)
    if transport == "websocket":
        with pytest.raises(Closed) as ended:
            session.recv()
        assert (ended.value.code, ended.value.reason) == (1008, "authentication expired")
    else:
        assert drain(session) == []
    assert end_of(session) == "authentication expired"


def test_what_was_sent_before_arrives(serve: Any, transport: str) -> None:
    session = open_session(serve("silent"), transport)
    socket = socket_of(session)
    socket.on("expire", lambda: socket.send("your token has expired"))
    socket.expire_at(time.time())
    assert drain(session) == ["4your token has expired"]
    assert end_of(session) == "authentication expired"


@pytest.mark.parametrize("another", [None, LATER])
def test_a_listener_sets_another_time(serve: Any, transport: str, another: float | None) -> None:
    session = open_session(serve(), transport)
    socket, expired = socket_of(session), gevent.event.Event()

    @socket.on("expire")
    def expire() -> None:
        socket.expire_at(another and time.time() + another)
        expired.set()

    socket.expire_at(time.time() + SOON)
    assert expired.wait(60)
    session.say("still here")
    assert session.hear() == "still here"
    assert not socket.closed


def test_the_event_comes_once_for_each_time(serve: Any) -> None:
    session = open_session(serve("silent"), "websocket")
    socket, times = socket_of(session), []

    @socket.on("expire")
    def expire() -> None:
        times.append(len(times))
        if len(times) < 3:
            socket.expire_at(time.time())

    socket.expire_at(time.time())
    assert end_of(session) == "authentication expired"
    assert times == [0, 1, 2]


@pytest.mark.parametrize("another", [None, LATER])
def test_a_later_call_replaces_the_time(serve: Any, another: float | None) -> None:
    session = open_session(serve(), "websocket")
    socket, expired = socket_of(session), []
    socket.on("expire", lambda: expired.append("expired"))
    socket.expire_at(time.time() + SOON)
    socket.expire_at(another and time.time() + another)
    gevent.sleep(2 * SOON)
    session.say("still here")
    assert session.hear() == "still here"
    assert expired == []


def test_a_listener_that_fails_does_not_keep_the_session_open(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    session = open_session(serve("silent"), "websocket")
    socket = socket_of(session)
    socket.on("expire", lambda: 1 / 0)
    with caplog.at_level(logging.CRITICAL, "engine.socket"):
        socket.expire_at(time.time())
        assert end_of(session) == "authentication expired"


@pytest.mark.parametrize("listens", [True, False])
def test_a_busy_listener_does_not_keep_the_session_open(serve: Any, monkeypatch: pytest.MonkeyPatch, listens: bool) -> None:
    monkeypatch.setattr(expiry, "EXPIRE_GRACE", SOON)
    served = serve(None)
    gate, expired = gevent.event.Event(), []

    @served.server.on("connection")
    def connected(socket: Any) -> None:
        if listens:
            socket.on("expire", lambda: expired.append("expired"))
        socket.expire_at(time.time())
        gate.wait(60)

    session = open_session(served, "websocket")
    with pytest.raises(Closed):
        session.recv()
    assert not gate.is_set()
    gate.set()
    assert end_of(session) == "authentication expired"
    assert expired == (["expired"] if listens else [])


def test_a_loop_over_the_messages_ends(serve: Any, transport: str) -> None:
    served = serve(None)
    left = gevent.event.Event()

    @served.server.on("connection")
    def connected(socket: Any) -> None:
        socket.on("expire", lambda: socket.send("expired"))
        socket.expire_at(time.time() + SOON)
        for message in socket:
            socket.send(message)
        left.set()

    session = open_session(served, transport)
    session.say("hello")
    assert drain(session) == ["4hello", "4expired"]
    assert left.wait(60)


def test_any_thread_may_call_it(serve: Any) -> None:
    session = open_session(serve("silent"), "websocket")
    gevent.get_hub().threadpool.apply(socket_of(session).expire_at, (time.time(),))
    assert end_of(session) == "authentication expired"


def test_a_closed_session_does_not_expire(serve: Any) -> None:
    session = open_session(serve("silent"), "websocket")
    socket, expired = socket_of(session), []
    socket.on("expire", lambda: expired.append("expired"))
    socket.expire_at(time.time() + SOON)
    session.close()
    assert end_of(session) == "transport close"
    with pytest.raises(engineio_wsgi.SocketClosed):
        socket.expire_at(time.time())
    gevent.sleep(2 * SOON)
    assert expired == []


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: "tomorrow", TypeError, "expected seconds since the epoch, a number, or None; got str"),
    (lambda: True, TypeError, "got bool"),
    (lambda: datetime.now(UTC), TypeError, r"got datetime; call its timestamp\(\)"),
    (lambda: time.time() * 1000, ValueError, "are these milliseconds"),
    (lambda: float("nan"), ValueError, "expected seconds"),
    (lambda: float("inf"), ValueError, "expected seconds"),
]


@pytest.mark.parametrize(("value", "error", "text"), WRONG)
def test_times_that_are_none(serve: Any, value: Callable[[], Any], error: type[Exception], text: str) -> None:
    session = open_session(serve(), "websocket")
    with pytest.raises(error, match=text):
        socket_of(session).expire_at(value())
    session.say("still here")
    assert session.hear() == "still here"
