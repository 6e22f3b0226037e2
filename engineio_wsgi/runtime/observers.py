"""The observers of one server: the list of them, and the calls of each.

Owns the counters that they share. A report costs nothing if no observer has a method for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from wsgiref.types import StartResponse, WSGIEnvironment

from engineio_wsgi.errors import UsageError
from engineio_wsgi.runtime.observer import EngineCall, Listener, Meter, ObservedSession, Observer, SessionMeter

__all__ = ["Observers"]


class Observers:
    """See the module. The observers are told in the order in which they were added; the first is the outermost around a call."""

    def __init__(self) -> None:
        self._all: tuple[Observer, ...] = ()
        self._meters: dict[str, Meter] = {}
        self._counts = self._counts_sessions = False
        #: whether sessions are counted for the time being
        self._is_looked_at = False
        #: those that override a method; a caller need not call if there is none
        self.of_answers: tuple[Observer, ...] = ()
        self.of_listeners: tuple[Observer, ...] = ()
        self.of_sends: tuple[Observer, ...] = ()
        self.of_hops: tuple[Observer, ...] = ()
        self.of_round_trips: tuple[Observer, ...] = ()
        self.of_lag: tuple[Observer, ...] = ()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._all)

    def check_new(self, kind: type[Observer]) -> None:
        """Check that there is none of ``kind`` yet.

        Raises:
            UsageError: there is.
        """
        if any(isinstance(observer, kind) for observer in self._all):
            raise UsageError(f"this server is observed already in this way: call {kind.added_by}(server) once")

    def add(self, observer: Observer) -> None:
        """Report to ``observer`` as well from now on.

        Raises:
            UsageError: there is one of its kind.
        """
        self.check_new(type(observer))
        self._all = (*self._all, observer)
        self._counts = self._counts or observer.counts or observer.counts_sessions
        self._counts_sessions = self._counts_sessions or observer.counts_sessions
        self.of_answers = self._with("answer")
        self.of_listeners = self._with("stand_in")
        self.of_sends = self._with("sending")
        self.of_hops = self._with("departing")
        self.of_round_trips = self._with("on_round_trip")
        self.of_lag = self._with("on_lag")

    def _with(self, method: str) -> tuple[Observer, ...]:
        """The observers that override a method."""
        return tuple(each for each in self._all if getattr(type(each), method) is not getattr(Observer, method))

    def after_fork(self) -> None:
        """In a forked child: see `Observer`."""
        for observer in self._all:
            observer.after_fork()

    # -- counters

    def total(self, transport: str) -> Meter:
        """The counts of all sessions while they use ``transport``."""
        return self._meters.setdefault(transport, Meter())

    def meter(self, transport: str) -> Meter | None:
        """The counters for one more session that uses ``transport``; ``None`` if nothing is counted."""
        if not self.is_counting:
            return None
        total = self.total(transport)
        return SessionMeter(total) if self._counts_sessions or self._is_looked_at else total

    @property
    def is_counting(self) -> bool:
        """Whether the traffic is counted now."""
        return self._counts or self._is_looked_at

    def count_sessions(self, wanted: bool) -> None:
        """Count new sessions one by one from now on, or no more than the other observers want.

        The caller gives the sessions that there are other counters: :meth:`meter`, and ``Transport.count_with``.
        """
        self._is_looked_at = wanted

    # -- reports

    def on_open(self, session: ObservedSession) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.on_open(session)

    def on_refused(self, code: int, error: Exception, environ: WSGIEnvironment) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.on_refused(code, error, environ)

    def on_upgrade(self, session: ObservedSession, environ: WSGIEnvironment) -> Callable[[bool], object] | None:
        """See `Observer`."""
        ends = [end for observer in self._all if (end := observer.on_upgrade(session, environ)) is not None]
        if not ends:
            return None
        return lambda won: [end(won) for end in ends]

    def on_closed(self, session: ObservedSession) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.on_closed(session)

    def on_moved(self, session: ObservedSession, direction: str) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.on_moved(session, direction)

    def on_drain(self) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.on_drain()

    def on_round_trip(self, session: ObservedSession, seconds: float) -> None:
        """See `Observer`."""
        for observer in self.of_round_trips:
            observer.on_round_trip(session, seconds)

    def on_lag(self, seconds: float) -> None:
        """See `Observer`."""
        for observer in self.of_lag:
            observer.on_lag(seconds)

    # -- around what the engine does

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse | None, application: EngineCall) -> Iterable[bytes]:
        """See `Observer`."""
        for observer in reversed(self.of_answers):
            application = partial(observer.answer, application=application)
        return application(environ, start_response)

    def stand_in(self, session: ObservedSession, event: str, listener: Listener) -> Listener:
        """See `Observer`."""
        for observer in reversed(self.of_listeners):
            listener = observer.stand_in(session, event, listener)
        return listener

    def sending(self, session: ObservedSession, size: int) -> AbstractContextManager[object]:
        """See `Observer`."""
        return _all_of([observer.sending(session, size) for observer in self.of_sends])

    def departing(self, hop: str, worker: str, carrier: dict[str, str]) -> AbstractContextManager[object]:
        """See `Observer`."""
        return _all_of([observer.departing(hop, worker, carrier) for observer in self.of_hops])

    def arriving(self, hop: str, carrier: Mapping[str, str]) -> AbstractContextManager[object]:
        """See `Observer`."""
        return _all_of([observer.arriving(hop, carrier) for observer in self.of_hops])


def _all_of(contexts: list[AbstractContextManager[object]]) -> AbstractContextManager[object]:
    """One context for several."""
    if len(contexts) == 1:
        return contexts[0]
    stack = ExitStack()
    for context in contexts:
        stack.enter_context(context)
    return stack
