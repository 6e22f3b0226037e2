"""Checks that the requests of the conformance suite in a cluster do reach another worker than their session's."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.clients import PollingSession, WebSocketSession
from support.crossing import CrossingServer
from support.outposts import KINDS, Outposts
from support.redis import RedisServer


@pytest.mark.parametrize("kind", KINDS)
def test_workers_of_one_machine(tmp_path: Path, kind: str) -> None:
    check(Outposts(tmp_path, kind), f"local:{tmp_path.name}")


def test_machines(tmp_path: Path, shared_redis: RedisServer) -> None:
    check(Outposts(tmp_path, "plain", apart=True), shared_redis.url)


def check(outposts: Outposts, cluster: str) -> None:
    """A session that is served by its worker, although each of its requests has come to another."""
    server = CrossingServer("echo", outposts, cluster=cluster)
    session = PollingSession(server.served).open()
    assert outposts.crossed() == 0
    for number in range(4):
        session.getting, session.posting = server.served.connect(), server.served.connect()
        session.say(str(number))
        assert session.hear() == str(number)
    websocket = WebSocketSession(server.served, sid=session.sid)
    websocket.send("2probe")
    assert websocket.recv() == "3probe"
    server.served.settle()
    assert outposts.crossed() == 9
    websocket.ws.close()
    server.stop()
    outposts.stop()
