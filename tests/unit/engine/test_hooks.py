"""The hooks of a server as the engine calls them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from support.fakehooks import ENVIRON, fake_hooks, serving_registry

from engineio_wsgi.engine.engine import Engine
from engineio_wsgi.engine.hooks import ADDED_HEADERS
from engineio_wsgi.errors import Forbidden


def ask(**hooks: Any) -> tuple[str, dict[str, str]]:
    """The status and the headers of the response to a handshake."""
    head: list[Any] = []
    with serving_registry() as registry:
        environ = {**ENVIRON, "engineio.websockets": True}
        Engine(registry, fake_hooks(**hooks)).handle_request(environ, lambda *said: head.extend(said))
    return head[0], dict(head[1])


@pytest.mark.parametrize(("error", "status"), [(None, "200 OK"), (Forbidden(), "403 Forbidden")])
def test_the_headers_that_a_hook_adds_are_in_the_response(error: Exception | None, status: str) -> None:
    def admit(environ: dict[str, Any]) -> str:
        environ[ADDED_HEADERS] = [("X-Site", "ours")]
        if error is not None:
            raise error
        return "abcd1"

    answered, headers = ask(admit=admit)
    assert (answered, headers["X-Site"]) == (status, "ours")


def test_the_hooks_of_a_server_stay_the_same() -> None:
    hooks: Any = fake_hooks()
    with pytest.raises(FrozenInstanceError):
        hooks.admit = lambda environ: "another"
