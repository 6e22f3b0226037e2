"""The hand-over between two workers over their Unix sockets, both of this process: names, the search, and what is opened then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import gevent
import pytest
from gevent.event import Event
from support.rawhttp import PLAIN_TEXT, HttpConnection
from support.rawwebsocket import WebSocketClient
from werkzeug import Request

from engineio_wsgi import Server
from engineio_wsgi.cluster import incoming
from engineio_wsgi.cluster.handover import following, succession
from engineio_wsgi.cluster.handover.messages import Candidate, Claim
from engineio_wsgi.cluster.handover.process import process
from engineio_wsgi.cluster.handover.succession import Plan
from engineio_wsgi.cluster.listeners import Listener, Listeners
from engineio_wsgi.cluster.local import forwarder
from engineio_wsgi.cluster.local.channel import connect
from engineio_wsgi.cluster.local.names import FORMER, is_listening
from engineio_wsgi.cluster.messages import Kind, Message
from engineio_wsgi.cluster.router import Cluster
from engineio_wsgi.runtime.clock import monotonic

pytestmark = pytest.mark.ours
PATIENCE = 60.0

Make = Callable[..., Server]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A factory of servers that listen, as workers of one cluster."""
    # requests follow a session until it is found
    monkeypatch.setattr(following, "TIMEOUT", 3600.0)
    group, servers = f"local:{uuid4()}", []

    def begin(handover: bool = True, path: str = "/engine.io/", **options: Any) -> Server:
        server = Server(cluster=group, handover=handover, path=path, **options)
        for event in ("connection", "resume"):
            server.on(event, lambda socket: socket.on("message", lambda data: socket.send(data)))
        server.listen(("127.0.0.1", 0))
        server._worker.join_cluster()
        servers.append(server)
        return server

    process.begin(0)
    process.become_ready()
    yield begin
    for server in servers:
        server.close(0)
    process.begin(0)


def cluster_of(server: Server) -> Cluster:
    """What it has joined."""
    router = server._worker.router
    assert isinstance(router, Cluster)
    return router


def leave(server: Server, searches_on: Callable[[float, bool], bool] = lambda began, is_hopeful: True,
          settle: Callable[[], object] = int) -> bool:
    """Move its sessions. Returns whether there was an heir."""
    leaving = cluster_of(server)._succession
    assert leaving is not None
    plan = Plan(lambda candidates: candidates, 1, searches_on, monotonic() + PATIENCE, int, settle)
    with gevent.Timeout(PATIENCE):
        return leaving.leave(plan)


def websocket_of(server: Server, query: str = "") -> WebSocketClient:
    """A WebSocket session, after its open packet."""
    client = WebSocketClient.open(HttpConnection(server.address), f"/engine.io/?EIO=4&transport=websocket{query}")
    assert client.recv()[0] == "0"
    return client


def polling_sid(server: Server) -> str:
    """The id of a new session that polls."""
    http = HttpConnection(server.address)
    return str(json.loads(http.get("/engine.io/?EIO=4&transport=polling").text[1:])["sid"])


def until(condition: Callable[[], object]) -> None:
    """Let the others run until a condition holds."""
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.001)


def code_of(server: Server, sid: str) -> int:
    """The error code of a request for a session."""
    with gevent.Timeout(PATIENCE):
        response = HttpConnection(server.address).post(f"/engine.io/?EIO=4&transport=polling&sid={sid}", b"4")
    return int(response.json()["code"])


def address_of(server: Server, former: str = "") -> str:
    """Of its socket for other workers, under its first name."""
    cluster = cluster_of(server)
    return cluster._names.address(cluster.worker_id + former)


# -- names


def test_a_session_that_stays_is_found_and_its_name_is_dropped_when_it_has_ended(make: Make,
                                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "DROP_PERIOD", 0.001)
    old, new = make(), make()
    name = cluster_of(old).worker_id
    moves, stays = polling_sid(old), polling_sid(old)
    old.clients[stays].data["when"] = object()
    assert leave(old)
    assert list(new.clients) == [moves]
    http = HttpConnection(new.address)
    assert http.post(f"/engine.io/?EIO=4&transport=polling&sid={stays}", b"4still there").text == "ok"
    assert http.get(f"/engine.io/?EIO=4&transport=polling&sid={stays}").text == "4still there"
    assert is_listening(address_of(old, FORMER))
    old.close(0)
    assert code_of(new, stays) == 1
    new.clients[moves].close(discard=True)
    until(lambda: not is_listening(address_of(new).replace(cluster_of(new).worker_id, name)))
    assert cluster_of(new).workers() == [cluster_of(new).worker_id]
    assert is_listening(address_of(new))


def test_other_workers_are_told_that_a_session_that_has_stayed_is_gone(make: Make) -> None:
    old, new = make(), make()
    stays, moves = polling_sid(old), polling_sid(old)
    old.clients[stays].data["when"] = object()
    assert leave(old)
    third = make()
    old.close(0)
    assert code_of(third, stays) == 1
    assert HttpConnection(third.address).post(f"/engine.io/?EIO=4&transport=polling&sid={moves}", b"4").text == "ok"
    assert not third.clients
    assert len(new.clients) == 1


def test_the_names_of_a_worker_that_is_killed_after_its_claim_are_dropped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "DROP_PERIOD", 0.001)
    new = make()
    channel = connect(address_of(new), monotonic() + PATIENCE)
    candidate = Candidate.of(channel.ask(Message(Kind.SEARCH), monotonic() + PATIENCE))
    assert channel.ask(Claim.on(candidate, ["zzzz", "yyyy"]).message(), monotonic() + PATIENCE).kind is Kind.TAKEN
    own = cluster_of(new)._own
    assert (own.expects("zzzz"), own.left_behind) == (True, [])
    channel.close()
    until(lambda: not own.expects_any)


