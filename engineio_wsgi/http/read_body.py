"""Request bodies, read within a limit. Knows nothing of what they mean."""

from __future__ import annotations

from typing import Any

from engineio_wsgi.errors import PayloadTooLarge, ProtocolError

__all__ = ["read_body"]

#: bytes of one read of a body whose length is not known
CHUNK = 65_536


def read_body(environ: dict[str, Any], limit: int) -> bytes:
    """The whole body of a request. Blocks while it arrives.

    Raises:
        PayloadTooLarge: more than ``limit`` bytes; where the length is announced, before anything is read.
        ProtocolError: a length that is no number.
        OSError: the client went away before the body was complete.
    """
    announced = environ.get("CONTENT_LENGTH")
    if announced:
        return _read_exactly(environ, _length(announced), limit)
    if not environ.get("wsgi.input_terminated"):
        return b""
    return _read_to_end(environ, limit)


def _length(announced: str) -> int:
    if not (announced.isascii() and announced.isdigit()):
        raise ProtocolError(f"the Content-Length {announced[:40]!r} is not a number")
    return int(announced)


def _read_exactly(environ: dict[str, Any], length: int, limit: int) -> bytes:
    if length > limit:
        raise PayloadTooLarge(length, limit)
    body: bytes = environ["wsgi.input"].read(length)
    if len(body) < length:
        raise ConnectionAbortedError(f"{len(body)} of {length} bytes arrived before the client went away")
    return body


def _read_to_end(environ: dict[str, Any], limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := environ["wsgi.input"].read(min(CHUNK, limit + 1 - size)):
        size += len(chunk)
        if size > limit:
            raise PayloadTooLarge(size, limit)
        chunks.append(chunk)
    return b"".join(chunks)
