"""The conversion of text to the values of options."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engineio_wsgi.options.parsing import FORMS, parse_cookie, parse_count, parse_flag, parse_names, parse_origins


@pytest.mark.parametrize(("parse", "text", "value"), [
    (parse_flag, " Yes ", True), (parse_flag, "0", False),
    (parse_count, "60", 60),
    (parse_names, "a, b,", ("a", "b")), (parse_names, "", ()),
    (parse_origins, "*", "*"), (parse_origins, "a,b", ["a", "b"]),
    (parse_cookie, "off", False), (parse_cookie, "sid", "sid"),
])
def test_text_that_has_the_form(parse: Callable[[str], object], text: str, value: object):
    assert parse(text) == value


@pytest.mark.parametrize(("parse", "text"), [(parse_flag, "maybe"), (parse_flag, ""), (parse_count, "1.5"), (parse_count, "x")])
def test_text_that_has_not(parse: Callable[[str], object], text: str):
    with pytest.raises((KeyError, ValueError)):
        parse(text)


def test_every_conversion_has_a_form():
    assert {parse_flag, parse_count, parse_names, parse_origins, parse_cookie} < set(FORMS)
    assert all(form.shown and form.expected for form in FORMS.values())
