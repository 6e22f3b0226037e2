"""The hooks of `Server` that an integration of a framework overrides, with no framework at all."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from werkzeug.wrappers import Request

from engineio_wsgi import Forbidden, Server, Socket
from engineio_wsgi.engine.hooks import ADDED_HEADERS
from engineio_wsgi.session.events import Listener, StandIn
from engineio_wsgi.testing import Client, Refused


class OurRequest(Request):
    """The framework's request."""


class OurSocket(Socket):
    """The framework's session."""

    __slots__ = ()


class OurListener(StandIn):
    """Notes each call."""

    calls: ClassVar[list[str]] = []

    def __call__(self, *args: Any) -> Any:
        self.calls.append(getattr(self.listener, "__name__", "?"))
        return self.listener(*args)


class OurServer(Server):
    """The framework's server."""

    _socket_class = OurSocket

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.log: list[str] = []

    def _stand_in(self, listener: Listener) -> Listener:
        return OurListener(listener)

    def _request_of(self, environ: dict[str, Any]) -> Request:
        return OurRequest(environ)

    def _admit(self, environ: dict[str, Any]) -> str:
        self.log.append("admit")
        environ[ADDED_HEADERS] = [("X-Site", "ours")]
        if "banned" in environ["QUERY_STRING"]:
            raise Forbidden("Forbidden: banned")
        return super()._admit(environ)

    def _on_start(self) -> None:
        self.log.append("start")


def page(environ: Any, start_response: Any) -> list[bytes]:
    """What the server is wrapped around."""
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_each_hook_is_called(transport: str) -> None:
    asked: list[Any] = []
    server = OurServer(allow_request=lambda request: asked.append(request) or True)
    seen: list[Any] = []
    OurListener.calls.clear()

    @server.on("connection")
    def connected(socket: Socket) -> None:
        seen.append(socket)

    @server.on("initial_headers")
    def initial_headers(headers: Any, request: Any) -> None:
        seen.append((headers["X-Site"], type(request)))

    with Client(server.wrap(page), transport=transport):
        assert server.log == ["start", "admit"]
        assert [type(request) for request in asked] == [OurRequest]
        assert ("ours", OurRequest) in seen
        assert OurSocket in map(type, seen)
        assert sorted(OurListener.calls) == ["connected", "initial_headers"]
        assert server.listeners("connection") == [connected]


def test_a_refusal_of_the_hook() -> None:
    server = OurServer()
    refused: list[Any] = []
    server.on("connection_error", refused.append)
    with pytest.raises(Refused, match="banned"):
        Client(server.wrap(page), query={"banned": "yes"})
    assert [(error.code, type(error.request)) for error in refused] == [(4, OurRequest)]
    assert not server.clients
