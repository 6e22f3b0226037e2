"""Calling a WSGI application and keeping its response, instead of sending it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engineio_wsgi.http.response import Response

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

__all__ = ["call"]


def call(application: WSGIApplication, environ: WSGIEnvironment) -> Response:
    """Call ``application`` and read its body to the end. Blocks as long as it does; without a response it is a 500."""
    status = "500 Internal Server Error"
    headers: list[tuple[str, str]] = []
    chunks: list[bytes] = []

    def start_response(code: str, fields: list[tuple[str, str]], exc_info: object = None, /) -> Callable[[bytes], object]:
        nonlocal status, headers
        status, headers = code, fields
        return chunks.append

    body = application(environ, start_response)
    try:
        chunks.extend(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    return Response(status, headers, b"".join(chunks))
