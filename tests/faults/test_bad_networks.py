"""Networks that are slow, bumpy, or gone: what is sent arrives once and in order, or the session ends in time and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
import pytest
from support.badnetwork import BadNetwork, Join
from support.clients import PollingSession, Session, WebSocketSession, open_session, probe, upgrade
from support.rawhttp import HttpConnection
from support.rawwebsocket import Closed
from support.serving import PATIENCE, Served

pytestmark = pytest.mark.ours

#: of sessions that are to end: short, so that nobody waits for long
HURRIED = {"ping_interval": 0.3, "ping_timeout": 0.3}
#: seconds that the server's timer, which has slots, may be off by
SLOT = 0.1
#: one way: a round trip takes 300 ms
FAR = 0.15


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


def hear_unanswered(session: Session) -> str:
    """The next message; pings are not answered, because a POST of somebody else's is under way."""
    while not str(packet := session.recv()).startswith("4"):
        pass
    return str(packet)[1:]


def answer_ping(session: Session) -> None:
    """Wait for the next ping and answer it."""
    while session.recv() != "2":
        pass
    session.send("3")


def wait_for_pings(served: Served) -> None:
    """Return when all sessions that are open by now have been pinged: one that is younger has been."""
    youngest = open_session(served, "websocket")
    answer_ping(youngest)
    youngest.close()
    served.events.wait("close")


def ended(served: Served) -> list[str]:
    """The ids of the sessions that have ended, once for each time."""
    return [closed["sid"] for closed in served.events.of("close")]


def names(count: int, kind: str) -> list[str]:
    """So many messages that differ."""
    return [f"{kind} {number} " + "ü" * (number % 7 * 30) for number in range(count)]


def of_kind(heard: list[str | bytes], kind: str) -> list[str | bytes]:
    """Those of the messages that are `names` of a kind."""
    return [text for text in heard if str(text).startswith(kind)]


# -- slow and bumpy


@pytest.mark.parametrize("seed", range(2))
def test_a_slow_and_bumpy_network_loses_nothing(serve: Any, join: Join, seed: int) -> None:
    served = serve()
    network = join(served, delay=FAR, bumpy=True, seed=seed)
    polling = PollingSession(network.served).open()
    socket = served.socket(polling.sid)
    before, during, after = names(20, "said before"), names(20, "said during"), names(60, "said after")
    polling.say(*before)
    pushing = gevent.spawn(lambda: [(socket.send(text), gevent.sleep(0.01)) for text in names(100, "pushed")])
    polling.start_poll()
    posting = gevent.spawn(polling.say, *during)
    websocket = probe(polling)
    # as clients do: both requests are finished before the upgrade packet
    posting.get()
    websocket.inbox.extend(polling.end_poll())
    websocket.send("5")
    websocket.say(*after)
    polling.disconnect()
    heard = hear_messages(websocket, 200)
    pushing.get()
    assert of_kind(heard, "said") == before + during + after
    assert of_kind(heard, "pushed") == names(100, "pushed")
    assert network.stalls
    assert not served.events.of("close")


def test_it_loses_nothing_without_an_upgrade_either(serve: Any, join: Join, transport: str) -> None:
    served = serve(ping_interval=0.3, ping_timeout=10 * PATIENCE)
    network = join(served, delay=FAR, bumpy=True)
    session = open_session(network.served, transport)
    said = names(100, "said")
    saying = gevent.spawn(lambda: [session.say(*said[start : start + 50]) for start in (0, 50)])
    heard = [hear_unanswered(session) for _ in said]
    saying.get()
    assert heard == said
    assert not served.events.of("close")


# -- gone without a word


def test_a_vanished_client_is_noticed(serve: Any, join: Join, transport: str, eio: int) -> None:
    served = serve(**HURRIED)
    network, other = join(served), join(served)
    neighbour = open_session(other.served, "websocket")
    began = monotonic()
    session = open_session(network.served, transport, eio)
    if isinstance(session, PollingSession):
        session.park()
    alive = gevent.spawn(hear_messages, neighbour, 1)
    network.vanish()
    assert served.events.wait("close")["reason"] == "ping timeout"
    assert monotonic() - began > sum(HURRIED.values()) - SLOT
    neighbour.say("still there")
    assert alive.get() == ["still there"]
    assert ended(served) == [session.sid]
    assert set(served.server.clients) == {neighbour.sid}
    if transport == "websocket":
        network.wait_left()


