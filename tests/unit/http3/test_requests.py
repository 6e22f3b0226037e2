"""http3/requests.py: the request for a session as an environ."""

from __future__ import annotations

from wsgiref.validate import check_environ

import pytest

from engineio_wsgi.http3.offer import SessionOffer, offer_in
from engineio_wsgi.http3.requests import environ_of, is_session_request

REQUEST = [(b":method", b"CONNECT"), (b":scheme", b"https"), (b":authority", b"example.com:8443"),
           (b":path", b"/engine.io/%C3%A9?a=b&c=%C3%A9"), (b":protocol", b"webtransport")]  # fmt: skip


def environ(*headers: tuple[bytes, bytes]) -> dict[str, object]:
    """The environ of a request with more headers."""
    return environ_of([*REQUEST, *headers], SessionOffer(), ("192.0.2.1", 4433), ("127.0.0.1", 8443))


def test_the_environ() -> None:
    made = environ((b"origin", b"https://example.com"), (b"user-agent", b"test"))
    expected = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/engine.io/\xc3\xa9", "QUERY_STRING": "a=b&c=%C3%A9", "SERVER_PROTOCOL": "HTTP/3",
        "HTTP_HOST": "example.com:8443", "HTTP_ORIGIN": "https://example.com", "HTTP_USER_AGENT": "test",
        "REMOTE_ADDR": "192.0.2.1", "SERVER_PORT": "8443", "wsgi.url_scheme": "https",
    }  # fmt: skip
    assert {key: made[key] for key in expected} == expected
    assert offer_in(made) is not None
    check_environ({**made, "wsgi.input": _Input()})


class _Input:
    """What the check of the standard library wants to see."""

    def read(self) -> None: ...
    def readline(self) -> None: ...
    def readlines(self) -> None: ...
    def __iter__(self) -> None: ...


def test_headers_that_come_twice() -> None:
    made = environ((b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"accept", b"x"), (b"accept", b"y"), (b"content-type", b"z"))
    assert (made["HTTP_COOKIE"], made["HTTP_ACCEPT"], made["CONTENT_TYPE"]) == ("a=b; c=d", "x,y", "z")


def test_headers_that_could_pass_for_others() -> None:
    made = environ((b"x_forwarded_for", b"evil"), (b"host", b"evil"))
    assert "HTTP_X_FORWARDED_FOR" not in made
    assert made["HTTP_HOST"] == "example.com:8443"


@pytest.mark.parametrize("wrong", [
    {b":method": b"GET"}, {b":protocol": b"websocket"}, {b":scheme": b"http"}, {b":protocol": None},
], ids=str)  # fmt: skip
def test_other_requests(wrong: dict[bytes, bytes | None]) -> None:
    assert is_session_request(REQUEST)
    fields = {**dict(REQUEST), **wrong}
    assert not is_session_request([(name, value) for name, value in fields.items() if value is not None])


def test_no_offer_in_another_request() -> None:
    assert offer_in({}) is None
