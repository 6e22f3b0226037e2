"""Options as text: the form in which a flag or an environment variable gives a value, and its conversion.

A function that converts raises `ValueError` or `KeyError` for text that does not have the form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["FORMS", "TextForm", "parse_cookie", "parse_count", "parse_flag", "parse_names", "parse_origins"]


def parse_flag(text: str) -> bool:
    """``true``, ``yes``, ``on``, ``1``, or their opposites. Others raise `KeyError`."""
    values = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    return values[text.strip().lower()]


def parse_count(text: str) -> int:
    """A whole number."""
    return int(text)


def parse_names(text: str) -> tuple[str, ...]:
    """Names, separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_origins(text: str) -> str | list[str]:
    """One origin, or several that are separated by commas."""
    names = parse_names(text)
    return names[0] if len(names) == 1 else list(names)


def parse_cookie(text: str) -> bool | str:
    """A flag, or the name of the cookie."""
    try:
        return parse_flag(text)
    except KeyError:
        return text


class TextForm(NamedTuple):
    """The form of an option's text: ``shown`` in ``--help``, ``expected`` in an error."""

    shown: str
    expected: str


#: the form of the text that each function converts
FORMS: dict[Callable[[str], object], TextForm] = {
    float: TextForm("SECONDS", "a number of seconds"),
    int: TextForm("BYTES", "a whole number of bytes"),
    str: TextForm("TEXT", "text"),
    parse_count: TextForm("NUMBER", "a whole number"),
    parse_flag: TextForm("true|false", "true or false"),
    parse_names: TextForm("NAME,…", "names separated by commas"),
    parse_origins: TextForm("ORIGIN,…", "origins separated by commas"),
    parse_cookie: TextForm("true|NAME", "true, false or a name"),
}
