"""Workers of several machines, over a real Redis: a request finds its session, on whichever machine it arrives."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
import redis as real_redis
from support.clients import PollingSession
from support.rawhttp import ConnectionEnded
from support.rawwebsocket import Closed, Refused
from support.redis import RedisServer, free_port
from support.workers import ROOT, Nomad, Worker, Workers, settled

from engineio_wsgi import Emitter
from engineio_wsgi.cluster.messages import VERSION, Kind, Message
from engineio_wsgi.cluster.redis.envelope import Envelope

Start = Callable[..., Workers]


@pytest.fixture
def start(start: Start) -> Start:
    """A factory of groups of workers, each on a machine of its own."""

    def begin(server: RedisServer, number: int = 2, **options: Any) -> Workers:
        return start(number, **{"cluster": server.url, "apart": True, **options})

    return begin


@pytest.fixture
def pair(start: Start, shared_redis: RedisServer) -> tuple[Workers, Worker, Worker]:
    """Two workers on two machines."""
    group = start(shared_redis)
    return group, *group.workers


def test_every_request_on_a_connection_of_its_own(start: Start, shared_redis: RedisServer) -> None:
    group = start(shared_redis, 3)

    def talk(name: int) -> None:
        session = Nomad(group.shared).open()
        for number in range(10):
            session.say(f"{name} {number}")
            assert session.hear() == f"{name} {number}"
        websocket = session.upgrade()
        session.say("last post")
        assert session.recv() in ("6", "4last post")
        websocket.send("5")
        websocket.send("4by websocket")
        while websocket.recv() != "4by websocket":
            pass
        websocket.close()
        websocket.wait_closed()

    gevent.joinall([gevent.spawn(talk, name) for name in range(20)], raise_error=True)
    assert group.total("relayed") > 100
    assert group.total("failed") == 0
    group.wait_for_log("closed: transport close", 20)
    assert not group.complaints()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 900_000])
def test_bodies_of_every_size(pair: tuple[Workers, Worker, Worker], size: int) -> None:
    _, owner, other = pair
    session = PollingSession(owner).open()
    session.served = other
    session.getting, session.posting = other.connect(), other.connect()
    text = "ü" * (size // 2) + "x" * (size % 2)
    session.say(text)
    assert session.hear() == text
    assert other.ask()["counters"]["relayed"] == 2


def test_websocket_over_another_machine(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    session = Nomad(owner).open()
    session.served = other
    websocket = session.upgrade()
    websocket.send("5")
    for text in ("", "x", "ü" * 50_000, "y" * 900_000):
        websocket.send("4" + text)
        assert websocket.recv() == "4" + text
    websocket.send("4push 5000")
    assert [websocket.recv() for _ in range(5000)] == [f"4{number}" for number in range(5000)]
    websocket.send("4who")
    port = websocket.http.sock.getsockname()[1]
    assert str(owner.pid) in websocket.recv() and port
    websocket.close()
    websocket.wait_closed()
    group.wait_for_log("closed: transport close")
    assert owner.ask()["clients"] == 0
    assert not group.complaints()


def test_a_websocket_that_does_not_read_stops_its_session(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    session = Nomad(owner).open()
    session.served = other
    websocket = session.upgrade()
    websocket.send("5")
    websocket.send("4push 200000")
    before = _resident(other.pid)
    settled(lambda: owner.ask()["clients"] == 1)
    assert _resident(other.pid) - before < 10_000, "what nobody reads stays with the session"
    assert [websocket.recv() for _ in range(200_000)] == [f"4{number}" for number in range(200_000)]


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_websockets_are_not_relayed_if_an_option_says_so(start: Start, shared_redis: RedisServer) -> None:
    group = start(shared_redis, cluster=shared_redis.url + "?relay_websockets=no")
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    with pytest.raises(Refused) as refused:
        session.upgrade()
    assert refused.value.response.json()["code"] == 1
    session.say("by polling")
    assert session.hear() == "by polling"
    group.wait_for_log("relay_websockets=no")


def test_workers_of_one_machine_hand_their_connections_over(start: Start, shared_redis: RedisServer) -> None:
    group = start(shared_redis, apart=False)
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    session.say("x")
    assert session.hear() == "x"
    assert other.ask()["counters"]["handed_over"] == 2


def test_client_that_leaves_a_poll(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    session = Nomad(owner).open()
    session.served = other
    session.start_poll()
    settled(lambda: owner.ask()["counters"]["answered"] == 1)
    session.getting.close()
    group.wait_for_log("closed: transport close")
    assert owner.ask()["clients"] == 0


def test_client_that_leaves_after_its_last_message(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    session = Nomad(owner).open()
    body = b"4said in full"
    for _ in range(10):
        connection = other.connect()
        connection.send(connection.head("POST", session.target(), [("Content-Length", str(len(body)))]) + body)
        connection.close()
    assert session.hear_many(10) == ["said in full"] * 10


def test_worker_that_dies_during_a_poll(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    session, neighbour = Nomad(owner).open(), Nomad(owner).open()
    session.served = other
    session.start_poll()
    settled(lambda: owner.ask()["counters"]["answered"] == 1)
    os.kill(other.pid, signal.SIGKILL)
    neighbour.say("fine")
    assert neighbour.hear() == "fine"
    # the next answer finds nobody, as with a client that has left
    session.served = owner
    session.post("4x")
    assert owner.ask()["clients"] >= 1
    assert not group.complaints()


def test_dead_owner(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    session, upgraded, neighbour = Nomad(owner).open(), Nomad(owner).open(), Nomad(other).open()
    session.served = upgraded.served = other
    websocket = upgraded.upgrade()
    session.start_poll()
    settled(lambda: owner.ask()["counters"]["answered"] == 1)
    # it counts as one that may only not have come back yet, for as long as Redis has not been there for long
    gevent.sleep(3)
    os.kill(owner.pid, signal.SIGKILL)
    session.posting = other.connect()
    assert PollingSession.post(session, "4x").json() == {"code": 1, "message": "Session ID unknown"}
    assert session.getting.response().json()["code"] == 1
    with pytest.raises((Closed, ConnectionError)):
        websocket.recv()
    group.wait_for_log('"name": "OWNER_GONE"', 2)
    neighbour.say("fine")
    assert neighbour.hear() == "fine"


def test_owner_that_does_not_answer(start: Start, shared_redis: RedisServer) -> None:
    group = start(shared_redis, patience=3)
    owner, other = group.workers
    session, neighbour = Nomad(owner).open(), Nomad(other).open()
    session.served = other
    os.kill(owner.pid, signal.SIGSTOP)
    posting = gevent.spawn(session.post, "4too late")
    gevent.sleep(0)
    neighbour.say("fine")
    assert neighbour.hear() == "fine"
    assert not posting.ready()
    assert posting.get().json()["code"] == 1
    os.kill(owner.pid, signal.SIGCONT)
    # what was answered with an error does not take effect afterwards
    session.say("in time")
    assert session.hear() == "in time"


def talking(owner: Worker, other: Worker, said: int) -> list[gevent.Greenlet]:
    """Clients at the other machine: one says so many numbers by polling, one ten times as many by WebSocket; all come back."""
    session, upgraded = Nomad(owner).open(), Nomad(owner).open()
    session.served = upgraded.served = other
    websocket = upgraded.upgrade()
    websocket.send("5")

    def talk() -> None:
        for number in range(said):
            session.say(str(number))
            assert session.hear() == str(number)

    def talk_by_websocket() -> None:
        for number in range(10 * said):
            websocket.send(f"4{number}")
        assert [websocket.recv() for _ in range(10 * said)] == [f"4{number}" for number in range(10 * said)]

    return [gevent.spawn(talk), gevent.spawn(talk_by_websocket)]


def test_redis_goes_away_and_comes_back(start: Start, redis: RedisServer) -> None:
    group = start(redis)
    owner, other = group.workers
    neighbour = Nomad(owner).open()
    clients = talking(owner, other, 400)
    for _ in range(2):
        gevent.sleep(0.1)
        assert not clients[0].ready()
        redis.kill()
        # sessions of one's own worker never notice
        neighbour.say("here")
        assert neighbour.hear() == "here"
        gevent.sleep(0.5)
        redis.start()
    gevent.joinall(clients, raise_error=True)
    assert group.total("failed") == 0


def test_redis_that_stays_away(start: Start, redis: RedisServer) -> None:
    group = start(redis, patience=3)
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    session.say("x")
    assert session.hear() == "x"
    redis.kill()
    group.wait_for_log("Redis is disconnected", 2)
    assert session.post("4too late").json()["code"] == 1
    redis.start()
    group.wait_for_log("Redis is connected again", 2)
    session.say("in time")
    assert session.hear() == "in time"


def test_redis_that_does_not_answer(start: Start, redis: RedisServer) -> None:
    """Its connections stay, and nothing comes of them."""
    group = start(redis)
    owner, other = group.workers
    session, neighbour = Nomad(owner).open(), Nomad(other).open()
    session.served = other
    assert other.ask()["connected"] is True
    redis.pause()
    posting = gevent.spawn(session.post, "4too late")
    group.wait_for_log("lost: it has not answered for 5 s", 2)
    assert other.ask()["connected"] is False
    assert posting.get().json()["code"] == 1
    neighbour.say("here")
    assert neighbour.hear() == "here"
    redis.resume()
    group.wait_for_log("back after", 2)
    assert other.ask()["connected"] is True
    session.say("in time")
    assert session.hear() == "in time"


def test_a_connection_to_redis_that_ends_again_and_again(start: Start, redis: RedisServer) -> None:
    """As when too much waits for who listens; what is said goes on to be taken."""
    group = start(redis)
    clients = talking(*group.workers, 100)
    for _ in range(5):
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        gevent.sleep(0.2)
    gevent.joinall(clients, raise_error=True)
    assert group.total("failed") == 0
    group.wait_for_log("back after", 2)


@pytest.mark.parametrize("number", [0, 1], ids=["the session's worker", "the other"])
def test_a_connection_to_redis_that_ends_in_one_worker(start: Start, redis: RedisServer, number: int) -> None:
    """The other one sees nobody listen, and forgets nothing: each request takes effect once, and WebSockets stay."""
    group = start(redis)
    owner, other = group.workers
    owner.ask()
    PollingSession(owner).open()
    PollingSession(other).open()
    listener = re.findall(r"^id=(\d+)", redis.ask("CLIENT", "LIST", "TYPE", "PUBSUB"), re.MULTILINE)[number]
    # for as long as Redis itself has just come back, nobody is given up anyway
    gevent.sleep(3.2)
    session, upgraded = Nomad(owner).open(), Nomad(owner).open()
    session.served = upgraded.served = other
    websocket = upgraded.upgrade()
    websocket.send("5")
    accepted, refused, heard = [], [], []
    talking = gevent.spawn(websocket.send, "4push 2000")
    for turn in range(100):
        (accepted if session.post(f"4{turn}").body == b"ok" else refused).append(str(turn))
        if turn == 20:
            redis.ask("CLIENT", "KILL", "ID", listener)
    talking.join()
    assert [websocket.recv() for _ in range(2000)] == [f"4{turn}" for turn in range(2000)]
    session.served = owner
    session.say("end")
    while (message := session.hear()) != "end":
        heard.append(message)
    assert heard == sorted(set(heard), key=int)
    assert set(accepted) <= set(heard)
    assert not set(refused) & set(heard)
    assert len(accepted) > 50


def test_calls_while_redis_is_away_are_not_carried_out_later(start: Start, redis: RedisServer) -> None:
    group = start(redis)
    owner, other = group.workers
    session = Nomad(owner).open()
    assert other.call("send", session.sid, "before") is True
    redis.kill()
    group.wait_for_log("lost:", 2)
    assert other.call("send", session.sid, "meanwhile") is False
    assert other.call("disconnect", session.sid) is False
    redis.start()
    group.wait_for_log("back after", 2)
    assert other.call("send", session.sid, "afterwards") is True
    assert session.hear_many(2) == ["before", "afterwards"]


def test_dead_owner_of_an_idle_websocket(pair: tuple[Workers, Worker, Worker]) -> None:
    """Nobody says anything, and it is noticed all the same."""
    _, owner, other = pair
    files = other.ask()["files"]
    session = Nomad(owner).open()
    session.served = other
    websocket = session.upgrade()
    websocket.send("5")
    os.kill(owner.pid, signal.SIGKILL)
    with pytest.raises((Closed, ConnectionEnded)):
        websocket.recv()
    settled(lambda: other.ask()["files"] <= files)


def test_owner_that_is_stopped_while_many_requests_arrive(start: Start, shared_redis: RedisServer) -> None:
    """What was refused meanwhile does not take effect, although it has all been sent there."""
    group = start(shared_redis, patience=3)
    owner, other = group.workers
    session = Nomad(owner).open()
    PollingSession(other).open()
    target = session.target()
    os.kill(owner.pid, signal.SIGSTOP)
    gevent.sleep(3.5)
    posting = [gevent.spawn(other.connect().post, target, b"4" + bytes(1000)) for _ in range(200)]
    assert {one.get().status for one in posting} == {400}
    os.kill(owner.pid, signal.SIGCONT)
    session.say("in time")
    assert session.hear() == "in time"


def test_no_redis_at_the_start(tmp_path: Path, start: Start, redis: RedisServer) -> None:
    redis.kill()
    group = start(redis)
    assert group.workers[0].connect().get("/").status == 500
    group.wait_for_log(f"cluster: {redis.url} cannot be reached")


def test_the_first_requests_of_a_worker_arrive_together(start: Start, shared_redis: RedisServer) -> None:
    """All wait until it has joined, once."""
    group = start(shared_redis, 1, cluster=shared_redis.url + "?group=together")
    opening = [gevent.spawn(lambda: PollingSession(group.workers[0]).open().sid) for _ in range(10)]
    gevent.joinall(opening, raise_error=True)
    assert {one.value[:4] for one in opening} == set(group.workers[0].call("workers"))
    assert len(group.workers[0].call("workers")) == 1


def test_a_server_that_is_made_outside_of_any_greenlet(shared_redis: RedisServer) -> None:
    command = [sys.executable, "-m", "engineio_wsgi", "--bind", "127.0.0.1:0", "--cluster", shared_redis.url + "?group=demo"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    try:
        port = int(demo.stdout.readline().split(":")[-1].split("/")[0])
        session = PollingSession(Worker(demo.pid, port, None)).open()
        assert Emitter(shared_redis.url + "?group=demo").count() == 1
        assert session.sid[:4] in Emitter(shared_redis.url + "?group=demo").workers()
    finally:
        demo.terminate()
        assert demo.wait(60) == 0
        demo.stdout.close()


def test_a_worker_has_one_connection_to_redis(start: Start, redis: RedisServer) -> None:
    group = start(redis)
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    session.say("x")
    assert session.hear() == "x"
    subscribed = re.findall(r" sub=(\d+) ", redis.ask("CLIENT", "LIST"))
    # the last one asks
    assert subscribed == ["2", "2", "0"]


def test_forged_ids_cost_one_lookup(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    ours = Nomad(owner).open().sid[:4]
    connection = other.connect()
    gevent.sleep(3)
    before = _resident(other.pid)
    odd = ["yyyyzzzz", ours + "forged", "..%2F..%2Fx", "%00abc", "a", "%C3%BC%C3%BC%C3%BC%C3%BC"]
    for sid in [*odd, *[f"{number:04}x" for number in range(1000)]]:
        response = connection.get(f"/engine.io/?EIO=4&transport=polling&sid={sid}")
        assert response.json()["code"] == 1
    assert _resident(other.pid) - before < 5000


def test_a_worker_with_other_options(start: Start, shared_redis: RedisServer) -> None:
    cluster = shared_redis.url + "?group=options"
    ours, other = start(shared_redis, 1, cluster=cluster), start(shared_redis, 1, cluster=cluster, ping_interval=5)
    session = Nomad(ours.workers[0]).open()
    session.served = other.workers[0]
    assert session.post("4x").json()["code"] == 1
    with pytest.raises(Refused):
        session.upgrade()
    ours.wait_for_log("requests of a worker with other options are refused")
    assert "ping_interval=5.0" in ours.log()
    session.served = ours.workers[0]
    session.say("as if nothing had happened")
    assert session.hear() == "as if nothing had happened"


# -- how a Redis may be deployed


def talks(group: Workers) -> None:
    """A session is served from the other machine, and called from there."""
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    for number in range(5):
        session.say(str(number))
        assert session.hear() == str(number)
    assert other.call("count") == owner.ask()["clients"]
    assert other.call("send", session.sid, "called") is True
    assert session.hear() == "called"
    assert sorted(other.call("workers")) == sorted(worker.ask()["id"] for worker in group.workers)


def emitted(group: Workers, url: str) -> None:
    """The same from a process that serves nothing."""
    session = Nomad(group.workers[0]).open()
    emitter = Emitter(url)
    assert emitter.send(session.sid, "emitted") is True
    assert session.hear() == "emitted"
    assert len(emitter.workers()) == 2
    assert emitter.broadcast("to all") == emitter.count()


def test_with_a_password_and_tls(tmp_path: Path, start: Start, certificate: dict[str, str]) -> None:
    files = [f'tls-cert-file "{certificate["certfile"]}"', f'tls-key-file "{certificate["keyfile"]}"',
             f'tls-ca-cert-file "{certificate["certfile"]}"', "tls-auth-clients no"]
    server = RedisServer(tmp_path / "redis", *files, "requirepass sesame", secure=True)
    url = f"rediss://:sesame@127.0.0.1:{server.port}/3?ssl_ca_certs={certificate['certfile']}"
    try:
        group = start(server, cluster=url)
        talks(group)
        emitted(group, url)
        assert "sesame" not in group.log()
    finally:
        server.kill()


def test_over_a_unix_socket(tmp_path: Path, short_folder: Path, start: Start) -> None:
    """With a login and a database; a restart of Redis is noticed, and no password is logged."""
    path = short_folder / "redis"
    server = RedisServer(tmp_path / "redis", f'unixsocket "{path}"', "user engineio on >sesame &* +@all")
    url = f"unix://engineio:sesame@{path}?db=3&group=shop"
    try:
        group = start(server, cluster=url)
        talks(group)
        emitted(group, url)
        emitted(group, f"unix://{path}?db=3&group=shop&username=engineio&password=sesame")
        # whoever comes by TCP is in the same group
        emitted(group, f"redis://engineio:sesame@127.0.0.1:{server.port}/3?group=shop")
        server.kill()
        server.start()
        group.wait_for_log("Redis is connected again", 2)
        talks(group)
        assert "sesame" not in group.log()
    finally:
        server.kill()


def test_by_the_name_of_valkey(tmp_path: Path, start: Start) -> None:
    """Workers and emitters may name the same server in both ways."""
    server = RedisServer(tmp_path / "redis")
    url = server.url.replace("redis://", "valkey://")
    try:
        group = start(server, cluster=url)
        talks(group)
        emitted(group, url)
        emitted(group, server.url)
    finally:
        server.kill()


def refusal_of(url: str) -> str:
    """What an emitter is told."""
    try:
        return str(Emitter(url).count())
    except ConnectionError as error:
        return str(error)


def test_a_unix_socket_on_which_nobody_listens(short_folder: Path) -> None:
    """A plain thread and a greenlet are told the same, in one line."""
    url = f"unix://:sesame@{short_folder}/nobody"
    expected = rf"unix://{short_folder}/nobody\?db=0 cannot be reached: .*No such file or directory.*"
    for told in (refusal_of(url), gevent.spawn(refusal_of, url).get()):
        assert re.fullmatch(expected, told), told


def test_with_sentinel_and_a_failover(tmp_path: Path, start: Start) -> None:
    first = RedisServer(tmp_path / "first")
    second = RedisServer(tmp_path / "second", f"replicaof 127.0.0.1 {first.port}", "repl-diskless-sync-delay 0")
    sentinel = RedisServer(
        tmp_path / "sentinel", f"sentinel monitor main 127.0.0.1 {first.port} 1", "sentinel down-after-milliseconds main 300",
        "sentinel failover-timeout main 1000", mode=("--sentinel",))
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main/0"
    try:
        settled(lambda: "slave0" in second_known(first))
        settled(lambda: str(second.port) in str(sentinel.ask("SENTINEL", "REPLICAS", "main")))
        group = start(first, cluster=url)
        talks(group)
        emitted(group, url)
        first.kill()
        group.wait_for_log("Redis is connected again", 2)
        talks(group)
    finally:
        for server in (sentinel, second, first):
            server.kill()


def second_known(server: RedisServer) -> str:
    """What a server says of its replicas."""
    return str(server.ask("INFO", "replication"))


def test_on_a_cluster_of_three_nodes(tmp_path: Path, start: Start) -> None:
    ports = [free_port() for _ in range(3)]
    nodes = [RedisServer(tmp_path / f"node {port}", "cluster-enabled yes", "cluster-node-timeout 1000", f"cluster-port {port}")
             for port in ports]
    try:
        for number, node in enumerate(nodes):
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(number * 5461), str(16383 if number == 2 else number * 5461 + 5460))
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port), str(ports[0]))
        for node in nodes:
            settled(lambda node=node: "cluster_state:ok" in str(node.ask("CLUSTER", "INFO")))  # type: ignore[misc]
        for group_name in ("a", "b", "c"):
            url = f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}?group={group_name}"
            group = start(nodes[0], cluster=url)
            talks(group)
            emitted(group, url)
    finally:
        for node in nodes:
            node.kill()


# -- what others may write into the channels


def test_garbage_in_the_channels(start: Start, redis: RedisServer) -> None:
    group = start(redis)
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    session.say("x")
    assert session.hear() == "x"
    channels = redis.ask("PUBSUB", "CHANNELS", "*")
    assert len(channels) == 3
    origin = bytes([VERSION]) + b"evil".ljust(12, b"\0")
    garbage = ["", "x", "GET / HTTP/1.1\r\n\r\n", b"\x01" * 100, bytes([VERSION]) + b"\xff" * 100, origin + b"\xff" * 48,
               origin + bytes(48) + b"{",
               origin + bytes(40) + struct.pack("!q", 1) + struct.pack("!BcII", VERSION, b"R", 2, 0) + b"{}",
               origin + bytes(40) + struct.pack("!q", 1) + struct.pack("!BcII", VERSION, b"L", 2, 0) + b"{}",
               Envelope("evil", 7, 0, 9, 0, 0, 1).pack(b""),
               Envelope("evil", 7, 1, 1, 0, 0, -(1 << 63)).pack(Message(Kind.DATA, (), b"x").encode()),
               origin + b"\1" * 40 + struct.pack("!q", 1) + struct.pack("!BcII", VERSION, b"R", 2, 0) + b"{}"]
    with real_redis.Redis(port=redis.port) as client:
        for channel in channels:
            for data in garbage:
                assert client.publish(channel, data) >= 1
    session.say("still there")
    assert session.hear() == "still there"
    assert f"it has version 1 of the protocol between workers, and this worker has {VERSION}: run the same" in group.log()
    assert not [line for line in group.complaints() if "refused" not in line], group.complaints()


KINDS = [("-k", "engineio_wsgi.gunicorn.Worker"), ("-k", "gevent", "-c", "python:engineio_wsgi.gunicorn")]


@pytest.mark.parametrize("arguments", KINDS)
def test_gunicorn_does_not_start_without_redis(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "app.py").write_text("import engineio_wsgi\napp = engineio_wsgi.Server.from_environ().wrap(lambda *_: [])\n")
    url = f"redis://:sesame@127.0.0.1:{free_port()}"
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", *arguments, "app:app"], cwd=tmp_path, timeout=300,
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "ENGINEIO_CLUSTER": url})
    assert done.returncode == 4
    assert f"cluster: {url.replace(':sesame@', '')}/0 cannot be reached: Error 111" in done.stderr
    assert "Traceback" not in done.stderr
    assert "sesame" not in done.stderr
