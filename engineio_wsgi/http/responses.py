"""The engine's own responses, in one place: status, headers and body. Knows nothing of sessions."""

from __future__ import annotations

import json
from typing import Any

from engineio_wsgi.errors import PayloadTooLarge, RequestRefused
from engineio_wsgi.http.compression import compress
from engineio_wsgi.options import HttpCompression

__all__ = ["Response", "answer", "refused", "too_large"]

#: status line without the version, headers, body
Response = tuple[str, list[tuple[str, str]], bytes]

JSON = "application/json"
NO_STORE = ("Cache-Control", "no-store")
#: a payload is never what a browser might guess that it is
NO_SNIFF = ("X-Content-Type-Options", "nosniff")


def answer(body: bytes, content_type: str, environ: dict[str, Any], compression: HttpCompression | None) -> Response:
    """200, to a poll or a POST; compressed where ``compression`` and the client want it."""
    headers = [("Content-Type", content_type), NO_STORE, NO_SNIFF]
    if compression is not None and len(body) >= compression.threshold:
        body, coding = compress(body, environ.get("HTTP_ACCEPT_ENCODING", ""), compression)
        headers.append(("Vary", "Accept-Encoding"))
        if coding is not None:
            headers.append(("Content-Encoding", coding))
    headers.append(("Content-Length", str(len(body))))
    return "200 OK", headers, body


def refused(refusal: RequestRefused) -> Response:
    """The line of the error table that ``refusal`` is."""
    status, headers, body = _json(refusal.status, {"code": int(refusal.code), "message": refusal.message})
    return status, [*headers, *refusal.headers], body


def too_large(error: PayloadTooLarge) -> Response:
    """413. The body is not read here; what becomes of it and of the connection is the HTTP server's affair."""
    return _json("413 Content Too Large", {"code": 3, "message": str(error)})


def _json(status: str, content: dict[str, Any]) -> Response:
    body = json.dumps(content).encode()
    return status, [("Content-Type", JSON), NO_STORE, NO_SNIFF, ("Content-Length", str(len(body)))], body