# -- what is opened meanwhile


class Admission:
    """An ``allow_request`` that keeps one handshake waiting, which has got to a worker before that one leaves."""

    def __init__(self) -> None:
        self._arrived, self._admitted = Event(), Event()

    def __call__(self, request: Request) -> bool:
        if "late" in request.args:
            self._arrived.set()
            assert self._admitted.wait(PATIENCE)
        return True

    def begin(self, server: Server) -> gevent.Greenlet[[], WebSocketClient]:
        """Begin the handshake. Returns what will have its session."""
        client = gevent.spawn(websocket_of, server, "&late=1")
        assert self._arrived.wait(PATIENCE)
        return client

    def admit(self, client: gevent.Greenlet[[], WebSocketClient]) -> WebSocketClient:
        """Let the handshake go on. Returns its session."""
        self._admitted.set()
        return client.get(timeout=PATIENCE)


def test_sessions_that_are_opened_meanwhile_move_too(make: Make) -> None:
    admission = Admission()
    old, new = make(allow_request=admission), make(allow_request=admission)
    opened = [websocket_of(old)]
    late = admission.begin(old)

    @old.on("leave")
    def open_another(socket: Any) -> None:
        if len(opened) < 2:
            opened.append(admission.admit(late))

    assert leave(old)
    assert (len(old.clients), len(new.clients)) == (0, 2)
    for client in opened:
        client.send("4goes on")
        assert client.recv() == "4goes on"


def test_sessions_that_are_opened_before_the_servers_accept_nothing_move_too(make: Make) -> None:
    admission = Admission()
    old, new = make(allow_request=admission), make(allow_request=admission)
    opened = [websocket_of(old)]
    late = admission.begin(old)
    left: list[str] = []
    old.on("leave", lambda socket: left.append(socket.id))
    stays = polling_sid(old)
    old.clients[stays].data["when"] = object()
    assert leave(old, settle=lambda: opened.append(admission.admit(late)))
    assert (list(old.clients), len(new.clients)) == ([stays], 2)
    assert len(left) == len(set(left)) == 3, "each session leaves once"


# -- requests of a session whose listener does not return


@pytest.mark.parametrize("is_heir", [True, False], ids=["at the heir", "at another worker"])
def test_a_request_waits_at_any_worker_until_the_session_has_moved(make: Make, monkeypatch: pytest.MonkeyPatch,
                                                                   is_heir: bool) -> None:
    monkeypatch.setattr(forwarder, "PATIENCE", 0.5)
    monkeypatch.setattr(incoming, "GATE_PATIENCE", 0.001)
    old, new = make(), make()
    begun, may_return = Event(), Event()
    sid = polling_sid(old)

    @old.clients[sid].on("message")
    def wait(data: str | bytes) -> None:
        begun.set()
        assert may_return.wait(PATIENCE)

    target = f"/engine.io/?EIO=4&transport=polling&sid={sid}"
    assert HttpConnection(old.address).post(target, b"4slow").text == "ok"
    assert begun.wait(PATIENCE)
    moving = gevent.spawn(leave, old)
    gate = old._worker.gate
    assert gate is not None
    until(lambda: sid in gate._closed)
    http = HttpConnection((new if is_heir else make()).address)
    http.start("POST", target, (PLAIN_TEXT,), b"4held")
    counters = cluster_of(old).counters
    until(lambda: counters.answered + counters.adopted)
    may_return.set()
    assert moving.get(timeout=PATIENCE)
    assert http.response().text == "ok"
    assert HttpConnection(new.address).get(target).text == "4slow\x1e4held"


def test_a_worker_whose_server_is_closed_takes_upgrades_of_its_sessions(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # as under gunicorn, where the workers have one address
    monkeypatch.setattr(Listener, "counts_websockets", True)
    monkeypatch.setattr(Listeners, "find", lambda listeners, names: next(iter(listeners._known.values()), None))
    old, new = make(), make()
    sid = polling_sid(old)
    assert old._http is not None
    old._http.close()
    candidate = WebSocketClient.open(HttpConnection(new.address), f"/engine.io/?EIO=4&transport=websocket&sid={sid}")
    candidate.send("2probe")
    assert candidate.recv() == "3probe"
    candidate.send("5")
    candidate.send("4over")
    assert candidate.recv() == "4over"


# -- the search


def test_workers_without_the_option_are_not_waited_for(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    old, _ = make(), make(handover=False)
    websocket_of(old)
    assert leave(old) is False
    assert "it has no listener of 'resume', or not the option handover" in caplog.text


def test_a_worker_without_others_does_not_search_on(make: Make) -> None:
    assert leave(make(), lambda began, is_hopeful: is_hopeful) is False


def test_workers_that_leave_are_no_reason_to_search_on(make: Make) -> None:
    old, _ = make(), make()
    process.begin_to_leave()
    assert leave(old, lambda began, is_hopeful: is_hopeful) is False


def test_workers_that_do_not_serve_yet_are_a_reason_to_search_on(make: Make) -> None:
    old, new = make(), make()
    websocket_of(old)
    process.begin(0)
    hopes: list[bool] = []

    def searches_on(began: float, is_hopeful: bool) -> bool:
        hopes.append(is_hopeful)
        if len(hopes) == 3:
            process.become_ready()
        return True

    assert leave(old, searches_on)
    assert hopes == [True] * 3
    assert len(new.clients) == 1
