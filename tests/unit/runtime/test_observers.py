"""Several observers of one server: each is told, and they share the counters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engineio_wsgi.errors import UsageError
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.runtime.observer import Meter, Observer, SessionMeter
from engineio_wsgi.runtime.observers import Observers


class Recorder(Observer):
    """Remembers what it is told, under a name."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told

    def tell(self, what: str) -> None:
        """Remember."""
        self.told.append(f"{self.name}: {what}")

    def after_fork(self) -> None:
        """A fork."""
        self.tell("fork")

    def on_open(self, session: Any) -> None:
        """A handshake."""
        self.tell("open")

    def on_refused(self, code: int, error: Exception, environ: Any) -> None:
        """A refusal."""
        self.tell(f"refused {code}")

    def on_upgrade(self, session: Any, environ: Any) -> Any:
        """An upgrade."""
        return lambda won: self.tell(f"won {won}")

    def on_closed(self, session: Any) -> None:
        """An end."""
        self.tell("closed")

    def on_round_trip(self, session: Any, seconds: float) -> None:
        """A pong."""
        self.tell(f"round trip {seconds}")

    def on_lag(self, seconds: float) -> None:
        """A tick."""
        self.tell(f"lag {seconds}")

    def answer(self, environ: Any, start_response: Any, application: Any) -> Iterable[bytes]:
        """A request."""
        self.tell("asked")
        answered = application(environ, start_response)
        self.tell("answered")
        return answered  # type: ignore[no-any-return]

    def stand_in(self, session: Any, event: str, listener: Any) -> Any:
        """A listener."""
        def called(*args: object) -> object:
            self.tell(event)
            return listener(*args)

        return called

    @contextmanager
    def _around(self, what: str) -> Iterator[None]:
        self.tell(f"begin {what}")
        yield
        self.tell(f"end {what}")

    def sending(self, session: Any, size: int) -> Any:
        """A message."""
        return self._around(f"send {size}")

    def departing(self, hop: str, worker: str, carrier: dict[str, str]) -> Any:
        """A hop."""
        carrier[self.name] = worker
        return self._around(hop)

    def arriving(self, hop: str, carrier: Any) -> Any:
        """A hop."""
        return self._around(f"{hop} {carrier[self.name]}")


class Other(Recorder):
    """Another kind."""

    added_by = "other"


@pytest.fixture
def told() -> list[str]:
    """What the observers were told."""
    return []


@pytest.fixture
def both(told: list[str]) -> Observers:
    """Two of them."""
    observers = Observers()
    observers.add(Recorder("a", told))
    observers.add(Other("b", told))
    return observers


SESSION: Any = object()


def test_each_observer_gets_each_report(both: Observers, told: list[str]) -> None:
    both.on_open(SESSION)
    both.on_refused(3, ValueError(), {})
    ended = both.on_upgrade(SESSION, {})
    assert ended is not None
    ended(True)
    both.on_round_trip(SESSION, 0.5)
    both.on_lag(0.1)
    both.on_closed(SESSION)
    both.after_fork()
    said = ["open", "refused 3", "won True", "round trip 0.5", "lag 0.1", "closed", "fork"]
    assert told == [f"{name}: {what}" for what in said for name in "ab"]


def test_the_first_observer_is_the_outermost(both: Observers, told: list[str]) -> None:
    assert both.answer({}, None, lambda environ, start_response: [b"body"]) == [b"body"]
    assert told == ["a: asked", "b: asked", "b: answered", "a: answered"]
    told.clear()
    assert both.stand_in(SESSION, "message", lambda data: data * 2)("x") == "xx"
    assert told == ["a: message", "b: message"]


def test_contexts_of_all_observers(both: Observers, told: list[str]) -> None:
    carrier: dict[str, str] = {}
    with both.sending(SESSION, 7), both.departing("relay", "w1", carrier), both.arriving("call", {"a": "1", "b": "2"}):
        told.append("now")
    assert carrier == {"a": "w1", "b": "w1"}
    begun = ["a: begin send 7", "b: begin send 7", "a: begin relay", "b: begin relay", "a: begin call 1", "b: begin call 2"]
    assert told == [*begun, "now", *[line.replace("begin", "end") for line in reversed(begun)]]


def test_what_no_observer_has_a_method_for_is_not_called() -> None:
    observers = Observers()
    observers.add(Observer())
    unused = [observers.of_answers, observers.of_listeners, observers.of_sends, observers.of_hops, observers.of_round_trips,
              observers.of_lag]
    assert unused == [()] * 6
    assert observers.on_upgrade(SESSION, {}) is None
    assert observers.meter("websocket") is None


def test_a_second_observer_of_a_kind_is_refused(both: Observers, told: list[str]) -> None:
    with pytest.raises(UsageError, match=r"observed already in this way: call other\(server\) once"):
        both.add(Other("c", told))
    assert len(both) == 2


class Counting(Observer):
    """Reads the counters."""

    counts = True


class CountingEach(Observer):
    """Reads the counters of each session."""

    counts_sessions = True


def test_the_counters_of_all_sessions() -> None:
    observers = Observers()
    observers.add(Counting())
    meter = observers.meter("polling")
    assert meter is observers.total("polling")
    assert observers.meter("websocket") is not meter


def test_the_counters_of_each_session_add_up() -> None:
    observers = Observers()
    observers.add(Counting())
    observers.add(CountingEach())
    one, other = observers.meter("websocket"), observers.meter("websocket")
    assert isinstance(one, SessionMeter)
    assert isinstance(other, SessionMeter)
    one.on_bytes_in(10)
    one.on_messages_in(2)
    one.on_batch(20, ["a", "b", Packet(PacketType.PING)])
    one.on_more_sent(1)
    one.deliver([lambda data: None], "a", 0.0)
    other.on_sent(["c"])
    other.on_bytes_out(3)
    one.on_broadcast([one, other], 5, 2)
    assert (one.bytes_in, one.messages_in, one.bytes_out, one.messages_out) == (10, 3, 25, 5)
    assert (other.bytes_out, other.messages_out) == (8, 3)
    total = observers.total("websocket")
    assert (total.bytes_in, total.messages_in, total.bytes_out, total.messages_out, total.turns) == (10, 3, 33, 8, 1)


def test_a_broadcast_without_counters_of_each_session() -> None:
    meter = Meter()
    meter.on_broadcast([meter, meter, meter], 5, 2)
    assert (meter.bytes_out, meter.messages_out) == (15, 6)
    meter.clear()
    assert (meter.bytes_out, meter.messages_out) == (0, 0)
