"""The records of the sessions of one worker with an inspector: their beginnings, ends and upgrades.

An observer like that of the metrics, beside which it may run. Messages are counted while a page is open, because counting takes a
tenth of the time of an echo. For the hub's thread only. Knows no pages.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection
from itertools import count
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.inspector.history import History, Totals
from engineio_wsgi.inspector.refusals import RefusalLog
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.observer import ObservedSession, Observer, SessionMeter
from engineio_wsgi.runtime.observers import Observers
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports import transports

__all__ = ["Recorder", "SessionRecord"]

#: seconds without a question after which messages are not counted any more
PATIENCE = 10.0
#: upgrades whose durations are kept
UPGRADES = 200
#: close reasons that are counted by themselves: an application may make up its own
MAX_REASONS = 40
OTHER_REASON = "other"


class SessionRecord:
    """The record of one session.

    Attributes:
        number: the session's, of those of its worker.
        opened_at: when it began, on the monotonic clock.
        round_trip: seconds from the last ping to its answer; ``None`` before that.
        upgraded_in: seconds that its upgrade took; ``None`` without one.
    """

    __slots__ = ("_left_in", "_left_out", "number", "opened_at", "round_trip", "session", "upgraded_in")

    def __init__(self, session: Session, number: int, now: float) -> None:
        self.session = session
        self.number = number
        self.opened_at = now
        self.round_trip: float | None = None
        self.upgraded_in: float | None = None
        #: messages over the transports before the present one
        self._left_in = 0
        self._left_out = 0

    def on_round_trip(self, seconds: float) -> None:
        """A ping was answered."""
        self.round_trip = seconds

    def on_upgraded(self, seconds: float) -> None:
        """The session is about to leave its transport for another one."""
        self._left_in, self._left_out = self.messages_in, self.messages_out
        self.upgraded_in = seconds

    def count_with(self, observers: Observers) -> None:
        """Count its messages from now on, or stop, as the observers say."""
        transport = self.session.transport
        transport.count_with(observers.meter(transport.name))

    def forget_counts(self) -> None:
        """Forget the counts: no page is open any more."""
        self._left_in = self._left_out = 0

    @property
    def is_counted(self) -> bool:
        """Whether its messages are counted."""
        return isinstance(self.session.transport.meter, SessionMeter)

    @property
    def messages_in(self) -> int:
        """Messages that the client has sent since a page was opened."""
        meter = self.session.transport.meter
        return self._left_in + (meter.messages_in if isinstance(meter, SessionMeter) else 0)

    @property
    def messages_out(self) -> int:
        """Messages that were written to the client since a page was opened."""
        meter = self.session.transport.meter
        return self._left_out + (meter.messages_out if isinstance(meter, SessionMeter) else 0)


class Recorder(Observer):
    """Keeps a record of each session of one worker.

    Args:
        registry: where the sessions are.
    """

    added_by = "Inspector"

    def __init__(self, registry: Registry) -> None:
        self._observers = registry.observers
        self.history = History(self._on_sample)
        self._begin()

    def _begin(self) -> None:
        self._records: dict[ObservedSession, SessionRecord] = {}
        self._numbers = count(1)
        #: when a page has asked last, on the monotonic clock; ``None`` if messages are not counted
        self._looked_at: float | None = None
        self._opened = 0
        self._closed = 0
        self.began_at = monotonic()
        #: sessions that came from other workers (``in``), and that went to others (``out``)
        self.moves: Counter[str] = Counter({"in": 0, "out": 0})
        #: closed sessions by reason
        self.reasons: Counter[str] = Counter()
        self.refusals = RefusalLog()
        #: seconds that the latest upgrades took
        self.upgrade_seconds: deque[float] = deque(maxlen=UPGRADES)
        self.upgrades_won = 0
        self.upgrades_failed = 0

    # -- reports of the server

    def after_fork(self) -> None:
        """Forget everything: the sessions are the parent's."""
        self.history.after_fork()
        self._observers.count_sessions(False)
        self._begin()

    def on_open(self, session: ObservedSession) -> None:
        """See `Observer`."""
        self._opened += 1
        self._add(session)

    def _add(self, session: ObservedSession) -> None:
        assert isinstance(session, Session)
        self._records[session] = SessionRecord(session, next(self._numbers), monotonic())
        self.history.start()

    def on_moved(self, session: ObservedSession, direction: str) -> None:
        """See `Observer`."""
        self.moves[direction] += 1
        if direction == "in":
            self._add(session)
        else:
            self._records.pop(session, None)

    def on_refused(self, code: int, error: Exception, environ: WSGIEnvironment) -> None:
        """See `Observer`."""
        self.refusals.add(error, environ, monotonic())

    def on_upgrade(self, session: ObservedSession, environ: WSGIEnvironment) -> Callable[[bool], object]:
        """See `Observer`."""
        began = monotonic()

        def ended(won: bool) -> None:
            if not won:
                self.upgrades_failed += 1
                return
            self.upgrades_won += 1
            seconds = monotonic() - began
            self.upgrade_seconds.append(seconds)
            record = self._records.get(session)
            if record is not None:
                record.on_upgraded(seconds)

        return ended

    def on_closed(self, session: ObservedSession) -> None:
        """See `Observer`."""
        self._closed += 1
        self._records.pop(session, None)
        reason = str(session.close_reason)
        self.reasons[reason if reason in self.reasons or len(self.reasons) < MAX_REASONS else OTHER_REASON] += 1

    def on_round_trip(self, session: ObservedSession, seconds: float) -> None:
        """See `Observer`."""
        record = self._records.get(session)
        if record is not None:
            record.on_round_trip(seconds)

    def on_lag(self, seconds: float) -> None:
        """See `Observer`."""
        self.history.on_lag(seconds)

    # -- counting

    def look(self) -> None:
        """A page asks: count the messages of all sessions for some seconds."""
        self._looked_at = monotonic()
        self._observers.count_sessions(True)
        # each time, because an upgrade that began before the first look comes with other counters
        for record in self._records.values():
            if not record.is_counted:
                record.count_with(self._observers)
        self.history.start()

    def _on_sample(self) -> Totals:
        """The counts for a sample. Stops counting messages if no page has asked for a while."""
        if self._looked_at is not None and monotonic() - self._looked_at > PATIENCE:
            self._looked_at = None
            self._observers.count_sessions(False)
            for record in self._records.values():
                record.count_with(self._observers)
                record.forget_counts()
        return self.totals()

    # -- what the page asks for

    @property
    def records(self) -> Collection[SessionRecord]:
        """The open sessions, the oldest first."""
        return self._records.values()

    def find(self, number: int) -> SessionRecord | None:
        """The record of an open session."""
        return next((record for record in self._records.values() if record.number == number), None)

    def totals(self) -> Totals:
        """The counts of this moment."""
        events = (len(self._records), self._opened, self._closed, self.refusals.count)
        if not self._observers.is_counting:
            return Totals(*events)
        meters = [self._observers.total(transport) for transport in transports]
        return Totals(*events, sum([meter.messages_in for meter in meters]), sum([meter.messages_out for meter in meters]))
