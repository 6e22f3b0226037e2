"""Bundles: several messages that stay adjacent, over every transport and across the upgrade."""

from __future__ import annotations

import random
import threading
from typing import Any

import gevent
import gevent.pool
import pytest
from support.clients import PollingSession, Session, WebSocketSession, drain, open_session, probe
from support.wanderer import Talker, Wanderer, number_of

from engineio_wsgi import Bundle, SocketClosed, WriteTimeout
from engineio_wsgi.errors import BundleTooLarge

pytestmark = pytest.mark.ours

FILE = Bundle('51-["file",{"_placeholder":true,"num":0}]', b"\x00\x01\xff", "é\U0001f600")


@pytest.fixture(params=["polling", "websocket", "upgraded"])
def way(request: pytest.FixtureRequest) -> str:
    """How the session is connected."""
    return str(request.param)


def chopped(heard: list[Any], bundle: list[Any]) -> list[Any]:
    """What was heard, with each undivided bundle as one item."""
    items: list[Any] = []
    position = 0
    while position < len(heard):
        whole = heard[position:position + len(bundle)] == bundle
        items.append("bundle" if whole else heard[position])
        position += len(bundle) if whole else 1
    return items


def test_a_bundle_arrives_as_its_messages(serve: Any, way: str, eio: int) -> None:
    session = open_session(serve(app="silent"), way, eio)
    socket = session.served.socket(session.sid)
    assert socket.send("before").send(FILE).send("after") is socket
    assert session.hear_many(5) == ["before", *FILE, "after"]


def test_a_bundle_arrives_as_base64(serve: Any) -> None:
    session = PollingSession(serve(app="silent"), 3, b64="1").open()
    session.served.socket(session.sid).send(FILE)
    assert session.hear_many(3) == list(FILE)


def test_senders_of_several_greenlets_and_threads_do_not_come_in_between(serve: Any, way: str) -> None:
    session = open_session(serve(app="silent"), way)
    server, socket = session.served.server, session.served.socket(session.sid)
    pair = Bundle("head", b"tail")

    def single() -> None:
        for _ in range(20):
            socket.send("single")
            gevent.sleep(0)

    def several() -> None:
        for _ in range(20):
            socket.send(pair)
            gevent.sleep(0)

    def both() -> None:
        for _ in range(20):
            socket.send(pair).send("single")

    threads = [threading.Thread(target=both) for _ in range(2)]
    for thread in threads:
        thread.start()
    tasks = [gevent.spawn(each) for each in (single, several, single, several)]
    server.broadcast(pair)
    items = chopped(session.hear_many(2 * 40 + 2 * 40 + 80 + 2), list(pair))
    assert (items.count("bundle"), items.count("single"), len(items)) == (81, 80, 161)
    gevent.joinall(tasks)
    for thread in threads:
        thread.join()


def test_a_bundle_stays_whole_across_the_upgrade(serve: Any, eio: int) -> None:
    session = PollingSession(serve(app="silent"), eio).open()
    socket = session.served.socket(session.sid)
    socket.send(FILE).send("between")
    candidate = probe(session)
    socket.send(FILE)
    candidate.send("5")
    session.served.events.wait("upgrade")
    socket.send(FILE)
    assert chopped(candidate.hear_many(10), list(FILE)) == ["bundle", "between", "bundle", "bundle"]


def converse(served: Any, seed: int, eio: int) -> list[int] | None:
    """A client that upgrades at a random moment: the numbers that it has heard, if they are not all, in order."""
    wanderer = Wanderer(served, seed, eio)
    wanderer.vanishes = False
    wanderer.run()
    heard = wanderer.received
    return None if heard.in_order and len(heard.numbers) == heard.total else heard.numbers


def test_bundles_stay_whole_whatever_the_timing_of_the_upgrade(serve: Any, eio: int) -> None:
    served = serve(app=None)

    @served.server.on("connection")
    def connected(socket: Any) -> None:
        """Bundles of one to four numbers, sent from several greenlets."""
        rng, total = random.Random(int(socket.request.args["seed"])), int(socket.request.args["count"])
        held: list[str | bytes] = []

        def send(data: str | bytes) -> bool:
            held.append(data)
            if number_of(data) == total - 1 or rng.random() < 0.4:
                socket.send(Bundle(*held))
                held.clear()
            return True

        Talker(rng, total, send).start()

    conversations = gevent.pool.Pool(20).map(lambda seed: converse(served, seed, eio), range(100))
    assert conversations == [None] * 100
    served.events.wait("close", 100)
    assert len(served.events.of("upgrade")) == 100


def test_a_poll_gets_whole_bundles(serve: Any, eio: int) -> None:
    session = PollingSession(serve(app="silent"), eio).open()
    socket = session.served.socket(session.sid)
    session.park()
    for _ in range(50):
        socket.send("single").send(FILE)
    packets = session.end_poll()
    while len(packets) < 200:
        packets += session.poll()
    session.inbox.extend(packets)
    assert chopped(session.hear_many(200), list(FILE)) == ["single", "bundle"] * 50


def test_one_bundle_for_many_sessions_and_all_encodings(serve: Any) -> None:
    served = serve(app="silent")
    sessions: list[Session] = [open_session(served, transport, eio) for transport in ("polling", "websocket") for eio in (3, 4)]
    sessions += [WebSocketSession(served, eio, b64="1").open() for eio in (3, 4)]
    for session in sessions:
        served.socket(session.sid).send(FILE)
        assert served.server.send(session.sid, FILE) is True
    served.server.broadcast(FILE)
    served.server.broadcast(FILE, compress=False)
    for session in sessions[:4]:
        assert session.hear_many(12) == [*FILE] * 4
    for session in sessions[4:]:
        assert [session.recv() for _ in range(3)] == [f"4{FILE.messages[0]}", "b4AAH/" if session.eio == 3 else "bAAH/",
                                                      f"4{FILE.messages[2]}"]


