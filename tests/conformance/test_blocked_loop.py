"""The warning of a blocked event loop names the listener that has blocked it, and what to do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from gevent import monkey
from support.clients import open_session

pytestmark = pytest.mark.ours

block = monkey.get_original("time", "sleep")
CURE = "if it waits in the standard library, call gevent.monkey.patch_all() before any other import"


def callback(socket: Any) -> None:
    """Blocks in a listener of messages."""
    def blocking(data: str) -> None:
        block(1.5)
        socket.send(data)

    socket.on("message", blocking)


def straight(socket: Any) -> None:
    """Blocks between two messages."""
    for message in socket:
        block(1.5)
        socket.send(message)


@pytest.mark.parametrize("style", [callback, straight])
def test_who_has_blocked(serve: Any, transport: str, caplog: Any, style: Any) -> None:
    served = serve(app=None)
    served.server.on("connection", style)
    session = open_session(served, transport)
    session.say("x")
    assert session.hear() == "x"
    session.say("y")
    assert session.hear() == "y"
    texts = [record.getMessage() for record in caplog.records if "blocked" in record.getMessage()]
    assert texts
    name = f"{style.__qualname__}.<locals>.blocking" if style is callback else style.__qualname__
    where = rf"{re.escape(name)} \({re.escape(__file__)}:\d+\)"
    assert re.search(rf"was blocked for \d\.\d s by a listener: {where}, and nobody was served", texts[0]), texts
    assert CURE in texts[0]
