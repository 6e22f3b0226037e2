"""Refusals that an option or a proxy's setting cures: what the operator is told, and how often."""

from __future__ import annotations

from typing import Any

import pytest
from support.fakeloop import FakeLoop

from engineio_wsgi.engine.refusal_advice import RefusalAdvice, origin_cure
from engineio_wsgi.errors import ErrorCode, RequestRefused

ORIGIN = {"name": "ORIGIN", "origin": "https://evil.example", "wanted": "http://shop.example"}
WEBSOCKET = {"PATH_INFO": "/chat", "HTTP_SEC_WEBSOCKET_KEY": "AAAAAAAAAAAAAAAAAAAAAA=="}

#: how the cure for an origin begins
TLS, NOT_BELIEVED, NOT_TOLD, TWO_NAMES, ANOTHER_SITE = (
    "a proxy ends TLS in front of this server, and the server is not told: wrap the application in werkzeug's ProxyFix",
    "a proxy forwards to this server, which does not trust its headers: wrap the application in werkzeug's ProxyFix",
    "a proxy forwards to this server, and does not send the host of the request: wrap the application in werkzeug's ProxyFix",
    "to a browser, these are two origins: open the page and the engine under one name, or set cors=",
    "if pages of that site may use the engine, set the option cors=",
)


def refusal(**context: Any) -> RequestRefused:
    """One with this context."""
    return RequestRefused(ErrorCode.BAD_REQUEST, context=context)


@pytest.mark.parametrize(("origin", "environ", "cure"), [
    ("https://shop.example", {"HTTP_HOST": "shop.example"}, TLS),
    ("HTTPS://shop.example:8443", {"HTTP_HOST": "Shop.example"}, TLS),
    ("https://shop.example", {"HTTP_HOST": "shop.example", "wsgi.url_scheme": "https"}, ANOTHER_SITE),
    ("https://shop.example", {"HTTP_HOST": "127.0.0.1:8000", "HTTP_X_FORWARDED_HOST": "Shop.example, inner"}, NOT_BELIEVED),
    ("http://shop.example", {"HTTP_HOST": "backend:80", "HTTP_X_FORWARDED_FOR": "192.0.2.1"}, NOT_TOLD),
    ("http://shop.example", {"HTTP_HOST": "127.0.0.1", "HTTP_VIA": "1.1 proxy"}, NOT_TOLD),
    ("http://shop.example", {"HTTP_HOST": "backend:80"}, ANOTHER_SITE),
    ("http://evil.example", {"HTTP_HOST": "backend", "HTTP_X_FORWARDED_HOST": "shop.example"}, ANOTHER_SITE),
    ("http://evil.example:8000", {"HTTP_HOST": "127.0.0.1:8000"}, ANOTHER_SITE),
    ("http://intranet", {"HTTP_HOST": "backend:80", "HTTP_VIA": "1.1 proxy"}, ANOTHER_SITE),
    ("http://evil.example", {"HTTP_HOST": "shop.example", "HTTP_VIA": "1.1 proxy"}, ANOTHER_SITE),
    ("http://localhost:8000", {"HTTP_HOST": "127.0.0.1:8000"}, TWO_NAMES),
    ("http://localhost", {"HTTP_HOST": "[::1]"}, TWO_NAMES),
    ("http://localhost:3000", {"HTTP_HOST": "localhost:8000"}, ANOTHER_SITE),
])
def test_the_cure_for_an_origin(origin: str, environ: dict[str, str], cure: str) -> None:
    said = origin_cure(origin, {"wsgi.url_scheme": "http", **environ})
    assert said.startswith(cure)
    assert said.endswith(repr(origin)) or "ProxyFix" in cure


@pytest.mark.parametrize(("context", "environ", "said"), [
    (ORIGIN, {"HTTP_HOST": "shop.example"}, "a page of https://evil.example was refused; expected: http://shop.example; "
     "if pages of that site may use the engine, set the option cors='https://evil.example'"),
    ({"name": "HOST", "host": "wwẃ"}, {}, r"a request to the host 'ww\u1e83' was refused: if it is this server's, add it to the "
     "option allowed_hosts"),
    ({"name": "OLD_PROTOCOL", "protocol": "3"}, {}, "a client of revision 3 of the protocol was refused; expected: 4. For "
     "clients of Socket.IO 2 and older (Engine.IO 3), set the option allow_eio3=True"),
    ({"name": "JSONP_DISABLED"}, {}, "a client that polls by JSONP was refused: set the option jsonp=True if there are such "
     "clients"),
    ({"name": "ALLOW_REQUEST_RETURNED", "returned": "None"}, {}, "allow_request returned None, and the handshake was refused: it "
     "must return True or False"),
    ({"transport": ""}, WEBSOCKET, "a WebSocket client that does not speak Engine.IO was refused at '/chat'; expected: the query "
     "?EIO=4&transport=websocket, which engine.io-client adds. A plain WebSocket is for another path of the application"),
], ids=["origin", "host", "revision", "JSONP", "allow_request", "plain WebSocket"])
def test_what_is_said_of_a_refusal(context: Any, environ: Any, said: str, caplog: pytest.LogCaptureFixture) -> None:
    RefusalAdvice().tell(refusal(**context), environ)
    assert caplog.messages == [said]


@pytest.mark.parametrize(("context", "environ"), [
    ({}, {}), ({"name": "METHOD"}, {}), ({"transport": ""}, {}), ({"transport": "tobi"}, WEBSOCKET),
], ids=["no context", "no cure", "no WebSocket", "a transport that there is not"])
def test_nothing_is_said_of_others(context: Any, environ: Any, caplog: pytest.LogCaptureFixture) -> None:
    RefusalAdvice().tell(refusal(**context), environ)
    assert caplog.messages == []


def test_each_kind_is_told_once_a_minute(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, advice, counts = FakeLoop(), RefusalAdvice(), []
    monkeypatch.setattr("engineio_wsgi.engine.refusal_advice.monotonic", loop.monotonic)
    for seconds, context in [(0, ORIGIN), (59, ORIGIN), (0, {"name": "JSONP_DISABLED"}), (1, ORIGIN)]:
        loop.advance(seconds)
        advice.tell(refusal(**context), {})
        counts.append(len(caplog.messages))
    assert counts == [1, 1, 2, 3]
