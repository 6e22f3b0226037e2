"""The origins whose pages may use the engine: the same origin, and those that the ``cors`` option allows.

Owns the check of the ``Origin`` header and the headers of the Fetch standard's CORS protocol. No I/O. It trusts the environ:
behind a proxy, werkzeug's ``ProxyFix`` or the like has to put the public scheme and host there.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request

from engineio_wsgi.errors import ErrorCode, Forbidden, RequestRefused
from engineio_wsgi.http.response import Response
from engineio_wsgi.http.response_head import keep_header
from engineio_wsgi.options.values import Cors

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["OriginPolicy"]

logger = logging.getLogger("engine")

DEFAULT_PORTS = {"http": ":80", "https": ":443"}
#: schemes that clients other than browsers write into ``Origin`` for a WebSocket, and those of the same origin over HTTP
HTTP_SCHEMES = {"ws": "http", "wss": "https"}
ALLOW_ORIGIN = "Access-Control-Allow-Origin"
Matcher = Callable[[str, "WSGIEnvironment"], bool]


class OriginPolicy:
    """Checks origins against the ``cors`` option, and makes the CORS headers.

    Args:
        cors: ``None`` allows the same origin only, for every transport.
    """

    def __init__(self, cors: Cors | None) -> None:
        self._cors = cors
        origins = () if cors is None else cors.origins
        listed = origins if isinstance(origins, (list, tuple, set, frozenset)) else (origins,)
        self._listed = listed
        self._names = frozenset(_configured(origin) for origin in listed if isinstance(origin, str))
        self._matchers: list[Matcher] = [_matcher(origin) for origin in listed if not isinstance(origin, str)]
        self._anybody = "*" in self._names
        self._constant = [] if cors is None else _constant_headers(cors)
        for name, value in [*((ALLOW_ORIGIN, each) for each in self._names), *self._constant]:
            keep_header(name, value)

    @property
    def is_asked(self) -> bool:
        """Whether a function of the application is called with the origin of each request."""
        return any(not isinstance(origin, (str, re.Pattern)) for origin in self._listed)

    def check(self, environ: WSGIEnvironment) -> None:
        """Check one request. A request without ``Origin`` does not come from a page of another site.

        Raises:
            RequestRefused: the header is malformed.
            Forbidden: the origin is not allowed. The message names the option.
        """
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or self._allows(origin, environ):
            return
        if not origin.isprintable() or not origin.isascii():
            raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "INVALID_ORIGIN", "origin": ascii(origin)[:120]})
        context = {"name": "ORIGIN", "origin": origin[:120], "wanted": self._describe(environ), "option": "cors"}
        # with its code, it has to fit into a WebSocket's close frame: 123 bytes
        raise Forbidden("Forbidden: this origin may not use the engine; see the option cors, or behind a proxy ProxyFix", context)

    def _allows(self, origin: str, environ: WSGIEnvironment) -> bool:
        if not origin.isprintable() or not origin.isascii():
            return False
        if self._anybody or _is_same(origin, environ) or _canonical(origin) in self._names:
            return True
        return any(matches(origin, environ) for matches in self._matchers)

    def _describe(self, environ: WSGIEnvironment) -> str:
        own = f"{environ.get('wsgi.url_scheme')}://{environ.get('HTTP_HOST', '')}"
        return own if self._cors is None else f"{own}, or {self._cors.origins!r}"

    def headers(self, environ: WSGIEnvironment) -> list[tuple[str, str]]:
        """The CORS headers of the response to a request."""
        cors = self._cors
        if cors is None:
            return []
        origin = environ.get("HTTP_ORIGIN")
        if self._anybody and not cors.credentials:
            headers = [(ALLOW_ORIGIN, "*")]
        else:
            headers = [("Vary", "Origin")]
            if origin is None or not self._allows(origin, environ):
                return headers
            headers.append((ALLOW_ORIGIN, origin))
        return headers + self._constant

    def preflight(self, environ: WSGIEnvironment) -> Response:
        """The response to OPTIONS, without the headers of :meth:`headers`."""
        cors = self._cors
        headers = [("Content-Length", "0")]
        origin = environ.get("HTTP_ORIGIN")
        if cors is None or (origin is not None and not self._allows(origin, environ)):
            return Response("204 No Content", headers, b"")
        headers.append(("Access-Control-Allow-Methods", ", ".join(cors.methods)))
        headers.extend(self._allowed_headers(cors, environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")))
        if cors.max_age is not None:
            headers.append(("Access-Control-Max-Age", str(cors.max_age)))
        return Response("204 No Content", headers, b"")

    @staticmethod
    def _allowed_headers(cors: Cors, asked: str) -> list[tuple[str, str]]:
        if cors.headers is not None:
            return [("Access-Control-Allow-Headers", ", ".join(cors.headers))] if cors.headers else []
        allowed = [name for name in map(str.strip, asked.split(",")) if re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII)]
        vary = [("Vary", "Access-Control-Request-Headers")]
        return [*vary, ("Access-Control-Allow-Headers", ", ".join(allowed))] if allowed else vary


def _constant_headers(cors: Cors) -> list[tuple[str, str]]:
    """The headers for every allowed origin."""
    headers = [("Access-Control-Allow-Credentials", "true")] if cors.credentials else []
    return [*headers, ("Access-Control-Expose-Headers", ", ".join(cors.expose))] if cors.expose else headers


def _is_same(origin: str, environ: WSGIEnvironment) -> bool:
    """Whether ``origin`` is that of the host to which the request was sent."""
    own = f"{environ.get('wsgi.url_scheme')}://{environ.get('HTTP_HOST', '')}"
    if origin != own:
        own = _canonical(own)
        origin = _canonical(origin)
    return origin == own and own[-3:] != "://"


def _canonical(origin: str) -> str:
    """An origin in lower case, without a default port, and with the scheme that it has over HTTP."""
    scheme, separator, host = origin.lower().partition("://")
    scheme = HTTP_SCHEMES.get(scheme, scheme)
    port = DEFAULT_PORTS.get(scheme)
    return scheme + separator + (host if port is None else host.removesuffix(port))


def _configured(origin: str) -> str:
    """The same for a configured origin, which may end with a slash; ``file://`` keeps its own."""
    scheme, separator, host = origin.partition("://")
    return _canonical(scheme + separator + host.removesuffix("/"))


def _matcher(origin: re.Pattern[str] | Callable[..., object]) -> Matcher:
    if isinstance(origin, re.Pattern):
        return lambda got, environ: origin.fullmatch(got) is not None
    if _wants_request(origin):
        return lambda got, environ: _ask(lambda: origin(got, Request(environ)))
    return lambda got, environ: _ask(lambda: origin(got))


def _wants_request(allows: Callable[..., object]) -> bool:
    """Whether a ``cors`` callable has two parameters that must be given."""
    try:
        parameters = inspect.signature(allows).parameters.values()
    except (TypeError, ValueError):
        # a callable of C that does not tell
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in positional and each.default is inspect.Parameter.empty for each in parameters) == 2


def _ask(allows: Callable[[], object]) -> bool:
    try:
        allowed = allows()
        if inspect.isawaitable(allowed):
            raise TypeError(f"it returned an awaitable ({type(allowed).__name__}), which nothing awaits")
        return bool(allowed)
    except Exception:
        logger.exception("the cors callable failed; the origin is refused")
        return False
