"""The application of examples/deploy behind nginx, HAProxy, Caddy and Traefik, with the configurations that are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from signal import SIGTERM
from time import monotonic
from typing import Any

import gevent
import pytest
from support.clients import PollingSession, Session, WebSocketSession, open_session, upgrade
from support.deployment import CLIENT, HURRIED, Backend, Site
from support.node import Driver
from support.rawhttp import PLAIN_TEXT
from support.rawwebsocket import Refused, WebSocketClient

WAYS = ["polling", "websocket", "upgraded"]
HANDSHAKE = "/engine.io/?EIO=4&transport="
#: seconds that "at once" may take: less than until the next ping, with which a proxy would pass on what it has held back
SOON = 20.0
EVIL = "https://evil.example"


def greeted(site: Site, way: str, headers: Any = ()) -> Session:
    """A session that has been told its address, which is returned as ``session.query["address"]``."""
    session = open_session(site, way, headers=headers)
    assert session.hear() == f"hello {CLIENT}"
    return session


# -- messages

@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("way", WAYS)
def test_messages(deployment: Any, way: str, secure: bool) -> None:
    session = greeted(deployment.secured if secure else deployment.site, way)
    assert session.info["upgrades"] == ([] if way == "websocket" else ["websocket"])
    messages: list[str | bytes] = ["text", b"\x00binary\xff", "é" * 50_000, bytes(100_000)]
    session.say(*messages)
    assert session.hear_many(4) == messages
    session.close()


def test_waiting_poll_is_answered_at_once(deployment: Any) -> None:
    session = greeted(deployment.site, "polling")
    for number in range(5):
        session.park()
        began = monotonic()
        session.say(str(number))
        assert session.end_poll() == [f"4{number}"]
        assert monotonic() - began < SOON


def test_upgrade_during_a_poll(deployment: Any) -> None:
    """The poll that waits when the upgrade begins is let go of, through the proxy."""
    session = greeted(deployment.site, "polling")
    session.park()
    began = monotonic()
    upgraded = upgrade(session)
    upgraded.say("on")
    assert upgraded.hear() == "on"
    assert monotonic() - began < SOON
    upgraded.close()


def test_slow_client_gets_a_large_answer(deployment: Any) -> None:
    """The proxy passes on what the client takes; it does not write the rest to its disk, which its log would tell."""
    session = PollingSession(deployment.site).open()
    session.getting.close()
    session.getting = deployment.site.connect(receive_buffer=4096)
    assert session.hear() == f"hello {CLIENT}"
    session.start_poll()
    message = "x" * 900_000
    session.say(message)
    deployment.site.settle()
    assert session.end_poll() == ["4" + message]


def test_too_large(deployment: Any) -> None:
    """Refused by nginx itself, and by the engine behind HAProxy and Caddy. Caddy passes on nothing before it has the body."""
    session = greeted(deployment.site, "polling")
    session.posting.start("POST", session.target(), [PLAIN_TEXT, ("Content-Length", "2000000")])
    if deployment.proxy.kind == "caddy":
        session.posting.send(bytes(2_000_000))
    assert session.posting.response().status == 413


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_too_large_and_sent(deployment: Any, secure: bool) -> None:
    """The answer arrives, although the proxy is still passing the body on when the engine refuses it."""
    for _ in range(10):
        session = greeted(deployment.secured if secure else deployment.site, "polling")
        session.posting.start("POST", session.target(), [PLAIN_TEXT, ("Content-Length", "2000000")])
        # the proxy may have closed the connection before the end
        with suppress(OSError):
            for _ in range(20):
                session.posting.send(bytes(100_000))
        assert session.posting.response().status == 413


def test_official_client(deployment: Any, drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch,
                         certificate: dict[str, str]) -> None:
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", certificate["certfile"])
    for site in (deployment.site, deployment.secured):
        client = drive(site.origin, json.dumps({"transports": ["polling", "websocket"]}))
        assert client.events.wait("upgrade")["transport"] == "websocket"
        client.tell("send", text="héllo")
        client.tell("send", base64="AAEC")
        client.events.wait("message", 3)
        # sent from 127.0.0.1, by a client that does as it likes
        assert client.events.of("message") == [{"text": "hello 127.0.0.1"}, {"text": "héllo"}, {"base64": "AAEC"}]
        client.tell("close")
        client.events.wait("close")
        assert client.events.of("error") == []


# -- who it is, and from where

@pytest.mark.parametrize("way", WAYS)
def test_claimed_address_is_not_believed(deployment: Any, way: str) -> None:
    claims = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-For", "192.0.2.2, 192.0.2.3"), ("X-Real-IP", "192.0.2.4"),
              ("Forwarded", "for=192.0.2.5")]
    greeted(deployment.site, way, claims).close()
    page = deployment.site.connect().get("/", claims).json()
    assert page["address"] == CLIENT


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("way", WAYS)
def test_own_pages_may_connect(deployment: Any, way: str, secure: bool) -> None:
    site = deployment.secured if secure else deployment.site
    greeted(site, way, [("Origin", site.origin)]).close()
    named = "{}://example.org".format("https" if secure else "http")
    greeted(site, way, [("Host", "example.org"), ("Origin", named)]).close()
    assert site.ask()["url"] == f"{site.origin}/"


def refusal(site: Site, transport: str, headers: list[tuple[str, str]]) -> tuple[int, int]:
    """The status and the code with which a handshake is refused."""
    if transport == "polling":
        response = site.connect().get(HANDSHAKE + transport, headers)
    else:
        with pytest.raises(Refused) as refused:
            WebSocketClient.open(site.connect(), HANDSHAKE + transport, headers)
        response = refused.value.response
    return response.status, response.json()["code"]


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_pages_of_others_may_not(deployment: Any, transport: str) -> None:
    for site, other in ((deployment.site, deployment.secured), (deployment.secured, deployment.site)):
        host = "{}:{}".format(*site.address)
        foreign = ["http://evil.example", "http://127.0.0.1", other.origin, f"{other.origin.partition(':')[0]}://{host}"]
        for origin in foreign:
            assert refusal(site, transport, [("Origin", origin)]) == (403, 4), origin


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_claimed_host_and_scheme_are_not_believed(deployment: Any, transport: str) -> None:
    claims = [("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "443"),
              ("Forwarded", "host=evil.example;proto=https")]
    assert refusal(deployment.site, transport, [("Origin", EVIL), *claims]) == (403, 4)
    own = "https://{}:{}".format(*deployment.site.address)
    assert refusal(deployment.site, transport, [("Origin", own), *claims]) == (403, 4)


@pytest.mark.parametrize("kind", ["nginx-unix-worker", "haproxy-tcp-gevent"])
def test_several_workers(deploy: Any, kind: str) -> None:
    """Each serves the sessions of the others, and still knows who the client is, and from where."""
    deployment = deploy(*kind.split("-"), workers=3, cluster="local")
    owners: set[str] = set()

    def visit(site: Any) -> None:
        session = greeted(site, "polling", [("Origin", site.origin)])
        assert isinstance(session, PollingSession)
        session.say("polled")
        assert session.hear() == "polled"
        upgraded = upgrade(session)
        upgraded.say("upgraded")
        assert upgraded.hear() == "upgraded"
        # what takes the connections to the application on for other clients' requests
        assert site.ask()["address"] == CLIENT
        owners.add(session.sid[:4])

    # the kernel may give every connection to the same worker, for a while
    while len(owners) < 2:
        visits = [gevent.spawn(visit, site) for site in (deployment.site, deployment.secured) * 10]
        gevent.joinall(visits, raise_error=True)
    assert not deployment.backend.complaints()


# -- the ends

@pytest.mark.parametrize("way", WAYS)
def test_client_that_vanishes_is_seen(deployment: Any, way: str) -> None:
    """Also while a poll waits: the proxy passes it on."""
    before = deployment.backend.logs().count("has left: transport close")
    greeted(deployment.site, way).vanish()
    deployment.backend.until(lambda: deployment.backend.logs().count("has left: transport close") == before + 1)


def test_session_ids_are_in_no_log(deployment: Any) -> None:
    sessions = [greeted(deployment.site, way) for way in WAYS]
    for session in sessions:
        session.say("hello")
        session.close()
    proxy = deployment.proxy
    written = proxy.logs() + "".join(path.read_text() for path in proxy.configuration.parent.glob("*.log"))
    assert ('"RouterName":"engineio@file"' if proxy.kind == "traefik" else "/engine.io/") in written, "there is an access log"
    assert not [session.sid for session in sessions if session.sid in written + deployment.backend.logs()]


@pytest.mark.parametrize("proxy", ["nginx", "haproxy", "caddy", "traefik"])
def test_stop_of_the_application(deploy: Any, proxy: str) -> None:
    """Everybody gets what waits for them and a close, and finds the next process through the same proxy."""
    deployment = deploy(proxy, "tcp" if proxy == "traefik" else "unix", "worker")
    websocket, waiting = (greeted(deployment.site, way) for way in ("websocket", "polling"))
    assert isinstance(websocket, WebSocketSession)
    assert isinstance(waiting, PollingSession)
    waiting.park()
    deployment.backend.signal(SIGTERM)
    closed = websocket.ws.wait_closed()
    assert (closed.code, closed.reason) == (1001, "server shutting down")
    assert waiting.end_poll() == ["1"]
    websocket.vanish()
    waiting.disconnect()
    assert deployment.backend.wait() == 0
    assert not deployment.backend.complaints()
    deployment.backend = Backend(deployment.proxy.configuration.parent.parent / "next", "worker", deployment.address)
    deployment.backend.until(lambda: bool(deployment.site.connect().get("/health").status == 200))
    again = greeted(deployment.site, "upgraded")
    again.say("hello")
    assert again.hear() == "hello"


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_pings_keep_idle_sessions(deploy: Any, proxy: str) -> None:
    """With each minute 3 seconds: sessions live longer than the proxy's patience, because of the engine's pings alone."""
    deployment = deploy(proxy, "tcp", "worker", hurried=True, ping_interval=0.5, ping_timeout=60.0)
    sessions = [greeted(deployment.site, way) for way in WAYS]
    began = monotonic()
    while monotonic() - began < 1.5 * HURRIED:
        for session in sessions:
            assert session.recv() == "2"
            session.send("3")
    for session in sessions:
        session.say("still here")
        assert session.hear() == "still here"
    assert deployment.site.ask()["sessions"] == 3
