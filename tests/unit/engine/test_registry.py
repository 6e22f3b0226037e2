"""The registry: sessions open, end, and are closed; observers, quotas and forks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from support.fakesession import FakeTransport

from engineio_wsgi.engine.registry import Registry, new_worker_id, send_or_not
from engineio_wsgi.engine.server_events import ServerEvents
from engineio_wsgi.errors import Forbidden, ServerClosing, SocketClosed, UsageError, WriteTimeout
from engineio_wsgi.options.options import Options
from engineio_wsgi.packet import Packet
from engineio_wsgi.runtime.observer import Observer
from engineio_wsgi.session.delivery import Delivery
from engineio_wsgi.session.session import Session
from engineio_wsgi.session.socket import Socket
from engineio_wsgi.transports.base import as_packet
from engineio_wsgi.transports.polling import PollingTransport

ADDRESS = "192.0.2.1"


class Recorder(Observer):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_open(self, session: Any) -> None:
        """A session has opened."""
        self.told.append(f"open {session.transport.name}")

    def on_closed(self, session: Any) -> None:
        """A session has ended."""
        self.told.append(f"closed {session.close_reason}")


def registry(**options: Any) -> Registry:
    """One that does not serve yet."""
    return Registry("the server", ServerEvents(lambda listener: listener, lambda: None), Options.create(**options))


@pytest.fixture
def start() -> Iterator[Callable[..., Registry]]:
    """Makes registries that serve in this hub."""
    made: list[Registry] = []

    def make(**options: Any) -> Registry:
        made.append(registry(**options))
        made[-1].start(gevent.get_hub(), "abcd", in_cluster=False)
        return made[-1]

    yield make
    for each in made:
        each.close_all(0)


@pytest.fixture
def started(start: Callable[..., Registry]) -> Registry:
    """One that serves in this hub."""
    return start()


def opened(here: Registry, sid: str = "abcd1") -> tuple[Session, FakeTransport]:
    """A session and its transport."""
    session, transport = Session(here, sid, 4, ADDRESS), FakeTransport()
    transport.upgrades_to = ("websocket",)
    session.present_as(Socket(session, {}))
    here.open(session, transport, may_upgrade=False)
    return session, transport


def test_a_session_opens_and_ends(started: Registry) -> None:
    recorder, connected = Recorder(), []
    started.observe(recorder)
    started.events.on("connection", connected.append)
    session, transport = opened(started)
    gevent.idle()
    assert (started.sessions, connected, len(started.clients)) == ({"abcd1": session}, [session.socket], 1)
    assert connected[0].server == "the server"
    first = transport.take()[0]
    assert isinstance(first, Packet)
    assert json.loads(first.data) == {"sid": "abcd1", "upgrades": [], "pingInterval": 25000, "pingTimeout": 20000,
                                      "maxPayload": 1_000_000}
    session.end("of the test")
    assert (started.sessions, recorder.told) == ({}, ["open fake", "closed of the test"])


def test_a_broadcast_reaches_all_sessions_but_the_excluded(started: Registry) -> None:
    transports = [opened(started, f"abcd{number}")[1] for number in range(3)]
    for transport in transports:
        transport.take()
    started.deliver("hello", Delivery(exclude=["abcd0", "abcd1"]))
    assert [len(transport.take()) for transport in transports] == [0, 0, 1]


def test_nothing_is_opened_while_the_server_closes(started: Registry) -> None:
    started.stop_opening()
    with pytest.raises(ServerClosing):
        started.check_handshake(ADDRESS)
    with pytest.raises(ServerClosing):
        opened(started)
    assert started.sessions == {}


def test_all_sessions_are_closed(started: Registry) -> None:
    session, transport = opened(started)
    started.close_all(0)
    assert (session.close_reason, started.sessions, len(transport.closings)) == ("server shutting down", {}, 1)


def test_the_quota_of_an_address() -> None:
    here = registry(max_sessions_per_address=1)
    here.start(gevent.get_hub(), "abcd", in_cluster=False)
    session, _ = opened(here)
    with pytest.raises(Forbidden, match="more than 1 sessions"):
        here.check_handshake(ADDRESS)
    session.end("of the test")
    here.check_handshake(ADDRESS)


def test_ids_begin_with_the_id_of_the_worker(started: Registry) -> None:
    first, second = started.new_id(), started.new_id()
    assert first != second
    assert first.startswith("abcd")
    assert len(first) == 24
    assert len(new_worker_id()) == 4


@pytest.mark.parametrize("sid", ["abcd1", 'a"\\b', "\u00e9\u20ac\x1e"])
def test_an_open_packet_is_that_of_the_options(start: Callable[..., Registry], sid: str) -> None:
    here = start(ping_interval=0.3335, ping_timeout=7, max_http_buffer_size=5)
    for may_upgrade, upgrades in ((True, ["websocket"]), (False, []), (True, ["websocket"])):
        session = Session(here, sid, 4, ADDRESS)
        here.open(session, PollingTransport(4, 5), may_upgrade)
        content = {"sid": sid, "upgrades": upgrades, "pingInterval": 334, "pingTimeout": 7000, "maxPayload": 5}
        assert as_packet(session.outbox.entries[0]).data == json.dumps(content, separators=(",", ":"))
        session.end("of the test")


def test_other_options_change_the_open_packet(start: Callable[..., Registry]) -> None:
    here = start(ping_interval=3)
    data = []
    for options in (here.options, Options.create(ping_interval=4)):
        here.configure(options)
        session, _ = opened(here)
        data.append(json.loads(as_packet(session.outbox.entries[0]).data)["pingInterval"])
    assert data == [3000, 4000]


def test_the_transports_that_a_session_may_upgrade_to() -> None:
    assert registry().upgrades("polling") == ["websocket"]
    assert registry().upgrades("websocket") == []
    assert registry(transports=("polling",)).upgrades("polling") == []
    assert registry(allow_upgrades=False).upgrades("polling") == []


def test_a_server_is_observed_once_and_before_it_serves(started: Registry) -> None:
    opened(started)
    with pytest.raises(UsageError, match="has sessions already"):
        started.observe(Recorder())
    other = registry()
    other.observe(Recorder())
    with pytest.raises(UsageError, match="observed already"):
        other.observe(Recorder())


def test_a_forked_child_has_none_of_the_parents_sessions() -> None:
    here = registry()
    here.start(gevent.get_hub(), "abcd", in_cluster=True)
    session, transport = opened(here)
    here.after_fork(served=True)
    assert (here.sessions, here.hub, here.forked, session.socket.closed, transport.take()) == ({}, None, True, True, [])
    with pytest.raises(UsageError, match="forked"):
        here.deliver("hello", Delivery())
    here.start(gevent.get_hub(), "efgh", in_cluster=False)
    assert (here.forked, here.worker_id, here.in_cluster) == (False, "efgh", False)


def test_before_the_first_request_nothing_runs_in_the_hub() -> None:
    called: list[str] = []
    here = registry()
    here.run_in_hub(lambda: called.append("too early"), 1.0)
    here.deliver("to nobody", Delivery())
    here.start(gevent.get_hub(), "abcd", in_cluster=False)
    here.run_in_hub(lambda: called.append("in time"), 1.0)
    assert called == ["in time"]


def test_another_thread_waits_for_the_hub(started: Registry) -> None:
    called: list[str] = []
    thread = gevent.get_hub().threadpool.spawn(started.run_in_hub, lambda: called.append("in the hub"), 60.0)
    thread.get(timeout=60)
    assert called == ["in the hub"]


@pytest.mark.parametrize(("error", "sent"), [(None, True), (SocketClosed(), False), (WriteTimeout("full"), False)])
def test_whether_a_message_was_queued(error: Exception | None, sent: bool) -> None:
    class Recipient:
        def send(self, data: str | bytes, *, compress: bool = True, timeout: float | None = None) -> None:
            if error is not None:
                raise error

    assert send_or_not(Recipient(), "hello", True) is sent
