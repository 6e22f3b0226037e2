"""Lines for the operator about refusals that an option or a proxy's setting cures: what came, what was expected, and the cure.

Each kind is written once a minute, at WARNING on the logger ``engine``. Looks at refusals and environs only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.errors import RequestRefused
from engineio_wsgi.http.policies.hosts import without_port
from engineio_wsgi.http.request_head import PROXY_KEYS
from engineio_wsgi.log import Throttle
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["RefusalAdvice", "cure_of", "kind_of", "origin_cure"]

#: what a refusal says of the request. Any: the values depend on the refusal
Context = Mapping[str, Any]

logger = logging.getLogger("engine")

#: names of this machine, which a browser takes for different origins
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

PROXY_FIX = ("wrap the application in werkzeug's ProxyFix(app, x_for=1, x_proto=1, x_host=1), and have the proxy set "
             "X-Forwarded-Proto and X-Forwarded-Host")


class RefusalAdvice:
    """Logs how to cure refusals, each kind at most once a minute."""

    __slots__ = ("_throttle",)

    def __init__(self) -> None:
        self._throttle = Throttle()

    def tell(self, refusal: RequestRefused, environ: WSGIEnvironment) -> None:
        """Say how a refusal is cured, if an option or a proxy's setting does so."""
        name = kind_of(refusal, environ)
        if name in _CURABLE and self._throttle.passes(name, monotonic()):
            logger.warning("%s", cure_of(refusal, environ))


def kind_of(refusal: RequestRefused, environ: WSGIEnvironment) -> str | None:
    """The name of a refusal's kind; ``None`` if it has none."""
    name = refusal.context.get("name", "PLAIN_WEBSOCKET" if _is_plain_websocket(refusal, environ) else None)
    return None if name is None else str(name)


def cure_of(refusal: RequestRefused, environ: WSGIEnvironment) -> str | None:
    """What came, what was expected, and the option or the proxy's setting that cures it; ``None`` if there is none."""
    describe = _CURABLE.get(str(kind_of(refusal, environ)))
    return None if describe is None else describe(refusal.context, environ)


def origin_cure(origin: str, environ: WSGIEnvironment) -> str:
    """How to let pages of ``origin`` use the engine that has received this request."""
    fault = _fault_of_proxy(origin, environ)
    if fault is not None:
        return f"{fault}: {PROXY_FIX}"
    host, own_host = _host_of(origin), environ.get("HTTP_HOST", "").lower()
    if without_port(host) in LOOPBACK and without_port(own_host) in LOOPBACK and _port(host) == _port(own_host):
        return f"to a browser, these are two origins: open the page and the engine under one name, or set cors={origin!r}"
    return f"if pages of that site may use the engine, set the option cors={origin!r}"


def _fault_of_proxy(origin: str, environ: WSGIEnvironment) -> str | None:
    """Why the server does not know the address that the browser has; ``None`` if no proxy seems to be the reason."""
    host, own_host = without_port(_host_of(origin)), environ.get("HTTP_HOST", "").lower()
    is_tls = origin.lower().startswith("https:") and environ.get("wsgi.url_scheme", "") == "http"
    if is_tls and host == without_port(own_host):
        return "a proxy ends TLS in front of this server, and the server is not told"
    told = _first(environ, "HTTP_X_FORWARDED_HOST")
    if told and without_port(told) == host:
        return "a proxy forwards to this server, which does not trust its headers"
    if not told and _is_hidden(own_host, environ) and not _is_internal(_host_of(origin)):
        return "a proxy forwards to this server, and does not send the host of the request"
    return None


def _is_hidden(own_host: str, environ: WSGIEnvironment) -> bool:
    """Whether a proxy has sent the request to an address that browsers do not see."""
    return any(environ.get(name) for name in PROXY_KEYS) and _is_internal(own_host)


def _host_of(origin: str) -> str:
    """The host of an origin, with its port."""
    return origin.lower().partition("://")[2]


def _first(environ: WSGIEnvironment, name: str) -> str:
    """The first of several values of a header: what the client itself has asked for."""
    return str(environ.get(name, "")).partition(",")[0].strip().lower()


def _port(host: str) -> str:
    return host.removeprefix(without_port(host))


def _is_internal(host: str) -> bool:
    """Whether it is the name of an upstream rather than of a site: ``127.0.0.1:8000``, ``backend``."""
    name = without_port(host)
    return name in LOOPBACK or "." not in name


def _origin(context: Context, environ: WSGIEnvironment) -> str:
    return (f"a page of {context['origin']} was refused; expected: {context['wanted']}; "
            f"{origin_cure(context['origin'], environ)}")


def _host(context: Context, environ: WSGIEnvironment) -> str:
    return f"a request to the host {context['host']!a} was refused: if it is this server's, add it to the option allowed_hosts"


def _revision(context: Context, environ: WSGIEnvironment) -> str:
    return (f"a client of revision {context['protocol']} of the protocol was refused; expected: 4. For clients of Socket.IO 2 "
            "and older (Engine.IO 3), set the option allow_eio3=True")


def _jsonp(context: Context, environ: WSGIEnvironment) -> str:
    return "a client that polls by JSONP was refused: set the option jsonp=True if there are such clients"


def _is_plain_websocket(refusal: RequestRefused, environ: WSGIEnvironment) -> bool:
    return refusal.context.get("transport") == "" and "HTTP_SEC_WEBSOCKET_KEY" in environ


def _plain_websocket(context: Context, environ: WSGIEnvironment) -> str:
    return (f"a WebSocket client that does not speak Engine.IO was refused at {environ.get('PATH_INFO', '')!a}; expected: the "
            "query ?EIO=4&transport=websocket, which engine.io-client adds. A plain WebSocket is for "
            "another path of the application")


def _returned(context: Context, environ: WSGIEnvironment) -> str:
    return f"allow_request returned {context['returned']}, and the handshake was refused: it must return True or False"


_CURABLE: dict[str, Callable[[Context, WSGIEnvironment], str]] = {
    "ORIGIN": _origin, "HOST": _host, "OLD_PROTOCOL": _revision, "JSONP_DISABLED": _jsonp, "ALLOW_REQUEST_RETURNED": _returned,
    "PLAIN_WEBSOCKET": _plain_websocket,
}  # fmt: skip
