"""A reload of one machine of several: sessions of a cluster over Redis do not move, and are closed with a reason."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from support.clients import PollingSession, WebSocketSession
from support.processes import ServerProcess
from support.rawwebsocket import Closed
from support.redis import RedisServer
from support.workers import Nomad

OURS = "engineio_wsgi.gunicorn.Worker"

APPLICATION = '''
import logging, os
import engineio_wsgi
from engineio_wsgi.cluster import router
from engineio_wsgi.cluster.local.names import AbstractNames
from werkzeug.wrappers import Response

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
# no worker finds the sockets of the others, as on another machine
router.choose_names = lambda group: AbstractNames(f"{group} of {os.getpid()}")
server = engineio_wsgi.Server(handover=True, cluster=os.environ["CLUSTER"])

@server.on("connection")
@server.on("resume")
def listen(socket):
    socket.on("message", lambda data: socket.send(f"{os.getpid()} {data}"))
    socket.on("close", lambda reason, _: os.write(1, f"closed: {reason}\\n".encode()))

app = server.wrap(Response("a page"))
'''


@pytest.fixture
def start(tmp_path: Path, shared_redis: RedisServer) -> Iterator[Callable[[], ServerProcess]]:
    """A factory of machines."""
    running: list[ServerProcess] = []
    environment = {"CLUSTER": f"{shared_redis.url}?group={uuid4()}"}

    def start_server() -> ServerProcess:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(ServerProcess(folder, OURS, "-w", "1", application=APPLICATION, environment=environment,
                                     has_access_log=False))
        return running[-1]

    yield start_server
    for server in running:
        server.stop()


def test_sessions_whose_clients_come_through_another_machine_are_closed_in_their_turn(start: Callable[[], ServerProcess]) -> None:
    reloaded, other = start(), start()
    at_other = WebSocketSession(other.served).open()
    at_other.say("a")
    elsewhere = str(at_other.hear())
    polling, upgraded = Nomad(reloaded.served).open(), Nomad(reloaded.served).open()
    direct = WebSocketSession(reloaded.served).open()
    polling.served = upgraded.served = other.served
    websocket = upgraded.upgrade()
    websocket.send("5")
    websocket.send("4a")
    own = str(websocket.recv())[1:]
    while not own:
        own = str(websocket.recv())[1:]
    for session in (polling, direct):
        session.say("a")
        assert session.hear() == own != elsewhere
    polling.start_poll()

    reloaded.signal(signal.SIGHUP)

    assert websocket.wait_closed().reason == "server shutting down"
    with pytest.raises(Closed, match="server shutting down"):
        direct.hear()
    assert polling.end_poll() == ["1"]
    reloaded.wait_for("Worker exiting")
    assert reloaded.logs().count("closed: server shutting down") == 3
    assert reloaded.logs().count("3 sessions do not move, and will be closed: the workers are in no local cluster") == 1
    # new sessions are opened in the new worker, and the other machine has noticed nothing
    late = PollingSession(reloaded.served).open()
    late.say("a")
    assert late.hear() not in (own, elsewhere)
    at_other.say("a")
    assert at_other.hear() == elsewhere
    assert "closed:" not in other.logs()
