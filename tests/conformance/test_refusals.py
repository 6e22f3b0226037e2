"""The error table, on plain requests and on upgrades, and what ``connection_error`` tells the operator."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.clients import PollingSession, WebSocketSession, open_session, upgrade
from support.rawhttp import Response
from support.rawwebsocket import Refused, WebSocketClient

MESSAGES = {
    0: "Transport unknown",
    1: "Session ID unknown",
    2: "Bad handshake method",
    3: "Bad request",
    4: "Forbidden",
    5: "Unsupported protocol version",
}
#: query, code, what the context says
PLAIN = [
    ("EIO=4", 0, {}),
    ("EIO=4&transport=", 0, {"transport": ""}),
    ("EIO=4&transport=tobi", 0, {"transport": "tobi"}),
    ("EIO=4&transport=constructor", 0, {"transport": "constructor"}),
    ("EIO=4&transport=__class__", 0, {"transport": "__class__"}),
    ("EIO=4&transport=webtransport", 0, {"transport": "webtransport"}),
    ("EIO=4&transport=polling&sid=tobi", 1, {"sid": "tobi"}),
    ("EIO=4&transport=polling&sid=__dict__", 1, {"sid": "__dict__"}),
    ("EIO=4&transport=websocket", 3, {"name": "TRANSPORT_HANDSHAKE_ERROR"}),
]


def assert_refused(response: Response, code: int) -> None:
    """The body and status of the error table."""
    assert response.status == (403 if code == 4 else 400)
    assert response.header("Content-Type") == "application/json"
    body = response.json()
    assert (body["code"], body["message"]) == (code, MESSAGES[code]) or body["code"] == code == 3
    assert body["message"].startswith(MESSAGES[code]), "a bad request may be told what is bad about it"


@pytest.mark.alone("an unknown session is refused by the worker that was asked")
@pytest.mark.parametrize(("query", "code", "context"), PLAIN, ids=[query for query, *_ in PLAIN])
def test_plain_request(serve: Any, query: str, code: int, context: dict[str, str]) -> None:
    served = serve()
    assert_refused(served.connect().get(f"{served.path}?{query}"), code)
    error = served.events.wait("connection_error")
    assert error["code"] == code
    assert error["message"].startswith(MESSAGES[code])
    assert context.items() <= error["context"].items()
    assert len(served.events.of("connection_error")) == 1
    assert served.events.of("connection") == []


TAB = [("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")]


@pytest.mark.differs("the reference server answers JSON")
@pytest.mark.parametrize("headers", [TAB, [*TAB, ("Sec-Fetch-Mode", "navigate")], [("Sec-Fetch-Mode", "navigate")]])
@pytest.mark.parametrize(("query", "code"), [("", 0), ("?EIO=4&transport=websocket", 3)])
def test_the_address_in_a_browsers_tab(serve: Any, headers: Any, query: str, code: int) -> None:
    served = serve()
    response = served.connect().get(served.path + query, headers)
    assert (response.status, response.header("Content-Type")) == (400, "text/plain; charset=UTF-8")
    assert response.text == (
        "This is the address of an Engine.IO server. It is not a page: clients such as engine.io-client connect to it, from a "
        f"script of a page. (code {code}: {MESSAGES[code]})\n")
    assert served.events.wait("connection_error")["code"] == code


@pytest.mark.parametrize("headers", [[("Accept", "*/*")], [("Sec-Fetch-Mode", "cors"), *TAB], [("Sec-Fetch-Mode", "websocket")]])
def test_a_script_gets_json(serve: Any, headers: Any) -> None:
    served = serve()
    assert_refused(served.connect().get(served.path, headers), 0)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_handshake_by_another_method(serve: Any, method: str) -> None:
    served = serve()
    assert_refused(served.connect().request(method, f"{served.path}?EIO=4&transport=polling", body=b""), 2)
    assert served.events.wait("connection_error")["context"]["method"] == method


def test_handshake_by_head(serve: Any) -> None:
    served = serve()
    response = served.connect().request("HEAD", f"{served.path}?EIO=4&transport=polling")
    assert (response.status, response.body) == (400, b"")
    assert served.events.wait("connection_error")["code"] == 2


@pytest.mark.parametrize("version", ["1", "2", "3", "5", "0", "-4", "4.0", "%F0%9F%98%80", ""])
def test_another_revision(serve: Any, version: str) -> None:
    served = serve(allow_eio3=False)
    response = served.connect().get(f"{served.path}?EIO={version}&transport=polling")
    assert response.status == 400
    assert response.json()["code"] == 5
    assert response.json()["message"].startswith(MESSAGES[5])
    assert "protocol" in served.events.wait("connection_error")["context"]


def test_no_revision(serve: Any) -> None:
    served = serve(allow_eio3=False)
    assert served.connect().get(f"{served.path}?transport=polling").json()["code"] == 5


@pytest.mark.parametrize(
    "query",
    [
        "transport=polling&transport=websocket",
        "transport[]=polling",
        "transport=%00",
        "transport=%F0%28%8C%28",
        "transport=" + "x" * 2000,
    ],
)
@pytest.mark.differs("a repeated parameter counts once there")
def test_odd_queries_are_refused(serve: Any, query: str) -> None:
    served = serve()
    response = served.connect().get(f"{served.path}?EIO=4&{query}")
    assert response.status in (200, 400), "an odd query is never an error of the server"
    if response.status == 400:
        assert response.json()["code"] in (0, 3)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD"])
@pytest.mark.differs("answers 500")
def test_other_methods_in_a_session(serve: Any, method: str) -> None:
    session = open_session(serve())
    assert isinstance(session, PollingSession)
    assert 400 <= session.posting.request(method, session.target(), body=b"").status < 500
    session.say("still there")
    assert session.hear() == "still there"


# -- a session's requests must fit the session


def test_revision_of_another_session(serve: Any) -> None:
    session = open_session(serve())
    assert isinstance(session, PollingSession)
    response = session.posting.get(session.target(EIO="3"))
    assert_refused(response, 3)
    assert session.served.events.wait("connection_error")["context"]["name"] == "PROTOCOL_MISMATCH"
    session.say("still there")
    assert session.hear() == "still there"


def test_polling_on_a_websocket_session(serve: Any) -> None:
    session = open_session(serve(), "websocket")
    response = session.served.connect().get(session.target(transport="polling"))
    assert_refused(response, 3)
    assert session.served.events.wait("connection_error")["context"]["name"] == "TRANSPORT_MISMATCH"
    session.say("still there")
    assert session.hear() == "still there"


def test_polling_after_the_upgrade(serve: Any, eio: int) -> None:
    polling = PollingSession(serve(), eio).open()
    session = upgrade(polling)
    session.say("moved")
    assert session.hear() == "moved"
    connection = polling.served.connect()
    assert_refused(connection.get(polling.target()), 3)
    assert_refused(connection.post(polling.target(), b"4x" if eio == 4 else b"2:4x"), 3)
    session.say("still there")
    assert session.hear() == "still there"


def test_a_closed_session_is_unknown(serve: Any) -> None:
    session = open_session(serve())
    assert isinstance(session, PollingSession)
    session.close()
    session.served.events.wait("close")
    assert_refused(session.getting.get(session.target()), 1)


@pytest.mark.differs("a session id is not a secret to the log there")
def test_a_refused_session_id_is_not_reflected(serve: Any) -> None:
    served = serve()
    response = served.connect().get(f"{served.path}?EIO=4&transport=polling&sid=<script>")
    assert b"<script>" not in response.body


# -- upgrades


def refused_upgrade(served: Any, query: str, headers: list[tuple[str, str]] | None = None) -> tuple[int | None, Any]:
    """Status and JSON of a refused upgrade; gevent-websocket's handler has accepted by then: the JSON closes it."""
    try:
        client = WebSocketClient.open(served.connect(), f"{served.path}?{query}", headers or [])
    except Refused as refused:
        assert refused.response.header("Content-Type") == "application/json"
        return refused.response.status, refused.response.json()
    assert served.handler == "stock"
    closed = client.wait_closed()
    assert closed.code == 1008
    return None, json.loads(closed.reason)


