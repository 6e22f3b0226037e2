"""The engine's own responses, in one place: status, headers and body. Knows nothing of sessions."""

from __future__ import annotations

import json
from typing import Any

from engineio_wsgi.errors import PayloadTooLarge, RequestRefused
from engineio_wsgi.http.policies.compression import compress
from engineio_wsgi.options.values import HttpCompression

__all__ = ["Response", "answer", "error_body", "refused", "too_large"]

#: status line without the version, headers, body
Response = tuple[str, list[tuple[str, str]], bytes]

JSON = "application/json"
NO_STORE = ("Cache-Control", "no-store")
#: a payload is never what a browser might guess that it is
NO_SNIFF = ("X-Content-Type-Options", "nosniff")
#: explains a refusal to whoever looks for its cause; the bodies are the reference server's, byte for byte
REASON = "Engineio-Reason"
#: characters of an explanation
MAX_REASON = 200


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
    """The line of the error table that ``refusal`` is, and the explanation, if it has one, in a header."""
    if refusal.bare:
        return _empty(refusal.status, refusal.explanation)
    body = error_body(refusal)
    headers = [("Content-Type", JSON), NO_STORE, NO_SNIFF, ("Content-Length", str(len(body)))]
    return refusal.status, [*headers, *_reason(refusal.explanation), *refusal.headers], body


def error_body(refusal: RequestRefused) -> bytes:
    """A refusal as JSON, spelt as JavaScript's ``JSON.stringify`` does."""
    content = {"code": int(refusal.code), "message": refusal.public_message}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def too_large(error: PayloadTooLarge) -> Response:
    """413. The body is not read here; what becomes of it and of the connection is the HTTP server's affair."""
    return _empty("413 Content Too Large", str(error))


def _empty(status: str, explanation: str) -> Response:
    return status, [NO_STORE, ("Content-Length", "0"), *_reason(explanation)], b""


def _reason(explanation: str) -> list[tuple[str, str]]:
    """The header that carries an explanation: printable ASCII, of a bounded length."""
    text = "".join(char if char.isascii() and char.isprintable() else "?" for char in explanation[:MAX_REASON])
    return [(REASON, text)] if text.strip() else []
