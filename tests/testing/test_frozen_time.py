"""An application's tests freeze the time, with freezegun or time-machine: the engine's deadlines and heartbeats go on."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine
from freezegun import freeze_time
from gevent.event import Event
from werkzeug.wrappers import Response

import engineio_wsgi
from engineio_wsgi.testing import Client

pytestmark = pytest.mark.ours
ROOT = Path(__file__).resolve().parents[2]
PAST, FUTURE = "2001-02-03 04:05:06", "2201-02-03 04:05:06"

FREEZERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "freezegun, the past": lambda: freeze_time(PAST),
    "freezegun, the future": lambda: freeze_time(FUTURE),
    "freezegun, ticking": lambda: freeze_time(PAST, tick=True),
    "freezegun, jumping at each look": lambda: freeze_time(PAST, auto_tick_seconds=3600),
    "time-machine, the past": lambda: time_machine.travel(PAST, tick=False),
    "time-machine, ticking in the future": lambda: time_machine.travel(FUTURE),
}


@pytest.fixture(params=FREEZERS)
def frozen(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[Any]]:
    """Freezes the time."""
    return FREEZERS[request.param]


class Application:
    """Echoes, and says when it has heard of a client's life."""

    def __init__(self, ping_timeout: float = 10.0) -> None:
        self.server = engineio_wsgi.Server(ping_interval=0.2, ping_timeout=ping_timeout)
        self.app = self.server.wrap(Response("a page"))
        self.alive = Event()
        self.server.on("connection", self._connected)

    def _connected(self, socket: Any) -> None:
        socket.on("message", lambda data: socket.send(f"{data} {datetime.now().year}"))
        socket.on("heartbeat", self.alive.set)

    def live_on(self) -> None:
        """Return when two more heartbeats have been completed."""
        for _ in range(2):
            self.alive.clear()
            assert self.alive.wait(30)


def test_a_session_lives_on_when_the_time_is_frozen_and_thawed(frozen: Callable[[], Any], transport: str) -> None:
    application = Application()
    with Client(application.app, transport=transport) as client:
        application.live_on()
        with frozen():
            client.send("hello")
            assert client.receive() == f"hello {datetime.now().year}"
            application.live_on()
        application.live_on()
        client.send("hello")
        assert client.receive() == f"hello {datetime.now().year}"


def test_waits_end(frozen: Callable[[], Any]) -> None:
    server = engineio_wsgi.Server()
    with Client(server.wrap(Response("a page"))) as client, frozen():
        assert client.socket.wait_closed(timeout=0.01) is False
        with pytest.raises(TimeoutError):
            client.socket.receive(timeout=0.01)
        client.socket.send("not fetched yet")
        assert client.receive() == "not fetched yet"
        assert client.socket.flush(timeout=30)
        assert client.socket.wait_closed(timeout=0) is False
    server.close(timeout=1)


def test_a_silent_client_is_given_up(frozen: Callable[[], Any]) -> None:
    with frozen(), Client(Application(ping_timeout=0.2).app, heartbeat=False) as client:
        assert client.wait_closed(timeout=30) == "ping timeout"


IN_A_FROZEN_PROCESS = """
import sys
from freezegun import freeze_time
with freeze_time("2001-02-03"):
    import gevent, time
    import engineio_wsgi
    from engineio_wsgi.testing import Client
    server = engineio_wsgi.Server(ping_interval=0.1, ping_timeout=0.1)
    server.on("connection", lambda socket: socket.on("message", socket.send))
    client = Client(server.wrap(lambda environ, start_response: []), heartbeat=False)
    client.send("hello")
    print(time.gmtime().tm_year, client.receive(), client.socket.wait_closed(timeout=0.01), client.wait_closed(timeout=30))
    client.close()
"""


def test_a_package_that_is_imported_while_the_time_is_frozen() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_FROZEN_PROCESS], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.stdout) == ("", "2001 hello False ping timeout\n")


def test_there_is_one_clock() -> None:
    """What a module takes from ``time`` itself is frozen."""
    others = re.compile(r"^ *(from time import .*\b(monotonic|perf_counter)|import time\b)", re.MULTILINE)
    found = [str(path) for path in (ROOT / "engineio_wsgi").rglob("*.py") if others.search(path.read_text())]
    assert found == [str(ROOT / "engineio_wsgi/runtime/clock.py")]
