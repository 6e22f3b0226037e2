"""Several workers on one machine: a request finds its session, whichever of them has accepted it."""

from __future__ import annotations

import array
import contextlib
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Sequence

import gevent
import pytest
from support import codec
from support.clients import PollingSession
from support.rawhttp import ConnectionEnded
from support.rawwebsocket import Closed, Refused
from support.workers import Nomad, Worker, Workers, assert_descriptors_are_given_back, knock, settled

from engineio_wsgi.cluster.messages import VERSION

Start = Callable[..., Workers]


@pytest.mark.parametrize("sharing", ["fork", "reuseport"])
def test_every_request_on_a_connection_of_its_own(start: Start, sharing: str) -> None:
    group = start(3, sharing=sharing)
    wrong: list[object] = []

    def talk(name: int) -> None:
        session = Nomad(group.shared).open()
        for number in range(10):
            session.say(f"{name} {number}")
            if session.hear() != f"{name} {number}":
                wrong.append((name, number))
        websocket = session.upgrade()
        session.say("last post")
        # the poll that the upgrade puts an end to
        assert session.recv() in ("6", "4last post")
        websocket.send("5")
        websocket.send("4by websocket")
        heard = [websocket.recv()]
        while heard[-1] != "4by websocket":
            heard.append(websocket.recv())

    gevent.joinall([gevent.spawn(talk, name) for name in range(20)], raise_error=True)
    assert not wrong
    assert group.total("handed_over") > 100
    assert group.total("adopted") == group.total("handed_over")
    assert group.total("failed") == group.total("relayed") == 0
    assert not group.complaints()


@pytest.fixture
def pair(start: Start) -> tuple[Workers, Worker, Worker]:
    """Two workers, each of which is reached by a port of its own."""
    group = start(2)
    return group, *group.workers


