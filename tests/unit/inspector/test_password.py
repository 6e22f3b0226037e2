"""Passwords: who is let in, and what a browser is asked."""

from __future__ import annotations

from base64 import b64encode

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.inspector import Password


def request(authorization: str | None) -> Request:
    headers = {} if authorization is None else {"Authorization": authorization}
    return Request(EnvironBuilder(headers=headers).get_environ())


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("user", ["", "tobi", "söm"])
def test_the_password_lets_any_user_in(user: str) -> None:
    assert Password("geheim: ü")(request(basic(user, "geheim: ü")))


@pytest.mark.parametrize("authorization", [
    None, "", "Basic", "Basic !", basic("tobi", ""), basic("tobi", "geheim"), basic("tobi", "geheim: ü "), basic("geheim: ü", ""),
    "Bearer geheim: u", "Digest username=geheim",
])
def test_nothing_else_does(authorization: str | None) -> None:
    assert not Password("geheim: ü")(request(authorization))


@pytest.mark.parametrize("text", ["", None, b"bytes"])
def test_what_is_no_password(text: object) -> None:
    with pytest.raises(ConfigurationError, match="one character at least"):
        Password(text)  # type: ignore[arg-type]


def test_a_password_is_not_shown() -> None:
    assert "geheim" not in repr(Password("geheim"))
