"""Sessions that move from one server to another: what their clients and the application see of it."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from math import inf, nan
from time import time
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.threadpool import ThreadPool
from support.rawhttp import HttpConnection
from support.rawwebsocket import BINARY, CONTINUATION, TEXT, WebSocketClient, frame_bytes
from werkzeug.wrappers import Response

from engineio_wsgi import Server, SocketClosed
from engineio_wsgi.errors import UsageError
from engineio_wsgi.session import session as session_module
from engineio_wsgi.session.heartbeat import HeartbeatSnapshot
from engineio_wsgi.session.movable import SessionSnapshot
from engineio_wsgi.session.session import Session
from engineio_wsgi.testing import Client, hand_over
from engineio_wsgi.transports.entries import EntrySnapshot
from engineio_wsgi.transports.polling import PollingSnapshot

pytestmark = pytest.mark.ours
PATIENCE = 30.0

Listen = Callable[[Any], object]


def echo(socket: Any) -> None:
    """Send every message back, with the name of the server."""
    socket.on("message", lambda data: socket.send(data))


def equal_servers(listen: Listen = echo, **options: Any) -> tuple[Server, Server]:
    """Two servers of the same application, which has ``listen`` register the listeners of a session."""
    servers: list[Server] = []
    for _ in range(2):
        server = Server(handover=True, **options)
        server.on("connection", listen)
        server.on("resume", listen)
        servers.append(server)
    return servers[0], servers[1]


def client_of(server: Server, **settings: Any) -> Client:
    """A client of an application with this server."""
    return Client(server.wrap(Response("page")), **settings)


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    """Two equal servers that listen."""
    both = equal_servers(max_buffered=20_000_000, allow_eio3=True)
    for server in both:
        server.listen(("127.0.0.1", 0))
    yield both
    for server in both:
        server.close(0)


def websocket_of(server: Server, query: str = "EIO=4", **settings: Any) -> WebSocketClient:
    """A WebSocket session of a server that listens, after its open packet."""
    client = WebSocketClient.open(HttpConnection(server.address, **settings), f"/engine.io/?{query}&transport=websocket")
    assert client.recv()[0] == "0"
    return client


# -- what the application sees


def test_a_session_goes_on_where_it_was(transport: str) -> None:
    old, new = equal_servers()
    with client_of(old, transport=transport, query={"user": "tobi"}, cookies={"a": "b"}, remote_address="192.0.2.1") as client:
        before = client.socket
        assert before is not None
        before.data["room"] = {"name": "lobby", "seats": [1, 2]}
        before.join("lobby")
        client.send("one")
        assert client.receive() == "one"

        assert hand_over(old, new) == {}

        after = client.socket
        assert after is not None
        assert after.server is new
        assert (after.id, after.protocol, after.transport.name) == (client.sid, 4, transport)
        assert after.data == {"room": {"name": "lobby", "seats": [1, 2]}}
        assert (after.request.args["user"], after.request.cookies["a"], after.remote_address) == ("tobi", "b", "192.0.2.1")
        assert new.members("lobby") == [after]
        client.send("two")
        assert client.receive() == "two"
    assert not old.clients


def test_the_old_socket_has_moved_and_is_not_closed_with_a_reason(transport: str) -> None:
    closes: list[str] = []

    def listen(socket: Any) -> None:
        socket.on("close", lambda reason, description: closes.append(reason))

    old, new = equal_servers(listen)
    with client_of(old, transport=transport) as client:
        socket = client.socket
        assert socket is not None
        assert not socket.moved
        hand_over(old, new)
        assert (socket.moved, socket.closed, socket.close_reason, closes) == (True, True, None, [])
        assert socket.wait_closed(0)
        with pytest.raises(SocketClosed):
            socket.send("nobody gets this")
    assert closes == ["transport close"]


def test_leave_comes_before_the_move_and_resume_before_any_message(transport: str) -> None:
    seen: list[object] = []
    old, new = equal_servers(lambda socket: socket.on("message", lambda data: seen.append(data)))
    old.on("leave", lambda socket: (seen.append("leave"), socket.data.update(last="words")))
    new.on("resume", lambda socket: seen.append(("resume", socket.data["last"])))
    with client_of(old, transport=transport) as client:
        client.send("a")
        while not seen:
            gevent.sleep(0)
        hand_over(old, new)
        client.send("b")
        while "b" not in seen:
            gevent.sleep(0)
    assert seen == ["a", "leave", ("resume", "words"), "b"]


def test_messages_that_no_listener_has_seen_move_along(transport: str) -> None:
    seen: list[tuple[str, str | bytes]] = []
    may_return = Event()

    def slow(socket: Any) -> None:
        @socket.on("message")
        def message(data: str | bytes) -> None:
            seen.append(("old" if socket.server is old else "new", data))
            if data == "slow":
                may_return.wait()

    old, new = equal_servers(slow)
    with client_of(old, transport=transport) as client:
        client.send("slow", b"\xff", "after")
        while not seen:
            gevent.sleep(0)
        moving = gevent.spawn(hand_over, old, new)
        gevent.sleep(0)
        client_is_held = gevent.spawn(client.send, "last")
        gevent.sleep(0.01)
        assert not moving.ready()
        may_return.set()
        assert moving.get(timeout=PATIENCE) == {}
        client_is_held.get(timeout=PATIENCE)
        while len(seen) < 4:
            gevent.sleep(0)
    assert seen == [("old", "slow"), ("new", b"\xff"), ("new", "after"), ("new", "last")]


def test_a_loop_over_messages_ends(transport: str) -> None:
    seen: list[tuple[bool, str | bytes]] = []
    ended: list[bool] = []

    def loop(socket: Any) -> None:
        for data in socket:
            seen.append((socket.server is old, data))
            socket.send(data)
        ended.append(socket.moved)

    old, new = equal_servers(loop)
    with client_of(old, transport=transport) as client:
        client.send("a")
        assert client.receive() == "a"
        assert hand_over(old, new) == {}
        assert ended == [True]
        client.send("b")
        assert client.receive() == "b"
    assert seen == [(True, "a"), (False, "b")]


def test_spawned_greenlets_are_killed(transport: str) -> None:
    old, new = equal_servers()
    with client_of(old, transport=transport) as client:
        assert client.socket is not None
        task = client.socket.spawn(gevent.sleep, 3600)
        hand_over(old, new)
        task.join(PATIENCE)
        assert task.dead


def test_a_sender_that_waits_for_room_goes_on_and_what_it_sends_moves_along() -> None:
    sent = b"x" * 10_000

    def listen(socket: Any) -> None:
        @socket.on("message")
        def message(data: str | bytes) -> None:
            for _ in range(20):
                socket.send(sent)

    old, new = equal_servers(listen, max_buffered=20_000)
    with client_of(old) as client:
        client._reader.kill()  # nobody polls
        client.send("go")
        assert hand_over(old, new) == {}
        client._reader = gevent.spawn(client._carrier.read)
        assert [client.receive() for _ in range(20)] == [sent] * 20


@pytest.mark.complains
def test_a_resume_listener_that_fails_ends_the_session_as_an_application_error(transport: str) -> None:
    old, new = equal_servers()

    @new.on("resume")
    def fail(socket: Any) -> None:
        raise ValueError("cannot go on")

    with client_of(old, transport=transport) as client:
        hand_over(old, new)
        assert client.wait_closed(PATIENCE) is None or client.close_reason == "application error"
    assert not new.clients


# -- what stays


def reasons(old: Server, new: Server, timeout: float = 10.0) -> list[str]:
    """Why sessions stay."""
    return list(hand_over(old, new, timeout).values())


@pytest.mark.parametrize("data", [{1: "a number as a key"}, {"when": object()}, {"pair": (1, 2)}])
def test_data_that_json_does_not_hold_keeps_a_session(data: dict[Any, Any], transport: str) -> None:
    old, new = equal_servers()
    with client_of(old, transport=transport) as client:
        assert client.socket is not None
        client.socket.data.update(data)
        assert [reason.partition(":")[0] for reason in reasons(old, new)] == ["its data is not JSON"]
        assert client.socket.data == data
        client.send("goes on")
        assert client.receive() == "goes on"
    assert not new.clients


def test_a_listener_that_does_not_return_in_time_keeps_a_session(transport: str) -> None:
    begun, may_return = Event(), Event()

    def listen(socket: Any) -> None:
        @socket.on("message")
        def message(data: str | bytes) -> None:
            begun.set()
            may_return.wait()
            socket.send(data)

    old, new = equal_servers(listen)
    with client_of(old, transport=transport) as client:
        client.send("one", "two")
        begun.wait(PATIENCE)
        assert reasons(old, new, 0.05) == ["a listener did not return in time"]
        may_return.set()
        client.send("three")
        assert [client.receive() for _ in range(3)] == ["one", "two", "three"]


def test_a_callback_of_send_keeps_a_session() -> None:
    old, new = equal_servers()
    with client_of(old) as client:
        client._reader.kill()  # nobody polls
        called: list[bool] = []
        assert client.socket is not None
        client.socket.send("x", callback=lambda: called.append(True))
        assert reasons(old, new) == ["a callback of send() is waiting for its message"]
        client._reader = gevent.spawn(client._carrier.read)
        assert client.receive() == "x"
        while not called:
            gevent.sleep(0)


def test_both_servers_have_to_be_prepared() -> None:
    old, new = equal_servers()
    with pytest.raises(UsageError, match="handover=True"):
        hand_over(Server(), new)
    with pytest.raises(UsageError, match="resume"):
        hand_over(old, Server(handover=True))


# -- what the client sees


def test_a_poll_that_waits_is_answered_with_a_noop(servers: tuple[Server, Server]) -> None:
    old, new = servers
    http = HttpConnection(old.address)
    opened = http.get("/engine.io/?EIO=4&transport=polling")
    sid = json.loads(opened.text[1:])["sid"]
    http.start("GET", f"/engine.io/?EIO=4&transport=polling&sid={sid}")
    while not getattr(old.clients[sid].transport, "polled", False):
        gevent.sleep(0)
    hand_over(old, new)
    assert http.response().text == "6"
    new.clients[sid].send("from the new server")
    assert http.get(f"/engine.io/?EIO=4&transport=polling&sid={sid}").text == "4from the new server"


@pytest.mark.parametrize("cut", [1, 5, 13, 20, -1])
@pytest.mark.parametrize("payload", ["4" + "é€😀" * 20, b"\xff" * 300, "4" + "x" * 70_000], ids=["text", "binary", "long"])
def test_half_a_frame_moves(servers: tuple[Server, Server], payload: str | bytes, cut: int) -> None:
    old, new = servers
    client = websocket_of(old)
    data = payload.encode() if isinstance(payload, str) else payload
    frame = frame_bytes(TEXT if isinstance(payload, str) else BINARY, data)
    first = frame_bytes(TEXT, b"4first")
    client.http.send(first + frame[:cut])
    assert client.recv() == "4first"
    assert hand_over(old, new) == {}
    client.http.send(frame[cut:])
    assert client.recv() == payload


def test_half_a_message_moves_with_its_limits(servers: tuple[Server, Server]) -> None:
    old, new = servers
    client = websocket_of(old)
    client.send_frame(TEXT, b"4first")
    client.send_frame(TEXT, b"4" + b"a" * 400_000 + "é".encode()[:1], fin=False)
    assert client.recv() == "4first"
    while not old.clients_count:
        gevent.sleep(0)
    assert hand_over(old, new) == {}
    client.send_frame(CONTINUATION, "é".encode()[1:] + b"b" * 400_000, fin=False)
    client.send_frame(CONTINUATION, b"c")
    assert client.recv() == "4" + "a" * 400_000 + "é" + "b" * 400_000 + "c"
    client.send_frame(TEXT, b"4" + b"a" * 900_000, fin=False)
    assert hand_over(new, old) == {}
    client.send_frame(CONTINUATION, b"a" * 200_000)
    assert client.wait_closed().code == 1009


def test_unsent_megabytes_move(servers: tuple[Server, Server]) -> None:
    old, new = servers
    client = websocket_of(old, receive_buffer=8192)
    (socket,) = old.clients.values()
    big = [bytes([number]) * 1_000_000 for number in range(15)]
    for message in big:
        socket.send(message)
    gevent.sleep(0)
    socket.send("last")
    assert socket.buffered > 5_000_000
    assert hand_over(old, new) == {}
    (moved,) = new.clients.values()
    assert moved.buffered > 5_000_000
    moved.send("newer")
    assert [client.recv() for _ in range(17)] == [*big, "4last", "4newer"]
    assert moved.flush(PATIENCE)
    assert moved.buffered == 0


def test_revision_3_moves(servers: tuple[Server, Server]) -> None:
    old, new = servers
    client = websocket_of(old, "EIO=3")
    client.send("4a")
    assert client.recv() == "4a"
    assert hand_over(old, new) == {}
    client.send("2")
    assert client.recv() == "3"
    client.send(b"\x04binary")
    assert client.recv() == b"\x04binary"
    http = HttpConnection(old.address)
    opened = http.get("/engine.io/?EIO=3&transport=polling&b64=1").text
    sid = json.loads(opened.partition(":")[2][1:])["sid"]
    hand_over(old, new)
    http.post(f"/engine.io/?EIO=3&transport=polling&b64=1&sid={sid}", b"2:4b")
    assert http.get(f"/engine.io/?EIO=3&transport=polling&b64=1&sid={sid}").text == "2:4b"


def test_compressed_sessions_move_without_context_takeover() -> None:
    old, new = equal_servers(per_message_deflate=True)
    for server in (old, new):
        server.listen(("127.0.0.1", 0))
    http = HttpConnection(old.address)
    client = WebSocketClient.open(http, "/engine.io/?EIO=4&transport=websocket",
                                  [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")])
    agreed = client.response.header("Sec-WebSocket-Extensions") or ""
    assert "server_no_context_takeover" in agreed
    assert "client_no_context_takeover" in agreed
    assert client.read_frame().payload[:1] == b"0"
    assert hand_over(old, new) == {}
    (moved,) = new.clients.values()
    moved.send("x" * 5000)
    frame = client.read_frame()
    assert frame.rsv == 4
    assert len(frame.payload) < 1000
    old.close(0)
    new.close(0)


def test_an_upgrade_that_has_begun_is_abandoned_or_finished(servers: tuple[Server, Server]) -> None:
    old, new = servers
    http = HttpConnection(old.address)
    sid = json.loads(http.get("/engine.io/?EIO=4&transport=polling").text[1:])["sid"]
    candidate = WebSocketClient.open(HttpConnection(old.address), f"/engine.io/?EIO=4&transport=websocket&sid={sid}")
    assert hand_over(old, new) == {}
    assert candidate.wait_closed().code in (1000, 1005)
    assert new.clients[sid].transport.name == "polling"

    candidate = WebSocketClient.open(HttpConnection(new.address), f"/engine.io/?EIO=4&transport=websocket&sid={sid}")
    candidate.send("2probe")
    assert candidate.recv() == "3probe"
    moving = gevent.spawn(hand_over, new, old)
    gevent.sleep(0.01)
    assert not moving.ready()
    candidate.send("5")
    assert moving.get(timeout=PATIENCE) == {}
    assert old.clients[sid].upgraded
    candidate.send("4over the new transport")
    assert candidate.recv() == "4over the new transport"


def test_the_next_ping_comes_when_it_was_due() -> None:
    old, new = equal_servers(ping_interval=0.5, ping_timeout=60)
    for server in (old, new):
        server.listen(("127.0.0.1", 0))
    client = websocket_of(old)
    for leaving, heir in ((old, new), (new, old), (old, new)):
        assert client.recv() == "2"
        hand_over(leaving, heir)
        client.send("3")
    assert client.recv() == "2"
    client.close()
    old.close(0)
    new.close(0)


def test_a_client_that_is_silent_is_closed_where_it_has_moved_to() -> None:
    old, new = equal_servers(ping_interval=0.5, ping_timeout=0.5)
    for server in (old, new):
        server.listen(("127.0.0.1", 0))
    client = websocket_of(old)
    hand_over(old, new)
    assert client.recv() == "2"
    assert client.wait_closed().code == 1000
    old.close(0)
    new.close(0)


# -- what happens while a session is frozen


def until(condition: Callable[[], object]) -> None:
    """Let the others run until a condition holds."""
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.001)


def is_frozen(server: Server, sid: str) -> bool:
    """Whether a session is about to move, so that its requests have to wait."""
    assert server._worker.gate is not None
    return sid in server._worker.gate._closed


class Held:
    """A middleware that holds requests with a mark in their query until ``go_on`` is set."""

    def __init__(self) -> None:
        self.begun, self.go_on = Event(), Event()

    def __call__(self, application: Any) -> Any:
        """Wrap the engine."""
        def hold(environ: Any, start_response: Any) -> Any:
            if "held=1" in environ["QUERY_STRING"]:
                self.begun.set()
                assert self.go_on.wait(PATIENCE)
            return application(environ, start_response)

        return hold


class Slow:
    """A listener that does not return before ``may_return`` is set if the message is "slow". ``seen`` has all messages."""

    def __init__(self) -> None:
        self.seen: list[str | bytes] = []
        self.begun, self.may_return = Event(), Event()

    def __call__(self, socket: Any) -> None:
        """Register it."""
        socket.on("message", self.on_message)
        socket.on("close", lambda reason, description: self.seen.append(f"closed: {reason}"))

    def on_message(self, data: str | bytes) -> None:
        """The listener."""
        self.seen.append(data)
        if data == "slow":
            self.begun.set()
            assert self.may_return.wait(PATIENCE)


@pytest.fixture
def slow_servers() -> Iterator[tuple[Server, Server, Slow]]:
    """Two equal servers that listen, with one slow listener."""
    slow = Slow()
    old, new = equal_servers(slow, ping_interval=300)
    for server in (old, new):
        server.listen(("127.0.0.1", 0))
    yield old, new, slow
    for server in (old, new):
        server.close(0)


def polling_sid(http: HttpConnection) -> str:
    """The id of a new session that polls."""
    return str(json.loads(http.get("/engine.io/?EIO=4&transport=polling").text[1:])["sid"])


def test_a_poll_that_comes_through_a_middleware_meanwhile_is_answered_with_a_noop(servers: tuple[Server, Server]) -> None:
    old, new = servers
    held = Held()
    old.use(held)
    http = HttpConnection(old.address)
    sid = polling_sid(http)
    http.start("GET", f"/engine.io/?EIO=4&transport=polling&sid={sid}&held=1")
    assert held.begun.wait(PATIENCE)
    moving = gevent.spawn(hand_over, old, new, timeout=3600)
    until(lambda: is_frozen(old, sid))
    held.go_on.set()
    assert moving.get(timeout=PATIENCE) == {}
    assert http.response().text == "6"


def test_messages_of_an_upgrade_that_is_completed_meanwhile_move_along(slow_servers: tuple[Server, Server, Slow]) -> None:
    old, new, slow = slow_servers
    held = Held()
    old.use(held)
    http = HttpConnection(old.address)
    sid = polling_sid(http)
    http.post(f"/engine.io/?EIO=4&transport=polling&sid={sid}", b"4slow\x1e4by polling")
    assert slow.begun.wait(PATIENCE)
    opening = gevent.spawn(WebSocketClient.open, HttpConnection(old.address),
                           f"/engine.io/?EIO=4&transport=websocket&sid={sid}&held=1")
    assert held.begun.wait(PATIENCE)
    moving = gevent.spawn(hand_over, old, new)
    until(lambda: is_frozen(old, sid))
    held.go_on.set()
    candidate = opening.get(timeout=PATIENCE)
    candidate.send("2probe")
    assert candidate.recv() == "3probe"
    for packet in ("5", "4over", "4websocket"):
        candidate.send(packet)
    until(lambda: old.clients[sid].upgraded)
    slow.may_return.set()
    assert moving.get(timeout=PATIENCE) == {}
    candidate.send("4newer")
    until(lambda: len(slow.seen) == 5)
    assert slow.seen == ["slow", "by polling", "over", "websocket", "newer"]


def test_a_client_whose_packets_are_not_read_meanwhile_is_not_taken_for_dead() -> None:
    slow = Slow()
    old, new = equal_servers(slow, ping_interval=0.2, ping_timeout=0.2)
    for server in (old, new):
        server.listen(("127.0.0.1", 0))
    client = websocket_of(old)
    (sid,) = old.clients
    client.send("4slow")
    assert slow.begun.wait(PATIENCE)
    moving = gevent.spawn(hand_over, old, new, timeout=3600)
    until(lambda: is_frozen(old, sid))
    # after one that is not answered in time, others come
    for _ in range(4):
        assert client.recv() == "2"
        client.send("3")
    slow.may_return.set()
    assert moving.get(timeout=PATIENCE) == {}
    assert not slow.seen[1:]
    for server in (old, new):
        server.close(0)


def test_messages_of_a_session_that_ends_meanwhile_are_seen_before_its_close(
        slow_servers: tuple[Server, Server, Slow], monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, slow = slow_servers
    monkeypatch.setattr(session_module, "CLOSE_GRACE", 3600.0)
    client = websocket_of(old)
    (sid,) = old.clients
    for packet in ("4slow", "4queued"):
        client.send(packet)
    assert slow.begun.wait(PATIENCE)
    until(lambda: old.clients[sid]._session.inbox.messages)
    moving = gevent.spawn(hand_over, old, new)
    until(lambda: is_frozen(old, sid))
    old.clients[sid].close()
    slow.may_return.set()
    assert moving.get(timeout=PATIENCE) == {}
    until(lambda: len(slow.seen) == 3)
    assert slow.seen == ["slow", "queued", "closed: forced close"]


def test_a_session_that_is_closed_meanwhile_takes_no_more_messages(slow_servers: tuple[Server, Server, Slow]) -> None:
    old, new, slow = slow_servers
    http = HttpConnection(old.address)
    sid = polling_sid(http)
    http.post(f"/engine.io/?EIO=4&transport=polling&sid={sid}", b"4slow")
    assert slow.begun.wait(PATIENCE)
    moving = gevent.spawn(hand_over, old, new)
    until(lambda: is_frozen(old, sid))
    socket = old.clients[sid]
    socket.send("last words")
    socket.close()
    slow.may_return.set()
    assert moving.get(timeout=PATIENCE) == {sid: "it is closing"}
    with pytest.raises(SocketClosed):
        socket.send("too late")
    target = f"/engine.io/?EIO=4&transport=polling&sid={sid}"
    assert http.get(target).text == "4last words\x1e1"


def test_what_other_threads_send_moves_along_or_is_refused(servers: tuple[Server, Server]) -> None:
    old, new = servers
    clients = [websocket_of(old) for _ in range(4)]
    sockets = list(old.clients.values())
    has_begun = threading.Event()

    def send(socket: Any) -> int:
        """Send numbers until the session has moved. Returns how many were sent."""
        for number in itertools.count():
            try:
                socket.send(str(number))
            except SocketClosed:
                return number
            has_begun.set()
        raise AssertionError

    pool = ThreadPool(len(sockets))
    sending = [pool.spawn(send, socket) for socket in sockets]
    until(has_begun.is_set)
    assert hand_over(old, new) == {}
    for socket, task in zip(sockets, sending, strict=True):
        sent = task.get(timeout=PATIENCE)
        new.clients[socket.id].send("end")
        client = clients[sockets.index(socket)]
        heard = []
        while (packet := client.recv()) != "4end":
            heard.append(packet)
        assert heard == [f"4{number}" for number in range(sent)]
    pool.kill()


def test_sessions_that_do_not_move_in_time_are_named() -> None:
    old, new = equal_servers()
    with client_of(old) as client:
        assert hand_over(old, new, timeout=-1) == {client.sid: "there was no time left"}
        client.send("goes on")
        assert client.receive() == "goes on"


# -- sessions that are not valid


SNAPSHOT = SessionSnapshot("abcd1234", 4, None, False, 0.0, HeartbeatSnapshot(0.0, 0.0, 1.0), (), (), (), {}, "{}",
                           PollingSnapshot(False, True), None)


@pytest.mark.parametrize("changes", [
    {"entries": (EntrySnapshot(99, ("",), False, True, None),)}, {"heartbeat": HeartbeatSnapshot(0.0, 0.0, inf)},
    {"expires_at": nan},
], ids=["packet", "time", "expiry"])
def test_a_snapshot_that_is_not_valid_is_refused_before_anything_is_touched(changes: dict[str, Any]) -> None:
    server, _ = equal_servers()
    server._worker.prepare(SNAPSHOT, None)
    with pytest.raises(ValueError, match=r"99|no number"):
        server._worker.prepare(SNAPSHOT._replace(**changes), None)


def test_a_session_that_cannot_be_resumed_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = equal_servers()
    prepared = server._worker.prepare(SNAPSHOT, None)

    def fail(*args: object) -> None:
        raise ValueError("not valid")

    monkeypatch.setattr(Session, "resume", fail)
    with pytest.raises(ValueError, match="not valid"):
        prepared.resume()
    assert server._registry.heartbeat_timer._timer is None
    assert not server.clients


# -- expiry


def test_a_session_expires_where_it_has_moved_to(transport: str) -> None:
    expired: list[str] = []

    def listen(socket: Any) -> None:
        socket.on("expire", lambda: expired.append(socket.server.options.path))

    old, new = equal_servers(listen)
    with client_of(old, transport=transport) as client:
        assert client.socket is not None
        client.socket.expire_at(time() + 3600)
        assert hand_over(old, new) == {}
        after = client.socket
        assert after is not None
        assert after._session.expires_at == pytest.approx(time() + 3600, abs=60)
        after.expire_at(time())
        client.wait_closed()
        assert len(expired) == 1
