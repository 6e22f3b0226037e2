"""What the metrics say after each thing that can happen to a server: sessions over both transports, and a scrape."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import gevent.event
import pytest
from prometheus_client import CollectorRegistry
from support.clients import PollingSession, open_session, probe, upgrade
from support.rawwebsocket import TEXT, frame_bytes, handshake_headers

from engineio_wsgi import Bundle
from engineio_wsgi.errors import UsageError
from engineio_wsgi.metrics import observe
from engineio_wsgi.server import Server
from engineio_wsgi.session import broadcasts

pytestmark = pytest.mark.ours

MASKED_HEAD = 6  # bytes before a short payload from a client: RFC 6455 section 5.2
HEAD = 2


class Watched:
    """A served server and its metrics."""

    def __init__(self, served: Any, registry: CollectorRegistry) -> None:
        self.served = served
        self.registry = registry

    def value(self, name: str, **labels: str) -> float:
        """The value of one series of this server's; it must exist."""
        value = self.registry.get_sample_value(f"engineio_{name}", {"path": self.served.server.options.path, **labels})
        assert value is not None, f"no {name} {labels}"
        return value

    def traffic(self, transport: str) -> list[float]:
        """Messages in and out, bytes in and out."""
        names = ("messages_received_total", "messages_sent_total", "received_bytes_total", "sent_bytes_total")
        return [self.value(name, transport=transport) for name in names]

    def sessions(self, transport: str, protocol: int = 4) -> float:
        """Open sessions."""
        return self.value("sessions", transport=transport, protocol=str(protocol))


@pytest.fixture
def watch(serve: Any) -> Callable[..., Watched]:
    """A factory of served servers that are observed."""
    registry = CollectorRegistry()

    def start(app: str = "echo", **options: Any) -> Watched:
        server = Server(**{"allow_eio3": True, **options})
        observe(server, registry)
        return Watched(serve(app=app, server=server), registry)

    return start


def test_nothing_has_happened(watch: Any) -> None:
    watched = watch()
    for transport in ("polling", "websocket"):
        assert watched.traffic(transport) == [0, 0, 0, 0]
        assert watched.value("handshakes_total", transport=transport) == 0
        assert watched.sessions(transport) == 0
    assert [watched.value("refusals_total", code=str(code)) for code in range(6)] == [0] * 6
    assert watched.value("closes_total", reason="ping timeout") == 0
    assert watched.value("upgrades_finished_total", outcome="won") == 0
    assert watched.value("listener_seconds_count") == 0


def test_sessions_by_transport_and_protocol(watch: Any, transport: str, eio: int) -> None:
    watched = watch()
    sessions = [open_session(watched.served, transport, eio) for _ in range(2)]
    assert watched.value("handshakes_total", transport=transport) == 2
    assert watched.sessions(transport, eio) == 2
    sessions[0].close()
    watched.served.events.wait("close")
    assert watched.sessions(transport, eio) == 1
    assert watched.value("handshakes_total", transport=transport) == 2


def test_a_websocket_s_traffic(watch: Any) -> None:
    watched = watch()
    session = open_session(watched.served, "websocket")
    opened = watched.traffic("websocket")
    assert opened[:3] == [0, 0, 0]
    session.say("four", b"\x00\x01")
    assert session.hear_many(2) == ["four", b"\x00\x01"]
    size = len("4four") + 2
    received, sent = 2 * MASKED_HEAD + size, 2 * HEAD + size
    assert watched.traffic("websocket") == [2, 2, received, opened[3] + sent]
    assert watched.traffic("polling") == [0, 0, 0, 0]


def test_the_messages_of_a_bundle_count(watch: Any, transport: str) -> None:
    watched = watch()
    session = open_session(watched.served, transport)
    watched.served.socket(session.sid).send("a").send(Bundle("b", b"c", "d"))
    assert session.hear_many(4) == ["a", "b", b"c", "d"]
    assert watched.traffic(transport)[1] == 4


def test_messages_that_are_read_together(watch: Any) -> None:
    watched = watch()
    session = open_session(watched.served, "websocket")
    texts = [f"{i:02}" for i in range(40)]
    session.ws.http.send(b"".join([frame_bytes(TEXT, f"4{text}".encode()) for text in texts]))
    assert session.hear_many(40) == texts
    assert watched.traffic("websocket")[:2] == [40, 40]


def test_polling_s_traffic(watch: Any) -> None:
    watched = watch()
    session = open_session(watched.served, "polling")
    opened = watched.traffic("polling")
    assert opened == [0, 0, 0, len(session.last.body)]
    session.say("four", b"\x00\x01")
    assert session.hear_many(2) == ["four", b"\x00\x01"]
    size = len("4four\x1ebAAE=")
    assert watched.traffic("polling") == [2, 2, size, opened[3] + size]


