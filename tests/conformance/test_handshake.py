"""The handshake: the open packet, what goes with it, and who may prevent it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import gevent
import pytest
from support.clients import PollingSession, WebSocketSession, open_session, probe
from support.rawwebsocket import Refused

FIELDS = {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}


def test_open_packet(serve: Any, transport: str, eio: int) -> None:
    served = serve(ping_interval=25.0, ping_timeout=20.0, max_http_buffer_size=1_000_000)
    session = open_session(served, transport, eio)
    assert set(session.info) >= FIELDS
    assert session.info["upgrades"] == (["websocket"] if transport == "polling" else [])
    assert (session.info["pingInterval"], session.info["pingTimeout"]) == (25000, 20000)
    assert session.info["maxPayload"] == 1_000_000
    connection = served.events.wait("connection")
    assert connection["sid"] == session.sid
    assert connection["transport"] == transport
    assert connection["protocol"] == eio


def test_open_packet_keeps_fractions_of_a_second(serve: Any, transport: str) -> None:
    session = open_session(serve(ping_interval=1.5, ping_timeout=0.25), transport)
    assert (session.info["pingInterval"], session.info["pingTimeout"]) == (1500, 250)


def test_ids_are_long_url_safe_and_different(serve: Any, transport: str) -> None:
    served = serve()
    ids = {open_session(served, transport).sid for _ in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9_.~-]{20,}", sid) for sid in ids)


@pytest.mark.ours
def test_ids_are_hard_to_guess(serve: Any) -> None:
    served = serve()
    first, second = (open_session(served).sid for _ in range(2))
    differing = sum(a != b for a, b in zip(first, second, strict=True))
    assert differing >= 15, "120 random bits are 20 characters, of which few are equal by chance"


@pytest.mark.parametrize(
    "options", [{"allow_upgrades": False}, {"transports": ["polling"]}], ids=["forbidden", "polling only"]
)
def test_no_upgrades_are_offered(serve: Any, options: dict[str, Any]) -> None:
    assert open_session(serve(**options)).info["upgrades"] == []


def test_what_the_application_sends_at_once(serve: Any, transport: str, eio: int) -> None:
    session = open_session(serve(app="hello"), transport, eio)
    assert session.hear_many(2) == ["utf 8 string", b"\x00\x01\x02"]


def test_initial_packet_comes_first(serve: Any, transport: str, eio: int) -> None:
    session = open_session(serve(app="hello", initial_packet="welcome"), transport, eio)
    assert session.hear_many(2) == ["welcome", "utf 8 string"]


def test_initial_packet_is_in_the_handshake_response(serve: Any) -> None:
    session = open_session(serve(app="silent", initial_packet="welcome"))
    assert list(session.inbox) == ["4welcome"]


@pytest.mark.parametrize("path", ["/engine.io", "/engine.io/"])
@pytest.mark.ours
def test_the_trailing_slash_may_be_missing(serve: Any, path: str) -> None:
    served = serve(add_trailing_slash=False)
    served.path = path
    session = open_session(served)
    session.say("x")
    assert session.hear() == "x"


def test_several_sessions_on_one_connection(serve: Any) -> None:
    served = serve()
    connection = served.connect()
    for _ in range(3):
        assert connection.get(f"{served.path}?EIO=4&transport=polling").text.startswith('0{"sid":"')


# -- the cookie


def test_no_cookie_by_default(serve: Any) -> None:
    assert PollingSession(serve()).getting.get("/engine.io/?EIO=4&transport=polling").header("Set-Cookie") is None


def test_cookie_true(serve: Any) -> None:
    session = PollingSession(serve(cookie=True)).open()
    assert session.last is not None
    name, _, attributes = (session.last.header("Set-Cookie") or "").partition("=")
    assert name == "io"
    sid, *rest = attributes.split("; ")
    assert sid == session.sid
    assert {attribute.lower() for attribute in rest} == {"path=/", "httponly", "samesite=lax"}


@pytest.mark.ours
def test_cookie_by_name(serve: Any) -> None:
    session = PollingSession(serve(cookie="lb")).open()
    assert session.last is not None
    assert (session.last.header("Set-Cookie") or "").startswith(f"lb={session.sid};")


@pytest.mark.ours
def test_cookie_in_full(serve: Any) -> None:
    import engineio_wsgi

    cookie = engineio_wsgi.Cookie(
        name="lb", path="/x", httponly=False, samesite="None", secure=True, max_age=60, domain="a.example"
    )
    session = PollingSession(serve(cookie=cookie)).open()
    assert session.last is not None
    parts = {part.strip().lower() for part in (session.last.header("Set-Cookie") or "").split(";")}
    expected = {"path=/x", "samesite=none", "secure", "max-age=60", "domain=a.example"}
    assert parts >= expected | {f"lb={session.sid}".lower()}
    assert "httponly" not in parts


@pytest.mark.ours
def test_cookie_of_an_embedded_page(serve: Any) -> None:
    import engineio_wsgi

    cookie = engineio_wsgi.Cookie(samesite="None", secure=True, partitioned=True, priority="High", expires=datetime(2030, 1, 2))
    session = PollingSession(serve(cookie=cookie)).open()
    assert session.last is not None
    parts = {part.strip() for part in (session.last.header("Set-Cookie") or "").split(";")}
    assert parts >= {"Partitioned", "Priority=High", "Expires=Wed, 02 Jan 2030 00:00:00 GMT", "SameSite=None", "Secure"}


def test_cookie_comes_with_the_handshake_only(serve: Any) -> None:
    session = PollingSession(serve(cookie=True, app="silent")).open()
    session.send("4x")
    session.park()
    session.send("1")
    session.end_poll()
    assert session.last is not None
    assert session.last.header("Set-Cookie") is None


@pytest.mark.ours
@pytest.mark.own_handler
def test_cookie_on_a_websocket(serve: Any) -> None:
    session = WebSocketSession(serve(cookie=True)).open()
    assert (session.ws.response.header("Set-Cookie") or "").startswith(f"io={session.sid};")


# -- headers events


def listen_to_headers(server: Any, seen: list[tuple[str, str | None]]) -> None:
    """Both events, each adding a header that can be found in the response."""

    @server.on("initial_headers")
    def initial_headers(headers: Any, request: Any) -> None:
        seen.append(("initial_headers", request.args.get("sid")))
        headers["X-Initial"] = request.args["transport"]

    @server.on("headers")
    def every(headers: Any, request: Any) -> None:
        seen.append(("headers", request.args.get("sid")))
        headers["X-Every"] = request.method


@pytest.mark.ours
def test_headers_of_polling(serve: Any) -> None:
    served = serve()
    seen: list[tuple[str, str | None]] = []
    listen_to_headers(served.server, seen)
    session = PollingSession(served).open()
    assert session.last is not None
    assert (session.last.header("X-Initial"), session.last.header("X-Every")) == ("polling", "GET")
    answer = session.post("4x")
    assert (answer.header("X-Initial"), answer.header("X-Every")) == (None, "POST")
    session.poll()
    assert (session.last.header("X-Initial"), session.last.header("X-Every")) == (None, "GET")
    assert seen == [("initial_headers", None), ("headers", None), ("headers", session.sid), ("headers", session.sid)]


@pytest.mark.ours
@pytest.mark.own_handler
def test_headers_of_a_websocket(serve: Any) -> None:
    served = serve()
    seen: list[tuple[str, str | None]] = []
    listen_to_headers(served.server, seen)
    session = WebSocketSession(served).open()
    assert session.ws.response.header("X-Initial") == "websocket"
    assert session.ws.response.header("X-Every") == "GET"
    assert seen == [("initial_headers", None), ("headers", None)]


@pytest.mark.ours
@pytest.mark.own_handler
def test_headers_of_an_upgrade(serve: Any) -> None:
    served = serve()
    seen: list[tuple[str, str | None]] = []
    listen_to_headers(served.server, seen)
    session = PollingSession(served).open()
    response = probe(session).ws.response
    assert (response.header("X-Initial"), response.header("X-Every")) == (None, "GET")
    assert seen == [("initial_headers", None), ("headers", None), ("headers", session.sid)]


# -- allow_request


def refusal(served: Any, transport: str) -> tuple[int, Any]:
    """Status and JSON body of a refused handshake; from a WebSocket that was accepted already, the close reason."""
    if transport == "polling":
        response = served.connect().get(f"{served.path}?EIO=4&transport=polling")
        return response.status, response.json()
    try:
        session = WebSocketSession(served)
    except Refused as refused:
        return refused.response.status, refused.response.json()
    assert served.handler == "stock", "our handler can refuse before it accepts"
    import json

    closed = session.ws.wait_closed()
    return (403 if closed.code == 1008 else closed.code), json.loads(closed.reason)


@pytest.mark.ours
def test_allow_request_says_no(serve: Any, transport: str) -> None:
    served = serve(allow_request=lambda request: False)
    assert refusal(served, transport) == (403, {"code": 4, "message": "Forbidden"})
    error = served.events.wait("connection_error")
    assert (error["code"], error["message"]) == (4, "Forbidden")
    assert served.server.clients_count == 0


@pytest.mark.ours
def test_allow_request_says_why(serve: Any, transport: str) -> None:
    import engineio_wsgi

    def allow(request: Any) -> bool:
        raise engineio_wsgi.Forbidden("log in first")

    served = serve(allow_request=allow)
    assert refusal(served, transport) == (403, {"code": 4, "message": "log in first"})
    assert served.events.wait("connection_error")["code"] == 4


@pytest.mark.ours
def test_allow_request_may_block_and_sees_the_request(serve: Any, transport: str, eio: int) -> None:
    seen = []

    def allow(request: Any) -> bool:
        gevent.sleep(0.01)
        seen.append((request.args["transport"], request.cookies["user"], request.args["extra"]))
        return True

    served = serve(allow_request=allow)
    session = open_session(served, transport, eio, [("Cookie", "user=tobi")], extra="ä&b")
    session.say("x")
    assert session.hear() == "x"
    assert seen == [(transport, "tobi", "ä&b")], "called for the handshake alone"


@pytest.mark.ours
@pytest.mark.complains
def test_allow_request_that_fails_lets_nobody_in(serve: Any, transport: str) -> None:
    def allow(request: Any) -> bool:
        raise RuntimeError("the database is down")

    served = serve(allow_request=allow)
    _, body = refusal(served, transport)
    assert "database" not in body["message"]
    assert served.events.wait("connection_error")["code"] == body["code"]
    assert served.server.clients_count == 0


# -- generate_id


@pytest.mark.alone("ids of one's own get the worker's in front")
@pytest.mark.ours
def test_generate_id(serve: Any, transport: str) -> None:
    def generate(request: Any) -> str:
        gevent.sleep(0.01)
        return "id-of-" + request.args["user"]

    served = serve(generate_id=generate)
    session = open_session(served, transport, user="tobi")
    assert session.sid == "id-of-tobi"
    assert list(served.server.clients) == ["id-of-tobi"]
    session.say("x")
    assert session.hear() == "x"


@pytest.mark.ours
def test_generate_id_of_a_subclass(serve: Any) -> None:
    import engineio_wsgi

    class Mine(engineio_wsgi.Server):
        def generate_id(self, request: Any) -> str:
            return "id-of-" + request.args["user"]

    assert open_session(serve(server=Mine()), user="tobi").sid == "id-of-tobi"


@pytest.mark.ours
@pytest.mark.complains
def test_generate_id_that_fails(serve: Any, transport: str) -> None:
    def generate(request: Any) -> str:
        raise RuntimeError("no ids today")

    served = serve(generate_id=generate)
    _, body = refusal(served, transport)
    assert body == {"code": 3, "message": "Bad request"}
    error = served.events.wait("connection_error")
    assert error["code"] == 3
    assert error["context"]["name"] == "ID_GENERATION_ERROR"
    assert "no ids today" in str(error["context"]["error"])


@pytest.mark.alone("ids of one's own get the worker's in front")
@pytest.mark.ours
@pytest.mark.complains
def test_generate_id_twice_the_same(serve: Any) -> None:
    served = serve(generate_id=lambda request: "same")
    open_session(served)
    assert refusal(served, "polling")[0] == 400
    assert served.server.clients_count == 1


# -- what the application sees


@pytest.mark.ours
def test_the_request_of_the_handshake(serve: Any, transport: str) -> None:
    served = serve()
    session = open_session(served, transport, 4, [("Cookie", "user=tobi"), ("X-Extra", "1")], room="ä")
    socket = served.socket(session.sid)
    assert socket.id == session.sid
    assert socket.server is served.server
    assert socket.request.cookies["user"] == "tobi"
    assert socket.request.headers["X-Extra"] == "1"
    assert socket.request.args["room"] == "ä"
    assert socket.remote_address == "127.0.0.1"
    assert socket.ready_state == "open"
    assert socket.transport.name == transport
    assert (socket.protocol, socket.upgraded, socket.upgrading) == (4, False, False)
    assert socket.data == {}
    assert served.server.clients[session.sid] is socket
    assert served.server.clients_count == 1


@pytest.mark.ours
def test_upgrades_of_the_server(serve: Any) -> None:
    assert list(serve().server.upgrades("polling")) == ["websocket"]
    assert list(serve().server.upgrades("websocket")) == []
    assert list(serve(allow_upgrades=False).server.upgrades("polling")) == []
