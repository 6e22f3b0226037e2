"""A connection that has moved to another worker is served as the worker that accepted it would have served it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pairs import KINDS, Pair, seen, wait
from support.rawhttp import HttpConnection
from support.rawwebsocket import WebSocketClient

Start = Callable[..., Pair]
GUNICORNS = ["ours", "gevent", "gevent_pywsgi"]
#: gunicorn's workers that count requests, for max_requests
COUNTING = ["ours", "gevent", "gevent without hooks"]
#: of a request's environ, what is about this connection and no other
OF_CONNECTION = ("REMOTE_PORT", "engineio.hops")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A factory of two workers."""
    pairs: list[Pair] = []

    def make(kind: str, variant: str = "bare", *arguments: str, **options: Any) -> Pair:
        pairs.append(Pair(tmp_path, kind, variant, *arguments, **options))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.stop()


def upgraded(connection: HttpConnection, target: str, headers: Any = ()) -> WebSocketClient:
    """A WebSocket that has become its session's transport."""
    websocket = WebSocketClient.open(connection, target.replace("=polling", "=websocket"), headers)
    websocket.send("2probe")
    assert websocket.recv() == "3probe"
    websocket.send("5")
    websocket.send("4by websocket")
    while websocket.recv() != "4by websocket":
        pass
    return websocket


@pytest.mark.parametrize("kind", KINDS)
def test_a_middleware_around_the_engine_sees_every_request_once(start: Start, kind: str) -> None:
    pair = start(kind, "guarded")
    target = pair.open()
    for _ in range(3):
        connection = pair.at_other()
        response = connection.post(target, b"4x")
        assert (response.body, response.header("X-Guard")) == (b"ok", "was here")
        # what it has put into the environ is there, in the worker of the session
        assert (seen(response)["REMOTE_USER"], seen(response)["pid"]) == ("alice", pair.owner)
        assert connection.get("/admin").status == 401
        assert connection.get(target).body == b"4x"
        assert connection.get("/admin").status == 401
        # also when they arrive together
        connection.send(connection.head("POST", target, [("Content-Length", "2")]) + b"4x" + connection.head("GET", "/admin"))
        assert [connection.response().status for _ in range(2)] == [200, 401]
        assert connection.get(target).body == b"4x"
    assert pair.output.read_text().count("met POST") == 6
    upgraded(pair.at_other(), target)
    told = pair.seen_of_upgrade()
    assert (told["REMOTE_USER"], told["pid"]) == ("alice", pair.owner)
    assert pair.output.read_text().count("met GET /engine.io/") == 8
    assert not pair.complaints(), pair.logs()


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_over_a_moved_connection_is_the_same_as_over_any_other(start: Start, kind: str) -> None:
    pair = start(kind)
    target = pair.open()
    connection = pair.at_other()
    connection.send(connection.head("POST", target, [("Content-Length", "2")]) + b"4x" + connection.head("GET", "/who?moved"))
    assert connection.response().body == b"ok"
    moved = connection.response().json()
    assert moved["pid"] == pair.owner
    expected = pair.at_owner().get("/who?moved").json()
    for page in (moved, expected):
        for name in OF_CONNECTION:
            page["environ"].pop(name, None)
    assert moved["environ"] == expected["environ"]
    assert not pair.complaints(), pair.logs()


@pytest.mark.parametrize("kind", KINDS)
def test_moved_connections_are_clients_of_their_worker(start: Start, kind: str) -> None:
    pair = start(kind)
    target, asking = pair.open(), pair.at_owner()
    before = asking.get("/who").json()
    connections = [pair.at_other() for _ in range(3)]
    for connection in connections:
        assert connection.post(target, b"4x").body == b"ok"
        assert connection.get("/who").json()["pid"] == pair.owner
    after = asking.get("/who").json()
    assert after["clients"] == before["clients"] + 3
    if kind in COUNTING:
        assert after["requests"] == before["requests"] + 7
    for connection in connections:
        connection.close()
    wait(lambda: asking.get("/who").json()["clients"] == before["clients"])


def test_moved_websockets_are_clients_of_gunicorns_worker(start: Start) -> None:
    pair = start("ours")
    asking, targets = pair.at_owner(), [pair.open() for _ in range(3)]
    before = asking.get("/who").json()["clients"]
    websockets = [upgraded(pair.at_other(), target) for target in targets]
    assert asking.get("/who").json()["clients"] == before + 3
    for websocket in websockets:
        websocket.close()
        websocket.wait_closed()
    wait(lambda: asking.get("/who").json()["clients"] == before)


