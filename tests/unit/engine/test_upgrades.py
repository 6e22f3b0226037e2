"""WebSocket handshakes: what the middlewares see, and what becomes of the connection when they have answered."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support.fakehooks import ENVIRON, fake_hooks, serving_registry
from support.fakesession import FakeTransport, outcome, started
from support.fakesink import FakeConnection
from support.rawwebsocket import TEXT, frame_bytes

from engineio_wsgi.engine.admission import CheckedRequest, RequestKind
from engineio_wsgi.engine.advice import Advice
from engineio_wsgi.engine.handshakes import Handshakes
from engineio_wsgi.engine.upgrades import Upgrades
from engineio_wsgi.errors import HandshakeRefused
from engineio_wsgi.http.response import Response
from engineio_wsgi.protocol.websocket.frames import Close, FrameDecoder
from engineio_wsgi.session.session import Session
from engineio_wsgi.session.state import SessionState
from engineio_wsgi.transports.flashsocket import FlashSocketTransport
from engineio_wsgi.transports.websocket import WebSocketTransport
from engineio_wsgi.websocket.websocket import WebSocket

HANDSHAKE = {
    **ENVIRON, "HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade", "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip
FORBIDDEN = Response("403 Forbidden", [("X-Why", "a middleware")], b"not today")


class Asked:
    """A server that was asked for a WebSocket: its upgrades, the request, and the client's end of the connection."""

    def __init__(self, registry: Any, transport: str = "websocket", session: Session | None = None, **headers: str) -> None:
        self.admitted: list[object] = []
        hooks = fake_hooks(admit=lambda environ: self.admitted.append(environ) or "abcd1")
        self.upgrades = Upgrades(registry, Handshakes(registry, hooks, Advice()), hooks)
        kind = RequestKind.HANDSHAKE if session is None else RequestKind.UPGRADE
        self.checked = CheckedRequest(kind, transport, {}, 4, session)
        self.connection = FakeConnection()
        self.environ: dict[str, Any] = {**HANDSHAKE, **headers}
        self.websocket: Any = WebSocket(self.environ, self._answer_handshake)
        self.environ["wsgi.websocket"] = self.websocket

    def _answer_handshake(self, head: bytes, more: bool) -> Any:
        self.connection.write(head)
        return self.connection

    def admit(self) -> Response:
        """The response that the middlewares see."""
        return self.upgrades.admit(self.environ, self.checked, self.websocket)

    def carry_out(self, answered: Response) -> Any:
        """Do what the middlewares have answered. Returns what the client gets if that is an ordinary response."""
        head: list[Any] = []
        body = self.upgrades.carry_out(answered, self.environ, lambda status, headers: head.extend((status, headers)))
        return (*head, b"".join(body)) if head else None

    @property
    def head(self) -> str:
        """The head of the response to the handshake."""
        return self.connection.written[0].decode()

    @property
    def frames(self) -> list[Any]:
        """What the client got after the handshake."""
        return FrameDecoder(10_000, masked=False).feed(b"".join(self.connection.written[1:]))


@pytest.fixture
def registry() -> Iterator[Any]:
    """That of a server with no options."""
    with serving_registry() as made:
        yield made


def polling_session(registry: Any) -> Session:
    """A session that uses another transport."""
    session = Session(registry, "abcd9", 4)
    transport = FakeTransport()
    transport.nudge = lambda: None  # type: ignore[method-assign]
    registry.open(session, transport)
    return session


def hearing(registry: Any) -> list[Any]:
    """The messages that the sessions of a server will get."""
    heard: list[Any] = []
    registry.events.on("connection", lambda socket: socket.on("message", heard.append))
    return heard


# -- what the middlewares see


def test_a_new_session_is_admitted_with_its_cookie() -> None:
    with serving_registry(cookie="io") as registry:
        this = Asked(registry)
        answered = this.admit()
        assert (answered.status, answered.body) == ("101 Switching Protocols", b"")
        ((name, value),) = answered.headers
        assert (name, value.partition(";")[0]) == ("Set-Cookie", "io=abcd1")
        assert this.admitted == [this.environ]
        assert (this.websocket.accepted, registry.sessions) == (False, {}), "a middleware can still refuse it"


def test_the_upgrade_of_a_session_asks_no_hook_and_sets_no_cookie() -> None:
    with serving_registry(cookie="io") as registry:
        this = Asked(registry, session=polling_session(registry))
        assert this.admit() == Response("101 Switching Protocols", [], b"")
        assert this.admitted == []


def test_a_handshake_that_is_not_valid_is_refused_before_a_hook_is_asked(registry: Any) -> None:
    this = Asked(registry, HTTP_SEC_WEBSOCKET_VERSION="8")
    with pytest.raises(HandshakeRefused, match="Sec-WebSocket-Version"):
        this.admit()
    assert this.admitted == []


def test_the_subprotocol_is_chosen_by_the_option() -> None:
    def choose(offered: list[str], request: Any) -> str:
        return offered[-1] if request.path == "/engine.io/" else offered[0]

    with serving_registry(subprotocols=choose) as registry:
        this = Asked(registry, HTTP_SEC_WEBSOCKET_PROTOCOL="a, b")
        answered = this.admit()
        assert answered.headers == [("Sec-WebSocket-Protocol", "b")]
        this.carry_out(answered)
        assert "\r\nSec-WebSocket-Protocol: b\r\n" in this.head
        assert registry.sessions["abcd1"].transport.subprotocol == "b"


# -- switching


