"""Four workers of gunicorn without Redis, sticky sessions or patches: what one worker emits reaches the clients of all."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import ServerProcess

pytestmark = pytest.mark.ours

APPLICATION = '''
import json, os
import socketio
from engineio_wsgi.contrib.socketio import Server

sio = Server(**json.loads(os.environ["OPTIONS"]))

@sio.event
def who(sid):
    return os.getpid()

@sio.event
def join(sid, room):
    sio.enter_room(sid, room)
    return room

@sio.event
def shout(sid, room, data):
    sio.emit("shouted", data, to=room, skip_sid=sid)

@sio.event
def whisper(sid, other, data):
    sio.emit("shouted", data, to=other)

@sio.event
def ask_other(sid, other, data):
    return sio.call("question", data, to=other)

@sio.event
def invite(sid, other, room):
    sio.enter_room(other, room)

@sio.event
def close(sid, room):
    sio.close_room(room)

@sio.event
def kick(sid, other):
    sio.disconnect(other)

app = socketio.WSGIApp(sio)
'''
BYTES = {"bytes": "000102ff"}
OURS = "engineio_wsgi.gunicorn.Worker"
#: by the way in which workers reach each other, or their class: the class, and the option ``cluster``
WORKERS = {OURS: (OURS, None), "gevent": ("gevent", "local:{}"), "gevent_pywsgi": ("gevent_pywsgi", "local:{}"),
           "redis": (OURS, "{redis}?group={}")}
#: clients that are opened at most until two workers have one
ENOUGH = 60


@pytest.fixture(params=WORKERS)
def server(request: Any, tmp_path: Path) -> Iterator[ServerProcess]:
    """Four workers of each class."""
    kind, cluster = WORKERS[request.param]
    redis = request.getfixturevalue("shared_redis").url if request.param == "redis" else ""
    options = {} if cluster is None else {"cluster": cluster.format(f"{os.getpid()}.{tmp_path.name[-30:]}", redis=redis)}
    running = ServerProcess(tmp_path, kind, "-w", "4", options=options, application=APPLICATION)
    yield running
    running.stop()


class Clients:
    """Official clients in one process, each connection of which may reach any worker."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.ids: dict[str, str] = {}
        self.pids: dict[str, int] = {}

    def open(self) -> str:
        """One more client; returns its key."""
        key = f"client {len(self.ids)}"
        self.driver.tell("open", nsp="/", key=key)
        self.ids[key] = self.of("connect", key)["id"]
        self.pids[key] = self.ask(key, "who")[0]
        return key

    def open_on_two_workers(self) -> tuple[str, str, str]:
        """Two clients of one worker, and one of another."""
        for _ in range(ENOUGH):
            here = self.open()
            mates = [key for key in self.ids if self.pids[key] == self.pids[here] and key != here]
            others = [key for key in self.ids if self.pids[key] != self.pids[here]]
            if mates and others:
                return here, mates[0], others[0]
        raise AssertionError(f"after {ENOUGH} clients, no two workers have one: {self.pids}")

    def ask(self, key: str, *args: Any) -> list[Any]:
        """Emit an event; returns its acknowledgement."""
        before = len([each for each in self.driver.events.of("ack") if each["key"] == key])
        self.driver.tell("ask", key=key, args=list(args))
        answer: list[Any] = self.of("ack", key, before + 1)["args"]
        return answer

    def of(self, event: str, key: str, count: int = 1) -> dict[str, Any]:
        """The event number ``count`` of a client."""
        number = 0
        while True:
            found = [each for each in self.driver.events.of(event) if each["key"] == key]
            if len(found) >= count:
                return dict(found[count - 1])
            number = len(self.driver.events.of(event)) + 1
            self.driver.events.wait(event, number)


@pytest.fixture
def clients(server: ServerProcess, drive: Callable[..., Any]) -> Clients:
    """Those of the four workers."""
    url = "http://{}:{}".format(*server.served.address)
    return Clients(drive("socket.io-client", url, json.dumps({"transports": ["polling", "websocket"]})))


def test_rooms_reach_all_workers(clients: Clients) -> None:
    here, mate, other = clients.open_on_two_workers()
    for key in (here, mate, other):
        assert clients.ask(key, "join", "room") == ["room"]
    clients.driver.tell("emit", key=here, args=["shout", "room", {"text": "hello"}])
    assert clients.of("shouted", other)["args"] == [{"text": "hello"}]
    assert clients.of("shouted", mate)["args"] == [{"text": "hello"}]
    clients.driver.tell("emit", key=other, args=["shout", "room", BYTES])
    assert clients.of("shouted", here)["args"] == [BYTES]
    assert clients.of("shouted", mate, 2)["args"] == [BYTES]
    # to one client, whichever worker it has
    clients.driver.tell("emit", key=here, args=["whisper", clients.ids[other], "psst"])
    assert clients.of("shouted", other, 2)["args"] == ["psst"]
    # a client of another worker enters a room, and leaves it when it is closed
    clients.driver.tell("emit", key=here, args=["invite", clients.ids[other], "second"])
    clients.driver.tell("emit", key=here, args=["shout", "second", 1])
    assert clients.of("shouted", other, 3)["args"] == [1]
    clients.driver.tell("emit", key=here, args=["close", "second"])
    clients.driver.tell("emit", key=here, args=["shout", "second", 2])
    clients.driver.tell("emit", key=here, args=["whisper", clients.ids[other], 3])
    assert clients.of("shouted", other, 4)["args"] == [3]


def test_acknowledgements_and_disconnections_cross_workers(clients: Clients) -> None:
    here, mate, other = clients.open_on_two_workers()
    assert clients.ask(here, "ask_other", clients.ids[other], {"n": 1}) == [{"n": 1}]
    assert clients.ask(here, "ask_other", clients.ids[mate], BYTES) == [BYTES]
    clients.driver.tell("emit", key=here, args=["kick", clients.ids[other]])
    assert clients.of("disconnect", other)["reason"] == "io server disconnect"


def test_the_end_of_a_worker_is_no_concern_of_others(server: ServerProcess, clients: Clients) -> None:
    here, mate, other = clients.open_on_two_workers()
    for key in (here, mate):
        clients.ask(key, "join", "room")
    os.kill(clients.pids[other], signal.SIGKILL)
    clients.of("disconnect", other)
    clients.driver.tell("emit", key=here, args=["shout", "room", "still here"])
    assert clients.of("shouted", mate)["args"] == ["still here"]
    lost = {key for key, pid in clients.pids.items() if pid == clients.pids[other]}
    assert {each["key"] for each in clients.driver.events.of("disconnect")} <= lost
