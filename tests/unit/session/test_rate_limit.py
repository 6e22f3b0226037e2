"""How much a client may send: the arithmetic, and what becomes of the reading."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from support.fakeloop import FakeLoop
from support.fakesession import FakeHost, FakeTransport

from engineio_wsgi.options.options import Options
from engineio_wsgi.session import rate_limit
from engineio_wsgi.session.dispatcher import Dispatcher
from engineio_wsgi.session.overlap import OverlappingDispatcher
from engineio_wsgi.session.rate_limit import RateLimit, TokenBucket
from engineio_wsgi.session.session import Session


def test_a_bucket_saves_one_second_and_pays_its_debts() -> None:
    bucket = TokenBucket(10, 100.0)
    assert bucket.refill(200.0) is True
    assert bucket.spend(10) == 0
    assert bucket.spend(5) == 0.5
    assert bucket.refill(200.25) is False
    assert bucket.spend(0) == 0.25
    assert bucket.refill(201.5) is True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    """The clock of the limits."""
    loop = FakeLoop()
    monkeypatch.setattr(rate_limit, "monotonic", loop.monotonic)
    return loop


def limit(loop: FakeLoop, **options: Any) -> RateLimit:
    """The limit of one client."""
    return RateLimit(loop, Options.create(**options))


def test_a_burst_of_a_second_s_worth_passes(now: FakeLoop) -> None:
    start, one = now.monotonic(), limit(now, max_messages_per_second=5)
    assert one.spend(["x"] * 5, start) == 0
    assert one.spend(["x"], start) == pytest.approx(0.2)
    assert one.spend(["x"], start + 0.4) == 0


def test_bytes_are_those_of_the_wire(now: FakeLoop) -> None:
    one = limit(now, max_bytes_per_second=4)
    assert one.spend(["éé"], now.monotonic()) == 0
    assert one.spend([b"xx"], now.monotonic()) == pytest.approx(0.5)


def test_the_stricter_limit_counts(now: FakeLoop) -> None:
    one = limit(now, max_bytes_per_second=100, max_messages_per_second=2)
    assert one.spend(["x"] * 3, now.monotonic()) == pytest.approx(0.5)
    assert one.spend([b"x" * 297], now.monotonic()) == pytest.approx(2.0)


def test_too_much_at_once_ends_the_session(now: FakeLoop) -> None:
    one = limit(now, max_messages_per_second=2, rate_limit_timeout=3)
    assert one.spend(["x"] * 8, now.monotonic()) == 3.0
    assert one.spend(["x"], now.monotonic()) == inf


def test_too_much_for_too_long_ends_the_session(now: FakeLoop) -> None:
    start, one = now.monotonic(), limit(now, max_messages_per_second=10, rate_limit_timeout=3)
    pauses = [one.spend(["x"] * 6, start + tenths / 2) for tenths in range(10)]
    assert pauses[:2] == [0, 0]
    assert 0 < pauses[6] < 1
    assert one.spend(["x"] * 30, start + 8) < inf  # it has rested
    assert one.spend(["x"], start + 8) < inf
    assert one.spend(["x"] * 20, start + 10) < inf
    assert one.spend(["x"], start + 11.5) == inf


def session_with(now: FakeLoop, overlaps: bool = False, **options: Any) -> tuple[Any, Any]:
    """A session, whose inbox has limits, and its transport."""
    host: Any = FakeHost(**options)
    session: Any = Session(host, "0123456789abcdef", 4)
    session.loop = now
    if overlaps:
        session.let_listeners_overlap()
    else:
        session.inbox = rate_limit.make_inbox(session)
    transport = Pausing()
    session.open(transport, [])
    return session, transport


class Pausing(FakeTransport):
    """Remembers whether it reads."""

    reads = True

    def pause(self) -> None:
        """Do not read."""
        self.reads = False

    def resume(self) -> None:
        """Read again."""
        self.reads = True


@pytest.mark.parametrize("overlaps", [False, True])
def test_reading_pauses_until_the_debt_is_paid(now: FakeLoop, overlaps: bool) -> None:
    session, transport = session_with(now, overlaps, max_messages_per_second=4)
    heard: list[str] = []
    session.inbox.on("message", heard.append)
    session.inbox.deliver("0", 0.0)
    assert transport.reads
    session.inbox.enqueue(["1", "2", "3", "4", "5"])
    session.inbox.run_turn()
    assert (heard, transport.reads) == (["0", "1", "2", "3", "4", "5"], False)
    now.advance(0.4)
    assert not transport.reads
    now.advance(0.2)
    assert (transport.reads, session.closed) == (True, False)


def test_an_inbox_that_is_full_stays_paused(now: FakeLoop) -> None:
    session, transport = session_with(now, max_messages_per_second=2, max_inbox=300)
    session.inbox.enqueue(["x" * 100] * 3)
    now.advance(1.0)
    assert not transport.reads
    session.inbox.on("message", lambda data: None)
    session.inbox.run_turn()
    assert transport.reads


def test_a_paused_inbox_that_is_emptied_stays_paused(now: FakeLoop) -> None:
    session, transport = session_with(now, max_messages_per_second=2, max_inbox=100)
    session.inbox.enqueue(["x" * 100] * 3)
    session.inbox.on("message", lambda data: None)
    session.inbox.run_turn()
    assert not transport.reads
    now.advance(1.0)
    assert transport.reads


@pytest.mark.parametrize("overlaps", [False, True])
def test_what_is_too_much_is_not_delivered(now: FakeLoop, overlaps: bool) -> None:
    session, _ = session_with(now, overlaps, max_messages_per_second=2, rate_limit_timeout=1)
    heard: list[str] = []
    session.inbox.on("message", heard.append)
    session.inbox.enqueue(["a", "b"])
    session.inbox.run_turn()
    session.inbox.enqueue(["x"] * 3)
    session.inbox.run_turn()
    assert (heard, session.closed, session.close_reason) == (["a", "b"], True, "rate limit exceeded")


def test_one_message_that_is_too_much(now: FakeLoop) -> None:
    session, _ = session_with(now, max_bytes_per_second=10, rate_limit_timeout=1)
    session.inbox.on("message", lambda data: None)
    session.inbox.deliver("x" * 21, 0.0)
    assert session.close_reason == "rate limit exceeded"


def test_without_limits_the_inbox_is_a_plain_one() -> None:
    host: Any = FakeHost()
    session = Session(host, "0123456789abcdef", 4)
    assert type(session.inbox) is Dispatcher
    session.let_listeners_overlap()
    assert type(session.inbox) is OverlappingDispatcher
