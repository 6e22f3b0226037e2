"""What a server does, as Prometheus metrics. Needs ``prometheus_client``: the extra ``[metrics]``.

Owns the names of the series and their form; what is counted, and where, is `meter`'s. Nothing of Prometheus is called for
a message: plain counts are folded into the series when somebody scrapes or, in multi-process mode, once a second.
"""

from __future__ import annotations

import atexit
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import gevent

from engineio_wsgi.clock import monotonic
from engineio_wsgi.errors import ErrorCode, UsageError
from engineio_wsgi.runtime.observer import TURN_BOUNDS, Meter, Observer
from engineio_wsgi.session.socket import Socket
from engineio_wsgi.transports.base import CloseReason

try:
    import prometheus_client
except ModuleNotFoundError as missing:
    if missing.name != "prometheus_client":
        raise
    raise ModuleNotFoundError("engineio_wsgi.metrics needs prometheus_client: pip install 'engineio-wsgi[metrics]'",
                              name=missing.name) from None

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.registry import Collector

from engineio_wsgi.vendors.prometheus_metrics import BatchHistogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from engineio_wsgi.engine.engine import Engine

__all__ = ["observe"]

#: seconds between two writes of what is counted to the files of multi-process mode
FLUSH_PERIOD = 1.0
#: upper bounds, in seconds, of the classes of an upgrade's duration; ``upgrade_timeout`` is 10 by default
UPGRADE_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: what a session that was closed with a reason of the application's own is counted under: anybody may make up reasons
OTHER_REASON = "other"
REASONS = frozenset(map(str, CloseReason))

#: a series without its ``path``: the metric, and the values of its other labels
Series = tuple[str, tuple[str, ...]]

#: name, help text, labels beside ``path``
COUNTERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("handshakes", "Sessions that were opened.", ("transport",)),
    ("refusals", "Requests that were answered with a line of the protocol's error table.", ("code",)),
    ("closes", "Sessions that have ended.", ("reason",)),
    ("upgrades_started", "Upgrades to another transport that clients have begun.", ()),
    ("upgrades_finished", "Upgrades that have ended: the session has moved (won) or stayed where it was (failed).", ("outcome",)),
    ("messages_received", "Messages that clients have sent.", ("transport",)),
    ("messages_sent", "Messages that were written to clients.", ("transport",)),
    ("received_bytes", "Bytes of the WebSocket frames and POST bodies that clients have sent.", ("transport",)),
    ("sent_bytes", "Bytes of the WebSocket frames but the closing ones, and of the polls' answers before HTTP's compression.",
     ("transport",)),
)
GAUGES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("sessions", "Sessions that are open.", ("transport", "protocol")),
    ("buffered_bytes", "Bytes that were sent and that wait for clients to take them.", ()),
)


def observe(server: Engine, registry: CollectorRegistry = prometheus_client.REGISTRY) -> None:
    """Publish what ``server`` does. Several servers of one process are told apart by the label ``path``.

    Where ``PROMETHEUS_MULTIPROC_DIR`` is set, the series are written to the files of ``prometheus_client``'s multi-process
    mode instead, once a second, and ``registry`` is not used.

    Args:
        server: one without sessions; before it serves is the time.
        registry: where the series are collected.

    Raises:
        UsageError: the server is observed already, or it has sessions.

    Example::

        server = engineio_wsgi.Server()
        engineio_wsgi.metrics.observe(server)
        app = server.wrap(DispatcherMiddleware(flask_app, {"/metrics": prometheus_client.make_wsgi_app()}))
    """
    if type(server.observer) is not Observer:
        raise UsageError("this server is observed already: call observe(server) once")
    if server.clients_count:
        raise UsageError("this server has sessions already: call observe(server) before it serves")
    server.observer = _Recorder(server, _instruments_of(registry))


class _Instruments(Collector):
    """The series of one registry, for all servers that are observed with it."""

    def __init__(self) -> None:
        #: who brings the series up to date before they are collected
        self.recorders: list[_Recorder] = []
        self.metrics: dict[str, Any] = {}
        for name, text, labels in COUNTERS:
            self.metrics[name] = prometheus_client.Counter(f"engineio_{name}", text, ("path", *labels), registry=None)
        for name, text, labels in GAUGES:
            self.metrics[name] = Gauge(f"engineio_{name}", text, ("path", *labels), registry=None, multiprocess_mode="livesum")
        self.upgrade_durations = Histogram("engineio_upgrade_duration_seconds", "From the new connection to the switch, if won.",
                                           ("path",), registry=None, buckets=UPGRADE_BOUNDS)
        self.turns = BatchHistogram("engineio_listener_seconds",
                                    "How long listeners ran or waited, for all messages read together.",
                                    ("path",), registry=None, buckets=TURN_BOUNDS)

    def collect(self) -> Iterator[Metric]:
        """What ``prometheus_client`` calls for each scrape, in whatever thread it serves it."""
        for recorder in self.recorders:
            recorder.fold()
        for metric in self._all():
            yield from metric.collect()

    def describe(self) -> Iterator[Metric]:
        """The series without their values: what a registry knows their names from."""
        for metric in self._all():
            yield from metric.describe()

    def _all(self) -> tuple[Any, ...]:
        return (*self.metrics.values(), self.upgrade_durations, self.turns)


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