UPGRADES = [
    ("EIO=4&transport=tobi", 0),
    ("EIO=4", 0),
    ("EIO=4&transport=websocket&sid=tobi", 1),
    ("EIO=4&transport=polling", 3),
    ("EIO=3&transport=websocket", 5),
    ("EIO=9&transport=websocket", 5),
]


@pytest.mark.alone("an unknown session is refused by the worker that was asked")
@pytest.mark.differs("answers with text/html, or a WebSocket that is closed at once")
@pytest.mark.parametrize(("query", "code"), UPGRADES, ids=[query for query, _ in UPGRADES])
def test_upgrade(serve: Any, query: str, code: int) -> None:
    served = serve(allow_eio3=False)
    status, body = refused_upgrade(served, query)
    assert status in (None, 400)
    assert body["code"] == code
    assert body["message"].startswith(MESSAGES[code])
    assert served.events.wait("connection_error")["code"] == code
    assert len(served.events.of("connection_error")) == 1
    assert served.events.of("connection") == []


@pytest.mark.differs("answers with text/html")
def test_upgrade_of_an_unknown_session_leaves_the_connection_usable_or_closed(serve: Any) -> None:
    served = serve()
    connection = served.connect()
    try:
        client = WebSocketClient.open(connection, f"{served.path}?EIO=4&transport=websocket&sid=tobi")
        assert client.wait_closed().code == 1008
    except Refused as refused:
        if "close" in refused.response.tokens("Connection"):
            assert connection.read_to_end() == b""
        else:
            assert connection.get(f"{served.path}?EIO=4&transport=polling").status == 200