def test_a_client_that_still_receives_gets_a_close(serve: Any, join: Join) -> None:
    served = serve(**HURRIED)
    network = join(served)
    session = open_session(network.served, "websocket")
    assert isinstance(session, WebSocketSession)
    network.stall(up=True, down=False)
    assert session.recv() == "2"
    session.send("3")
    assert session.ws.wait_closed() == Closed(1000, "ping timeout")
    assert served.events.wait("close")["reason"] == "ping timeout"


# -- halves and resets


def test_a_client_that_says_nothing_more_has_left(serve: Any, join: Join, transport: str) -> None:
    served = serve()
    network = join(served)
    session, neighbour = open_session(network.served, transport), open_session(served, transport)
    if isinstance(session, PollingSession):
        session.park()
        session.getting.finish()
    else:
        assert isinstance(session, WebSocketSession)
        session.ws.http.finish()
    assert served.events.wait("close")["reason"] == "transport close"
    # it reads on, and is not kept waiting
    if isinstance(session, PollingSession):
        session.getting.read_to_end()
    else:
        assert isinstance(session, WebSocketSession)
        session.ws.wait_closed()
    neighbour.say("fine")
    assert neighbour.hear() == "fine"
    assert len(served.events.of("close")) == 1


def test_a_reset_ends_the_session_that_it_hits_and_no_other(serve: Any, join: Join, transport: str) -> None:
    served = serve()
    network, other = join(served), join(served)
    session, neighbour = open_session(network.served, transport), open_session(other.served, transport)
    if isinstance(session, PollingSession):
        session.park()
    network.reset()
    assert served.events.wait("close")["reason"] == "transport close"
    neighbour.say("fine")
    assert neighbour.hear() == "fine"
    assert ended(served) == [session.sid]
    assert set(served.server.clients) == {neighbour.sid}


def test_a_reset_between_two_polls_costs_nothing(serve: Any, join: Join) -> None:
    served = serve()
    network = join(served)
    session = PollingSession(network.served).open()
    session.say("before")
    network.reset()
    session.getting, session.posting = network.served.connect(), network.served.connect()
    session.say("after")
    assert session.hear_many(2) == ["before", "after"]
    assert not served.events.of("close")


# -- another address


@pytest.mark.parametrize("polls", [False, True], ids=["between two polls", "while a poll waits"])
def test_a_polling_session_outlives_its_address(serve: Any, join: Join, polls: bool) -> None:
    served = serve(ping_interval=0.3, ping_timeout=PATIENCE)
    network = join(served)
    session = PollingSession(network.served).open()
    session.say("from the first address")
    assert session.hear() == "from the first address"
    if polls:
        session.park()
    network.rebind("127.0.0.2")
    if polls:
        # until a ping has ended the old poll, a new one would be a second one
        wait_for_pings(served)
        session.polling = False
    session.getting, session.posting = network.served.connect(), network.served.connect()
    session.say("from the second address")
    assert hear_messages(session, 1) == ["from the second address"]
    assert session.sid not in ended(served)


def test_a_websocket_does_not_and_a_new_one_can_be_had(serve: Any, join: Join) -> None:
    served = serve(**HURRIED)
    network = join(served)
    open_session(network.served, "websocket")
    network.rebind("127.0.0.2")
    assert served.events.wait("close")["reason"] == "ping timeout"
    network.wait_left()
    again = open_session(network.served, "websocket")
    assert served.socket(again.sid).remote_address == "127.0.0.2"
    again.say("here again")
    assert hear_messages(again, 1) == ["here again"]


# -- stalled


@pytest.mark.parametrize("ways", [{"up": True, "down": False}, {"up": False, "down": True}, {}], ids=["up", "down", "both ways"])
def test_a_stall_that_ends_in_time_costs_nothing(serve: Any, join: Join, transport: str, ways: dict[str, bool]) -> None:
    served = serve(ping_interval=0.3, ping_timeout=PATIENCE)
    network = join(served)
    session = open_session(network.served, transport)
    socket = served.socket(session.sid)
    network.stall(**ways)
    saying = gevent.spawn(session.say, *names(10, "up"))
    for text in names(10, "down"):
        socket.send(text)
    wait_for_pings(served)
    network.recover()
    saying.get()
    heard = hear_messages(session, 20)
    assert of_kind(heard, "down") == names(10, "down")
    assert of_kind(heard, "up") == names(10, "up")
    assert session.sid not in ended(served)


# -- in the middle of an upgrade