class _Recorder(Observer):
    """Counts what one server does, and folds it into its series."""

    __slots__ = ("_clients", "_counts", "_folded", "_instruments", "_lock", "_meters", "_path", "_timer", "_transports", "_turns",
                 "_turns_folded", "_upgrade_durations")

    def __init__(self, server: Engine, instruments: _Instruments) -> None:
        options = server.options
        self._clients: Mapping[str, Socket] = server.clients
        self._path = options.path
        self._transports = options.transports
        self._instruments = instruments
        self._timer: Any = None
        self._begin()
        instruments.recorders.append(self)
        self._upgrade_durations = instruments.upgrade_durations.labels(self._path)
        self._turns = instruments.turns.labels(self._path)
        self.fold()
        if _is_multiprocess():
            atexit.register(self.fold)

    def _begin(self) -> None:
        """Nothing has been counted yet."""
        self._meters = {transport: Meter() for transport in self._transports}
        # what can be counted is there from the start, at 0: a rate needs a value before the first event
        self._counts: Counter[Series] = Counter(dict.fromkeys(_events(self._transports), 0))
        self._folded: dict[Series, int] = {}
        self._turns_folded = ([0] * (len(TURN_BOUNDS) + 1), 0.0)
        #: guards what was folded; nobody waits for anything inside
        self._lock = Lock()

    def start_anew(self) -> None:
        # the timer is the parent's loop's, and a thread that the child does not have may have held the lock
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if _is_multiprocess():
            # a process has files of its own there, which begin at 0
            self._begin()
        else:
            self._lock = Lock()

    # -- what the server tells

    def meter(self, transport: str) -> Meter:
        return self._meters[transport]

    def on_open(self, transport: str) -> None:
        self._count("handshakes", transport)

    def on_refused(self, code: int) -> None:
        self._count("refusals", str(code))

    def on_upgrade(self) -> Callable[[bool], object]:
        self._count("upgrades_started")
        began = monotonic()

        def ended(won: bool) -> None:
            self._count("upgrades_finished", "won" if won else "failed")
            if won:
                self._upgrade_durations.observe(monotonic() - began)

        return ended

    def on_closed(self, reason: str) -> None:
        self._count("closes", reason if reason in REASONS else OTHER_REASON)

    def _count(self, name: str, *labels: str) -> None:
        self._counts[name, labels] += 1
        if self._timer is None and _is_multiprocess():
            # not earlier: a fork would lose it
            self._timer = gevent.get_hub().loop.timer(FLUSH_PERIOD, FLUSH_PERIOD, ref=False)
            self._timer.start(self.fold)

    # -- what becomes of it

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

    def _values(self) -> Iterator[tuple[Series, int]]:
        yield from list(self._counts.items())
        for transport, meter in self._meters.items():
            yield ("messages_received", (transport,)), meter.messages_in
            yield ("messages_sent", (transport,)), meter.messages_out
            yield ("received_bytes", (transport,)), meter.bytes_in
            yield ("sent_bytes", (transport,)), meter.bytes_out
        sockets = list(self._clients.values())
        yield ("buffered_bytes", ()), sum([socket.buffered for socket in sockets])
        sessions = Counter((socket.transport.name, str(socket.protocol)) for socket in sockets)
        # those of which there are none any more have to be told, too
        known = {labels for name, labels in self._folded if name == "sessions"}
        for labels in known | set(sessions) | {(transport, "4") for transport in self._meters}:
            yield ("sessions", labels), sessions[labels[0], labels[1]]

    def _fold_turns(self) -> None:
        counts, seconds = _turns_of(self._meters.values())
        counts_before, seconds_before = self._turns_folded
        more = [count - before for count, before in zip(counts, counts_before, strict=True)]
        self._turns.add(more, seconds - seconds_before)
        self._turns_folded = counts, seconds


def _turns_of(meters: Collection[Meter]) -> tuple[list[int], float]:
    """Of all meters together: how many turns each class has, the short ones first, and their seconds."""
    longer = [sum(counts) for counts in zip(*[meter.longer_turns for meter in meters], strict=True)]
    turns = sum([meter.turns for meter in meters])
    return [turns - sum(longer), *longer], sum([meter.turn_seconds for meter in meters])


def _events(transports: Iterable[str]) -> Iterator[Series]:
    """Everything that is counted as it happens."""
    yield from [("handshakes", (transport,)) for transport in transports]
    yield from [("refusals", (str(int(code)),)) for code in ErrorCode]
    yield from [("closes", (reason,)) for reason in (*map(str, CloseReason), OTHER_REASON)]
    yield "upgrades_started", ()
    yield from [("upgrades_finished", (outcome,)) for outcome in ("won", "failed")]