@pytest.mark.parametrize("kind", ["ours", "gevent"])
def test_worker_with_as_many_connections_as_it_may_have_gets_no_other(start: Start, kind: str) -> None:
    pair = start(kind, "bare", "--worker-connections", "4")
    # its session's first connection is the owner's, too
    session, moved, stays = pair.at_owner(), pair.at_other(), pair.at_other()
    sid = session.get(pair.target).body.decode().split('"')[3]
    target = f"{pair.target}&sid={sid}"
    while True:
        asking = pair.at_owner().get("/who").json()
        if asking["clients"] == 3:
            break
    assert moved.post(target, b"4x").body == b"ok"
    assert stays.post(target, b"4x").body == b"ok"
    assert (moved.get("/who").json()["pid"], stays.get("/who").json()["pid"]) == (pair.owner, pair.other)


@pytest.mark.parametrize("kind", GUNICORNS)
def test_access_log_has_one_line_for_each_request(start: Start, kind: str) -> None:
    pair = start(kind, "bare", "--access-logformat", "<%(m)s %(q)s %(s)s %({x-key}i)s>")
    target = pair.open()
    connection = pair.at_other()
    assert connection.post(target, b"4x", [("X-Key", "posted")]).body == b"ok"
    assert connection.get("/who?moved", [("X-Key", "asked")]).json()["pid"] == pair.owner
    query = target.partition("?")[2]
    # pywsgi's loop cannot be left without a line; it says that the request was another worker's
    left = [f"<POST {query} 000 posted>"] if kind == "gevent_pywsgi" else []
    expected = sorted([*left, f"<POST {query} 200 posted>", "<GET moved 200 asked>"])

    def lines() -> list[str]:
        return [line for line in pair.access_log.read_text().splitlines() if "posted" in line or "asked" in line]

    wait(lambda: len(lines()) >= len(expected))
    # each request that is asked from here on comes later than any line about those before
    assert connection.get("/who?last").status == pair.at_other().get("/who?last").status == 200
    wait(lambda: pair.access_log.read_text().count(" last ") == 2)
    assert sorted(lines()) == expected


@pytest.mark.parametrize("kind", [*GUNICORNS, "plain"])
def test_limits_are_those_of_the_server(start: Start, kind: str) -> None:
    pair = start(kind, "bare", "--limit-request-line", "400")
    target = pair.open()
    connection = pair.at_other()
    assert connection.post(target, b"4x").body == b"ok"
    expected = pair.at_owner().get("/who?" + "x" * 500).status
    assert connection.get("/who?" + "x" * 500).status == expected
    assert expected in ({200} if kind == "gevent_pywsgi" else {400, 414})


@pytest.mark.parametrize("kind", KINDS)
def test_engine_below_a_dispatcher(start: Start, kind: str) -> None:
    pair = start(kind, "dispatched")
    target = pair.open()
    connection = pair.at_other()
    response = connection.post(target, b"4x")
    assert response.body == b"ok"
    assert (seen(response)["SCRIPT_NAME"], seen(response)["PATH_INFO"]) == ("/shop", "/engine.io/")
    assert connection.get("/who").json()["environ"]["SCRIPT_NAME"] == ""
    upgraded(pair.at_other(), target)
    told = pair.seen_of_upgrade()
    assert (told["SCRIPT_NAME"], told["pid"]) == ("/shop", pair.owner)
    assert not pair.complaints(), pair.logs()


@pytest.mark.parametrize("kind", ["gevent", "gevent without hooks"])
def test_prefix_of_the_process(start: Start, kind: str) -> None:
    pair = start(kind, environment={"SCRIPT_NAME": "/shop"})
    target = pair.open()
    connection = pair.at_other()
    response = connection.post(target, b"4x")
    assert (response.body, seen(response)["SCRIPT_NAME"], seen(response)["pid"]) == (b"ok", "/shop", pair.owner)
    page = connection.get("/shop/who").json()
    assert (page["pid"], page["environ"]["SCRIPT_NAME"], page["environ"]["PATH_INFO"]) == (pair.owner, "/shop", "/who")
    upgraded(pair.at_other(), target)
    told = pair.seen_of_upgrade()
    assert (told["SCRIPT_NAME"], told["pid"]) == ("/shop", pair.owner)
    assert not pair.complaints(), pair.logs()


@pytest.mark.parametrize("kind", KINDS)
def test_an_upgrade_behind_a_proxy_keeps_the_environ_of_proxyfix(start: Start, kind: str) -> None:
    pair = start(kind, "proxied")
    target = pair.open()
    headers = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Prefix", "/shop")]
    upgraded(pair.at_other(), target, headers)
    told = pair.seen_of_upgrade()
    assert (told["REMOTE_ADDR"], told["wsgi.url_scheme"], told["SCRIPT_NAME"]) == ("203.0.113.9", "https", "/shop")
    assert told["pid"] == pair.owner
    assert not pair.complaints(), pair.logs()
