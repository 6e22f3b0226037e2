"""The engine's address in a browser's address bar: a line of text says what the address is for."""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

from engineio_wsgi.errors import ErrorCode, RequestRefused
from engineio_wsgi.http.response import NO_SNIFF, NO_STORE, Response

__all__ = ["explain_address", "is_navigation"]

TEXT = ("This is the address of an Engine.IO server. It is not a page: clients such as engine.io-client connect to it, from a "
        "script of a page. (code {code}: {message})\n")


def is_navigation(environ: WSGIEnvironment, refusal: RequestRefused) -> bool:
    """Whether a request comes from a browser's address bar, and not from a client that understands the refusal."""
    if refusal.code is not ErrorCode.TRANSPORT_UNKNOWN and "missing" not in refusal.context:
        return False
    mode = environ.get("HTTP_SEC_FETCH_MODE")
    # older browsers do not say; scripts of a page that fetch something do not ask for HTML
    return mode == "navigate" if mode else "text/html" in environ.get("HTTP_ACCEPT", "")


def explain_address(refusal: RequestRefused) -> Response:
    """The refusal for a person: its status, and one line of text."""
    body = TEXT.format(code=int(refusal.code), message=refusal.code.message).encode()
    headers = [("Content-Type", "text/plain; charset=UTF-8"), NO_STORE, NO_SNIFF, ("Content-Length", str(len(body)))]
    return Response(refusal.status, [*headers, *refusal.headers], body)
