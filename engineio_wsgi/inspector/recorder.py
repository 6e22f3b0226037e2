"""What is kept of the sessions of one worker, while an inspector is installed: their beginnings, ends, upgrades and counts.

An observer like that of the metrics, beside which it may run. For the hub's thread only. Knows no pages.
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
from engineio_wsgi.runtime.observer import ObservedSession, Observer
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports import transports

__all__ = ["Recorder", "SessionRecord"]

#: upgrades whose durations are kept
UPGRADES = 200
#: close reasons that are counted by themselves: an application may make up its own
MAX_REASONS = 40
OTHER_REASON = "other"


class SessionRecord:
    """What is kept of one session.

    Attributes:
        number: the session's, of those of its worker.
        opened_at: when it began, on the monotonic clock.
        round_trip: seconds from the last ping to its answer; ``None`` before that.
        upgraded_in: seconds that its upgrade took; ``None`` without one.
    """

    __slots__ = ("_messages_in", "_messages_out", "number", "opened_at", "round_trip", "session", "upgraded_in")

    def __init__(self, session: Session, number: int, now: float) -> None:
        self.session = session
        self.number = number
        self.opened_at = now
        self.round_trip: float | None = None
        self.upgraded_in: float | None = None
        #: over the transports that it has left
        self._messages_in = 0
        self._messages_out = 0

    def on_round_trip(self, seconds: float) -> None:
        """A ping was answered."""
        self.round_trip = seconds

    def on_upgraded(self, seconds: float) -> None:
        """The session is about to leave its transport for another one."""
        self._messages_in, self._messages_out = self.messages_in, self.messages_out
        self.upgraded_in = seconds

    @property
    def messages_in(self) -> int:
        """Messages that the client has sent."""
        meter = self.session.transport.meter
        return self._messages_in + (0 if meter is None else meter.messages_in)

    @property
    def messages_out(self) -> int:
        """Messages that were written to the client."""
        meter = self.session.transport.meter
        return self._messages_out + (0 if meter is None else meter.messages_out)


class Recorder(Observer):
    """Keeps a record of each session of one worker.

    Args:
        registry: where the sessions are.
    """

    added_by = "Inspector"
    counts_sessions = True

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.history = History(self.totals)
        self._begin()

    def _begin(self) -> None:
        self._records: dict[ObservedSession, SessionRecord] = {}
        self._numbers = count(1)
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
        self.history.after_fork()
        self._begin()

    def on_open(self, session: ObservedSession) -> None:
        self._opened += 1
        self._add(session)

    def _add(self, session: ObservedSession) -> None:
        assert isinstance(session, Session)
        self._records[session] = SessionRecord(session, next(self._numbers), monotonic())
        self.history.start()

    def on_moved(self, session: ObservedSession, direction: str) -> None:
        self.moves[direction] += 1
        if direction == "in":
            self._add(session)
        else:
            self._records.pop(session, None)

    def on_refused(self, code: int, error: Exception, environ: WSGIEnvironment) -> None:
        self.refusals.add(error, environ, monotonic())

    def on_upgrade(self, session: ObservedSession, environ: WSGIEnvironment) -> Callable[[bool], object]:
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
        self._closed += 1
        self._records.pop(session, None)
        reason = str(session.close_reason)
        self.reasons[reason if reason in self.reasons or len(self.reasons) < MAX_REASONS else OTHER_REASON] += 1

    def on_round_trip(self, session: ObservedSession, seconds: float) -> None:
        record = self._records.get(session)
        if record is not None:
            record.on_round_trip(seconds)

    def on_lag(self, seconds: float) -> None:
        self.history.on_lag(seconds)

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
        meters = [self._registry.observers.total(transport) for transport in transports]
        return Totals(len(self._records), self._opened, self._closed, self.refusals.count,
                      sum([meter.messages_in for meter in meters]),
                      sum([meter.messages_out for meter in meters]))
