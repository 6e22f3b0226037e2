"""The errors of options that cannot be used, and the checks that several options share."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection

from engineio_wsgi.errors import ConfigurationError

__all__ = ["switched", "unknown", "within", "wrong"]


def wrong(name: str, got: object, allowed: str) -> ConfigurationError:
    """The error of a value that is not ``allowed``."""
    return ConfigurationError(f"{name}: expected {allowed}; got {got!r}")


def within(name: str, part: str, value: object, low: int, high: int | None) -> None:
    """Check that ``part`` of an option is a whole number in a range; ``high`` is ``None`` for no upper bound."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= low and (high is None or value <= high):
        return
    raise wrong(name, value, f"{part} to be a whole number " + (f"from {low}" if high is None else f"from {low} to {high}"))


def switched(name: str, part: str, value: object) -> None:
    """Check that ``part`` of an option is a bool."""
    if not isinstance(value, bool):
        raise wrong(name, value, f"{part} to be True or False")


def unknown(name: str, known: Collection[str], what: str = "an option", shown: Callable[[str], str] = str) -> ConfigurationError:
    """The error of a name that does not exist. It suggests the most similar one, or lists all.

    Args:
        what: the kind of thing that ``name`` is not.
        shown: how a name is written.
    """
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {shown(close[0])}?" if close else f"there are {', '.join(map(shown, known))}"
    return ConfigurationError(f"{shown(name)} is not {what}; {hint}")
