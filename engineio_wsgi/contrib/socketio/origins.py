"""python-engineio's rules about origins that this engine does not have, as WSGI middlewares around the engine.

A callable may want the environ, ``[]`` switches the check off, and ``X-Forwarded-…`` may be trusted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from engineio_wsgi.options.values import Cors

__all__ = ["ORIGIN", "ForwardedOrigin", "OriginRule", "any_origin", "callable_cors"]

#: key of an environ: the ``Origin`` header of a request whose origin the engine does not check
ORIGIN = "engineio.socketio.origin"

_environ: ContextVar[WSGIEnvironment] = ContextVar("engineio_wsgi_socketio_environ")


class OriginRule:
    """A callable that is asked about an origin, and may want the environ as its second argument.

    Args:
        allows: ``(origin) -> bool`` or ``(origin, environ) -> bool``.
    """

    def __init__(self, allows: Callable[..., object]) -> None:
        self._allows = allows
        self._wants_environ = _takes_two(allows)

    def __call__(self, origin: str) -> bool:
        """Whether pages of ``origin`` may use the engine."""
        return bool(self._allows(origin, _environ.get()) if self._wants_environ else self._allows(origin))

    def middleware(self, application: WSGIApplication) -> WSGIApplication:
        """Note the environ of each request for the callable."""
        def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            token = _environ.set(environ)
            try:
                return application(environ, start_response)
            finally:
                _environ.reset(token)
        return serve


def callable_cors(rule: OriginRule, credentials: bool) -> Cors:
    """The option ``cors`` that asks ``rule``."""
    # a method of the object: the option takes functions, and looks at what they are
    return Cors(origins=rule.__call__, credentials=credentials)


def any_origin(application: WSGIApplication) -> WSGIApplication:
    """A middleware that hides the origin from the engine: every one is allowed, and no CORS header is sent."""
    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _hide_origin(environ)
        return application(environ, start_response)
    return serve


class ForwardedOrigin:
    """A middleware that allows the origin that ``X-Forwarded-Proto`` and ``X-Forwarded-Host`` name.

    Only for servers that are reached through a proxy which sets both: any other client could write them itself.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        origin = environ.get("HTTP_ORIGIN", "")
        if origin.lower().removesuffix("/") == forwarded_origin(environ):
            _hide_origin(environ)
        return self._application(environ, start_response)


def forwarded_origin(environ: WSGIEnvironment) -> str:
    """The server's origin as the proxy names it; where it is silent, as the request does."""
    scheme = _first(environ.get("HTTP_X_FORWARDED_PROTO") or environ.get("wsgi.url_scheme", ""))
    host = _first(environ.get("HTTP_X_FORWARDED_HOST") or environ.get("HTTP_HOST", ""))
    default_port = {"http": ":80", "https": ":443"}.get(scheme, "")
    return f"{scheme}://{host.removesuffix(default_port) if default_port else host}"


def _first(value: str) -> str:
    return value.partition(",")[0].strip().lower()


def _hide_origin(environ: WSGIEnvironment) -> None:
    if "HTTP_ORIGIN" in environ:
        environ[ORIGIN] = environ.pop("HTTP_ORIGIN")


def _takes_two(function: Callable[..., object]) -> bool:
    """Whether ``function`` can be called with two arguments."""
    try:
        inspect.signature(function).bind("origin", {})
    except (TypeError, ValueError):
        return False
    return True
