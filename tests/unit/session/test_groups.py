"""Groups: both directions of the membership."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.session.groups import Groups, check_group

#: any hashable objects will do as sessions
Session = Any


def test_members_come_in_the_order_in_which_they_have_joined() -> None:
    groups = Groups()
    first: Session = "first"
    second: Session = "second"
    groups.join(second, "news")
    groups.join(first, "news")
    groups.join(second, "news")
    assert list(groups.members("news")) == ["second", "first"]
    assert (groups.of(first), groups.of("nobody")) == ({"news"}, frozenset())  # type: ignore[arg-type]


def test_leaving_all() -> None:
    groups = Groups()
    session: Session = "one"
    groups.join(session, "news")
    groups.join(session, "sport")
    groups.leave_all(session)
    groups.leave_all(session)
    assert (groups.of(session), list(groups.members("news")), list(groups.members("sport"))) == (frozenset(), [], [])


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "leave_all"]), st.sampled_from("abc"), st.sampled_from(["x", "y"]))))
def test_both_directions_agree(steps: list[tuple[str, str, str]]) -> None:
    groups = Groups()
    expected: set[tuple[str, str]] = set()
    for step, name, group in steps:
        session: Session = name
        if step == "leave_all":
            groups.leave_all(session)
            expected = {pair for pair in expected if pair[0] != name}
        else:
            getattr(groups, step)(session, group)
            expected = expected | {(name, group)} if step == "join" else expected - {(name, group)}
    pairs: set[Any] = {(session, group) for group in ("x", "y") for session in groups.members(group)}
    assert pairs == expected == {(name, group) for name in "abc" for group in groups.of(name)}  # type: ignore[arg-type]
    assert not expected or groups._members
    assert expected or not (groups._members or groups._by_session)


@pytest.mark.parametrize(("group", "error"), [(None, TypeError), (b"news", TypeError), (1, TypeError), ("", ValueError)])
def test_what_is_no_name_of_a_group(group: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="the name of a group"):
        check_group(group)
