"""Limits for one address, and for the hosts that are served: off by default, refused with a message that names the option."""

from __future__ import annotations

from typing import Any

import pytest
from support.clients import open_session
from support.rawwebsocket import Closed, Refused

pytestmark = pytest.mark.ours


def refusal(served: Any, transport: str) -> dict[str, Any]:
    """Try to open a session; what the server says of it in its event."""
    with pytest.raises((AssertionError, Refused, Closed)):
        open_session(served, transport)
    told: dict[str, Any] = served.events.wait("connection_error")
    return told


def test_sessions_of_one_address(serve: Any, transport: str) -> None:
    served = serve(max_sessions_per_address=2)
    first, second = open_session(served, "polling"), open_session(served, "websocket")
    told = refusal(served, transport)
    assert (told["code"], told["context"]["option"]) == (4, "max_sessions_per_address")
    second.say("still here")
    assert second.hear() == "still here"
    first.close()
    served.events.wait("close")
    open_session(served, transport).say("a place was free")


def test_handshakes_of_one_address(serve: Any, transport: str) -> None:
    served = serve(max_handshakes_per_address=3)
    for _ in range(3):
        open_session(served, transport).close()
    told = refusal(served, transport)
    assert (told["code"], told["context"]["option"]) == (4, "max_handshakes_per_address")
    assert served.server.clients_count <= 3


def test_hosts(serve: Any, transport: str) -> None:
    served = serve(allowed_hosts=["example.org"])
    told = refusal(served, transport)
    assert (told["code"], told["context"]["option"]) == (4, "allowed_hosts")
    response = served.connect().get(f"{served.path}?EIO=4&transport=polling", [("Host", "example.org")])
    assert response.status == 200
