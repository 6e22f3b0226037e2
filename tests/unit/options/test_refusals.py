"""The texts of refusals: the option, what was expected, and what was given."""

from __future__ import annotations

import pytest

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.refusals import switched, unknown, within, wrong


def test_a_wrong_value():
    assert str(wrong("path", 5, "a path")) == "path: expected a path; got 5"


@pytest.mark.parametrize(("value", "high"), [(0, None), (9, 9), (0, 9)])
def test_a_number_within_its_range(value: int, high: int | None):
    within("cookie", "max_age", value, 0, high)


@pytest.mark.parametrize(("value", "high", "text"), [
    (-1, None, "cookie: expected max_age to be a whole number from 0; got -1"),
    (10, 9, "cookie: expected max_age to be a whole number from 0 to 9; got 10"),
    (True, 9, "cookie: expected max_age to be a whole number from 0 to 9; got True"),
    ("1", 9, "cookie: expected max_age to be a whole number from 0 to 9; got '1'"),
])
def test_a_number_outside_of_its_range(value: object, high: int | None, text: str):
    with pytest.raises(ConfigurationError) as caught:
        within("cookie", "max_age", value, 0, high)
    assert str(caught.value) == text


def test_a_switch_is_a_bool():
    switched("cookie", "secure", False)
    with pytest.raises(ConfigurationError, match=r"^cookie: expected secure to be True or False; got 1$"):
        switched("cookie", "secure", 1)


def test_an_unknown_name_suggests_the_nearest_or_lists_all():
    assert str(unknown("pathh", ["path", "cors"])) == "pathh is not an option; did you mean path?"
    assert str(unknown("zzz", ["path", "cors"], "a part", str.upper)) == "ZZZ is not a part; there are PATH, CORS"
