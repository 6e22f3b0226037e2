"""The table of a session's moves, and the session against it: every cause in every state."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import gevent
import pytest
from support.fakesession import FakeHost, FakeTransport

from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.session.session import Session
from engineio_wsgi.session.state import MOVES, Cause, SessionState

ARCHITECTURE = Path(__file__).parents[3] / "docs/architecture.rst"
LIFE = ["opening", "open", "closing", "closed"]


class Patient(FakeTransport):
    """A transport whose client always has something to fetch."""

    def wake_to_close(self) -> bool:
        """The session has to wait."""
        return True


class FakeCandidate(Patient):
    """A connection that a session may move to."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = self

    def watch(self, on_readable: object) -> None:
        """As a `Connection` does."""


#: what makes each cause happen; ``TELL`` and ``RELEASE`` come one after the other in a session's last turn
HAPPEN: dict[Cause, Callable[[Any], object]] = {
    Cause.OPEN: lambda session: session.open(Patient(), [Packet(PacketType.OPEN)]),
    Cause.UPGRADE: lambda session: session.start_upgrade(FakeCandidate(), lambda: None),
    Cause.ABANDON: lambda session: session.upgrade_abandoned(),
    Cause.SWITCH: lambda session: session.switch_transport(Patient()),
    Cause.CLOSE: lambda session: session.end_when_drained("test"),
    Cause.END: lambda session: session.end("test"),
    Cause.TELL: lambda session: session.inbox.run_turn(),
    Cause.MOVE: lambda session: session.let_go(),
}


def way_to(state: SessionState) -> list[Cause]:
    """The shortest way from the first state."""
    ways: dict[SessionState, list[Cause]] = {SessionState.OPENING: []}
    while state not in ways:
        ways = {**{to: [*ways[at], cause] for (at, cause), to in MOVES.items() if at in ways}, **ways}
    return ways[state]


def new_session() -> Any:
    """A session that has not been opened."""
    host: Any = FakeHost()
    return Session(host, "0123456789abcdef", 4)


def states_after(state: SessionState, cause: Cause) -> tuple[SessionState, SessionState]:
    """Bring a session into ``state`` and make ``cause`` happen: the states before and after."""
    session = new_session()
    way = way_to(state)
    seen: list[tuple[SessionState, SessionState]] = []

    def happen(*args: object) -> None:
        before = session.state
        try:
            HAPPEN[cause](session)
        except RuntimeError:
            assert (cause, before) not in [(Cause.OPEN, SessionState.OPENING)]
        seen.append((before, session.state))

    if way[-1:] == [Cause.TELL]:
        session.inbox.on("close", happen)
    for each in way:
        if each is not Cause.RELEASE:  # it comes with the last turn
            HAPPEN[each](session)
    if not seen:
        happen()
    if not session.closed and session.state is not SessionState.OPENING:
        session.end("the test is over")
    gevent.sleep(0)
    return seen[0]


def expected(state: SessionState, cause: Cause) -> SessionState:
    """Where a cause leads."""
    after = MOVES.get((state, cause), state)
    return MOVES.get((after, Cause.RELEASE), after) if cause is Cause.TELL and after is not state else after


#: a session that has not been opened has no turn
HAPPENINGS = [pair for pair in product(SessionState, HAPPEN) if pair != (SessionState.OPENING, Cause.TELL)]


@pytest.mark.parametrize(("state", "cause"), HAPPENINGS, ids=lambda each: each.name)
def test_a_session_does_what_the_table_says(state: SessionState, cause: Cause) -> None:
    assert states_after(state, cause) == (state, expected(state, cause))


@pytest.mark.parametrize(("state", "cause"), list(product(SessionState, Cause)), ids=lambda each: each.name)
def test_a_move_that_is_not_in_the_table_changes_nothing(state: SessionState, cause: Cause) -> None:
    session = new_session()
    session.state = state
    assert session._move(cause) is ((state, cause) in MOVES)
    assert session.state is MOVES.get((state, cause), state)


def test_only_a_session_that_is_opening_can_be_opened() -> None:
    session = new_session()
    session.open(FakeTransport(), [])
    with pytest.raises(RuntimeError, match="a session that is open cannot be opened"):
        session.open(FakeTransport(), [])


@pytest.mark.parametrize("state", list(SessionState), ids=lambda state: state.name)
def test_every_state_can_be_reached_and_leads_to_the_end(state: SessionState) -> None:
    assert way_to(state) is not None
    at = state
    for cause in (Cause.OPEN, Cause.END, Cause.TELL, Cause.RELEASE):
        at = MOVES.get((at, cause), at)
    assert at.over


@pytest.mark.parametrize("move", list(MOVES), ids=lambda move: f"{move[0].name}-{move[1].name}")
def test_no_move_leads_to_an_earlier_state(move: tuple[SessionState, Cause]) -> None:
    at, to = move[0], MOVES[move]
    assert LIFE.index(at.ready) <= LIFE.index(to.ready)
    assert not (at.upgraded and not to.upgraded), "what has moved has moved"
    assert not (at.told and not to.told)
    assert (at.upgraded, at.upgrading) == (to.upgraded, to.upgrading) or move[1] in (
        Cause.UPGRADE, Cause.ABANDON, Cause.SWITCH, Cause.END)


@pytest.mark.parametrize(("state", "flags"), [
    (SessionState.OPENING, set()),
    (SessionState.OPEN, {"is_open"}),
    (SessionState.UPGRADING, {"is_open", "upgrading"}),
    (SessionState.UPGRADED, {"is_open", "upgraded"}),
    (SessionState.CLOSING, {"closing"}),
    (SessionState.CLOSING_UPGRADING, {"closing", "upgrading"}),
    (SessionState.CLOSING_UPGRADED, {"closing", "upgraded"}),
    (SessionState.CLOSED, {"closed"}),
    (SessionState.CLOSED_UPGRADED, {"closed", "upgraded"}),
    (SessionState.TELLING, {"closed", "told"}),
    (SessionState.TELLING_UPGRADED, {"closed", "told", "upgraded"}),
    (SessionState.OVER, {"closed", "told", "over"}),
    (SessionState.OVER_UPGRADED, {"closed", "told", "over", "upgraded"}),
    (SessionState.MOVED, {"closed", "told", "over", "moved"}),
    (SessionState.MOVED_UPGRADED, {"closed", "told", "over", "moved", "upgraded"}),
], ids=[state.name for state in SessionState])
def test_the_flags_of_each_state(state: SessionState, flags: set[str]) -> None:
    names = ["is_open", "closing", "closed", "told", "over", "moved", "upgrading", "upgraded"]
    assert {name for name in names if getattr(state, name)} == flags


def test_the_documentation_has_the_table() -> None:
    assert table() in ARCHITECTURE.read_text()


def table() -> str:
    """The moves as a table in reStructuredText."""
    rows = [("state", "cause", "next state"), *[(at.value, cause.value, to.value) for (at, cause), to in MOVES.items()]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
