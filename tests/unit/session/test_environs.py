"""What sockets keep of the environs of their handshakes."""

from __future__ import annotations

from typing import Any

from support.fakesession import CONNECTIONS, ENVIRON

from engineio_wsgi.session.environs import keep_environ


class Keeper:
    """Keeps an environ."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = keep_environ(environ, self)

    @property
    def kept(self) -> dict[str, Any]:
        """What it keeps."""
        return self._environ


def copied(text: str) -> str:
    """An equal text that is another object."""
    return text.encode().decode()


def test_what_belongs_to_the_request_is_not_kept() -> None:
    environ = {**ENVIRON, **dict.fromkeys(CONNECTIONS, object())}
    before = dict(environ)
    assert Keeper(environ).kept == ENVIRON
    assert environ == before


def test_equal_texts_are_shared_with_the_keeper_before() -> None:
    first = Keeper({"HTTP_ACCEPT": copied("text/html"), "HTTP_COOKIE": "a=1", "HTTP_HOST": copied("example.com")})
    second = Keeper({"HTTP_ACCEPT": copied("text/html"), "HTTP_COOKIE": "a=2", "HTTP_ORIGIN": copied("example.com")})
    assert second.kept == {"HTTP_ACCEPT": "text/html", "HTTP_COOKIE": "a=2", "HTTP_ORIGIN": "example.com"}
    assert second.kept["HTTP_ACCEPT"] is first.kept["HTTP_ACCEPT"]
    assert second.kept["HTTP_ORIGIN"] is not first.kept["HTTP_HOST"]


def test_only_texts_are_shared() -> None:
    class Text(str):
        __slots__ = ()

    own = Text("x")
    assert Keeper({"a": "x", "b": 1}).kept == {"a": "x", "b": 1}
    second = Keeper({"a": own, "b": True}).kept
    assert second["a"] is own
    assert second["b"] is True


def test_nothing_is_kept_longer_than_its_keeper() -> None:
    first = Keeper({"HTTP_COOKIE": copied("secret")})
    text = first.kept["HTTP_COOKIE"]
    del first
    assert Keeper({"HTTP_COOKIE": copied("secret")}).kept["HTTP_COOKIE"] is not text
