"""Queries: the same as the standard library's, in one pass; the first of several counts."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineio_wsgi.http.query import parse_query


@pytest.mark.parametrize(("query", "values"), [
    ("EIO=4&transport=polling&t=abc&sid=x-Y_z", {"EIO": "4", "transport": "polling", "t": "abc", "sid": "x-Y_z"}),
    ("", {"": ""}),
    ("a", {"a": ""}),
    ("a=", {"a": ""}),
    ("=a", {"": "a"}),
    ("a=b=c", {"a": "b=c"}),
    ("a=1&a=2", {"a": "1"}),
    ("a=&a=2", {"a": ""}),
    ("&a=1&&b=2&", {"": "", "a": "1", "b": "2"}),
    ("a=1;b=2", {"a": "1;b=2"}),
    ("A=1&a=2", {"A": "1", "a": "2"}),
])
@pytest.mark.parametrize("escaped", [False, True])
def test_a_query(query: str, values: dict[str, str], escaped: bool) -> None:
    """With an escape in it, a query goes another way."""
    extra = "&%78=%79" if escaped else ""
    assert parse_query(query + extra) == {**values, **({"x": "y"} if escaped else {})}


@pytest.mark.parametrize(("query", "values"), [
    ("a+b=c+d", {"a b": "c d"}),
    ("a=%2B", {"a": "+"}),
    ("a=%26b%3Dc&d=e", {"a": "&b=c", "d": "e"}),
    ("%61=1&a=2", {"a": "1"}),
    ("a=%C3%BC", {"a": "ü"}),
    ("a=%FF", {"a": "\ufffd"}),
    ("a=%", {"a": "%"}),
    ("a=%zz", {"a": "%zz"}),
    ("a=%00", {"a": "\x00"}),
])
def test_escapes(query: str, values: dict[str, str]) -> None:
    assert parse_query(query) == values


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), min_size=1, max_size=5))
def test_what_was_encoded_comes_out(pairs: list[tuple[str, str]]) -> None:
    first: dict[str, str] = {}
    for name, value in pairs:
        first.setdefault(name, value)
    assert parse_query(urlencode(pairs)) == first


@given(st.text(alphabet="ab=&%+2Bé", max_size=20))
def test_it_is_what_the_standard_library_makes_of_it(query: str) -> None:
    expected: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        expected.setdefault(name, value)
    # it leaves out fields that are empty altogether, which here have the name ""
    parsed = parse_query(query)
    parsed.pop("", None)
    expected.pop("", None)
    assert parsed == expected
