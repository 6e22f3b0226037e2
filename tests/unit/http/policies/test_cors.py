"""Which origins are allowed, and the CORS headers that browsers get."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
from werkzeug.wrappers import Request

from engineio_wsgi.errors import ErrorCode, Forbidden, RequestRefused
from engineio_wsgi.http.policies.cors import OriginPolicy
from engineio_wsgi.options.values import Cors

PAGE = "https://page.example"
OTHER = "https://other.example"


def environ(origin: str | None = None, scheme: str = "http", host: str = "chat.example", **more: str) -> dict[str, Any]:
    """A request's environ; ``more`` are headers."""
    headers = {f"HTTP_{name.upper()}": value for name, value in more.items()}
    if origin is not None:
        headers["HTTP_ORIGIN"] = origin
    return {"wsgi.url_scheme": scheme, "HTTP_HOST": host, **headers}


def allows(cors: Cors | None, request: dict[str, Any]) -> bool:
    try:
        OriginPolicy(cors).check(request)
    except RequestRefused:
        return False
    return True


# -- same origin


@pytest.mark.parametrize(
    ("origin", "scheme", "host"),
    [
        (None, "http", "chat.example"),
        ("http://chat.example", "http", "chat.example"),
        ("http://chat.example", "http", "chat.example:80"),
        ("http://chat.example:80", "http", "chat.example"),
        ("https://chat.example", "https", "chat.example:443"),
        ("https://chat.example:8443", "https", "chat.example:8443"),
        ("http://CHAT.example", "http", "chat.EXAMPLE"),
        ("http://[::1]:8000", "http", "[::1]:8000"),
        ("http://[::1]", "http", "[::1]:80"),
        ("HTTP://chat.example", "http", "chat.example"),
        ("ws://chat.example", "http", "chat.example"),
        ("ws://chat.example:80", "http", "chat.example"),
        ("WS://chat.example:8000", "http", "chat.example:8000"),
        ("wss://chat.example", "https", "chat.example"),
        ("wss://chat.example", "https", "chat.example:443"),
    ],
)
@pytest.mark.parametrize("cors", [None, Cors(origins=PAGE)])
def test_own_pages(cors: Cors | None, origin: str | None, scheme: str, host: str) -> None:
    assert allows(cors, environ(origin, scheme, host))


STRANGERS = [
    "",
    "null",
    "garbage",
    "file://",
    "http://",
    "https://chat.example",
    "wss://chat.example",
    "ws://chat.example:81",
    "ws://chat.example:443",
    "ws://",
    "ws:chat.example",
    "ftp://chat.example",
    "http://chat.example:81",
    "http://chat.example:443",
    "http://chat.example.evil.example",
    "http://evil.example/chat.example",
    "http://chat.example/",
    "http://chat.example@evil",
    "http://evilchat.example",
    "//chat.example",
    "chat.example",
    "http://chat.example\x00",
    "http://chat.example\r\nX: y",
    "http://ch\xe4t.example",
    " http://chat.example",
]


@pytest.mark.parametrize("cors", [None, Cors(origins=PAGE)])
@pytest.mark.parametrize("origin", STRANGERS, ids=ascii)
def test_other_pages(cors: Cors | None, origin: str) -> None:
    assert not allows(cors, environ(origin))


def test_a_request_without_a_host_has_no_pages() -> None:
    for origin in ("http://", "http://chat.example", "http://:80", "ws://"):
        assert not allows(None, {"wsgi.url_scheme": "http", "HTTP_ORIGIN": origin})
        for host in ("", ":80"):
            assert not allows(None, environ(origin if host == "" else "http://", host=host))


def test_forwarded_headers_are_not_believed() -> None:
    request = environ(PAGE, x_forwarded_host="page.example", x_forwarded_proto="https", forwarded="host=page.example")
    assert not allows(None, request)


def test_a_refusal_says_what_to_do() -> None:
    with pytest.raises(Forbidden, match="option cors") as caught:
        OriginPolicy(None).check(environ(PAGE))
    assert caught.value.code is ErrorCode.FORBIDDEN
    assert caught.value.context["origin"] == PAGE
    assert caught.value.context["wanted"] == "http://chat.example"
    assert caught.value.context["option"] == "cors"
    with pytest.raises(Forbidden) as caught:
        OriginPolicy(Cors(origins=[PAGE])).check(environ(OTHER))
    assert PAGE in caught.value.context["wanted"]
    assert PAGE not in caught.value.message


