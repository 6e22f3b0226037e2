"""flashsocket: WebSocket under another name, and the policy file that Flash asks for first."""

from __future__ import annotations

from typing import Any

import gevent
import gevent.event
import gevent.server
import pytest
from support.clients import PollingSession, WebSocketSession, open_session
from support.rawhttp import HttpConnection

pytestmark = pytest.mark.ours

TRANSPORTS = ("polling", "websocket", "flashsocket")
REQUEST = b"<policy-file-request/>\0"


class FlashSession(WebSocketSession):
    """A WebSocket that calls itself a flashsocket."""

    transport = "flashsocket"


def test_a_session(serve: Any, eio: int) -> None:
    served = serve(transports=TRANSPORTS)
    session = FlashSession(served, eio).open()
    session.say("x", b"\x00")
    assert session.hear_many(2) == ["x", b"\x00"]
    assert served.events.wait("connection")["transport"] == "flashsocket"


def test_it_is_offered(serve: Any) -> None:
    session = open_session(serve(transports=TRANSPORTS))
    assert set(session.info["upgrades"]) == {"websocket", "flashsocket"}


def test_upgrade(serve: Any, eio: int) -> None:
    session = PollingSession(serve(transports=TRANSPORTS), eio).open()
    candidate = FlashSession(session.served, eio, sid=session.sid)
    candidate.send("2probe")
    assert candidate.recv() == "3probe"
    candidate.send("5")
    candidate.say("x")
    assert candidate.hear() == "x"
    assert session.served.events.wait("upgrade")["transport"] == "flashsocket"


def test_not_by_default(serve: Any) -> None:
    served = serve()
    response = served.connect().get(f"{served.path}?EIO=4&transport=flashsocket")
    assert response.json() == {"code": 0, "message": "Transport unknown"}


# -- the policy file


@pytest.fixture
def policy_port(request: pytest.FixtureRequest) -> Any:
    """A raw TCP server that gives each connection to ``handle_socket``."""
    import engineio_wsgi

    engine = engineio_wsgi.Server(**request.param)
    server = gevent.server.StreamServer(("127.0.0.1", 0), lambda sock, address: engine.handle_socket(sock))
    server.start()
    yield server.address
    server.stop()
    engine.close()


ON: dict[str, Any] = {"transports": TRANSPORTS, "policy_file": True}


@pytest.mark.parametrize("policy_port", [ON], indirect=True, ids=["on"])
@pytest.mark.parametrize(
    "pieces",
    [[REQUEST], [REQUEST[:5], REQUEST[5:]], [REQUEST[i : i + 1] for i in range(len(REQUEST))]],
    ids=["whole", "halves", "bytes"],
)
def test_the_policy(policy_port: Any, pieces: list[bytes]) -> None:
    connection = HttpConnection(policy_port)
    for piece in pieces:
        connection.send(piece)
        gevent.sleep(0)
    policy = connection.read_to_end()
    assert b"<cross-domain-policy>" in policy
    assert b"<allow-access-from" in policy
    assert policy.endswith(b"\0")


@pytest.mark.parametrize("policy_port", [ON], indirect=True, ids=["on"])
@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"<policy-file-request?>\0", b"x" * 10_000], ids=["http", "typo", "much"]
)
def test_no_policy_for_other_requests(policy_port: Any, data: bytes) -> None:
    connection = HttpConnection(policy_port)
    connection.send(data)
    assert connection.read_to_end() == b""


@pytest.mark.parametrize("policy_port", [{}], indirect=True, ids=["off"])
def test_no_policy_unless_asked_for(policy_port: Any) -> None:
    connection = HttpConnection(policy_port)
    connection.send(REQUEST)
    assert connection.read_to_end() == b""


@pytest.fixture
def attached() -> Any:
    """A server of one's own, with an engine attached that answers policy requests."""
    from gevent.pywsgi import WSGIServer
    from support.serving import fallback

    import engineio_wsgi

    http = WSGIServer(("127.0.0.1", 0), fallback, log=None)
    engine = engineio_wsgi.attach(http, **ON)
    http.start()
    yield http.address
    engine.close()
    http.stop(timeout=1)


def test_the_policy_on_the_same_port(attached: Any) -> None:
    connection = HttpConnection(attached)
    connection.send(REQUEST)
    assert b"<cross-domain-policy>" in connection.read_to_end()
    assert HttpConnection(attached).get("/x").text == "application /x"
