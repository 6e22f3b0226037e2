"""Questions of a page: those that are taken, and what is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.inspector.question import ORDERS, Close, Look, read_question


def test_a_look_without_wishes() -> None:
    assert read_question('{"type": "look"}') == Look()


@pytest.mark.parametrize("order", ORDERS)
def test_a_look_with_all_wishes(order: str) -> None:
    wishes = {"order": order, "search": "tobi", "since": {"w1": 7}, "watched": "w1.3", "packet": 9}
    assert read_question(json.dumps({"type": "look", **wishes})) == Look(**wishes)  # type: ignore[arg-type]


def test_a_close() -> None:
    assert read_question(b'{"type": "close", "session": "w1.3"}') == Close(session="w1.3")


@pytest.mark.parametrize("text", [
    "", "{", "null", "[]", "7", "{}", '{"type": "open"}', '{"type": ["look"]}', '{"type": "close"}',
    '{"type": "close", "session": 3}', '{"type": "look", "order": "__class__"}', '{"type": "look", "order": []}',
    '{"type": "look", "search": 7}', '{"type": "look", "since": [1]}', '{"type": "look", "since": {"w": "1"}}',
    '{"type": "look", "packet": -1}', '{"type": "look", "packet": true}', '{"type": "look", "more": 1}',
    json.dumps({"type": "look", "search": "x" * 101}), "[" * 100_000, b"\xff",
])
def test_what_is_no_question(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        read_question(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["type", "order", "search", "since", "watched", "packet", "session"]), inner)))
def test_any_json_is_a_question_or_refused(content: object) -> None:
    try:
        question = read_question(json.dumps(content))
    except ValueError:
        return
    assert isinstance(question, (Look, Close))
