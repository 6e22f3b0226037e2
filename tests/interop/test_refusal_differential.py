"""Refusals, byte for byte: the same bad requests to our server and to the reference server of npm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.clients import PollingSession, WebSocketSession
from support.rawhttp import PLAIN_TEXT, Response
from support.rawwebsocket import Closed
from support.reference import ReferenceServer
from support.serving import LocalServer, Served

OPTIONS = {"max_http_buffer_size": 1000, "ping_interval": 300.0}
OCTETS = ("Content-Type", "application/octet-stream")


@pytest.fixture(scope="module")
def reference() -> Iterator[Served]:
    """The reference server, one for all requests."""
    server = ReferenceServer("silent", **OPTIONS)
    yield server.served
    server.stop()


@pytest.fixture(params=["ours", "stock"])
def ours(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Our server."""
    server = LocalServer("silent", str(request.param), **OPTIONS)
    yield server.served
    server.stop()


def wire(response: Response) -> tuple[int, str | None, bytes]:
    """What a client can tell refusals apart by."""
    return response.status, response.header("Content-Type"), response.body


# -- requests without a session


@pytest.mark.parametrize("query", [
    "", "EIO=4", "EIO=4&transport=", "EIO=4&transport=tobi", "EIO=4&transport=constructor", "EIO=4&transport=webtransport",
    "EIO=4&transport=polling&sid=tobi", "EIO=4&transport=websocket&sid=tobi", "EIO=4&transport=polling&sid=__proto__",
    "EIO=4&transport=websocket", "EIO=3&transport=polling", "transport=polling", "EIO=abc&transport=polling",
    "EIO=5&transport=polling",
])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_without_a_session(ours: Served, reference: Served, method: str, query: str) -> None:
    body = None if method == "GET" else b""
    answers = [wire(served.connect().request(method, f"{served.path}?{query}", body=body)) for served in (ours, reference)]
    assert answers[0] == answers[1]
    assert answers[0][0] == 400


# -- requests that name one


def another_revision(session: PollingSession) -> Response:
    return session.posting.get(session.target(EIO="3"))


def another_transport(session: PollingSession) -> Response:
    return session.posting.get(session.target(transport="websocket"))


def post_for_another_transport(session: PollingSession) -> Response:
    return session.posting.post(session.target(transport="websocket"), b"4x")


def second_get(session: PollingSession) -> Response:
    session.park()
    return session.posting.get(session.target())


def second_post(session: PollingSession) -> Response:
    session.posting.send(session.posting.head("POST", session.target(), [("Content-Length", "5"), PLAIN_TEXT]) + b"4")
    session.served.settle()
    return session.getting.post(session.target(), b"4x")


def binary_payload(session: PollingSession) -> Response:
    return session.posting.post(session.target(), b"4x", [OCTETS])


def large_payload(session: PollingSession) -> Response:
    return session.posting.post(session.target(), b"4" + b"x" * 1000)


@pytest.mark.parametrize("ask", [another_revision, another_transport, post_for_another_transport, second_get, second_post,
                                 binary_payload, large_payload])
def test_in_a_session(ours: Served, reference: Served, ask: Callable[[PollingSession], Response]) -> None:
    answers = [wire(ask(PollingSession(served).open())) for served in (ours, reference)]
    assert answers[0] == answers[1]
    assert answers[0][0] in (400, 413)


def test_a_large_message(ours: Served, reference: Served) -> None:
    closed: list[Any] = []
    for served in (ours, reference):
        session = WebSocketSession(served).open()
        session.say("x" * 1000)
        closed.append(session.ws.wait_closed())
    assert closed == [Closed(1009, "")] * 2