@pytest.mark.parametrize(("name", "kind"), [("websocket", WebSocketTransport), ("flashsocket", FlashSocketTransport)])
def test_a_session_opens_over_the_websocket(registry: Any, name: str, kind: type) -> None:
    this = Asked(registry, name)
    this.admit()
    assert this.carry_out(Response("101 Switching Protocols", [("X-Site", "ours")], b"")) is None
    assert this.head.startswith("HTTP/1.1 101 ")
    assert "\r\nX-Site: ours\r\n" in this.head
    (first,) = this.frames
    assert (first[0], json.loads(first[1:])["sid"]) == ("0", "abcd1")
    assert type(registry.sessions["abcd1"].transport) is kind
    assert this.connection.calls == ["watch"]


def test_messages_are_compressed_if_the_client_and_the_options_agree() -> None:
    with serving_registry(per_message_deflate=True, initial_packet="x" * 5000) as registry:
        this, heard = Asked(registry, HTTP_SEC_WEBSOCKET_EXTENSIONS="permessage-deflate"), hearing(registry)
        this.carry_out(this.admit())
        assert "\r\nSec-WebSocket-Extensions: permessage-deflate" in this.head
        assert len(b"".join(this.connection.written[1:])) < 1000
        # RFC 7692 section 7.2.1: the end of a flush is left out
        deflate = zlib.compressobj(wbits=-15)
        message = (deflate.compress(b"4Hello") + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        this.connection.arriving.append(frame_bytes(TEXT, message, rsv=4))
        this.connection.readable()
        gevent.idle()
        assert heard == ["Hello"]


def test_a_session_that_polls_starts_an_upgrade(registry: Any) -> None:
    session = polling_session(registry)
    this = Asked(registry, session=session)
    this.carry_out(this.admit())
    assert (session.state, this.connection.calls, this.frames) == (SessionState.UPGRADING, ["watch"], [])
    assert list(registry.sessions) == ["abcd9"]


def test_a_second_upgrade_at_a_time_is_closed(registry: Any) -> None:
    session = polling_session(registry)
    first, second = Asked(registry, session=session), Asked(registry, session=session)
    for this in (first, second):
        this.carry_out(this.admit())
    assert (first.frames, second.frames) == ([], [Close(1008, '{"code":3,"message":"Bad request"}')])
    assert (first.connection.closed, second.connection.calls) == (False, ["linger"])


def test_a_server_that_begins_to_close_meanwhile_closes_the_websocket(registry: Any) -> None:
    this = Asked(registry)
    answered = this.admit()
    registry.stop_opening()
    this.carry_out(answered)
    assert this.frames == [Close(1008, '{"code":3,"message":"Bad request"}')]
    assert registry.sessions == {}


def test_a_client_that_leaves_during_its_handshake_opens_no_session(registry: Any, caplog: pytest.LogCaptureFixture) -> None:
    this = Asked(registry)
    answered = this.admit()
    this.connection.lost = ConnectionResetError("gone")
    with caplog.at_level(logging.INFO, "engine"):
        assert this.carry_out(answered) is None
    assert "a client left during its WebSocket handshake" in caplog.text
    assert registry.sessions == {}


class OtherWebSocket:
    """Another library's WebSocket, whose client says hello, and leaves when a test says so."""

    def __init__(self) -> None:
        self.left = Event()
        self.incoming = ["4hello"]
        self.sent: list[str | bytes] = []

    def receive(self) -> str | None:
        """The message, and then the end."""
        if self.incoming:
            return self.incoming.pop()
        self.left.wait(60)
        return None

    def send(self, message: str | bytes, *, binary: bool) -> None:
        """Keep it."""
        self.sent.append(message)

    def close(self, code: int, message: str) -> None:
        """The client has left already."""


def test_the_websocket_of_another_library_keeps_its_owner_until_the_end(registry: Any) -> None:
    this, heard = Asked(registry), hearing(registry)
    this.environ["wsgi.websocket"] = this.websocket = OtherWebSocket()
    owner = started(this.carry_out, this.admit())
    gevent.idle()
    assert (list(registry.sessions), owner.ready()) == (["abcd1"], False)
    this.websocket.left.set()
    assert outcome(owner) is None
    assert registry.sessions == {}
    assert ([message[0] for message in this.websocket.sent], heard) == (["0"], ["hello"])


# -- refusing


def test_a_middleware_that_refuses_answers_the_request(registry: Any) -> None:
    this = Asked(registry)
    this.admit()
    assert this.carry_out(FORBIDDEN) == ("403 Forbidden", [("X-Why", "a middleware")], b"not today")
    assert (this.websocket.accepted, registry.sessions) == (False, {})


def test_a_middleware_cannot_switch_a_handshake_that_was_not_admitted(registry: Any) -> None:
    this = Asked(registry)
    assert this.carry_out(Response("101 Switching Protocols", [], b"")) == ("101 Switching Protocols", [], b"")
    assert (this.websocket.accepted, registry.sessions) == (False, {})


def test_an_accepted_websocket_is_closed_with_the_response_as_the_reason(registry: Any) -> None:
    this = Asked(registry)
    this.admit()
    this.websocket.accept()
    assert this.carry_out(FORBIDDEN) is None
    assert this.frames == [Close(1008, "not today")]
    assert this.connection.calls == ["linger"]


def test_a_websocket_is_closed_where_no_response_can_be_sent(registry: Any) -> None:
    this = Asked(registry)
    this.admit()
    assert this.upgrades.carry_out(FORBIDDEN, this.environ, None) == []
    assert this.frames == [Close(1008, "not today")]
