"""A blocked event loop closes no client whose bytes were there in time; see also `test_heartbeat`."""

from __future__ import annotations

from typing import Any

import gevent.event
import pytest
from support.clients import PollingSession, Session, open_session
from support.lateness import block_loop

pytestmark = [pytest.mark.ours, pytest.mark.alone("the loop that is blocked is this process'")]

#: seconds of a deadline, and of a blocked loop that starts before it and ends after it
TIMEOUT, BLOCKED = 0.1, 0.3


def start_saying(session: Session, text: str) -> None:
    """Send a message without waiting for anything."""
    if isinstance(session, PollingSession):
        session.posting.start("POST", session.target(), [("Content-Type", "text/plain")], b"4" + text.encode())
    else:
        session.say(text)


def test_a_message_for_receive(serve: Any, transport: str) -> None:
    served = serve(app=None)
    session = open_session(served, transport)
    socket = served.socket(session.sid)
    block_loop(BLOCKED, lambda: start_saying(session, "x"))
    assert socket.receive(timeout=TIMEOUT) == "x"


def test_the_end_for_wait_closed(serve: Any) -> None:
    served = serve()
    session = open_session(served, "websocket")
    socket = served.socket(session.sid)
    block_loop(BLOCKED, session.vanish)
    assert socket.wait_closed(timeout=TIMEOUT)


@pytest.mark.parametrize("wait", ["send", "flush"])
def test_room_for_what_is_sent(serve: Any, wait: str) -> None:
    served = serve(app=None, max_buffered=1000)
    session = PollingSession(served).open()
    socket = served.socket(session.sid)
    socket.send("x" * 1000)
    block_loop(BLOCKED, session.start_poll)
    if wait == "send":
        socket.send("y", timeout=TIMEOUT)
    else:
        assert socket.flush(timeout=TIMEOUT)
    assert session.end_poll() == ["4" + "x" * 1000]


def test_the_last_poll_of_a_closing_session(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engineio_wsgi.session.session.CLOSE_TIMEOUT", TIMEOUT)
    served = serve(app=None)
    session = PollingSession(served).open()
    socket = served.socket(session.sid)
    socket.send("last")
    socket.close()
    block_loop(BLOCKED, session.start_poll)
    gevent.sleep(0)
    assert session.end_poll() == ["4last", "1"]
    assert served.events.wait("close")["unsent"] == []


def test_the_last_poll_when_the_server_closes(serve: Any) -> None:
    served = serve(app=None)
    session = PollingSession(served).open()
    served.socket(session.sid).send("last")
    block_loop(BLOCKED, session.start_poll)
    served.server.close(timeout=TIMEOUT)
    assert session.end_poll() == ["4last", "1"]
    assert served.events.wait("close")["unsent"] == []
