"""The head of a request, written anew from its WSGI environ, for servers that keep none of its bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import quote, unquote
from wsgiref.types import WSGIEnvironment

__all__ = ["rebuild_head"]

#: characters that are not escaped in a path
PATH_CHARACTERS = "/!$&'()*+,;=:@~"


def rebuild_head(environ: WSGIEnvironment) -> bytes | None:
    """The head of a request, its empty line included; ``None`` where a server would not make the same environ of it."""
    target = _target_of(environ)
    if target is None or "PROXY_PROTOCOL" in environ:
        return None
    lines = [f"{environ['REQUEST_METHOD']} {target} {environ['SERVER_PROTOCOL']}", *_headers_of(environ)]
    if any(character in line for line in lines for character in "\r\n\0"):
        return None
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def _headers_of(environ: WSGIEnvironment) -> Iterator[str]:
    for key, value in environ.items():
        if key.startswith("HTTP_") and type(value) is str:
            yield f"{_header_name(key[5:])}: {value}"
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            yield f"{_header_name(key)}: {environ[key]}"


def _header_name(key: str) -> str:
    return key.replace("_", "-").title()


def _target_of(environ: WSGIEnvironment) -> str | None:
    """The target of a request; ``None`` if a middleware has changed its path."""
    prefix, path = environ.get("SCRIPT_NAME", ""), environ["PATH_INFO"]
    if prefix not in ("", os.environ.get("SCRIPT_NAME")):
        return None
    target: str | None = environ.get("RAW_URI")
    if target is None:
        return f"{quote(prefix + path, safe=PATH_CHARACTERS, encoding='latin-1')}?{environ.get('QUERY_STRING', '')}"
    return target if unquote(target.partition("?")[0], encoding="latin-1") == prefix + path else None
