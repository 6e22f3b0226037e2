"""The plain case of `send`: what the part in C does is what the one in Python does."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engineio_wsgi.protocol.websocket.batches import accelerated
from engineio_wsgi.runtime.threads import current_thread
from engineio_wsgi.session import plain_messages

Append = Callable[[list[Any], object, int], int]

MANY = settings(max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")), deadline=None)
FUNCTIONS = [plain_messages.append_message, plain_messages.append_in_python]

ascii_text = st.text(st.characters(max_codepoint=127), max_size=50)
anything = st.one_of(st.text(st.characters(), max_size=50), ascii_text, st.binary(max_size=50), st.none(), st.integers(),
                     st.binary().map(bytearray))


@MANY
@given(anything)
def test_appending_is_that_of_the_reference(message: object) -> None:
    here: list[Any] = []
    there: list[Any] = []
    size = plain_messages.append_message(here, message, current_thread())
    assert size == plain_messages.append_in_python(there, message, current_thread())
    assert here == there
    assert [type(entry) for entry in here] == [type(entry) for entry in there]


@pytest.mark.parametrize("append", FUNCTIONS)
@pytest.mark.parametrize(("message", "size"), [
    ("", 0), ("abc", 3), (b"", 0), (b"\xff\x00", 2), ("ä", -1), ("\ud800", -1), (bytearray(b"x"), -1), (None, -1),
    (type("Text", (str,), {})("x"), -1), (type("Data", (bytes,), {})(b"x"), -1),
])
def test_what_is_plain_is_appended(append: Append, message: object, size: int) -> None:
    entries: list[Any] = ["before"]
    assert append(entries, message, current_thread()) == size
    assert entries == (["before"] if size < 0 else ["before", message])
    assert entries[-1] is message or size < 0


@pytest.mark.parametrize("append", FUNCTIONS)
def test_other_threads_append_nothing(append: Append) -> None:
    entries: list[Any] = []
    assert append(entries, "x", current_thread() + 1) == -1
    assert entries == []


@pytest.mark.skipif(not accelerated, reason="it is about the part in C, which test_ci_has_the_part_in_c asks for")
def test_wrong_arguments_are_refused() -> None:
    for arguments in [(), ((), "x", 1), ([], "x", "1"), ([], "x", 1, 2), ([], "x", -1)]:
        with pytest.raises((TypeError, OverflowError)):
            plain_messages.append_message(*arguments)
