"""The checks of the options: each takes an option's name and the value that was given, and returns the value that is kept.

Each raises `ConfigurationError` for a value that the option cannot have.
"""

from __future__ import annotations

import _socket
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TypeVar

from engineio_wsgi.options.functions import check_function
from engineio_wsgi.options.milliseconds import warn_of_milliseconds
from engineio_wsgi.options.redis_url import REDIS_URLS, RedisLocation, names_redis
from engineio_wsgi.options.refusals import unknown, wrong
from engineio_wsgi.options.values import TOKEN, Cookie, Cors, Deflate, HttpCompression

__all__ = ["LONGEST", "SHORTEST", "check_bytes", "check_callable", "check_cluster", "check_cookie", "check_cors",
           "check_count", "check_deflate", "check_flag", "check_hosts", "check_http_compression", "check_message",
           "check_path", "check_seconds", "check_subprotocols", "check_transports"]

TRANSPORTS = ("polling", "websocket", "webtransport", "flashsocket")
#: how ``PATH_INFO`` can begin, without characters that a client sends percent-encoded
PATH = re.compile(r"(?=.*[^/])[^\x00-\x20?#%\x7f-\U0010ffff]+")
#: the workers of one machine; the name is in every message between them
CLUSTER = re.compile(r"local(:[0-9A-Za-z._-]{1,64})?")
HOST = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?", re.ASCII | re.IGNORECASE)
#: seconds: one millisecond, because the wire carries whole milliseconds; and half of a browser's longest timer (2**31 ms),
#: because clients add the interval and the timeout
SHORTEST, LONGEST = 0.001, 1_000_000

T = TypeVar("T")


def check_seconds(name: str, value: object) -> float:
    """Seconds, as a float. Logs a warning if they look like milliseconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not SHORTEST <= value <= LONGEST:
        raise wrong(name, value, f"a number of seconds from {SHORTEST} to {LONGEST}")
    warn_of_milliseconds(name, value)
    return float(value)


def check_bytes(name: str, value: object) -> int:
    """A number of bytes."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise wrong(name, value, "a number of bytes, at least 1")
    return value


def check_count(name: str, value: object) -> int | None:
    """A number, or ``None`` for no limit."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise wrong(name, value, "a number, at least 1, or None")
    return value


def check_hosts(name: str, value: object) -> tuple[str, ...] | None:
    """A list of host names, or ``None``."""
    if value is None:
        return None
    hosts = (value,) if isinstance(value, str) else tuple(value) if hasattr(value, "__iter__") else ()
    if not hosts or not all(isinstance(host, str) and HOST.fullmatch(host) for host in hosts):
        raise wrong(name, value, 'a list of host names such as "example.org", ".example.org" or "localhost:8000", or None')
    return hosts


def check_flag(name: str, value: object) -> bool:
    """``True`` or ``False``."""
    if not isinstance(value, bool):
        raise wrong(name, value, "True or False")
    return value


def check_callable(name: str, value: object) -> Callable[..., object] | None:
    """A callable, or ``None``."""
    if value is not None and not callable(value):
        raise wrong(name, value, "a callable that takes the request, or None")
    check_function(name, value)
    return value


def check_path(name: str, value: object) -> str:
    """A path; the result starts with a slash and does not end with one."""
    if not isinstance(value, str) or not PATH.fullmatch(value):
        raise wrong(name, value, 'a path of ASCII characters such as "/engine.io"')
    return "/" + value.strip("/")


def check_transports(name: str, value: object) -> tuple[str, ...]:
    """A list of transport names; the result has each once."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise wrong(name, value, f"a list of {', '.join(TRANSPORTS)}")
    names = tuple(value)
    if not names or any(transport not in TRANSPORTS for transport in names):
        raise wrong(name, names, f"a list of {', '.join(TRANSPORTS)}")
    return tuple(dict.fromkeys(names))


def check_subprotocols(name: str, value: object) -> tuple[str, ...] | Callable[..., object] | None:
    """A list of sub-protocols, a callable, or ``None``."""
    if value is None or callable(value):
        check_function(name, value)
        return value
    names = tuple(value) if isinstance(value, (list, tuple)) else ("",)
    if not all(isinstance(each, str) and TOKEN.fullmatch(each) for each in names) or len(set(names)) != len(names):
        raise wrong(name, value, "None, a list of different names of letters, digits and !#$%&'*+-.^_`|~, or a callable")
    return names


def check_message(name: str, value: object) -> str | bytes | None:
    """A message, or ``None``."""
    if value is not None and not isinstance(value, (str, bytes)):
        raise wrong(name, value, "a message (str or bytes), or None")
    return value


def check_cors(name: str, value: object) -> Cors | None:
    """A `Cors`, its arguments as a mapping, or its ``origins``."""
    if value is None or isinstance(value, Cors):
        return value
    if isinstance(value, Mapping):
        return _build(name, Cors, value)
    return Cors(origins=value)  # type: ignore[arg-type]  # it checks them


def check_cookie(name: str, value: object) -> Cookie | None:
    """A `Cookie`, its arguments as a mapping, its name, or a bool."""
    if isinstance(value, str):
        return Cookie(name=value)
    return _switch(name, value, Cookie)


def check_deflate(name: str, value: object) -> Deflate | None:
    """A `Deflate`, its arguments as a mapping, or a bool."""
    return _switch(name, value, Deflate)


def check_http_compression(name: str, value: object) -> HttpCompression | None:
    """An `HttpCompression`, its arguments as a mapping, or a bool."""
    return _switch(name, value, HttpCompression)


def _switch(name: str, value: object, kind: type[T]) -> T | None:
    """``True`` means all defaults, ``False`` and ``None`` mean off, a mapping has the arguments of ``kind``."""
    if value is None or value is False:
        return None
    if value is True:
        return kind()
    if isinstance(value, Mapping):
        return _build(name, kind, value)
    if isinstance(value, kind):
        return value
    raise wrong(name, value, f"True, False, or {kind.__name__}(…)")


def _build(name: str, kind: type[T], arguments: Mapping[str, object]) -> T:
    known = [declared.name for declared in fields(kind)]  # type: ignore[arg-type]  # all of them are dataclasses
    for argument in arguments:
        if argument not in known:
            raise unknown(argument, known, f"a part of {name}")
    return kind(**arguments)


def check_cluster(name: str, value: object) -> str | None:
    """``local``, ``local:NAME``, the URL of a Redis, or ``None``."""
    if value is None:
        return None
    if isinstance(value, str) and names_redis(value):
        RedisLocation.parse(value)
    elif not (isinstance(value, str) and CLUSTER.fullmatch(value)):
        raise wrong(name, value, f'None, "local", "local:NAME", or the URL of a Redis: {REDIS_URLS}')
    if not hasattr(_socket, "AF_UNIX"):
        raise wrong(name, value, "None: this platform has no Unix sockets")
    return value
