"""gzip and deflate of response bodies, by the client's ``Accept-Encoding`` (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from engineio_wsgi.options.values import HttpCompression

__all__ = ["choose_coding", "compress"]

#: characters of a header that is evaluated; a browser's has about 25. A longer one is ignored instead of cut, because a cut could
#: remove the ``q=0`` of a coding that the client refuses
MAX_HEADER = 200

CODINGS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": lambda body, level: gzip.compress(body, level, mtime=0),
    "deflate": lambda body, level: zlib.compress(body, level),
}
#: headers of browsers and HTTP libraries, whose result is looked up: parsing them takes longer than the rest of a request. The
#: list is fixed: no client can add to it
COMMON = ("gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate", "gzip,deflate", "gzip", "identity")


def choose_coding(accept_encoding: str) -> str | None:
    """The supported coding that the client prefers; ``None`` if it wants the body uncompressed."""
    return _CHOSEN[accept_encoding] if accept_encoding in _CHOSEN else _choose(accept_encoding)


def _choose(accept_encoding: str) -> str | None:
    accepted = parse_accept_header(accept_encoding, Accept)
    best = max(CODINGS, key=lambda coding: accepted[coding])
    wanted = accepted[best]
    # a coding that is not mentioned has the quality 0; identity counts only where the client mentions it
    return best if wanted > 0 and wanted >= accepted.quality("identity") else None


_CHOSEN = {common: _choose(common) for common in COMMON}


def compress(body: bytes, accept_encoding: str, settings: HttpCompression) -> tuple[bytes, str | None]:
    """``body``, compressed if the client and ``settings`` want it, and its coding or ``None``."""
    if len(body) < settings.threshold or not 0 < len(accept_encoding) <= MAX_HEADER:
        return body, None
    coding = choose_coding(accept_encoding)
    if coding is None:
        return body, None
    return CODINGS[coding](body, settings.level), coding