def test_the_callback_is_called_once(serve: Any, way: str) -> None:
    session = open_session(serve(app="silent"), way)
    socket = session.served.socket(session.sid)
    called: list[str] = []
    socket.send(FILE, callback=lambda: called.append("bundle")).send("last", callback=lambda: called.append("last"))
    assert session.hear_many(4) == [*FILE, "last"]
    with gevent.Timeout(60):
        while len(called) < 2:
            gevent.sleep(0.001)
    assert called == ["bundle", "last"]


def test_listeners_see_packets(serve: Any, transport: str) -> None:
    session = open_session(serve(app="silent"), transport)
    socket = session.served.socket(session.sid)
    created: list[Any] = []
    flushed: list[Any] = []
    socket.on("packet_create", lambda packet: created.append(packet.data))
    socket.on("flush", lambda packets: flushed.extend(packet.data for packet in packets))
    socket.send(FILE)
    assert session.hear_many(3) == list(FILE)
    session.served.settle()
    assert created == [data for data in flushed if data] == list(FILE)


def test_a_listener_changes_the_bundle_of_its_session_only(serve: Any, transport: str) -> None:
    served = serve(app="silent")
    one, other = open_session(served, transport), open_session(served, transport)

    def shout(packet: Any) -> None:
        packet.data = packet.data.upper()

    served.socket(one.sid).on("packet_create", shout)
    bundle = Bundle("a", "b")
    for session in (one, other):
        served.socket(session.sid).send(bundle)
    assert (one.hear_many(2), other.hear_many(2)) == (["A", "B"], ["a", "b"])


def test_what_was_not_sent_is_in_the_write_buffer(serve: Any) -> None:
    session = open_session(serve(app="silent"))
    socket = session.served.socket(session.sid)
    socket.send(FILE)
    assert (socket.buffered, [packet.data for packet in socket.write_buffer]) == (FILE.size, list(FILE))
    socket.close(discard=True)
    assert session.served.events.wait("close")["unsent"] == list(FILE)


def test_a_bundle_of_which_a_part_was_written_is_unsent_as_a_whole(serve: Any) -> None:
    session = WebSocketSession(serve(app="silent", max_buffered=50_000_000)).open()
    socket = session.served.socket(session.sid)
    large = Bundle("first", "x" * 20_000_000)
    socket.send(large)
    gevent.sleep(0)
    with gevent.Timeout(60):
        while not session.served.socket(session.sid).transport.unsent:
            gevent.sleep(0.001)
    socket.close(discard=True)
    assert [data[:5] for data in session.served.events.wait("close")["unsent"]] == ["first", "xxxxx"]


def test_a_closing_session_sends_whole_bundles(serve: Any, transport: str) -> None:
    session = open_session(serve(app="silent"), transport)
    socket = session.served.socket(session.sid)
    socket.send(FILE)
    socket.close()
    with pytest.raises(SocketClosed):
        socket.send(FILE)
    assert [data if isinstance(data, bytes) else data[1:] for data in drain(session)] == list(FILE)


# -- slow clients: one that polls, and does not

LARGE = "x" * 600


def slow_client(serve: Any) -> tuple[Any, PollingSession, Any]:
    served = serve(app="silent", max_buffered=1000)
    session = PollingSession(served).open()
    socket = served.socket(session.sid)
    socket.send(Bundle("1", LARGE)).send(Bundle("2", LARGE))
    return served, session, socket


def test_a_volatile_bundle_is_sent_whole_or_not_at_all(serve: Any) -> None:
    _, session, socket = slow_client(serve)
    socket.send(Bundle("too", "much"), volatile=True)
    assert session.hear_many(4) == ["1", LARGE, "2", LARGE]
    socket.send(Bundle("in", "time"), volatile=True)
    assert session.hear_many(2) == ["in", "time"]


def test_a_broadcast_bundle_is_dropped_or_replaced_as_a_whole(serve: Any) -> None:
    served, session, _ = slow_client(serve)
    served.server.broadcast(Bundle("too", "much"), on_slow="drop")
    for number in range(10):
        served.server.broadcast(Bundle("price", str(number)), on_slow="latest", key="price")
    assert session.hear_many(6) == ["1", LARGE, "2", LARGE, "price", "9"]


def test_a_bundle_waits_for_room(serve: Any) -> None:
    _, session, socket = slow_client(serve)
    with pytest.raises(WriteTimeout):
        socket.send(FILE, timeout=0.01)
    sender = gevent.spawn(socket.send, FILE)
    assert session.hear_many(7) == ["1", LARGE, "2", LARGE, *FILE]
    assert sender.get(timeout=60) is socket


def test_a_bundle_that_is_larger_than_the_buffer_is_refused(serve: Any) -> None:
    served = serve(app="silent", max_buffered=1000)
    session = open_session(served, "websocket")
    large = Bundle(LARGE, LARGE)
    for send in (served.socket(session.sid).send, served.server.broadcast, lambda data: served.server.send(session.sid, data)):
        with pytest.raises(BundleTooLarge, match="a bundle of 1200 bytes is larger than max_buffered, which is 1000 bytes"):
            send(large)
    served.server.broadcast("nothing was sent before")
    assert session.hear() == "nothing was sent before"
