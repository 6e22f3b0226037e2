"""The ``Set-Cookie`` header of a session's cookie."""

from __future__ import annotations

from datetime import UTC, datetime
from http.cookies import SimpleCookie
from typing import Any

import pytest

from engineio_wsgi.http.policies.cookies import session_cookie
from engineio_wsgi.options.values import Cookie


def attributes(value: str) -> set[str]:
    """What follows name and value, as a browser reads it: whatever the order."""
    return {attribute.strip() for attribute in value.split(";")[1:]}


def test_by_default() -> None:
    value = session_cookie(Cookie(), "abc_-1")
    assert value.startswith("io=abc_-1;")
    assert attributes(value) == {"Path=/", "HttpOnly", "SameSite=Lax"}


def test_as_configured() -> None:
    cookie = Cookie(
        name="sid", path="/chat", httponly=False, samesite="None", secure=True, max_age=60, domain="chat.example"
    )
    value = session_cookie(cookie, "abc")
    assert value.startswith("sid=abc;")
    wanted = {"Path=/chat", "SameSite=None", "Secure", "Max-Age=60", "Domain=chat.example"}
    # an absolute time for browsers that know no Max-Age may come with it
    assert {attribute for attribute in attributes(value) if not attribute.startswith("Expires=")} == wanted


@pytest.mark.parametrize("zone", [None, UTC])
def test_expiry_partitions_and_priority(zone: Any) -> None:
    cookie = Cookie(expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=zone), partitioned=True, secure=True, priority="High")
    assert attributes(session_cookie(cookie, "abc")) == {
        "Path=/", "HttpOnly", "SameSite=Lax", "Secure", "Expires=Wed, 02 Jan 2030 03:04:05 GMT", "Partitioned", "Priority=High"
    }  # fmt: skip


def test_without_same_site() -> None:
    assert attributes(session_cookie(Cookie(samesite=None), "abc")) == {"Path=/", "HttpOnly"}


@pytest.mark.parametrize("sid", ["a;b", "a\r\nSet-Cookie: x=y", 'a"b', "a,b c", "\u20ac"], ids=ascii)
def test_an_id_of_the_applications_own_adds_nothing_to_the_header(sid: str) -> None:
    value = session_cookie(Cookie(), sid)
    assert value.isascii() and value.isprintable()
    assert attributes(value) == {"Path=/", "HttpOnly", "SameSite=Lax"}
    assert list(SimpleCookie(value)) == ["io"]