def test_binary_of_revision_3(watch: Any, transport: str) -> None:
    watched = watch()
    session = open_session(watched.served, transport, 3)
    session.say(b"\x00\x01", "text")
    assert session.hear_many(2) == [b"\x00\x01", "text"]
    assert watched.traffic(transport)[:2] == [2, 2]


def test_heartbeats_are_no_messages(watch: Any) -> None:
    watched = watch(ping_interval=0.05, ping_timeout=60.0)
    session = open_session(watched.served, "websocket")
    opened = watched.traffic("websocket")
    for _ in range(3):
        assert session.recv() == "2"
        session.send("3")
    watched.served.events.wait("heartbeat", 3)
    beats = watched.traffic("websocket")
    assert beats[:2] == [0, 0]
    assert beats[2] == 3 * (MASKED_HEAD + 1)
    assert beats[3] >= opened[3] + 3 * (HEAD + 1)


@pytest.mark.parametrize("at_once", [1, 1000])
def test_a_broadcast(watch: Any, transport: str, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(broadcasts, "AT_ONCE", at_once)
    watched = watch("silent")
    sessions = [open_session(watched.served, transport) for _ in range(3)]
    opened = watched.traffic(transport)[3]
    watched.served.server.broadcast("to all")
    assert [session.hear() for session in sessions] == ["to all"] * 3
    assert watched.traffic(transport)[:2] == [0, 3]
    head = HEAD if transport == "websocket" else 0
    assert watched.traffic(transport)[3] - opened == 3 * (head + len("4to all"))


def test_an_upgrade(watch: Any) -> None:
    watched = watch()
    session = open_session(watched.served)
    session.say("polled")
    assert session.hear() == "polled"
    moved = upgrade(session)
    watched.served.events.wait("upgrade")
    moved.say("moved", "on")
    assert moved.hear_many(2) == ["moved", "on"]
    assert (watched.sessions("polling"), watched.sessions("websocket")) == (0, 1)
    assert watched.value("upgrades_started_total") == 1
    assert watched.value("upgrades_finished_total", outcome="won") == 1
    assert watched.value("upgrades_finished_total", outcome="failed") == 0
    assert watched.value("upgrade_duration_seconds_count") == 1
    assert 0 < watched.value("upgrade_duration_seconds_sum") < 5
    assert watched.traffic("polling")[:2] == [1, 1]
    probed = sum(map(len, ["2probe", "5", "4moved", "4on"])) + 4 * MASKED_HEAD
    answered = sum(map(len, ["3probe", "4moved", "4on"])) + 3 * HEAD
    assert watched.traffic("websocket") == [2, 2, probed, answered]
    assert watched.value("handshakes_total", transport="polling") == 1
    assert watched.value("handshakes_total", transport="websocket") == 0


def test_an_upgrade_that_fails(watch: Any) -> None:
    watched = watch()
    session = open_session(watched.served)
    session.start_poll()
    candidate = probe(session)
    assert watched.value("upgrades_started_total") == 1
    assert watched.value("upgrades_finished_total", outcome="failed") == 0
    candidate.vanish()
    watched.served.settle()
    assert watched.value("upgrades_finished_total", outcome="failed") == 1
    assert watched.value("upgrades_finished_total", outcome="won") == 0
    assert watched.value("upgrade_duration_seconds_count") == 0
    assert watched.sessions("polling") == 1


REFUSED = [("EIO=4&transport=tobi", 0), ("EIO=4&transport=polling&sid=tobi", 1), ("EIO=4&transport=websocket", 3),
           ("EIO=7&transport=polling", 5)]


@pytest.mark.parametrize(("query", "code"), REFUSED, ids=[str(code) for _, code in REFUSED])
def test_refusals(watch: Any, query: str, code: int) -> None:
    watched = watch(allow_eio3=False)
    watched.served.connect().get(f"{watched.served.path}?{query}")
    assert {number: watched.value("refusals_total", code=str(number)) for number in range(6)} == {
        **dict.fromkeys(range(6), 0), code: 1}


def test_a_forbidden_handshake_is_counted(watch: Any, transport: str) -> None:
    watched = watch(allow_request=lambda request: False)
    headers = handshake_headers("AAAAAAAAAAAAAAAAAAAAAA==") if transport == "websocket" else []
    watched.served.connect().request("GET", f"{watched.served.path}?EIO=4&transport={transport}", headers)
    assert watched.value("refusals_total", code="4") == 1
    assert watched.value("handshakes_total", transport=transport) == 0


def test_a_body_that_is_too_large(watch: Any) -> None:
    watched = watch(max_http_buffer_size=100)
    session = open_session(watched.served)
    assert session.post("4" + "x" * 200).status == 413
    assert watched.value("refusals_total", code="3") == 1


def end_by_client(session: Any, socket: Any) -> None:
    session.close()


def end_by_vanishing(session: Any, socket: Any) -> None:
    session.vanish()


def end_by_application(session: Any, socket: Any) -> None:
    socket.close(discard=True)


def end_for_a_reason(session: Any, socket: Any) -> None:
    socket.close(discard=True, reason="tired of it")


def end_by_nonsense(session: Any, socket: Any) -> None:
    if session.transport == "polling":
        session.post("x")
    else:
        session.send("x")


def end_by_shutdown(session: Any, socket: Any) -> None:
    socket.server.close(timeout=0)


ENDS = [(end_by_client, "transport close"), (end_by_vanishing, "transport close"), (end_by_application, "forced close"),
        (end_for_a_reason, "other"), (end_by_nonsense, "parse error"), (end_by_shutdown, "server shutting down")]


@pytest.mark.parametrize(("end", "reason"), ENDS, ids=[end.__name__ for end, _ in ENDS])
def test_closes_by_reason(watch: Any, transport: str, end: Callable[[Any, Any], None], reason: str) -> None:
    watched = watch()
    session = open_session(watched.served, transport)
    end(session, watched.served.socket(session.sid))
    watched.served.events.wait("close")
    assert watched.value("closes_total", reason=reason) == 1
    total = sum(sample.value for metric in watched.registry.collect() for sample in metric.samples
                if sample.name == "engineio_closes_total")
    assert total == 1
    assert watched.sessions(transport) == 0


def test_a_drain(watch: Any) -> None:
    watched = watch()
    watched.served.server.close(0)
    assert watched.value("drains_total") == 0, "there were no sessions"
    other = watch(path="/other")
    open_session(other.served, "websocket")
    other.served.server.close(0)
    assert other.value("drains_total") == 1


def test_ping_timeout(watch: Any) -> None:
    watched = watch(ping_interval=0.1, ping_timeout=0.1)
    open_session(watched.served, "websocket")
    watched.served.events.wait("close")
    assert watched.value("closes_total", reason="ping timeout") == 1


def test_buffered_bytes(watch: Any) -> None:
    watched = watch("silent")
    sessions = [open_session(watched.served) for _ in range(2)]
    for session in sessions:
        watched.served.socket(session.sid).send("x" * 1000)
    assert watched.value("buffered_bytes") == 2000
    assert sessions[0].hear() == "x" * 1000
    assert watched.value("buffered_bytes") == 1000


def test_groups(watch: Any, transport: str) -> None:
    watched = watch("silent")
    sessions = [open_session(watched.served, transport) for _ in range(2)]
    sockets = [watched.served.socket(session.sid) for session in sessions]
    assert (watched.value("groups"), watched.value("group_memberships")) == (0, 0)
    sockets[0].join("one")
    for socket in sockets:
        socket.join("both")
    assert (watched.value("groups"), watched.value("group_memberships")) == (2, 3)
    sessions[0].close()
    watched.served.events.wait("close")
    assert (watched.value("groups"), watched.value("group_memberships")) == (1, 1)


def test_round_trips(watch: Any) -> None:
    watched = watch(ping_interval=0.05, ping_timeout=60.0)
    session = open_session(watched.served, "websocket")
    for _ in range(3):
        assert session.recv() == "2"
        session.send("3")
    watched.served.events.wait("heartbeat", 3)
    assert watched.value("round_trip_seconds_count") == 3
    assert watched.value("round_trip_seconds_sum") > 0


def test_a_pong_without_a_ping_is_no_round_trip(watch: Any) -> None:
    watched = watch()
    session = open_session(watched.served, "websocket")
    session.send("3")
    watched.served.events.wait("heartbeat")
    assert watched.value("round_trip_seconds_count") == 0


def test_the_lag_of_the_event_loop(watch: Any) -> None:
    watched = watch(ping_interval=0.05, ping_timeout=60.0)
    session = open_session(watched.served, "websocket")
    assert session.recv() == "2"
    assert watched.value("loop_lag_seconds_count") > 0


def test_without_a_cluster_its_series_are_zero(watch: Any) -> None:
    watched = watch(cluster=None)
    assert watched.value("cluster_requests_total", outcome="failed") == 0
    assert watched.value("cluster_links", state="absent") == 0
    assert watched.value("cluster_retransmits_total") == 0


# -- the time of listeners


def buckets(watched: Watched) -> dict[str, float]:
    """The turns so far that did not take longer than a bound."""
    return {le: watched.value("listener_seconds_bucket", le=le) for le in ("0.001", "0.025", "0.1", "+Inf")}


class Clock:
    """The time that listeners are measured by. It passes when a test says so."""

    def __init__(self) -> None:
        self.now = monotonic()

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of everybody who measures listeners."""
    clock = Clock()
    for module in ("runtime.observer", "session.dispatcher"):
        monkeypatch.setattr(import_module(f"engineio_wsgi.{module}"), "monotonic", clock)
    return clock


@pytest.mark.parametrize("together", [1, 3])
def test_listener_time(watch: Any, transport: str, together: int, clock: Clock) -> None:
    watched = watch("silent")
    slept = []

    @watched.served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            clock.now += 0.03
            slept.append(data)
            if len(slept) == together:
                socket.send("done")

    session = open_session(watched.served, transport)
    watched.served.settle()
    before, seconds = buckets(watched), watched.value("listener_seconds_sum")
    if transport == "websocket":
        session.ws.http.send(b"".join([frame_bytes(TEXT, b"4x") for _ in range(together)]))
    else:
        session.say(*["x"] * together)
    assert session.hear() == "done"
    watched.served.settle()
    assert watched.value("listener_seconds_sum") - seconds == pytest.approx(0.03 * together)
    after = buckets(watched)
    assert after["+Inf"] - before["+Inf"] == 1
    assert after["0.025"] == before["0.025"], "it took longer than that"


def test_a_handler_that_receives_works_when_it_does_not_wait(watch: Any, transport: str, clock: Clock) -> None:
    watched = watch("silent")

    @watched.served.server.on("connection")
    def connection(socket: Any) -> None:
        for message in socket:
            clock.now += 0.03
            socket.send(message)

    session = open_session(watched.served, transport)
    watched.served.settle()
    clock.now += 100  # until the next message, which is no work
    before, seconds = buckets(watched), watched.value("listener_seconds_sum")
    assert seconds == 0
    session.say("one")
    assert session.hear() == "one"
    watched.served.settle()
    assert buckets(watched)["+Inf"] == before["+Inf"] + 1
    assert watched.value("listener_seconds_sum") - seconds == pytest.approx(0.03)


def test_a_message_counts_while_its_listener_runs(watch: Any, transport: str) -> None:
    watched = watch("silent")
    called, go_on = gevent.event.Event(), gevent.event.Event()

    @watched.served.server.on("connection")
    def connection(socket: Any) -> None:
        @socket.on("message")
        def message(data: str) -> None:
            called.set()
            go_on.wait(60)

    session = open_session(watched.served, transport)
    session.say("one")
    assert called.wait(60)
    assert watched.traffic(transport)[0] == 1
    go_on.set()


# -- several servers


def test_two_servers_of_a_process(watch: Any) -> None:
    chat, game = watch(path="/chat"), watch(path="/game")
    sessions = [open_session(chat.served), open_session(chat.served), open_session(game.served)]
    sessions[2].say("x")
    assert (chat.sessions("polling"), game.sessions("polling")) == (2, 1)
    assert (chat.traffic("polling")[0], game.traffic("polling")[0]) == (0, 1)


def test_two_servers_under_one_path_add_up(watch: Any) -> None:
    both = [watch(), watch()]
    sessions = [open_session(one.served) for one in both]
    assert [one.sessions("polling") for one in both] == [2, 2]
    sessions[0].close()
    both[0].served.events.wait("close")
    assert [one.sessions("polling") for one in both] == [1, 1]
    assert both[0].value("closes_total", reason="transport close") == 1


def test_a_server_with_sessions_is_refused(serve: Any) -> None:
    served = serve()
    open_session(served)
    with pytest.raises(UsageError, match=r"has sessions already: call observe\(server\) before it serves"):
        observe(served.server, CollectorRegistry())


def test_the_dashboard_asks_for_series_that_there_are(watch: Any) -> None:
    watched = watch()
    upgrade(PollingSession(watched.served).open()).say("x")
    series: dict[str, set[str]] = {}
    for metric in watched.registry.collect():
        for sample in metric.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    dashboard = json.loads((Path(__file__).parents[2] / "examples/deploy/grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= 9
    for query in queries:
        name = re.search(r"engineio_\w+", query)
        assert name, query
        assert name[0] in series, query
        grouped = re.search(r"by \(([\w, ]+)\)", query)
        assert set(grouped[1].split(", ") if grouped else []) <= series[name[0]], query