@pytest.mark.differs("closes the WebSocket that was opened")
def test_upgrade_with_another_revision_than_the_session(serve: Any) -> None:
    session = open_session(serve())
    status, body = refused_upgrade(session.served, f"EIO=3&transport=websocket&sid={session.sid}")
    assert (status in (None, 400), body["code"]) == (True, 3)
    session.say("still there")
    assert session.hear() == "still there"


@pytest.mark.differs("offers no upgrade, but takes one")
def test_upgrade_that_is_not_allowed(serve: Any) -> None:
    session = open_session(serve(allow_upgrades=False))
    status, body = refused_upgrade(session.served, f"EIO=4&transport=websocket&sid={session.sid}")
    assert (status in (None, 400), body["code"]) == (True, 3)
    session.say("still there")
    assert session.hear() == "still there"


@pytest.mark.ours
def test_websocket_when_only_polling_is_served(serve: Any) -> None:
    served = serve(transports=("polling",))
    assert refused_upgrade(served, "EIO=4&transport=websocket")[1]["code"] == 0


def test_polling_when_only_websocket_is_served(serve: Any) -> None:
    served = serve(transports=["websocket"])
    assert_refused(served.connect().get(f"{served.path}?EIO=4&transport=polling"), 0)
    session = WebSocketSession(served).open()
    session.say("x")
    assert session.hear() == "x"


@pytest.mark.ours
@pytest.mark.own_handler
@pytest.mark.parametrize("missing", ["Upgrade", "Connection"])
def test_upgrade_through_a_proxy_that_drops_headers_names_them(serve: Any, missing: str) -> None:
    served = serve()
    headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    kept = [(name, value) for name, value in headers if name != missing]
    response = served.connect().get(f"{served.path}?EIO=4&transport=websocket", kept)
    assert response.status in (400, 426)
    assert missing.lower() in (response.text + str(served.events.wait("connection_error")["context"])).lower()


@pytest.mark.ours
@pytest.mark.own_handler
@pytest.mark.parametrize(
    ("name", "value", "statuses"),
    [
        ("Sec-WebSocket-Key", "short", {400}),
        ("Sec-WebSocket-Key", "", {400}),
        ("Sec-WebSocket-Key", "!" * 24, {400}),
        ("Sec-WebSocket-Version", "12", {400, 426}),
    ],
)
def test_bad_websocket_handshake(serve: Any, name: str, value: str, statuses: set[int]) -> None:
    served = serve()
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        name: value,
    }
    response = served.connect().get(f"{served.path}?EIO=4&transport=websocket", headers.items())
    assert response.status in statuses
    if name == "Sec-WebSocket-Version":
        assert response.header("Sec-WebSocket-Version") == "13"
    assert served.events.of("connection") == []