@pytest.mark.parametrize("cors", [None, Cors(), Cors(origins=re.compile(r"(?s).*")), Cors(origins=lambda origin: True)])
@pytest.mark.parametrize(
    "origin", ["http://a\r\nSet-Cookie: x=y", "http://a\x00", "http://\x7f", "http://\xe9"], ids=ascii
)
def test_a_malformed_origin_is_refused_by_everybody(cors: Cors | None, origin: str) -> None:
    policy = OriginPolicy(cors)
    with pytest.raises(RequestRefused) as caught:
        policy.check(environ(origin))
    assert caught.value.code is ErrorCode.BAD_REQUEST
    assert str(caught.value.context["origin"]).isprintable()
    assert origin not in [value for _, value in policy.headers(environ(origin)) + policy.preflight(environ(origin))[1]]


def test_a_long_origin_is_cut_short() -> None:
    with pytest.raises(Forbidden) as caught:
        OriginPolicy(None).check(environ("http://" + "x" * 10_000))
    assert len(caught.value.context["origin"]) < 200


# -- other origins

ORIGINS = [
    PAGE,
    PAGE + "/",
    "HTTPS://Page.Example",
    [PAGE],
    ("http://localhost", PAGE),
    {PAGE},
    re.compile(r"https://(page|site)\.example"),
    [re.compile(r"https://page\.example$"), "http://localhost"],
    lambda origin: origin == PAGE,
    ["http://localhost", lambda origin: origin == PAGE],
]


@pytest.mark.parametrize("origins", ORIGINS)
def test_configured_origins(origins: Any) -> None:
    cors = Cors(origins=origins)
    assert allows(cors, environ(PAGE))
    for origin in (OTHER, "null", PAGE + ".evil.example", PAGE + ":444", "http://evil.example/" + PAGE, PAGE + "\n"):
        assert not allows(cors, environ(origin))


def test_origins_have_no_case() -> None:
    assert allows(Cors(origins=PAGE), environ("HTTPS://PAGE.example"))


@pytest.mark.parametrize("origin", ["file://", "capacitor://localhost", "ionic://localhost", "tauri://localhost", "app://x",
                                    "chrome-extension://abcdefghijklmnop", "null"])
@pytest.mark.parametrize("end", ["", "/"])
def test_pages_of_applications(origin: str, end: str) -> None:
    """What WebViews, desktop applications and browser extensions send."""
    policy = OriginPolicy(Cors(origins=origin if origin == "null" else origin + end))
    policy.check(environ(origin))
    assert ("Access-Control-Allow-Origin", origin) in policy.headers(environ(origin))
    for other in ("file:", "file:///", "null/", "capacitor://evil", "capacitor:", "http://localhost", OTHER):
        assert not allows(Cors(origins=origin), environ(other))


@pytest.mark.parametrize("configured", ["https://page.example:443", "wss://page.example", "HTTPS://Page.Example:443/"])
@pytest.mark.parametrize("sent", [PAGE, "https://page.example:443", "wss://page.example", "WSS://page.example:443"])
def test_configured_origins_are_compared_as_origins(configured: str, sent: str) -> None:
    assert allows(Cors(origins=configured), environ(sent))
    for other in ("http://page.example", "ws://page.example", "https://page.example:80", "https://page.example:4430"):
        assert not allows(Cors(origins=configured), environ(other))


def test_anybody() -> None:
    for origins in ("*", ["*"], [PAGE, "*"]):
        cors = Cors(origins=origins)
        assert allows(cors, environ(OTHER))
        assert allows(cors, environ("null"))


def test_pages_without_an_origin_can_be_let_in() -> None:
    assert allows(Cors(origins="null"), environ("null"))


def by_host(origin: str, request: Request, scheme: str = "https") -> bool:
    return origin == f"{scheme}://pages.{request.host}"


@pytest.mark.parametrize("allowed", [by_host, partial(by_host, scheme="https"), [OTHER, by_host]],
                         ids=["function", "partial", "list"])
