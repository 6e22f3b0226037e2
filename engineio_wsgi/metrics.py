"""Prometheus metrics of a server. Needs ``prometheus_client``: the extra ``[metrics]``.

Owns the names and the types of the series; the counts come from `runtime.observer`. No message causes a call of Prometheus: the
counts are added to the series at each scrape or, in multi-process mode, once a second.
"""

from __future__ import annotations

import atexit
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import gevent

from engineio_wsgi.cluster.incoming import Counters
from engineio_wsgi.cluster.router import Cluster
from engineio_wsgi.errors import ErrorCode
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import Watcher
from engineio_wsgi.runtime.observer import TURN_BOUNDS, Meter, ObservedSession, Observer
from engineio_wsgi.session.socket import Socket
from engineio_wsgi.transports.base import CloseReason

try:
    import prometheus_client
except ModuleNotFoundError as missing:
    if missing.name != "prometheus_client":
        raise
    raise ModuleNotFoundError("engineio_wsgi.metrics needs prometheus_client: pip install 'engineio-wsgi[metrics]'",
                              name=missing.name) from None

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.registry import Collector

from engineio_wsgi.vendors.prometheus_metrics import BatchHistogram

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from prometheus_client.core import Metric

    from engineio_wsgi.server import Server

__all__ = ["observe"]

#: seconds between two writes of the counts to the files of multi-process mode
FLUSH_PERIOD = 1.0
#: upper bounds, in seconds, of the buckets of an upgrade's duration; ``upgrade_timeout`` is 10 by default
UPGRADE_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: upper bounds, in seconds, of the buckets of the event loop's lag, and of a ping's round trip
LAG_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ROUND_TRIP_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 20.0)
#: the label of all close reasons that an application has made up
OTHER_REASON = "other"
REASONS = frozenset(map(str, CloseReason))

#: a series without its ``path``: the metric, and the values of its other labels
Series = tuple[str, tuple[str, ...]]

#: name, help text, labels beside ``path``
COUNTERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("handshakes", "Sessions that were opened.", ("transport",)),
    ("refusals", "Requests that were answered with a line of the protocol's error table.", ("code",)),
    ("closes", "Sessions that have ended.", ("reason",)),
    ("moves", "Sessions that have come from another worker (in), or have gone to one (out).", ("direction",)),
    ("drains", "How often the server has begun to close its sessions because it stops.", ()),
    ("cluster_requests", "Connections (handed_over) and requests (relayed) that were sent to the workers of their sessions, or "
     "that these did not take (failed); connections (adopted) and requests (answered) that came from other workers.",
     ("outcome",)),
    ("cluster_retransmits", "Messages to workers of other machines that were sent again.", ()),
    ("upgrades_started", "Upgrades to another transport that clients have begun.", ()),
    ("upgrades_finished", "Upgrades that have ended: the session has moved (won) or stayed where it was (failed).", ("outcome",)),
    ("messages_received", "Messages that clients have sent.", ("transport",)),
    ("messages_sent", "Messages that were written to clients.", ("transport",)),
    ("received_bytes", "Bytes of the WebSocket frames and POST bodies that clients have sent.", ("transport",)),
    ("sent_bytes", "Bytes of the WebSocket frames but the closing ones, and of the polls' answers before HTTP's compression.",
     ("transport",)),
)
#: those that a cluster counts
OF_CLUSTER = ("cluster_requests", "cluster_retransmits")
GAUGES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("sessions", "Sessions that are open.", ("transport", "protocol")),
    ("buffered_bytes", "Bytes that were sent and that wait for clients to take them.", ()),
    ("groups", "Groups that have a member in this process.", ()),
    ("group_memberships", "Groups of each session of this process, all together.", ()),
    ("cluster_connected", "1 if the workers of other machines can be reached, always on one machine; 0 without a cluster.", ()),
    ("cluster_links", "Links to workers of other machines, by whether the worker listens.", ("state",)),
    ("cluster_unacknowledged_bytes", "Bytes of messages that workers of other machines have not acknowledged.", ()),
)


#: name, help text, bounds; with the label ``path`` only
HISTOGRAMS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("upgrade_duration_seconds", "From the new connection to the switch, for upgrades that succeed.", UPGRADE_BOUNDS),
    ("listener_seconds", "How long listeners ran or waited, for all messages read together.", TURN_BOUNDS),
    ("loop_lag_seconds", "How late the event loop was: up to ten times a second, while there are sessions.", LAG_BOUNDS),
    ("round_trip_seconds", "From a ping to its pong, of sessions of revision 4.", ROUND_TRIP_BOUNDS),
)


def observe(server: Server, registry: CollectorRegistry = prometheus_client.REGISTRY) -> None:
    """Publish metrics of ``server``. The label ``path`` tells the servers of one process apart.

    Where ``PROMETHEUS_MULTIPROC_DIR`` is set, the series are written to the files of ``prometheus_client``'s multi-process
    mode instead, once a second, and ``registry`` is not used.

    Args:
        server: one that has no sessions yet.
        registry: where the series are collected.

    Raises:
        UsageError: the server is observed already, or it has sessions.

    Example::

        server = engineio_wsgi.Server()
        engineio_wsgi.metrics.observe(server)
        app = server.wrap(DispatcherMiddleware(flask_app, {"/metrics": prometheus_client.make_wsgi_app()}))
    """
    server._registry.check_not_observed(_Recorder)
    server._registry.observe(_Recorder(server, _instruments_of(registry)))