def test_a_connection_stays_with_the_worker_that_got_it(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    session = PollingSession(owner).open()
    session.served = other
    session.getting, session.posting = other.connect(), other.connect()
    for number in range(5):
        session.echo(str(number))
    assert other.ask()["counters"]["handed_over"] == 2
    counters = owner.ask()
    assert (counters["counters"]["adopted"], counters["adopted"]) == (2, 2)
    # what is asked for outside of the engine's path, too, and with the client's real address
    seen = session.posting.get("/").json()
    port = session.posting.sock.getsockname()[1]
    assert (seen["pid"], seen["address"], seen["port"], seen["scheme"]) == (owner.pid, "127.0.0.1", str(port), "http")
    assert group.log().count(f"sid={session.sid}") == 10, "each request is in the access log once"


def test_websocket_after_its_first_worker_has_died(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    session = Nomad(owner).open()
    session.served = other
    websocket = session.upgrade()
    websocket.send("5")
    websocket.send("4before")
    assert websocket.recv() == "4before"
    os.kill(other.pid, signal.SIGKILL)
    websocket.send("4after")
    assert websocket.recv() == "4after"
    assert owner.ask()["adopted"] == 0, "a session's WebSocket is no HTTP connection any more"


def test_poll_whose_first_worker_has_died(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    session = Nomad(owner).open()
    session.served = other
    session.start_poll()
    settled(lambda: owner.ask()["adopted"] == 1)
    os.kill(other.pid, signal.SIGKILL)
    session.served = owner
    session.echo("still there")


def test_dead_owner(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    session, neighbour = Nomad(owner).open(), Nomad(other).open()
    session.served = other
    os.kill(owner.pid, signal.SIGKILL)
    response = session.post("4x")
    assert (response.status, response.json()) == (400, {"code": 1, "message": "Session ID unknown"})
    with pytest.raises(Refused) as refused:
        session.upgrade()
    assert refused.value.response.json()["code"] == 1
    group.wait_for_log('"name": "OWNER_GONE"', 2)
    assert f'"owner": "{session.sid[:4]}"' in group.log()
    neighbour.echo("fine")


def test_forged_ids_cost_one_lookup(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    ours = owner.ask()["id"] or Nomad(owner).open().sid[:4]
    connection = other.connect()
    # the worker that is there is asked; the way to it is kept
    connection.get(f"/engine.io/?EIO=4&transport=polling&sid={ours}forged")
    files = other.ask()["files"]
    odd = ["yyyyzzzz", ours + "forged", "..%2F..%2Fx", "%00abc", "a", "%C3%BC%C3%BC%C3%BC%C3%BC"]
    for sid in [*odd, *[f"{number:04}x" for number in range(200)]]:
        response = connection.get(f"/engine.io/?EIO=4&transport=polling&sid={sid}")
        assert response.json()["code"] == 1
    settled(lambda: other.ask()["files"] <= files)


def test_connections_that_are_refused_leave_nothing_at_the_other_worker(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    session = Nomad(owner).open()

    def is_refused() -> None:
        connection = other.connect()
        assert connection.get(f"/engine.io/?EIO=4&transport=polling&sid={session.sid[:4]}forged").json()["code"] == 1
        connection.close()

    is_refused()
    files = owner.ask()["files"]
    for _ in range(10):
        is_refused()
    settled(lambda: owner.ask()["files"] <= files)
    session.served = other
    session.echo("as if nothing had happened")
    assert not group.complaints()


VIA_PROXY = [("X-Forwarded-For", "203.0.113.9")]


def test_connections_of_a_proxy_stay(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    sessions = [PollingSession(owner, headers=VIA_PROXY).open() for _ in range(2)]
    getting, posting = other.connect(), other.connect()
    for session in sessions:
        session.getting, session.posting = getting, posting
    for number in range(10):
        for session in sessions:
            session.echo(f"{number} {'x' * 100_000}")
    assert other.ask()["counters"] == {"handed_over": 0, "relayed": 40, "adopted": 0, "answered": 0, "failed": 0}
    assert posting.get("/").json()["pid"] == other.pid
    assert not group.complaints()


def test_bodies_through_a_relay(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    session = PollingSession(owner, headers=VIA_PROXY).open()
    connection = session.posting = other.connect()
    connection.send(connection.head("POST", session.target(), [*VIA_PROXY, ("Transfer-Encoding", "chunked")]))
    connection.send(b"6\r\n4chunk\r\n")
    connection.send(b"2\r\ned\r\n0\r\n\r\n")
    assert connection.response().body == b"ok"
    session.getting = other.connect()
    assert session.hear() == "chunked"
    large = connection.post(session.target(), b"4" + b"x" * 1_000_000, VIA_PROXY)
    assert large.status == 413


def test_client_that_leaves_a_relayed_poll(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    session = PollingSession(owner, headers=VIA_PROXY).open()
    session.getting = other.connect()
    session.start_poll()
    settled(lambda: owner.ask()["counters"]["answered"] == 1)
    session.getting.close()
    group.wait_for_log("closed: transport close")
    assert owner.ask()["clients"] == 0


def test_owner_that_dies_during_a_relayed_poll(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    session = PollingSession(owner, headers=VIA_PROXY).open()
    session.getting = other.connect()
    session.start_poll()
    settled(lambda: owner.ask()["counters"]["answered"] == 1)
    os.kill(owner.pid, signal.SIGKILL)
    assert session.getting.response().json()["code"] == 1
    group.wait_for_log("OWNER_GONE")


def test_full_owner(start: Start) -> None:
    group = start(2, limit=3)
    owner, other = group.workers
    session = Nomad(owner).open()
    session.getting.close()
    session.posting.close()
    session.served = other
    idle = [other.connect() for _ in range(3)]
    for connection in idle:
        assert connection.post(session.target(), b"4x").body == b"ok"
    for _ in range(4):
        session.say("relayed")
    assert other.ask()["counters"] == {"handed_over": 3, "relayed": 4, "adopted": 0, "answered": 0, "failed": 0}
    # what becomes a session's WebSocket does not count
    websocket = session.upgrade()
    websocket.send("5")
    websocket.send("4there")
    while websocket.recv() != "4there":
        pass
    for connection in idle:
        connection.close()
    settled(lambda: owner.ask()["adopted"] == 0)
    assert other.connect().post(session.target(), b"4x").json()["code"] == 3
    assert other.ask()["counters"]["handed_over"] == 5


def test_connection_with_many_sessions_stops_moving(start: Start) -> None:
    group = start(3)
    sessions = [Nomad(worker).open() for worker in group.workers]
    connection = group.workers[0].connect()
    for _ in range(5):
        for session in sessions:
            assert connection.post(session.target(), codec.encode(["4x"], 4)).body == b"ok"
    assert connection.get("/").json()["hops"] == 3
    assert group.total("handed_over") == 3
    assert group.total("relayed") > 0
    assert group.total("failed") == 0


def test_requests_that_arrive_together(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    session = PollingSession(owner).open()
    connection = other.connect()
    body = codec.encode(["4together"], 4)
    post = connection.head("POST", session.target(), [("Content-Length", str(len(body)))]) + body
    connection.send(post + connection.head("GET", session.target()) + connection.head("GET", "/"))
    assert connection.response().body == b"ok"
    assert connection.response().body == b"4together"
    assert connection.response().json()["pid"] == owner.pid


def test_body_that_arrives_after_its_head_has_moved(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    session = PollingSession(owner).open()
    connection = other.connect()
    body = codec.encode(["4" + "x" * 300_000], 4)
    connection.send(connection.head("POST", session.target(), [("Content-Length", str(len(body)))]) + body[:10])
    settled(lambda: owner.ask()["adopted"] == 1)
    connection.send(body[10:])
    assert connection.response().body == b"ok"
    assert len(session.hear()) == 300_000


def test_client_that_waits_to_be_told_to_go_on(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    session = PollingSession(owner).open()
    connection = other.connect()
    connection.send(connection.head("POST", session.target(), [("Content-Length", "2"), ("Expect", "100-continue")]))
    assert connection.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(b"4x")
    assert connection.response().body == b"ok"


def test_closing_worker_ends_its_adopted_connections(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    session = PollingSession(owner).open()
    session.served = other
    session.getting, idle = other.connect(), other.connect()
    idle.post(session.target(), b"4x")
    assert session.hear() == "x"
    session.start_poll()
    owner.connect().get("/close")
    assert session.end_poll() == ["1"]
    assert session.getting.read_to_end() == idle.read_to_end() == b""
    assert other.connect().get(session.target()).json()["code"] == 1


def test_closing_worker_answers_what_was_relayed_to_it(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, other = pair
    session = PollingSession(owner, headers=VIA_PROXY).open()
    # the session itself can end at once
    session.start_poll()
    posting = gevent.spawn(other.connect().post, session.target(slowly="yes"), b"4x", VIA_PROXY)
    settled(lambda: owner.ask()["counters"]["answered"] == 1)
    owner.connect().get("/close")
    assert session.end_poll() == ["1"]
    assert posting.get().json()["code"] == 1
    group.wait_for_log("the server is closed")
    assert "OWNER_GONE" not in group.log()
    assert group.log().index("a slow request goes on") < group.log().index("the server is closed")


def test_owner_that_cannot_open_another_file(pair: tuple[Workers, Worker, Worker]) -> None:
    """It is as good as full: requests are relayed, and connections are taken again as soon as it can."""
    group, owner, other = pair
    session = Nomad(owner).open()
    session.served = other
    session.echo("handed over")
    _, hard = resource.prlimit(owner.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(owner.pid, resource.RLIMIT_NOFILE, (3, hard))
    assert session.post("4relayed").body == b"ok"
    visitor = knock(session.sid[:4])
    group.wait_for_log("a connection from another worker cannot be accepted")
    resource.prlimit(owner.pid, resource.RLIMIT_NOFILE, (hard, hard))
    # it is let in now, and what it says is heard
    visitor.send(b"nonsense")
    assert visitor.recv(100) == b""
    visitor.close()
    assert session.post("4handed over again").body == b"ok"
    assert session.hear_many(2) == ["relayed", "handed over again"]
    counters = other.ask()["counters"]
    assert counters["relayed"] >= 1 and counters["failed"] == 0


def test_descriptors_are_given_back(pair: tuple[Workers, Worker, Worker]) -> None:
    _, owner, other = pair
    assert_descriptors_are_given_back(owner, other)


def test_tls(start: Start, certificate: dict[str, str]) -> None:
    import gevent.ssl

    context = gevent.ssl.create_default_context(cafile=certificate["certfile"])
    group = start(2, tls=context, certificate=certificate)
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    for number in range(5):
        session.echo(f"{number}" * 50_000)
    assert session.posting.get("/").json()["scheme"] == "https"
    websocket = session.upgrade()
    websocket.send("5")
    websocket.send("4" + "x" * 500_000)
    assert websocket.recv() == "4" + "x" * 500_000
    websocket.close()
    websocket.wait_closed()
    group.wait_for_log("closed: transport close")
    # what an application can learn of TLS is where the connection is, so that only WebSockets leave it
    counters = other.ask()["counters"]
    assert (counters["handed_over"], counters["relayed"]) == (1, 10)
    assert not group.complaints()


def test_tls_worker_that_closes(start: Start, certificate: dict[str, str]) -> None:
    """Another worker's WebSockets come through it, and do not hold it up; what is under way is answered."""
    import gevent.ssl

    group = start(2, tls=gevent.ssl.create_default_context(cafile=certificate["certfile"]), certificate=certificate)
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    websocket = session.upgrade()
    websocket.send("5")
    websocket.send("4x")
    assert websocket.recv() == "4x"
    polling = PollingSession(owner).open()
    posting = gevent.spawn(other.connect().post, polling.target(slowly="yes"), b"4y")
    settled(lambda: owner.ask()["counters"]["answered"] == 1)
    other.connect().get("/close")
    with pytest.raises((Closed, ConnectionEnded, OSError)):
        websocket.recv()
    group.wait_for_log("closed: transport close")
    assert posting.get().body == b"ok"
    group.wait_for_log("the server is closed")
    assert not group.complaints()


def message(kind: bytes, fields: Sequence[str] = (), body: bytes = b"", version: int = VERSION) -> bytes:
    """The bytes of a message between workers."""
    head = "".join(f"\0{field}" for field in fields).encode()
    return struct.pack("!BcII", version, kind, len(head), len(body)) + head + body


TERMS = "local/engine.io ping_interval=25.0 ping_timeout=20.0 max_http_buffer_size=1000000"


def offer(sid: str, hops: str = "0", address: Sequence[str] = ("2", "192.0.2.1", "1")) -> bytes:
    """An offer of a connection; without changes, a valid one."""
    return message(b"C", [TERMS, sid, hops, "", "", "handshake", *address, "0"])


GARBAGE = {
    "nothing": b"",
    "a letter": b"x",
    "text": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "another version": message(b"C", version=1),
    "no such kind": message(b"?"),
    "an answer that nobody waits for": message(b"A", ["200 OK"]),
    "sizes beyond all measure": struct.pack("!BcII", VERSION, b"R", 0xFFFFFFFF, 0xFFFFFFFF),
    "longer than it says": message(b"R") + b"more",
    "no text": struct.pack("!BcII", VERSION, b"R", 3, 0) + b"\0\xff\xff",
    "many fields": struct.pack("!BcII", VERSION, b"R", 20_000, 0) + bytes(20_000),
    "no environ": message(b"R", [TERMS, "x"]),
    "an environ without a method": message(b"R", [TERMS, "x", "PATH_INFO", "/"]),
    "a name without a value": message(b"R", [TERMS, "x", "REQUEST_METHOD", "GET", "PATH_INFO"]),
    "no address": offer("x", address=()),
    "an address that is too short": offer("x", address=("9", "192.0.2.1")),
    "no port": offer("x", address=("2", "192.0.2.1", "-1")),
    "too many hops": offer("x", hops="1000000000"),
}


@pytest.mark.parametrize("beside", [0, 1, 3], ids=["alone", "with a file", "with files"])
def test_garbage_on_the_unix_socket(pair: tuple[Workers, Worker, Worker], beside: int) -> None:
    group, owner, other = pair
    session = Nomad(owner).open()
    before = owner.ask()["files"]
    messages = [*GARBAGE.values(), offer(session.sid)]
    if beside == 1:
        # with one file it would be a valid offer
        messages.pop()
    for data in messages:
        visitor = knock(session.sid[:4])
        files = array.array("i", [visitor.fileno()] * beside)
        visitor.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)] if beside else [])
        with contextlib.suppress(ConnectionResetError):
            assert visitor.recv(100) == b""
        visitor.close()
    settled(lambda: owner.ask()["files"] <= before)
    session.served = other
    session.echo("as if nothing had happened")
    assert "a message of another process was refused" in group.log()


def test_a_moved_file_that_is_no_socket_is_refused(pair: tuple[Workers, Worker, Worker]) -> None:
    group, owner, _ = pair
    session = Nomad(owner).open()
    before = owner.ask()["files"]
    for _ in range(5):
        visitor = knock(session.sid[:4])
        with open(os.devnull) as file:
            beside = array.array("i", [file.fileno()])
            visitor.sendmsg([offer(session.sid)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, beside)])
        assert visitor.recv(100) == b""
        visitor.close()
    settled(lambda: owner.ask()["files"] <= before)
    group.wait_for_log("the file descriptor is not that of a socket")


def test_half_a_message_delays_no_other_request(start: Start) -> None:
    owner, other = start(2, patience=3).workers
    session = Nomad(owner).open()
    visitors = [knock(session.sid[:4]) for _ in range(50)]
    for visitor in visitors:
        visitor.send(struct.pack("!BcII", VERSION, b"R", 100, 100) + b"x")
    session.served = other
    session.echo("as if nothing had happened")
    # and is not waited for for ever
    assert visitors[0].recv(100) == b""
    for visitor in visitors:
        visitor.close()


@pytest.mark.parametrize("other", [{"cluster": "local:shop"}, {"cluster": "local:chat", "path": "/shop"}])
def test_another_application(start: Start, other: dict[str, str]) -> None:
    chat, shop = start(1, cluster="local:chat"), start(1, **other)
    session = Nomad(chat.workers[0]).open()
    connection = shop.workers[0].connect()
    path = other.get("path", "/engine.io")
    assert connection.get(f"{path}/?EIO=4&transport=polling&sid={session.sid}").json()["code"] == 1
    shop.wait_for_log("no process listens on its socket")
    visitor = knock(session.sid[:4], "local:chat/engine.io")
    terms = TERMS.replace("local", "local:shop")
    visitor.send(message(b"R", [terms, session.sid, "REQUEST_METHOD", "GET"]))
    assert visitor.recv(1000)[1:2] == b"N"
    visitor.close()
    chat.wait_for_log(f"it has '{terms}', this one '{TERMS.replace('local', 'local:chat')}'")


@pytest.mark.parametrize("difference", [{"ping_interval": 5.0}, {"ping_timeout": 5.0}, {"max_http_buffer_size": 1_000_001}])
def test_a_worker_with_other_options(start: Start, difference: dict[str, float]) -> None:
    ours, other = start(1), start(1, **difference)
    session = Nomad(ours.workers[0]).open()
    session.served = other.workers[0]
    for _ in range(3):
        assert session.post("4x").json()["code"] == 1
    with pytest.raises(Refused):
        session.upgrade()
    other.wait_for_log("the worker has other options")
    [(name, value)] = difference.items()
    assert ours.log().count("requests of a worker with other options are refused") == 1
    assert f"{name}={value}" in ours.log()
    # what is done for sessions wherever they live knows no options
    assert other.workers[0].call("send", session.sid, "hello") is True
    session.served = ours.workers[0]
    assert session.hear() == "hello"


def test_session_ids_of_the_application(start: Start) -> None:
    group = start(2, own_ids=True)
    owner, other = group.workers
    session = Nomad(owner).open()
    assert session.sid == owner.ask()["id"] + "number 1"
    session.served = other
    session.echo("found")
