"""gzip and deflate of response bodies, as far as the client's ``Accept-Encoding`` wants them (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from engineio_wsgi.options.values import HttpCompression

__all__ = ["choose_coding", "compress"]

#: characters of a header that is looked at; a browser's has about 25. A longer one is not cut, because that could cut off
#: the ``q=0`` of a coding that the client refuses
MAX_HEADER = 200

CODINGS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": lambda body, level: gzip.compress(body, level, mtime=0),
    "deflate": lambda body, level: zlib.compress(body, level),
}
#: what browsers and HTTP libraries send: looked up, because parsing it takes longer than the rest of a request. The list is
#: fixed: nothing that a client sends is added to it
COMMON = ("gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate", "gzip,deflate", "gzip", "identity")


def choose_coding(accept_encoding: str) -> str | None:
    """The better of the codings that we have, or ``None`` if the client wants the body as it is."""
    return _CHOSEN[accept_encoding] if accept_encoding in _CHOSEN else _choose(accept_encoding)


def _choose(accept_encoding: str) -> str | None:
    accepted = parse_accept_header(accept_encoding, Accept)
    best = max(CODINGS, key=lambda coding: accepted[coding])
    wanted = accepted[best]
    # what is not mentioned is worth 0; identity counts only where the client ranks it itself
    return best if wanted > 0 and wanted >= accepted.quality("identity") else None


_CHOSEN = {common: _choose(common) for common in COMMON}


def compress(body: bytes, accept_encoding: str, settings: HttpCompression) -> tuple[bytes, str | None]:
    """``body``, compressed if that is wanted and worth it, and the coding it is in now."""
    if len(body) < settings.threshold or not 0 < len(accept_encoding) <= MAX_HEADER:
        return body, None
    coding = choose_coding(accept_encoding)
    if coding is None:
        return body, None
    return CODINGS[coding](body, settings.level), coding