class _Instruments(Collector):
    """The series of one registry, for all servers that are observed with it."""

    def __init__(self) -> None:
        #: bring the series up to date before they are collected
        self.recorders: list[_Recorder] = []
        self.metrics: dict[str, prometheus_client.Counter | Gauge] = {}
        for name, text, labels in COUNTERS:
            self.metrics[name] = prometheus_client.Counter(f"engineio_{name}", text, ("path", *labels), registry=None)
        for name, text, labels in GAUGES:
            self.metrics[name] = Gauge(f"engineio_{name}", text, ("path", *labels), registry=None, multiprocess_mode="livesum")
        self.histograms = {name: BatchHistogram(f"engineio_{name}", text, ("path",), registry=None, buckets=bounds)
                           for name, text, bounds in HISTOGRAMS}

    def collect(self) -> Iterator[Metric]:
        """Called by ``prometheus_client`` for each scrape, in any thread."""
        for recorder in self.recorders:
            recorder.fold()
        for metric in self._all():
            yield from metric.collect()

    def describe(self) -> Iterator[Metric]:
        """The series without their values. Called when the collector is registered, to find names that are used twice."""
        for metric in self._all():
            yield from metric.describe()

    def _all(self) -> tuple[prometheus_client.Counter | Gauge | BatchHistogram, ...]:
        return (*self.metrics.values(), *self.histograms.values())


_instruments: WeakKeyDictionary[CollectorRegistry, _Instruments] = WeakKeyDictionary()


def _is_multiprocess() -> bool:
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


def _instruments_of(registry: CollectorRegistry) -> _Instruments:
    # in multi-process mode the files are the registry; two sets of series would overwrite each other there
    registry = prometheus_client.REGISTRY if _is_multiprocess() else registry
    instruments = _instruments.get(registry)
    if instruments is None:
        instruments = _instruments[registry] = _Instruments()
        if not _is_multiprocess():
            registry.register(instruments)
    return instruments