def lost_before_the_probe(polling: PollingSession, network: BadNetwork) -> None:
    """A WebSocket, and nothing on it."""
    WebSocketSession(polling.served, sid=polling.sid)
    network.vanish()


def lost_after_the_probe(polling: PollingSession, network: BadNetwork) -> None:
    """The server waits for the upgrade packet, which is never sent."""
    probe(polling)
    network.vanish()


def lost_with_the_upgrade_packet(polling: PollingSession, network: BadNetwork) -> None:
    """The client takes itself to be upgraded, and the server has not heard of it."""
    candidate = probe(polling)
    network.vanish()
    candidate.send("5")


STAGES = [lost_before_the_probe, lost_after_the_probe, lost_with_the_upgrade_packet]


def begin_polling(home: Served, network: BadNetwork, *, park: bool = False) -> PollingSession:
    """A session that polls through one network, and tries to upgrade through another one."""
    session = PollingSession(home).open()
    if park:
        session.park()
    session.served = network.served
    return session


@pytest.mark.parametrize("lose", STAGES)
def test_an_upgrade_that_vanishes_leaves_the_polling_session(serve: Any, join: Join, lose: Callable[..., None]) -> None:
    served = serve(upgrade_timeout=1.0)
    network = join(served)
    session = begin_polling(served, network)
    socket = served.socket(session.sid)
    socket.send("pushed before")
    lose(session, network)
    session.say("said meanwhile")
    socket.send("pushed meanwhile")
    heard = hear_messages(session, 3)
    assert of_kind(heard, "pushed") == ["pushed before", "pushed meanwhile"]
    assert of_kind(heard, "said") == ["said meanwhile"]
    # the candidate is given up, and another one is welcome
    network.wait_left()
    assert socket.transport.name == "polling"
    websocket = upgrade(session)
    websocket.say("by another way")
    assert hear_messages(websocket, 1) == ["by another way"]
    assert not served.events.of("close")


@pytest.mark.parametrize("lose", STAGES)
def test_a_session_that_vanishes_with_its_upgrade_ends_once(serve: Any, join: Join, lose: Callable[..., None]) -> None:
    served = serve(upgrade_timeout=1.0, **HURRIED)
    home, network = join(served), join(served)
    session = begin_polling(home.served, network, park=True)
    lose(session, network)
    home.vanish()
    assert served.events.wait("close")["reason"] == "ping timeout"
    network.wait_left()
    assert len(served.events.of("close")) == 1
    assert not served.server.clients


def test_a_session_that_vanishes_with_the_switch_ends_once(serve: Any, join: Join) -> None:
    served = serve(**HURRIED)
    network = join(served)
    session = begin_polling(served, network)
    upgrade(session)
    served.events.wait("upgrade")
    network.vanish()
    served.server.broadcast("never heard")
    # the old way still exists, and leads nowhere
    assert served.connect().get(session.target()).status == 400
    assert served.events.wait("close")["reason"] == "ping timeout"
    network.wait_left()
    assert len(served.events.of("close")) == 1
    assert not served.server.clients


# -- busy and slow


def answer_from_afar(served: Served, transport: str) -> str:
    """A client with a slow network, whose ping is out while a neighbour makes the server compute. Returns the session's id."""
    network = BadNetwork(served, delay=FAR)
    try:
        session, neighbour = open_session(network.served, transport), open_session(served, "websocket")
        while session.recv() != "2":
            pass
        neighbour.say("compute")
        session.send("3")
        answer_ping(session)
        session.say("still here")
        assert hear_messages(session, 1) == ["still here"]
        return session.sid
    finally:
        network.stop()
        HttpConnection.close_all()


@pytest.mark.parametrize("beside", [True, False], ids=["pongs wait in the kernel", "pongs come afterwards"])
def test_a_busy_cpu_and_a_slow_network_together_cost_no_session(serve: Any, transport: str, beside: bool) -> None:
    # an honest answer takes up to 0.45 s: a poll on its way, the ping, the pong. The computation outlasts the whole deadline
    served = serve(app=None, ping_interval=0.2, ping_timeout=2.8)

    @served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            until = monotonic() + (3.1 if data == "compute" else 0.0)
            while monotonic() < until:
                pass
            socket.send(data)

    if beside:
        sid = gevent.get_hub().threadpool.apply(answer_from_afar, (served, transport))
    else:
        sid = answer_from_afar(served, transport)
    assert sid not in [closed["sid"] for closed in served.events.of("close") if closed["reason"] == "ping timeout"]
