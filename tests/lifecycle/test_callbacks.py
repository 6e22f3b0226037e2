"""Every function of the application's that the engine calls, failing: it is logged, and the next client is served."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from support.clients import PollingSession, open_session, upgrade
from support.rawhttp import ConnectionEnded, HttpConnection
from support.rawwebsocket import Closed, Refused

import engineio_wsgi
from engineio_wsgi import Cors

pytestmark = [pytest.mark.ours, pytest.mark.complains]

ORIGIN = ("Origin", "https://elsewhere.example")
BAD = [("X-Bad", "yes")]


def fail(*_: object, **__: object) -> Any:
    """What an application does that has a bug."""
    raise RuntimeError("boom")


def is_bad(request: Any) -> bool:
    """Whether it is for the client for which things go wrong."""
    return "X-Bad" in request.headers


# -- callables among the options, and what is called for requests

OPTIONS: dict[str, dict[str, Any]] = {
    "allow_request": {"allow_request": lambda request: fail() if is_bad(request) else True},
    "generate_id": {"generate_id": lambda request: fail() if is_bad(request) else "an id"},
    "cors": {"cors": Cors(origins=lambda origin: fail())},
}


#: what a polling client gets; the other way would let somebody in
STATUSES = {"allow_request": 403, "generate_id": 400, "cors": 403}


def failing_middleware(application: Any) -> Any:
    """A WSGI middleware with a bug."""
    return lambda environ, start_response: fail() if "HTTP_X_BAD" in environ else application(environ, start_response)


def on_headers(server: Any, event: str) -> None:
    """A listener of one of the events about responses."""
    server.on(event, lambda headers, request: fail() if is_bad(request) else None)


SERVERS: dict[str, Callable[[Any], object]] = {
    "middleware": lambda server: server.use(failing_middleware),
    "initial_headers": lambda server: on_headers(server, "initial_headers"),
    "headers": lambda server: on_headers(server, "headers"),
}


@pytest.mark.parametrize("name", [*OPTIONS, *SERVERS])
def test_for_requests(serve: Any, transport: str, name: str, caplog: Any, capfd: pytest.CaptureFixture[str]) -> None:
    server = engineio_wsgi.Server(**OPTIONS.get(name, {}))
    SERVERS.get(name, lambda server: None)(server)
    served = serve(server=server)
    headers = [*BAD, ORIGIN] if name == "cors" else BAD
    if transport == "polling":
        status = served.connect().get("/engine.io/?EIO=4&transport=polling", headers).status
        assert status == STATUSES.get(name, 500)
    else:
        with pytest.raises((Refused, Closed)):
            open_session(served, "websocket", headers=headers)
    good = open_session(served, transport)
    served.socket(good.sid).send("fine")
    assert good.hear() == "fine"
    # the exception of a WSGI application is its server's to log
    assert "RuntimeError: boom" in caplog.text + capfd.readouterr().err


# -- listeners of a session

EVENTS = ["open", "message", "packet", "packet_create", "flush", "drain", "heartbeat", "upgrading", "upgrade", "close"]


@pytest.mark.parametrize("event", EVENTS)
def test_for_sessions(serve: Any, event: str, caplog: Any) -> None:
    served = serve(app=None, ping_interval=0.2)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        socket.on("message", socket.send)
        if "X-Bad" in socket.request.headers:
            socket.on(event, fail)

    session = PollingSession(served, headers=BAD).open()
    with contextlib.suppress(AssertionError, ConnectionEnded, Closed):
        # everything that a session may live to see
        session.say("x")
        if session.recv() == "2":
            session.send("3")
        websocket = upgrade(session)
        websocket.say("y")
        while websocket.recv() != "2":
            pass
        websocket.send("3")
        websocket.close()
    good = open_session(served)
    good.say("fine")
    heard = good.recv()
    while heard == "2":
        heard = good.recv()
    assert heard == "4fine"
    with gevent.Timeout(60):
        while "boom" not in caplog.text:
            gevent.sleep(0.02)


def test_a_failed_handshake_listener(serve: Any, caplog: Any) -> None:
    served = serve(app="echo")
    served.server.on("connection_error", fail)
    for _ in range(3):
        assert served.connect().get("/engine.io/?EIO=4&transport=x").json()["code"] == 0
    assert caplog.text.count("RuntimeError: boom") == 3


def test_the_callback_of_send(serve: Any, transport: str, caplog: Any) -> None:
    served = serve()
    session = open_session(served, transport)
    served.socket(session.sid).send("x", callback=fail)
    assert session.hear() == "x"
    session.say("fine")
    assert session.hear() == "fine"
    assert "RuntimeError: boom" in caplog.text


def test_a_spawned_greenlet(serve: Any, transport: str, capfd: pytest.CaptureFixture[str]) -> None:
    served = serve()
    session = open_session(served, transport)
    served.socket(session.sid).spawn(fail)
    session.say("fine")
    assert session.hear() == "fine"
    served.settle()
    assert "RuntimeError: boom" in capfd.readouterr().err


def test_failing_callbacks_leave_the_connection_open(serve: Any) -> None:
    served = serve(server=engineio_wsgi.Server(allow_request=fail))
    connection: HttpConnection = served.connect()
    for _ in range(20):
        assert connection.get("/engine.io/?EIO=4&transport=polling").status in (400, 403, 500)
    assert connection.get("/settled").status == 200
    assert served.server.clients_count == 0
