"""What the logs say, and what they never say."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any

import pytest
from support.clients import PollingSession, open_session, upgrade

pytestmark = pytest.mark.ours


def test_no_session_id_in_full_at_info_or_above(serve: Any, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG):
        served = serve()
        session = PollingSession(served).open()
        session.say("x")
        session.hear()
        moved = upgrade(session)
        moved.ws.send_frame(3)
        moved.ws.wait_closed()
        served.events.wait("close")
        other = open_session(served)
        other.vanish()
        served.events.wait("close", 2)
        served.connect().get(f"{served.path}?EIO=4&transport=polling&sid={session.sid}")
    ours = [record for record in caplog.records if record.name.startswith("engine")]
    at_info = [record.getMessage() for record in ours if record.levelno >= logging.INFO]
    assert not [text for text in at_info if session.sid in text or other.sid in text]


def test_quiet_by_default(serve: Any, transport: str, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "engine"):
        session = open_session(serve(), transport)
        session.say("x")
        session.hear()
        session.close()
        session.served.events.wait("close")
    assert not [
        record for record in caplog.records if record.name.startswith("engine") and record.levelno > logging.INFO
    ]


SCRIPT = """
import logging
import engineio_wsgi
logging.getLogger("engine").debug("from the root")
logging.getLogger("engine.socket").debug("from the socket")
logging.getLogger("engine.ws").debug("from the ws")
logging.getLogger("other").debug("from another")
logging.getLogger("other").warning("a warning")
"""
SCOPES = {
    None: set(),
    "": set(),
    "engine*": {"root", "socket", "ws"},
    "*": {"root", "socket", "ws"},
    "engine.ws": {"ws"},
    "engine.ws,engine.socket": {"ws", "socket"},
    "engine*,-engine.ws": {"root", "socket"},
    "express*": set(),
}


@pytest.mark.parametrize("scopes", SCOPES)
def test_debug_scopes(scopes: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DEBUG"}
    if scopes is not None:
        environment["DEBUG"] = scopes
    result = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    printed = {word for word in ("root", "socket", "ws") if f"from the {word}" in result.stderr}
    assert printed == SCOPES[scopes]
    assert "from another" not in result.stderr
    assert "\x1b[" not in result.stderr, "coloured on a terminal only"
    assert result.stdout == ""
