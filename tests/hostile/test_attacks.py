"""The attacks of hostile/, briefly: so that the script does not rot, and what it found stays fixed."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.clients import WebSocketSession, open_session
from support.rawwebsocket import frame_bytes

RUN = Path(__file__).parent / "run.py"


def test_the_script() -> None:
    names = ["sid guessing", "garbage"]
    done = subprocess.run([sys.executable, str(RUN), "--seconds", "0.5", *names], capture_output=True,
                          text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "hostile: every bound held"
    assert [line[:18].strip() for line in done.stdout.splitlines()[1:-1]] == names


def test_an_unknown_attack_is_refused() -> None:
    done = subprocess.run([sys.executable, str(RUN), "love"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no attack love" in done.stderr


@pytest.mark.ours
def test_a_flood_of_the_same_misdeed_is_one_line(serve: Any, caplog: Any) -> None:
    served = serve(ping_interval=100.0)
    with caplog.at_level(logging.INFO, "engine"):
        for _ in range(30):
            session = WebSocketSession(served).open()
            session.ws.http.send(frame_bytes(1, b"4\xff"))
            session.ws.wait_closed()
            polling = open_session(served, "polling")
            polling.served.connect().post(polling.target(), b"4" + b"x" * 2_000_000)
        for _ in range(30):
            served.connect().send(b"GET / HTTP/9.9\r\n\r\n")
        served.settle()
    assert len([record for record in caplog.records if record.levelno >= logging.INFO]) <= 4, caplog.text
