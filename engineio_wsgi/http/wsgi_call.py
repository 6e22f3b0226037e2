"""Calling a WSGI application and keeping what it answers, instead of sending it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

__all__ = ["Answered", "call"]


class Answered(NamedTuple):
    """A whole response."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


def call(application: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> Answered:
    """Call ``application`` and read its body to the end. Blocks as long as it does; without a response it is a 500."""
    response: list[Any] = ["500 Internal Server Error", []]
    chunks: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
        response[:] = [status, headers]
        return chunks.append

    body = application(environ, start_response)
    try:
        chunks.extend(body)
    finally:
        getattr(body, "close", _ignore_close)()
    return Answered(response[0], response[1], b"".join(chunks))


def _ignore_close() -> None:
    """The body of the response has nothing to close."""
