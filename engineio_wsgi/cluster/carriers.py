"""The headers that continue a trace in another worker: as part of a request, and as one text.

Knows no tracer: the headers are whatever an observer has added.
"""

from __future__ import annotations

from collections.abc import Mapping
from wsgiref.types import WSGIEnvironment

__all__ = ["as_environ", "headers_of", "pack_headers", "unpack_headers"]


def headers_of(environ: WSGIEnvironment) -> dict[str, str]:
    """The headers of a request, by their names in small letters."""
    return {key[5:].lower().replace("_", "-"): value for key, value in environ.items() if key.startswith("HTTP_")}


def as_environ(headers: Mapping[str, str]) -> dict[str, str]:
    """The part of an environ that these headers make."""
    return {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}


def pack_headers(headers: Mapping[str, str]) -> str:
    """The headers as one text. Values have no line breaks, as in HTTP."""
    return "\n".join([f"{name}:{value}" for name, value in headers.items()])


def unpack_headers(text: str) -> dict[str, str]:
    """The headers in such a text."""
    return {name: value for name, _, value in (line.partition(":") for line in text.splitlines())}
