"""The query of an engine request. Every request has one, and this is faster than ``urllib.parse.parse_qs``."""

from __future__ import annotations

from urllib.parse import unquote_plus

__all__ = ["parse_query"]


def parse_query(query: str) -> dict[str, str]:
    """Names and values. The first of a repeated name counts; a name without ``=`` has the value ``""``."""
    values: dict[str, str] = {}
    if "%" in query or "+" in query:
        for field in query.split("&"):
            name, _, value = field.partition("=")
            values.setdefault(unquote_plus(name), unquote_plus(value))
        return values
    for field in query.split("&"):
        name, _, value = field.partition("=")
        if name not in values:
            values[name] = value
    return values
