"""Options in python-engineio's spelling, as this engine has them.

An option that cannot be honoured is one warning, which names it and says what to do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from engineio_wsgi.contrib.socketio.origins import ForwardedOrigin, OriginRule, any_origin, callable_cors
from engineio_wsgi.contrib.socketio.untyped import Value
from engineio_wsgi.engine.engine import WSGIMiddleware
from engineio_wsgi.options.aliases import hint
from engineio_wsgi.options.options import Options
from engineio_wsgi.options.values import Cors, HttpCompression

__all__ = ["PATH", "Translated", "translate"]

logger = logging.getLogger("engine.socketio")

#: where Socket.IO clients look for a server
PATH = "/socket.io"
#: what python-engineio allows for `async_mode`
ASYNC_MODES = ("eventlet", "gevent", "gevent_uwsgi", "threading")
TRANSPORTS = ("polling", "websocket")
#: options of this engine that are given under their own names; the others have a name in python-engineio
OWN = frozenset(declared.name for declared in fields(Options)) - {"cors", "cookie", "transports", "ping_interval",
                                                                  "http_compression"}


@dataclass
class Translated:
    """Options after translation.

    Attributes:
        options: this engine's.
        middlewares: what the engine's requests have to go through.
        cookie: the attributes of the session cookie, its name among them; ``None`` without one. The values may be callables.
        trust_forwarded: whether ``X-Forwarded-Proto`` and ``X-Forwarded-Host`` count when an origin is checked.
    """

    options: dict[str, Value]
    middlewares: list[WSGIMiddleware] = field(default_factory=list)
    cookie: Mapping[str, Value] | None = None
    trust_forwarded: bool = False


def translate(given: Mapping[str, Value]) -> Translated:
    """Translate options.

    Raises:
        ValueError: `async_mode` or `transports` has a value that python-engineio refuses as well.
        ConfigurationError: a value is impossible.
    """
    rest = dict(given)
    made = Translated({"path": PATH})
    made.options.update({name: rest.pop(name) for name in OWN & rest.keys()})
    _translate_times(rest, made)
    _translate_transports(rest, made)
    _translate_compression(rest, made)
    _translate_origins(rest, made)
    _check_mode(rest.pop("async_mode", None))
    cookie = rest.pop("cookie", None)
    if cookie:
        made.cookie = {"name": cookie, "path": "/", "SameSite": "Lax"} if isinstance(cookie, str) else dict(cookie)
    for name in ("async_handlers", "monitor_clients", "json", "logger"):
        rest.pop(name, None)
    for name in rest:
        logger.warning("%s: no option of this engine, so it is ignored; %s", name, hint(name, sorted(OWN)))
    return made


def _translate_times(rest: dict[str, Value], made: Translated) -> None:
    interval = rest.pop("ping_interval", None)
    if isinstance(interval, (tuple, list)):
        interval, grace = interval
        # there, the client alone is told the longer interval; the sum of both is what counts for it
        made.options["ping_timeout"] = made.options.get("ping_timeout", Options.ping_timeout) + grace
    if interval is not None:
        made.options["ping_interval"] = interval


def _translate_transports(rest: dict[str, Value], made: Translated) -> None:
    transports = rest.pop("transports", None)
    if transports is None:
        return
    names = [transports] if isinstance(transports, str) else list(transports)
    known = [name for name in names if name in TRANSPORTS]
    if not known:
        raise ValueError(f"transports: expected one or both of {', '.join(TRANSPORTS)}; got {transports!r}")
    made.options["transports"] = known


def _translate_compression(rest: dict[str, Value], made: Translated) -> None:
    compresses, threshold = rest.pop("http_compression", True), rest.pop("compression_threshold", 1024)
    made.options["http_compression"] = HttpCompression(threshold=threshold) if compresses else False


def _translate_origins(rest: dict[str, Value], made: Translated) -> None:
    origins, credentials = rest.pop("cors_allowed_origins", None), rest.pop("cors_credentials", True)
    made.trust_forwarded = bool(rest.pop("trust_forwarded", False))
    if "cors" in rest:
        made.options["cors"] = rest.pop("cors")
    elif origins is None:
        made.options["cors"] = None
    elif callable(origins):
        rule = OriginRule(origins)
        made.options["cors"] = callable_cors(rule, credentials)
        made.middlewares.append(rule.middleware)
    elif not origins:
        made.middlewares.append(any_origin)
    else:
        made.options["cors"] = Cors(origins=origins, credentials=credentials)
    if made.trust_forwarded:
        made.middlewares.append(ForwardedOrigin)


def _check_mode(mode: object) -> None:
    if mode is not None and mode not in ASYNC_MODES:
        raise ValueError(f"async_mode: expected None or one of {', '.join(ASYNC_MODES)}; got {mode!r}")
    if mode in ("eventlet", "gevent_uwsgi"):
        logger.warning("async_mode=%r is ignored: this engine always runs on gevent; leave the option out, and serve the "
                       "application with gunicorn -k engineio_wsgi.gunicorn.Worker", mode)
