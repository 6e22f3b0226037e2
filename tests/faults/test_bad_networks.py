"""Networks that are slow, bumpy, or gone: what is sent arrives once and in order, or the session ends in time and says why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from time import monotonic
from typing import Any

import gevent
import pytest
from support.badnetwork import BadNetwork, Join
from support.clients import PollingSession, Session, WebSocketSession, open_session, probe, upgrade

pytestmark = pytest.mark.ours

#: of sessions that are to end: short, so that nobody waits for long
HURRIED = {"ping_interval": 0.3, "ping_timeout": 0.3}


@pytest.fixture
def handler() -> str:
    """The network is beneath all of them."""
    return "ours"


@pytest.fixture
def join() -> Iterator[Join]:
    """A factory of bad networks: ``join(served, delay=…)``."""
    networks: list[BadNetwork] = []

    def begin(*arguments: Any, **options: Any) -> BadNetwork:
        networks.append(BadNetwork(*arguments, **options))
        return networks[-1]

    yield begin
    for network in networks:
        network.stop()


def hear_messages(session: Session, count: int) -> list[str | bytes]:
    """The next messages; pings are answered."""
    heard: list[str | bytes] = []
    while len(heard) < count:
        packet = session.recv()
        if packet == "2":
            session.send("3")
        elif packet != "6":
            assert isinstance(packet, str)
            heard.append(packet[1:])
    return heard


def names(count: int, kind: str) -> list[str]:
    """So many messages that differ."""
    return [f"{kind} {number} " + "ü" * (number % 7 * 30) for number in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_and_bumpy_network_loses_nothing(serve: Any, join: Join, seed: int) -> None:
    served = serve()
    network = join(served, delay=0.15, bumpy=True, seed=seed)
    polling = PollingSession(network.served).open()
    socket = served.socket(polling.sid)
    before, during, after = names(20, "before"), names(20, "during"), names(60, "after")
    polling.say(*before)
    posting = gevent.spawn(polling.say, *during)
    served_pushes = gevent.spawn(lambda: [(socket.send(f"push {number}"), gevent.sleep(0.01)) for number in range(100)])
    websocket = upgrade(polling)
    posting.get()
    websocket.say(*after)
    heard = hear_messages(websocket, 200)
    served_pushes.get()
    assert [text for text in heard if not str(text).startswith("push")] == before + during + after
    assert [text for text in heard if str(text).startswith("push")] == [f"push {number}" for number in range(100)]
    assert not served.events.of("close")


def test_who_has_vanished_is_noticed(serve: Any, join: Join, transport: str) -> None:
    served = serve(**HURRIED)
    network = join(served)
    session = open_session(network.served, transport)
    neighbour = open_session(served, "websocket")
    if isinstance(session, PollingSession):
        session.park()
    network.vanish()
    began = monotonic()
    alive = gevent.spawn(hear_messages, neighbour, 1)
    assert served.events.wait("close")["reason"] == "ping timeout"
    # the timer's slots are tenths of a second
    assert monotonic() - began > HURRIED["ping_timeout"] - 0.1
    neighbour.say("still there")
    assert alive.get() == ["still there"]
    assert len(served.events.of("close")) == 1


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_the_end_of_a_connection_comes_through(serve: Any, join: Join, transport: str, end: str) -> None:
    served = serve()
    network = join(served, delay=0.05)
    session, neighbour = open_session(network.served, transport), open_session(served, transport)
    if isinstance(session, PollingSession):
        session.start_poll()
        gevent.sleep(0.1)
        served.settle()
    if end == "reset":
        network.reset()
    elif isinstance(session, PollingSession):
        session.getting.finish()
    else:
        assert isinstance(session, WebSocketSession)
        session.ws.http.finish()
    assert served.events.wait("close")["reason"] == "transport close"
    neighbour.say("fine")
    assert neighbour.hear() == "fine"


def test_a_polling_session_outlives_its_address(serve: Any, join: Join) -> None:
    served = serve()
    network = join(served)
    session = PollingSession(network.served).open()
    session.say("from the first address")
    assert session.hear() == "from the first address"
    network.rebind("127.0.0.2")
    session.getting, session.posting = network.served.connect(), network.served.connect()
    session.say("from the second address")
    assert session.hear() == "from the second address"
    assert not served.events.of("close")


def test_a_websocket_does_not_and_a_new_one_can_be_had(serve: Any, join: Join) -> None:
    served = serve(**HURRIED)
    network = join(served)
    open_session(network.served, "websocket")
    network.rebind("127.0.0.2")
    assert served.events.wait("close")["reason"] == "ping timeout"
    again = open_session(network.served, "websocket")
    assert served.socket(again.sid).remote_address == "127.0.0.2"
    again.say("here again")
    assert hear_messages(again, 1) == ["here again"]


def test_a_stall_that_ends_in_time_costs_nothing(serve: Any, join: Join, transport: str) -> None:
    served = serve(ping_interval=0.3, ping_timeout=5.0)
    network = join(served)
    session = open_session(network.served, transport)
    socket = served.socket(session.sid)
    network.stall()
    saying = gevent.spawn(session.say, *names(10, "up"))
    for number in range(10):
        socket.send(f"down {number}")
    # longer than the interval: a ping is on its way as well
    gevent.sleep(0.5)
    network.recover()
    saying.get()
    heard = hear_messages(session, 20)
    assert [text for text in heard if str(text).startswith("down")] == [f"down {number}" for number in range(10)]
    assert [text for text in heard if not str(text).startswith("down")] == names(10, "up")
    assert not served.events.of("close")


@pytest.mark.parametrize("stage", ["before the probe", "after the probe"])
def test_an_upgrade_that_vanishes_leaves_the_polling_session(serve: Any, join: Join, stage: str) -> None:
    served = serve(upgrade_timeout=0.3)
    network = join(served)
    session = PollingSession(served).open()
    through = PollingSession(network.served)
    through.info = session.info
    if stage == "after the probe":
        probe(through)
    else:
        WebSocketSession(network.served, sid=session.sid)
    network.vanish()
    socket = served.socket(session.sid)
    session.say("said meanwhile")
    socket.send("pushed meanwhile")
    assert sorted(map(str, hear_messages(session, 2))) == ["pushed meanwhile", "said meanwhile"]
    # the candidate is given up, and another one is welcome
    with gevent.Timeout(10):
        while socket.upgrading:
            gevent.sleep(0.02)
    websocket = upgrade(session)
    websocket.say("by another way")
    assert hear_messages(websocket, 1) == ["by another way"]
    assert not served.events.of("close")


def test_a_session_that_vanishes_with_the_switch_ends_once(serve: Any, join: Join) -> None:
    served = serve(**HURRIED)
    network = join(served)
    session = PollingSession(network.served).open()
    websocket = upgrade(session)
    websocket.say("x")
    assert hear_messages(websocket, 1) == ["x"]
    network.vanish()
    served.server.broadcast("never heard")
    assert served.events.wait("close")["reason"] == "ping timeout"
    assert len(served.events.of("close")) == 1


def test_a_busy_cpu_and_a_slow_network_together_cost_no_session(serve: Any, join: Join, transport: str) -> None:
    served = serve(app=None, **HURRIED)
    network = join(served, delay=0.15)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            until = monotonic() + 1.0
            while monotonic() < until:
                pass
            socket.send(data)

    session = open_session(network.served, transport)
    pings = 0

    def answer() -> None:
        nonlocal pings
        with contextlib.suppress(AssertionError):
            while True:
                if session.recv() == "2":
                    pings += 1
                    session.send("3")

    answering = gevent.spawn(answer)
    session.send("4compute")
    with gevent.Timeout(20):
        while pings < 4:
            gevent.sleep(0.05)
    assert not served.events.of("close")
    answering.kill()
