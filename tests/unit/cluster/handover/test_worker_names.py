"""The names of a worker, and what belongs to each."""

from __future__ import annotations

import pytest

from engineio_wsgi.cluster.handover.worker_names import WorkerNames
from engineio_wsgi.cluster.messages import Refusal


@pytest.fixture
def names() -> WorkerNames:
    """Those of the worker ``aaaa``, which has taken the name ``bbbb`` and expects its sessions."""
    names = WorkerNames("aaaa")
    names.expect(["bbbb"])
    names.take("bbbb")
    return names


def test_a_new_worker_has_one_name() -> None:
    names = WorkerNames("aaaa")
    assert (names.own, "aaaa" in names, "bbbb" in names) == (["aaaa"], True, False)


def test_each_session_belongs_to_exactly_one_name(names: WorkerNames) -> None:
    for sid, owner in (("aaaa1", "aaaa"), ("bbbb1", "bbbb"), ("cccc1", "aaaa")):
        assert [name for name in names.own if names.belongs(sid, name)] == [owner]


def test_a_session_that_has_not_arrived_is_with_the_former_process(names: WorkerNames) -> None:
    assert names.whereabouts("bbbb1") is Refusal.FORMER
    assert names.whereabouts("aaaa1") is Refusal.UNKNOWN
    names.expect_no_more(["bbbb"])
    assert names.whereabouts("bbbb1") is Refusal.UNKNOWN


def test_a_name_is_left_behind_when_no_worker_gives_its_sessions_any_more(names: WorkerNames) -> None:
    names.expect(["bbbb", "cccc"])
    names.end_arrival(["bbbb", "cccc"])
    assert names.left_behind == ["cccc"], "another worker still gives sessions with the name bbbb"
    names.end_arrival(["bbbb"])
    assert sorted(names.left_behind) == ["bbbb", "cccc"]
    names.expect_no_more(["cccc"])
    assert (names.left_behind, names.expects_any) == (["bbbb"], True)


def test_a_name_that_was_given_away_is_no_receiver_of_own_broadcasts(names: WorkerNames) -> None:
    names.give_away("aaaa")
    assert (names.own, "aaaa" in names, names.is_own("aaaa")) == (["bbbb"], True, False)
    assert names.whereabouts("aaaa1") is Refusal.MOVED
    names.take_back("aaaa")
    assert names.is_own("aaaa")
    assert names.whereabouts("aaaa1") is Refusal.UNKNOWN


def test_names_without_sessions_are_dropped_but_for_the_first(names: WorkerNames) -> None:
    assert names.drop_unused([]) == [], "its sessions are expected"
    names.expect_no_more(["bbbb"])
    assert names.drop_unused(["bbbb1"]) == []
    assert names.drop_unused(["aaaa1"]) == ["bbbb"]
    assert names.own == ["aaaa"]
