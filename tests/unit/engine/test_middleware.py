"""The middleware: which requests the server gets, and which the application."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engineio_wsgi.engine.middleware import Middleware, not_implemented
from engineio_wsgi.options.options import Options


class FakeServer:
    """Remembers the requests that it gets."""

    def __init__(self) -> None:
        self.options = Options.create()
        self.noted: list[str] = []
        self.wrapped: list[Any] = []
        self._worker: Any = SimpleNamespace(port="80", on_wrapped=self.wrapped.append,
                                            note_listener=lambda environ: self.noted.append(environ["SERVER_PORT"]))

    def handle_request(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Serve one request."""
        return [b"engine"]


def ask(application: Any, path: str, port: str = "80") -> list[bytes]:
    """The body of a response."""
    return list(application({"PATH_INFO": path, "SERVER_PORT": port}, lambda status, headers: None))


@pytest.mark.parametrize(("path", "expected"), [
    ("/engine.io/", b"engine"), ("/engine.io/x", b"engine"), ("/engine.io", b"page"), ("/", b"page"), ("/engine.iox/", b"page"),
])
def test_the_path_decides(path: str, expected: bytes) -> None:
    assert ask(Middleware(lambda environ, start: [b"page"], FakeServer()), path) == [expected]


def test_the_server_knows_what_it_is_wrapped_around() -> None:
    server = FakeServer()
    middleware = Middleware(not_implemented, server)
    assert (server.wrapped, middleware.application, middleware.server) == ([middleware], not_implemented, server)


def test_the_listener_of_a_request_for_the_application_is_noted_once() -> None:
    server = FakeServer()
    middleware = Middleware(lambda environ, start: [b"page"], server)
    ask(middleware, "/", "8080")
    ask(middleware, "/", "80")
    assert server.noted == ["8080"]


def test_a_server_without_an_application_answers_501() -> None:
    answered: list[Any] = []
    body = b"".join(not_implemented({}, lambda *args: answered.extend(args)))
    assert answered[0] == "501 Not Implemented"
    assert dict(answered[1])["Content-Length"] == str(len(body))