class _Tally:
    """Observations that wait to be added to a histogram.

    Args:
        bounds: of its buckets.
    """

    __slots__ = ("_bounds", "_counts", "_folded", "_folded_sum", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._folded = [0] * (len(bounds) + 1)
        self._folded_sum = 0.0

    def observe(self, value: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def fold(self, histogram: BatchHistogram) -> None:
        """Add what has been counted since the last time."""
        counts, total = list(self._counts), self._sum
        histogram.add([count - before for count, before in zip(counts, self._folded, strict=True)], total - self._folded_sum)
        self._folded, self._folded_sum = counts, total


class _Recorder(Observer):
    """Counts the events of one server, and adds the counts to the series."""

    __slots__ = ("_clients", "_counts", "_folded", "_groups", "_histograms", "_instruments", "_lag", "_lock", "_meters", "_path",
                 "_round_trips", "_timer", "_transports", "_turns_folded", "_worker")

    counts = True

    def __init__(self, server: Server, instruments: _Instruments) -> None:
        options = server.options
        self._clients: Mapping[str, Socket] = server.clients
        self._path = options.path
        self._transports = options.transports
        self._groups = server._registry.groups
        self._worker = server._worker
        self._meters = {transport: server._registry.observers.total(transport) for transport in self._transports}
        self._instruments = instruments
        self._timer: Watcher | None = None
        self._begin()
        instruments.recorders.append(self)
        self._histograms = {name: histogram.labels(self._path) for name, histogram in instruments.histograms.items()}
        self.fold()
        if _is_multiprocess():
            atexit.register(self.fold)

    def _begin(self) -> None:
        """Set all counts to 0."""
        for meter in self._meters.values():
            meter.clear()
        # every series exists from the start, at 0: a rate needs a value before the first event
        self._counts: Counter[Series] = Counter(dict.fromkeys(_events(self._transports), 0))
        self._folded: dict[Series, int] = {}
        self._turns_folded = ([0] * (len(TURN_BOUNDS) + 1), 0.0)
        self._lag, self._round_trips = _Tally(LAG_BOUNDS), _Tally(ROUND_TRIP_BOUNDS)
        #: guards `_folded` and `_turns_folded`; nothing inside it blocks
        self._lock = Lock()

    def after_fork(self) -> None:
        # the timer belongs to the loop of the parent, and a thread of the parent may have held the lock
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if _is_multiprocess():
            # each process has files of its own, which begin at 0
            self._begin()
        else:
            self._lock = Lock()
            # the child joins a cluster anew, whose counts begin at 0
            self._folded = {series: value for series, value in self._folded.items() if series[0] not in OF_CLUSTER}

    # -- reports of the server

    def on_open(self, session: ObservedSession) -> None:
        self._count("handshakes", session.transport.name)

    def on_refused(self, code: int, error: Exception, environ: WSGIEnvironment) -> None:
        self._count("refusals", str(code))

    def on_upgrade(self, session: ObservedSession, environ: WSGIEnvironment) -> Callable[[bool], object]:
        self._count("upgrades_started")
        began = monotonic()

        def ended(won: bool) -> None:
            self._count("upgrades_finished", "won" if won else "failed")
            if won:
                self._histograms["upgrade_duration_seconds"].observe(monotonic() - began)

        return ended

    def on_closed(self, session: ObservedSession) -> None:
        reason = str(session.close_reason)
        self._count("closes", reason if reason in REASONS else OTHER_REASON)

    def on_moved(self, session: ObservedSession, direction: str) -> None:
        self._count("moves", direction)

    def on_drain(self) -> None:
        self._count("drains")

    def on_round_trip(self, session: ObservedSession, seconds: float) -> None:
        self._round_trips.observe(seconds)

    def on_lag(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def _count(self, name: str, *labels: str) -> None:
        self._counts[name, labels] += 1
        if self._timer is None and _is_multiprocess():
            # not earlier: a fork would lose the timer
            self._timer = gevent.get_hub().loop.timer(FLUSH_PERIOD, FLUSH_PERIOD, ref=False)
            self._timer.start(self.fold)

    # -- the series

    def fold(self) -> None:
        """Bring the series up to date. Any thread may call this."""
        with self._lock:
            for series, value in self._values():
                more = value - self._folded.get(series, 0)
                if more or series not in self._folded:
                    name, labels = series
                    self._instruments.metrics[name].labels(self._path, *labels).inc(more)
                    self._folded[series] = value
            self._fold_turns()
            self._lag.fold(self._histograms["loop_lag_seconds"])
            self._round_trips.fold(self._histograms["round_trip_seconds"])

    def _values(self) -> Iterator[tuple[Series, int]]:
        yield from list(self._counts.items())
        for transport, meter in self._meters.items():
            yield ("messages_received", (transport,)), meter.messages_in
            yield ("messages_sent", (transport,)), meter.messages_out
            yield ("received_bytes", (transport,)), meter.bytes_in
            yield ("sent_bytes", (transport,)), meter.bytes_out
        yield from self._cluster_values()
        yield ("groups", ()), self._groups.count
        yield ("group_memberships", ()), self._groups.memberships
        sockets = list(self._clients.values())
        yield ("buffered_bytes", ()), sum([socket.buffered for socket in sockets])
        sessions = Counter((socket.transport.name, str(socket.protocol)) for socket in sockets)
        # a series that had sessions and has none any more is set to 0
        known = {labels for name, labels in self._folded if name == "sessions"}
        for labels in known | set(sessions) | {(transport, "4") for transport in self._meters}:
            yield ("sessions", labels), sessions[labels[0], labels[1]]

    def _cluster_values(self) -> Iterator[tuple[Series, int]]:
        """Those of the cluster; 0 without one."""
        cluster = self._worker.router
        counters, figures, connected = Counters(), None, False
        if isinstance(cluster, Cluster):
            counters, figures, connected = cluster.counters, cluster.link_figures(), cluster.connected
        for outcome, count in asdict(counters).items():
            yield ("cluster_requests", (outcome,)), count
        yield ("cluster_connected", ()), int(connected)
        yield ("cluster_retransmits", ()), figures.retransmitted if figures else 0
        yield ("cluster_links", ("listening",)), figures.listening if figures else 0
        yield ("cluster_links", ("absent",)), figures.absent if figures else 0
        yield ("cluster_unacknowledged_bytes", ()), figures.unacked_bytes if figures else 0

    def _fold_turns(self) -> None:
        counts, seconds = _turns_of(self._meters.values())
        counts_before, seconds_before = self._turns_folded
        more = [count - before for count, before in zip(counts, counts_before, strict=True)]
        self._histograms["listener_seconds"].add(more, seconds - seconds_before)
        self._turns_folded = counts, seconds


def _turns_of(meters: Collection[Meter]) -> tuple[list[int], float]:
    """The turns of all meters: their number in each bucket, the shortest first, and their seconds."""
    longer = [sum(counts) for counts in zip(*[meter.longer_turns for meter in meters], strict=True)]
    turns = sum([meter.turns for meter in meters])
    return [turns - sum(longer), *longer], sum([meter.turn_seconds for meter in meters])


def _events(transports: Iterable[str]) -> Iterator[Series]:
    """The series that are counted event by event."""
    yield from [("handshakes", (transport,)) for transport in transports]
    yield from [("refusals", (str(int(code)),)) for code in ErrorCode]
    yield from [("closes", (reason,)) for reason in (*map(str, CloseReason), OTHER_REASON)]
    yield from [("moves", (direction,)) for direction in ("in", "out")]
    yield "drains", ()
    yield "upgrades_started", ()
    yield from [("upgrades_finished", (outcome,)) for outcome in ("won", "failed")]
