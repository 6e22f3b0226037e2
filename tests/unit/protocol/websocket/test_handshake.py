"""The opening handshake, request by request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.protocol.websocket.deflate import parse_extensions
from engineio_wsgi.protocol.websocket.handshake import (
    Handshake,
    HandshakeRefused,
    check,
    choose_protocol,
    response_head,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def environ(**changes: Any) -> dict[str, Any]:
    """A valid request, with some of it changed; ``None`` takes a header away."""
    valid = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_KEY": KEY,
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        **changes,
    }
    return {name: value for name, value in valid.items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"HTTP_UPGRADE": "WebSocket"},
        {"HTTP_UPGRADE": "h2c, websocket"},
        {"HTTP_CONNECTION": "keep-alive, upgrade"},
        {"HTTP_SEC_WEBSOCKET_KEY": f" {KEY} "},
    ],
)
def test_valid(changes: dict[str, Any]) -> None:
    assert check(environ(**changes)) == Handshake(KEY)


def test_what_is_offered() -> None:
    handshake = check(environ(HTTP_SEC_WEBSOCKET_PROTOCOL="chat,  superchat", HTTP_SEC_WEBSOCKET_EXTENSIONS="a; b=1"))
    assert handshake.protocols == ("chat", "superchat")
    assert handshake.extensions == "a; b=1"


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"REQUEST_METHOD": "POST"}, 405, "GET"),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, 400, "HTTP/1.1"),
        ({"HTTP_UPGRADE": None}, 400, "Upgrade: websocket"),
        ({"HTTP_UPGRADE": "h2c"}, 400, "Upgrade: websocket"),
        ({"HTTP_CONNECTION": None}, 400, "Connection: Upgrade"),
        ({"HTTP_CONNECTION": "keep-alive"}, 400, "Connection: Upgrade"),
        ({"HTTP_CONNECTION": "no-upgrade"}, 400, "Connection: Upgrade"),
        ({"HTTP_SEC_WEBSOCKET_KEY": None}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "short"}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": KEY[:-1]}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_KEY": f"{KEY},{KEY}"}, 400, "Sec-WebSocket-Key"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": None}, 400, "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426, "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "13, 13"}, 426, "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "a, a"}, 400, "Sec-WebSocket-Protocol"),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "a,"}, 400, "Sec-WebSocket-Protocol"),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "a b"}, 400, "Sec-WebSocket-Protocol"),
        ({"HTTP_SEC_WEBSOCKET_EXTENSIONS": 'a; b="'}, 400, "Sec-WebSocket-Extensions"),
    ],
)
def test_refused(changes: dict[str, Any], status: int, text: str) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        check(environ(**changes))
    assert int(caught.value.status.split()[0]) == status
    assert text in str(caught.value)
    if status == 426:
        assert ("Sec-WebSocket-Version", "13") in caught.value.headers
    if status == 405:
        assert caught.value.headers == (("Allow", "GET"),)


def test_all_that_is_missing_is_named() -> None:
    with pytest.raises(HandshakeRefused, match="missing: Connection: Upgrade, Sec-WebSocket-Key, Sec-WebSocket-Version"):
        check(environ(HTTP_CONNECTION=None, HTTP_SEC_WEBSOCKET_KEY=None, HTTP_SEC_WEBSOCKET_VERSION=None))


def test_sub_protocols() -> None:
    assert choose_protocol(("a", "b"), ["b", "a"]) == "a"
    assert choose_protocol(("a", "b"), ("b",)) == "b"
    assert choose_protocol((), ("b",)) is None
    assert choose_protocol(("a",), ()) is None


def test_response() -> None:
    # the key is the example of RFC 6455 section 1.3
    assert response_head(Handshake(KEY), protocol="chat", extensions="x", extra=[("Set-Cookie", "a=b")]) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n"
        b"Sec-WebSocket-Extensions: x\r\nSet-Cookie: a=b\r\n\r\n"
    )
    assert response_head(Handshake(KEY)).count(b"\r\n") == 5


@pytest.mark.parametrize("header", [("A", "b\r\nC: d"), ("A", "b\n"), ("A", "b\0"), ("A:", "b"), ("", "b"), ("A", "\u20ac")])
def test_headers_cannot_be_split(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError):
        response_head(Handshake(KEY), extra=[header])


@given(st.text("ab=;, \t\"", max_size=20))
def test_a_header_of_extensions_is_valid_exactly_if_the_parser_takes_it(header: str) -> None:
    try:
        parse_extensions(header)
        is_valid = True
    except ProtocolError:
        is_valid = False
    try:
        check(environ(HTTP_SEC_WEBSOCKET_EXTENSIONS=header))
        assert is_valid
    except HandshakeRefused:
        assert not is_valid
