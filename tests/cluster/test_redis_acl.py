"""Redis users with few rights: those that the manual lists suffice, and the error names a missing one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from support.clients import WebSocketSession
from support.processes import ROOT
from support.redis import PATIENCE, RedisServer, free_port
from support.workers import Workers

from engineio_wsgi import ConfigurationError, Emitter, Server

MANUAL = (ROOT / "docs" / "guides" / "several-workers.rst").read_text()
#: what the manual gives its user, and what of it is a right
LINE = re.findall(r"^    ACL SETUSER engineio on >password (.*)$", MANUAL, re.MULTILINE)[0].split()
RIGHTS = [word for word in LINE if word[0] in "+&"]
Start = Callable[..., Workers]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis whose users are those of this module."""
    redis = RedisServer(tmp_path_factory.mktemp("acl"))
    yield redis
    redis.kill()


def url_of(server: RedisServer, *rights: str) -> str:
    """The URL for a user who has these rights and no others."""
    server.ask("ACL", "SETUSER", "worker", "reset", "on", ">sesame", *rights)
    return f"redis://worker:sesame@127.0.0.1:{server.port}/0"


def test_the_rights_in_the_manual_suffice(server: RedisServer, start: Start) -> None:
    server.ask("ACL", "LOG", "RESET")
    url = url_of(server, *LINE)
    group = start(2, cluster=url, apart=True)
    sessions = [WebSocketSession(worker).open() for worker in group.workers]
    assert group.workers[0].call("count") == 2
    assert sorted(group.workers[0].call("workers")) == sorted(session.sid[:4] for session in sessions)
    assert group.workers[0].call("send", sessions[1].sid, "across") is True
    assert sessions[1].hear() == "across"
    emitter = Emitter(url)
    assert (emitter.count(), len(emitter.workers()), emitter.broadcast("to all")) == (2, 2, 2)
    assert [session.hear() for session in sessions] == ["to all", "to all"]
    # nothing else has been tried, but for what redis-py tells of itself
    denied = {entry[entry.index("object") + 1] for entry in server.ask("ACL", "LOG")}
    assert denied <= {"client|setinfo"}
    assert not group.complaints()


@pytest.mark.parametrize("right", RIGHTS)
def test_a_right_that_is_missing_is_named(server: RedisServer, right: str) -> None:
    url = url_of(server, *[each for each in RIGHTS if each != right])
    with pytest.raises(ConfigurationError) as caught:
        Server(cluster=url)._worker.join_cluster()
    text = str(caught.value)
    assert f"add {right} to the user's ACL" in text
    assert text.startswith(f"cluster: redis://127.0.0.1:{server.port}/0: ")
    assert "PONG" not in text
    assert "sesame" not in text
    assert "\n" not in text


@pytest.mark.parametrize("right", [right for right in RIGHTS if right != "+ping"])
def test_a_right_that_an_emitter_lacks_is_named(server: RedisServer, right: str) -> None:
    emitter = Emitter(url_of(server, *[each for each in RIGHTS if each != right]))
    with pytest.raises(ConnectionError, match=re.escape(f"add {right} to the user's ACL")):
        emitter.broadcast("hello")


def test_the_rights_for_a_redis_cluster_suffice(tmp_path: Path, start: Start) -> None:
    words = re.search(r"In a Redis Cluster, the user needs ``([^`]*)`` instead of\s``([^`]*)``", MANUAL)
    assert words is not None
    rights = [*(right for right in LINE if right not in words[2].split()), *words[1].split()]
    node = RedisServer(tmp_path / "node", "cluster-enabled yes", f"cluster-port {free_port()}")
    try:
        node.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        with gevent.Timeout(PATIENCE):
            while "cluster_state:ok" not in node.ask("CLUSTER", "INFO"):
                gevent.sleep(0.02)
        for right in words[1].split():
            url = url_of(node, *[each for each in rights if each != right]).replace("redis://", "redis+cluster://")
            with pytest.raises(ConfigurationError, match=re.escape(f"add {right} to the user's ACL")):
                Server(cluster=url)._worker.join_cluster()
        url = url_of(node, *rights).replace("redis://", "redis+cluster://")
        group = start(2, cluster=url, apart=True)
        session = WebSocketSession(group.workers[1]).open()
        assert group.workers[0].call("send", session.sid, "across") is True
        assert session.hear() == "across"
        assert Emitter(url).count() == 1
    finally:
        node.kill()
