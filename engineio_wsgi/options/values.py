"""The options that have several parts: a dataclass for each, checked when it is constructed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from werkzeug.wrappers import Request

from engineio_wsgi.options.functions import check_function
from engineio_wsgi.options.refusals import switched, within, wrong

__all__ = ["TOKEN", "Cookie", "Cors", "Deflate", "HttpCompression"]

#: a token: the name of a cookie (RFC 6265 section 4.1.1), of a header and of a sub-protocol
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
SAME_SITE = ("Lax", "Strict", "None")
PRIORITIES = ("Low", "Medium", "High")
#: the values that a browser's ``Origin`` header can have (the Fetch standard's serialised origin); a slash at the end is allowed
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\s/?#*]*/?", re.ASCII | re.IGNORECASE)
ORIGINS = 'None, "*", an origin such as "https://example.org", a compiled pattern, a callable, or a list of these'
Origin = str | re.Pattern[str] | Callable[[str], bool] | Callable[[str, Request], bool]


@dataclass(frozen=True, kw_only=True)
class Cors:
    """The origins whose pages may use the engine, and the headers that tell browsers so.

    Args:
        origins: ``"*"``; an origin such as ``"https://example.org"``; a compiled pattern (the whole origin has to match);
            a callable ``(origin) -> bool`` or ``(origin, request) -> bool``, which gets the ``werkzeug`` request if it has two
            parameters without a default; or a list of these.
        methods: the methods that the preflight's response allows.
        headers: the request headers that the preflight's response allows; ``None`` allows those that the page asks for.
        expose: the response headers that the page may read.
        credentials: whether the page may send cookies; the response to ``"*"`` then names the page's own origin.
        max_age: seconds for which a browser may cache the preflight's response.
    """

    origins: Origin | Collection[Origin] = "*"
    methods: tuple[str, ...] = ("GET", "POST", "OPTIONS")
    headers: tuple[str, ...] | None = None
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.origins, (list, tuple, set, frozenset)):
            object.__setattr__(self, "origins", tuple(self.origins))
        for origin in self.origins if isinstance(self.origins, tuple) else (self.origins,):
            if not _is_origin(origin):
                raise wrong("cors", origin, ORIGINS)
            check_function("cors", origin)
        object.__setattr__(self, "methods", _header_names("methods", self.methods))
        object.__setattr__(self, "expose", _header_names("expose", self.expose))
        if self.headers is not None:
            object.__setattr__(self, "headers", _header_names("headers", self.headers))
        switched("cors", "credentials", self.credentials)
        if self.max_age is not None:
            within("cors", "max_age", self.max_age, -1, None)


@dataclass(frozen=True, kw_only=True)
class Cookie:
    """The cookie that carries the session id in the handshake's response; the arguments are the cookie's attributes.

    Args:
        max_age: seconds.
        expires: when browsers forget the cookie; a time without a zone is UTC.
        partitioned: whether the cookie of a page in a frame is kept apart for each site around it (CHIPS). Requires ``secure``.
        priority: which cookies Chromium drops last: ``"Low"``, ``"Medium"`` or ``"High"``.
    """

    name: str = "io"
    path: str = "/"
    httponly: bool = True
    samesite: str | None = "Lax"
    secure: bool = False
    max_age: int | None = None
    domain: str | None = None
    expires: datetime | None = None
    partitioned: bool = False
    priority: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not TOKEN.fullmatch(self.name):
            raise wrong("cookie", self.name, "a name of letters, digits and !#$%&'*+-.^_`|~")
        _one_of("samesite", self.samesite, SAME_SITE)
        _one_of("priority", self.priority, PRIORITIES)
        _check_cookie_attribute(self.path)
        _check_cookie_attribute("" if self.domain is None else self.domain)
        switched("cookie", "httponly", self.httponly)
        switched("cookie", "secure", self.secure)
        switched("cookie", "partitioned", self.partitioned)
        if self.partitioned and not self.secure:
            raise wrong("cookie", self.secure, "secure=True with partitioned=True: browsers ignore the cookie otherwise")
        if self.expires is not None and not isinstance(self.expires, datetime):
            raise wrong("cookie", self.expires, "expires to be a datetime, or None")
        if self.max_age is not None:
            within("cookie", "max_age", self.max_age, 0, None)


@dataclass(frozen=True, kw_only=True)
class Deflate:
    """permessage-deflate (RFC 7692).

    Args:
        threshold: bytes; shorter messages are not compressed.
        level: zlib's compression level, 0 to 9.
        memory_level: zlib's, 1 to 9; a pair of contexts takes 26 KB at 1, 29 KB at 5, 99 KB at 8, 154 KB at 9.
        context_takeover: whether the contexts are kept between messages, which compresses better and takes that memory for
            each session.
    """

    threshold: int = 1024
    level: int = 6
    memory_level: int = 5
    context_takeover: bool = True

    def __post_init__(self) -> None:
        within("per_message_deflate", "threshold", self.threshold, 0, None)
        within("per_message_deflate", "level", self.level, 0, 9)
        within("per_message_deflate", "memory_level", self.memory_level, 1, 9)
        switched("per_message_deflate", "context_takeover", self.context_takeover)


@dataclass(frozen=True, kw_only=True)
class HttpCompression:
    """Compression of poll responses.

    Args:
        threshold: bytes; shorter responses are not compressed.
        level: zlib's compression level, 0 to 9.
    """

    threshold: int = 1024
    level: int = 6

    def __post_init__(self) -> None:
        within("http_compression", "threshold", self.threshold, 0, None)
        within("http_compression", "level", self.level, 0, 9)


def _one_of(attribute: str, value: object, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise wrong("cookie", value, f"{attribute} to be one of {', '.join(allowed)}, or None")


def _check_cookie_attribute(value: object) -> None:
    if not isinstance(value, str) or not value.isprintable() or ";" in value:
        raise wrong("cookie", value, "a path and a domain without semicolons and control characters")


def _is_origin(value: object) -> bool:
    if isinstance(value, str):
        return ORIGIN.fullmatch(value) is not None and value.isascii()
    if isinstance(value, re.Pattern):
        return isinstance(value.pattern, str)
    return callable(value)


def _header_names(part: str, value: object) -> tuple[str, ...]:
    """Check that all are tokens: they are written into response headers unchanged."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise wrong("cors", value, f"{part} to be a list of names")
    names = tuple(value)
    if not all(isinstance(name, str) and TOKEN.fullmatch(name) for name in names):
        raise wrong("cors", names, f"{part} to be a list of names of letters, digits and !#$%&'*+-.^_`|~")
    return names
