"""HTTP responses as values, and the engine's own: payloads, and refusals. Knows no connection and no session."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from engineio_wsgi.errors import PayloadTooLarge, RequestRefused
from engineio_wsgi.http.policies.compression import compress
from engineio_wsgi.options.values import HttpCompression

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["Response", "error_body", "finish", "payload", "posted", "refused"]

JSON = "application/json"
NO_STORE = ("Cache-Control", "no-store")
#: keeps browsers from guessing another content type
NO_SNIFF = ("X-Content-Type-Options", "nosniff")
#: explains a refusal to an operator; the bodies are the reference server's, byte for byte
REASON = "Engineio-Reason"
#: characters of an explanation
MAX_REASON = 200


class Response(NamedTuple):
    """A whole response.

    Attributes:
        status: code and reason, as in the status line.
        headers: names and values.
        body: all of it.
        compress: whether the body may be compressed, which :func:`finish` does.
    """

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    compress: bool = False


def payload(body: bytes, content_type: str, compress: bool = False) -> Response:
    """The response to a poll. :func:`finish` compresses its body and adds its length."""
    return Response("200 OK", [("Content-Type", content_type), NO_STORE, NO_SNIFF], body, compress)


def posted() -> Response:
    """The response to a POST."""
    # text/html and not text/plain: some user agents offer a plain "ok" as a download
    return payload(b"ok", "text/html")


def finish(response: Response, environ: WSGIEnvironment, compression: HttpCompression | None) -> Response:
    """Compress the body, where the response allows it and ``compression`` and the client want it, and add its length."""
    headers, body = response.headers, response.body
    if response.compress and compression is not None and len(body) >= compression.threshold:
        body, coding = compress(body, environ.get("HTTP_ACCEPT_ENCODING", ""), compression)
        headers.append(("Vary", "Accept-Encoding"))
        if coding is not None:
            headers.append(("Content-Encoding", coding))
        response = Response(response.status, headers, body)
    headers.append(("Content-Length", str(len(body))))
    return response


def refused(refusal: RequestRefused | PayloadTooLarge) -> Response:
    """The response to a refused request: its line of the error table, and the explanation, if it has one, in a header.

    Where the body of the request is too large, it has not been read: the HTTP server discards it or closes the connection.
    """
    headers = [NO_STORE]
    body = b""
    if isinstance(refusal, PayloadTooLarge):
        explanation = refusal.detail
    else:
        explanation = refusal.explanation
        if not refusal.bare:
            body = error_body(refusal)
            headers = [("Content-Type", JSON), NO_STORE, NO_SNIFF]
    headers.append(("Content-Length", str(len(body))))
    return Response(refusal.status, [*headers, *_reason(explanation), *refusal.headers], body)


def error_body(refusal: RequestRefused) -> bytes:
    """A refusal as JSON, spelt as JavaScript's ``JSON.stringify`` does."""
    content = {"code": int(refusal.code), "message": refusal.public_message}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def _reason(explanation: str) -> list[tuple[str, str]]:
    """The header that carries an explanation: printable ASCII, of a bounded length."""
    text = "".join(char if char.isascii() and char.isprintable() else "?" for char in explanation[:MAX_REASON])
    return [(REASON, text)] if text.strip() else []
