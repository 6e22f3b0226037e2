"""``message_queue=``: python-socketio's managers over Redis work as before, and reach clients from anywhere."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import socketio
from support.deployment import Program, free_port, is_reachable
from support.processes import ServerProcess

pytestmark = pytest.mark.ours

APPLICATION = '''
from gevent import monkey
monkey.patch_all()
import os
import flask, socketio
from engineio_wsgi.contrib.socketio import SocketIO

app = flask.Flask(__name__)
sio = SocketIO(app, message_queue=os.environ["QUEUE"], channel="test")

@sio.on("join")
def join(room):
    sio.server.enter_room(flask.request.sid, room)
    return [isinstance(sio.server.manager, socketio.RedisManager), room]

@sio.on("shout")
def shout(room, data):
    sio.emit("shouted", data, to=room)
'''


@pytest.fixture
def sites(shared_redis: Any, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Two servers with the same queue, which know nothing of each other."""
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(ServerProcess(tmp_path / name, "engineio_wsgi.gunicorn.Worker", application=APPLICATION,
                                  environment={"QUEUE": shared_redis.url}))
    yield made
    for each in made:
        each.stop()


def test_what_is_emitted_reaches_the_clients_of_all(sites: Any, drive: Any, shared_redis: Any) -> None:
    drivers = []
    for site in sites:
        url = "http://{}:{}".format(*site.served.address)
        drivers.append(drive("socket.io-client", url, json.dumps({"transports": ["polling", "websocket"]})))
        drivers[-1].tell("open", nsp="/")
        drivers[-1].events.wait("connect")
        drivers[-1].tell("ask", args=["join", "room"])
        assert drivers[-1].events.wait("ack")["args"] == [[True, "room"]]
    # the servers subscribe a moment after their first client has connected
    sites[0].until(lambda: shared_redis.ask("PUBSUB", "NUMSUB", "test")[1] == len(sites))
    drivers[0].tell("emit", args=["shout", "room", {"n": 1}])
    for driver in drivers:
        assert driver.events.wait("shouted")["args"] == [{"n": 1}]
    writer = socketio.RedisManager(shared_redis.url, channel="test", write_only=True)
    writer.emit("shouted", b"\x00\xff", room="room")
    for driver in drivers:
        assert driver.events.wait("shouted", 2)["args"] == [{"bytes": "00ff"}]
    writer.redis.close()


UNPATCHED = """
import sys
from flask import Flask
from engineio_wsgi.contrib.socketio import SocketIO
app = Flask(__name__)
socketio = SocketIO(app, message_queue=sys.argv[2])
socketio.run(app, port=int(sys.argv[1]))
"""


def test_a_process_without_gevents_patches_says_so(shared_redis: Any, tmp_path: Path) -> None:
    """It cannot serve: python-socketio's manager waits for Redis in the thread of the event loop."""
    (tmp_path / "app.py").write_text(UNPATCHED)
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [sys.executable, "app.py", str(port), shared_redis.url]
    program = Program(tmp_path, command, lambda: is_reachable(address), cwd=tmp_path)
    try:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(f"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
            program.until(lambda: "message_queue:" in program.output.read_text(), program.output.read_text)
        (line,) = [line for line in program.output.read_text().splitlines() if "message_queue:" in line]
        assert "RedisManager" in line
        assert "call gevent.monkey.patch_all() before any other import" in line
    finally:
        program.stop()
