"""The errors of options that cannot be used, and the checks that several options share."""

from __future__ import annotations

from collections.abc import Callable, Collection

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.aliases import hint

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
    """The error of a name that does not exist. It explains another library's name, suggests a similar one, or lists all.

    Args:
        what: the kind of thing that ``name`` is not.
        shown: how a name is written.
    """
    return ConfigurationError(f"{shown(name)} is not {what}; {hint(name, known, shown)}")
