"""Origins: who may open a session, and what a browser is told."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from support.clients import WebSocketSession
from support.rawhttp import Response
from support.rawwebsocket import Refused

PAGE = "http://page.example"
OTHER = "http://other.example"
#: what is configured, whether OTHER is let in as well as PAGE
CONFIGURED = {
    "origin": (PAGE, False),
    "list": ([PAGE, "https://third.example"], False),
    "pattern": (re.compile(r"https?://([a-z]+\.)?page\.example"), False),
    "list of patterns": (["http://localhost", re.compile(r"http://page\.example$")], False),
    "callable": (lambda origin: origin == PAGE, False),
    "callable with the request": (lambda origin, request: origin == PAGE and request.host.partition(":")[0], False),
    "star": ("*", True),
}


def handshake(served: Any, origin: str | None = None, *more: tuple[str, str]) -> Response:
    headers = [*([("Origin", origin)] if origin is not None else []), *more]
    response: Response = served.connect().get(f"{served.path}?EIO=4&transport=polling", headers)
    return response


def preflight(served: Any, origin: str, **more: str) -> Response:
    headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")]
    headers += [(name.replace("_", "-"), value) for name, value in more.items()]
    response: Response = served.connect().request("OPTIONS", f"{served.path}?EIO=4&transport=polling", headers)
    return response


def websocket_status(served: Any, *headers: tuple[str, str]) -> tuple[int, str]:
    """Status and message of a WebSocket handshake; 101 and nothing if it is accepted for good."""
    try:
        session = WebSocketSession(served, 4, headers)
    except Refused as refused:
        return refused.response.status, refused.response.json()["message"]
    frame = session.ws.read_frame()
    if frame.opcode == 8:
        assert served.handler == "stock"
        return 403, json.loads(frame.payload[2:])["message"]
    assert frame.payload.startswith(b"0{")
    return 101, ""


# -- same origin only


@pytest.mark.ours
def test_own_pages_by_default(serve: Any) -> None:
    served = serve()
    assert handshake(served, served.origin).status == 200
    assert handshake(served).status == 200
    assert websocket_status(served, ("Origin", served.origin)) == (101, "")
    assert websocket_status(served) == (101, "")


FOREIGN = [
    PAGE,
    "null",
    "https://127.0.0.1",
    "http://127.0.0.1",
    "http://127.0.0.1:1",
    "http://127.0.0.1.evil.example",
    "http://evil.example/127.0.0.1",
    "http://[",
    "garbage",
    "file://",
]


@pytest.mark.ours
@pytest.mark.parametrize("origin", FOREIGN)
def test_no_other_pages_by_default(serve: Any, origin: str, caplog: Any) -> None:
    served = serve()
    with caplog.at_level(logging.INFO):
        response = handshake(served, origin)
        status, message = websocket_status(served, ("Origin", origin))
    assert response.status == status == 403
    assert response.json()["code"] == 4
    assert "cors" in response.json()["message"].lower()
    assert "cors" in message.lower()
    assert origin in caplog.text
    errors = [served.events.wait("connection_error", count) for count in (1, 2)]
    assert [error["code"] for error in errors] == [4, 4]
    assert all(origin in str(error["context"]) for error in errors)
    assert served.events.of("connection") == []
    assert response.header("Access-Control-Allow-Origin") is None


@pytest.mark.ours
@pytest.mark.parametrize("header", ["X-Forwarded-Host", "Forwarded", "X-Host", "X-Original-Host"])
def test_forwarded_headers_are_not_trusted(serve: Any, header: str) -> None:
    value = "host=page.example" if header == "Forwarded" else "page.example"
    assert handshake(serve(), PAGE, (header, value)).status == 403


@pytest.mark.ours
def test_own_pages_on_the_default_port(serve: Any) -> None:
    served = serve()
    assert handshake(served, "http://chat.example", ("Host", "chat.example")).status == 200
    assert handshake(served, "http://chat.example", ("Host", "chat.example:80")).status == 200
    assert handshake(served, "http://CHAT.example", ("Host", "chat.example")).status == 200


@pytest.mark.ours
def test_requests_of_a_session_are_checked_as_well(serve: Any) -> None:
    served = serve()
    sid = json.loads(handshake(served).text[1:])["sid"]
    response = served.connect().post(f"{served.path}?EIO=4&transport=polling&sid={sid}", b"4x", [("Origin", PAGE)])
    assert response.status == 403


# -- configured origins


@pytest.mark.ours
@pytest.mark.parametrize("name", CONFIGURED)
def test_configured(serve: Any, name: str) -> None:
    origins, other = CONFIGURED[name]
    served = serve(cors=origins)
    response = handshake(served, PAGE)
    assert response.status == 200
    assert response.header("Access-Control-Allow-Origin") == ("*" if name == "star" else PAGE)
    assert ("origin" in response.tokens("Vary")) == (name != "star")
    assert response.header("Access-Control-Allow-Credentials") is None
    assert websocket_status(served, ("Origin", PAGE))[0] == 101
    assert handshake(served, OTHER).status == (200 if other else 403)
    assert websocket_status(served, ("Origin", OTHER))[0] == (101 if other else 403)


@pytest.mark.ours
@pytest.mark.parametrize("name", [name for name, (_, other) in CONFIGURED.items() if not other])
def test_lookalikes_are_refused(serve: Any, name: str) -> None:
    served = serve(cors=CONFIGURED[name][0])
    for origin in (
        "http://page.example.evil.example",
        "http://evil-page.example",
        "http://page.example:81",
        "http://evil.example/http://page.example",
    ):
        assert handshake(served, origin).status == 403, origin


@pytest.mark.ours
def test_own_pages_need_no_configuration(serve: Any) -> None:
    served = serve(cors=PAGE)
    assert handshake(served, served.origin).status == 200
    assert handshake(served).status == 200


def test_star_on_the_wire(serve: Any) -> None:
    response = handshake(serve(cors="*"), PAGE)
    assert response.status == 200
    assert response.header("Access-Control-Allow-Origin") == "*"


def test_origin_on_the_wire(serve: Any) -> None:
    response = handshake(serve(cors=PAGE), PAGE)
    assert response.header("Access-Control-Allow-Origin") == PAGE
    assert "origin" in response.tokens("Vary")


@pytest.mark.ours
def test_every_response_of_a_session_carries_the_headers(serve: Any) -> None:
    from support.clients import PollingSession

    session = PollingSession(serve(cors=PAGE), 4, [("Origin", PAGE)]).open()
    answers = [session.post("4x")]
    session.poll()
    assert session.last is not None
    answers += [session.last, session.posting.get("/engine.io/?EIO=4&transport=polling&sid=gone", [("Origin", PAGE)])]
    assert [answer.header("Access-Control-Allow-Origin") for answer in answers] == [PAGE] * 3


@pytest.mark.ours
def test_vary_is_sent_to_requests_without_an_origin(serve: Any) -> None:
    assert "origin" in handshake(serve(cors=[PAGE])).tokens("Vary")


@pytest.mark.ours
def test_in_full(serve: Any) -> None:
    import engineio_wsgi

    served = serve(
        cors=engineio_wsgi.Cors(
            origins=[PAGE],
            methods=["GET", "POST"],
            headers=["X-One", "X-Two"],
            expose=["X-Three"],
            credentials=True,
            max_age=600,
        )
    )
    response = handshake(served, PAGE)
    assert response.header("Access-Control-Allow-Credentials") == "true"
    assert response.tokens("Access-Control-Expose-Headers") == {"x-three"}
    assert response.header("Access-Control-Max-Age") is None
    answer = preflight(served, PAGE)
    assert answer.header("Access-Control-Allow-Credentials") == "true"
    assert answer.tokens("Access-Control-Allow-Methods") == {"get", "post"}
    assert answer.tokens("Access-Control-Allow-Headers") == {"x-one", "x-two"}
    assert answer.header("Access-Control-Max-Age") == "600"


@pytest.mark.ours
def test_credentials_never_go_with_a_star(serve: Any) -> None:
    import engineio_wsgi

    response = handshake(serve(cors=engineio_wsgi.Cors(origins="*", credentials=True)), PAGE)
    allowed = response.header("Access-Control-Allow-Origin"), response.header("Access-Control-Allow-Credentials")
    assert allowed != ("*", "true"), "no browser accepts that"


# -- preflight


def test_preflight(serve: Any) -> None:
    answer = preflight(serve(cors=PAGE), PAGE, Access_Control_Request_Headers="X-One, content-type")
    assert answer.status == 204
    assert answer.body == b""
    assert answer.header("Access-Control-Allow-Origin") == PAGE
    assert {"get", "post"} <= answer.tokens("Access-Control-Allow-Methods")
    assert answer.tokens("Access-Control-Allow-Headers") == {"x-one", "content-type"}
    assert {"origin", "access-control-request-headers"} <= answer.tokens("Vary")


@pytest.mark.ours
@pytest.mark.parametrize("cors", [None, PAGE])
def test_preflight_of_a_stranger(serve: Any, cors: str | None) -> None:
    served = serve(cors=cors)
    assert preflight(served, OTHER).header("Access-Control-Allow-Origin") is None
    assert served.events.of("connection") == []


@pytest.mark.ours
def test_preflight_keeps_the_connection(serve: Any) -> None:
    served = serve(cors=PAGE)
    connection = served.connect()
    for _ in range(3):
        answer = connection.request(
            "OPTIONS",
            f"{served.path}?EIO=4&transport=polling",
            [("Origin", PAGE), ("Access-Control-Request-Method", "POST")],
        )
        assert answer.status == 204
    assert connection.get(f"{served.path}?EIO=4&transport=polling", [("Origin", PAGE)]).status == 200


@pytest.mark.ours
@pytest.mark.complains
def test_a_callable_that_fails_lets_nobody_in(serve: Any) -> None:
    def broken(origin: str) -> bool:
        raise RuntimeError("the database is down")

    response = handshake(serve(cors=broken), PAGE)
    assert response.status in (403, 500)
    assert "database" not in response.text