def test_a_callable_with_two_parameters_gets_the_request(allowed: Any) -> None:
    assert allows(Cors(origins=allowed), environ("https://pages.chat.example"))
    assert not allows(Cors(origins=allowed), environ("https://pages.elsewhere.example"))


@pytest.mark.complains
def test_a_callable_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    def broken(origin: str) -> bool:
        raise RuntimeError("no database")

    assert not allows(Cors(origins=broken), environ(PAGE))
    assert "no database" in caplog.text


# -- headers


def test_by_default_no_headers() -> None:
    assert OriginPolicy(None).headers(environ(PAGE)) == []
    assert OriginPolicy(None).headers(environ("http://chat.example")) == []


def test_a_star_is_the_same_for_everybody() -> None:
    policy = OriginPolicy(Cors())
    for request in (environ(PAGE), environ("null"), environ()):
        assert policy.headers(request) == [("Access-Control-Allow-Origin", "*")]


def test_an_origin_is_reflected_and_varies() -> None:
    policy = OriginPolicy(Cors(origins=[PAGE]))
    assert policy.headers(environ(PAGE)) == [("Vary", "Origin"), ("Access-Control-Allow-Origin", PAGE)]
    assert policy.headers(environ(OTHER)) == policy.headers(environ()) == [("Vary", "Origin")]


@pytest.mark.parametrize("origins", ["*", [PAGE]])
def test_credentials_never_go_with_a_star(origins: Any) -> None:
    policy = OriginPolicy(Cors(origins=origins, credentials=True))
    assert policy.headers(environ(PAGE)) == [
        ("Vary", "Origin"),
        ("Access-Control-Allow-Origin", PAGE),
        ("Access-Control-Allow-Credentials", "true"),
    ]
    assert policy.headers(environ()) == [("Vary", "Origin")]


def test_exposed_headers() -> None:
    headers = OriginPolicy(Cors(expose=("X-One", "X-Two"))).headers(environ(PAGE))
    assert ("Access-Control-Expose-Headers", "X-One, X-Two") in headers


# -- preflight


def preflight(cors: Cors | None, request: dict[str, Any]) -> dict[str, str]:
    status, headers, body, _ = OriginPolicy(cors).preflight(request)
    assert (status, body) == ("204 No Content", b"")
    assert len(dict(headers)) == len(headers)
    return dict(headers)


ASKED = "X-One, content-type"


def test_preflight_reflects_the_headers_that_are_asked_for() -> None:
    answer = preflight(Cors(origins=PAGE), environ(PAGE, access_control_request_headers=ASKED))
    assert answer == {
        "Content-Length": "0",
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Vary": "Access-Control-Request-Headers",
        "Access-Control-Allow-Headers": ASKED,
    }


def test_preflight_reflects_only_names() -> None:
    asked = "X-One, b\xe4d, a b, x\r\nSet-Cookie: a=b, , X-Two"
    answer = preflight(Cors(), environ(PAGE, access_control_request_headers=asked))
    assert answer["Access-Control-Allow-Headers"] == "X-One, X-Two"
    assert "Access-Control-Allow-Headers" not in preflight(Cors(), environ(PAGE))
    assert preflight(Cors(), environ(PAGE))["Vary"] == "Access-Control-Request-Headers"


def test_preflight_as_configured() -> None:
    cors = Cors(origins=PAGE, methods=("GET", "POST"), headers=("X-Two",), max_age=600)
    assert preflight(cors, environ(PAGE, access_control_request_headers=ASKED)) == {
        "Content-Length": "0",
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "X-Two",
        "Access-Control-Max-Age": "600",
    }


def test_preflight_may_allow_no_headers_and_no_keeping() -> None:
    answer = preflight(Cors(headers=(), max_age=0), environ(PAGE, access_control_request_headers=ASKED))
    assert answer == {
        "Content-Length": "0",
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Max-Age": "0",
    }


@pytest.mark.parametrize("cors", [None, Cors(origins=PAGE)])
def test_preflight_tells_strangers_nothing(cors: Cors | None) -> None:
    assert preflight(cors, environ(OTHER, access_control_request_headers=ASKED)) == {"Content-Length": "0"}
