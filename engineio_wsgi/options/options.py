"""Every option, declared once: default, check, unit and help. The CLI, the environment and the docs' table come from here.

Owns what an option may be. Knows nothing of what it does.

An option's value is the first of: what `Server(…)` was given, what :func:`option_defaults` holds (the command line's flags
and variables), the declaration's default.
"""

from __future__ import annotations

import _socket
import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.options.redis_url import REDIS_URLS, RedisLocation, names_redis

__all__ = ["Cookie", "Cors", "Deflate", "HttpCompression", "Options", "from_environ", "option_defaults", "option_table",
           "parse_option", "simple_options"]

#: a WSGI server speaks HTTP/1.1; WebTransport lives on HTTP/3
TRANSPORTS = ("polling", "websocket", "flashsocket")
#: what a cookie's name may consist of (RFC 6265 section 4.1.1: a token)
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: what PATH_INFO can begin with as it is written here: nothing that a client sends percent-encoded
PATH = re.compile(r"(?=.*[^/])[^\x00-\x20?#%\x7f-\U0010ffff]+")
#: workers of one machine; the name is in every message between them
CLUSTER = re.compile(r"local(:[0-9A-Za-z._-]{1,64})?")
SAME_SITE = ("Lax", "Strict", "None")
#: what a browser's ``Origin`` header can be equal to (the Fetch standard's serialised origin); a slash at the end is forgiven
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\s/?#*]*/?", re.ASCII | re.IGNORECASE)
HOST = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?", re.ASCII | re.IGNORECASE)
ORIGINS = 'None, "*", an origin such as "https://example.org", a compiled pattern, a callable, or a list of these'
#: seconds: one millisecond, because the wire carries whole ones; and half of what a browser's timer takes (2**31 ms), because
#: clients add the interval and the timeout
SHORTEST, LONGEST = 0.001, 1_000_000

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Cors:
    """Which pages of other origins may use the engine, and what they may see.

    Args:
        origins: ``"*"``; an origin such as ``"https://example.org"``; a compiled pattern (the whole origin has to match);
            a callable ``(origin) -> bool``; or a list of these.
        methods: for the preflight's answer.
        headers: request headers for the preflight's answer; ``None`` allows those that the page asks for.
        expose: response headers that the page may read.
        credentials: whether the page may send cookies; ``"*"`` then answers with the page's own origin.
        max_age: seconds for which a browser may keep the preflight's answer.
    """

    origins: Any = "*"
    methods: tuple[str, ...] = ("GET", "POST", "OPTIONS")
    headers: tuple[str, ...] | None = None
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int | None = None

    def __post_init__(self) -> None:
        is_list = isinstance(self.origins, (list, tuple, set, frozenset))
        origins = tuple(self.origins) if is_list else (self.origins,)
        for origin in origins:
            if not _is_origin(origin):
                raise _wrong("cors", origin, ORIGINS)
        object.__setattr__(self, "origins", origins if is_list else self.origins)
        object.__setattr__(self, "methods", _header_names("methods", self.methods))
        object.__setattr__(self, "expose", _header_names("expose", self.expose))
        if self.headers is not None:
            object.__setattr__(self, "headers", _header_names("headers", self.headers))
        _switched("cors", "credentials", self.credentials)
        if self.max_age is not None:
            _within("cors", "max_age", self.max_age, -1, None)


@dataclass(frozen=True, kw_only=True)
class Cookie:
    """The cookie that carries the session id on the handshake's response."""

    name: str = "io"
    path: str = "/"
    httponly: bool = True
    samesite: str | None = "Lax"
    secure: bool = False
    max_age: int | None = None
    domain: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not TOKEN.fullmatch(self.name):
            raise _wrong("cookie", self.name, "a name of letters, digits and !#$%&'*+-.^_`|~")
        if self.samesite is not None and self.samesite not in SAME_SITE:
            raise _wrong("cookie", self.samesite, f"samesite to be one of {', '.join(SAME_SITE)}, or None")
        _check_cookie_attribute(self.path)
        _check_cookie_attribute("" if self.domain is None else self.domain)
        _switched("cookie", "httponly", self.httponly)
        _switched("cookie", "secure", self.secure)
        if self.max_age is not None:
            _within("cookie", "max_age", self.max_age, 0, None)


def _check_cookie_attribute(value: Any) -> None:
    if not isinstance(value, str) or not value.isprintable() or ";" in value:
        raise _wrong("cookie", value, "a path and a domain without semicolons and control characters")


@dataclass(frozen=True, kw_only=True)
class Deflate:
    """permessage-deflate (RFC 7692).

    Args:
        threshold: bytes; shorter messages are sent as they are.
        level: 0 to 9, zlib's.
        memory_level: 1 to 9, zlib's; a pair of contexts takes 26 KB at 1, 29 KB at 5, 99 KB at 8, 154 KB at 9.
        context_takeover: keep the contexts between messages: better compression, and that memory for each session.
    """

    threshold: int = 1024
    level: int = 6
    memory_level: int = 5
    context_takeover: bool = True

    def __post_init__(self) -> None:
        _within("per_message_deflate", "threshold", self.threshold, 0, None)
        _within("per_message_deflate", "level", self.level, 0, 9)
        _within("per_message_deflate", "memory_level", self.memory_level, 1, 9)
        _switched("per_message_deflate", "context_takeover", self.context_takeover)


@dataclass(frozen=True, kw_only=True)
class HttpCompression:
    """Compression of poll responses: ``threshold`` in bytes, ``level`` 0 to 9, zlib's."""

    threshold: int = 1024
    level: int = 6

    def __post_init__(self) -> None:
        _within("http_compression", "threshold", self.threshold, 0, None)
        _within("http_compression", "level", self.level, 0, 9)


def _wrong(name: str, got: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{name}: expected {allowed}; got {got!r}")


def _within(name: str, part: str, value: Any, low: int, high: int | None) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= low and (high is None or value <= high):
        return
    raise _wrong(name, value, f"{part} to be a whole number " + (f"from {low}" if high is None else f"from {low} to {high}"))


def _switched(name: str, part: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise _wrong(name, value, f"{part} to be True or False")


def _is_origin(value: Any) -> bool:
    if isinstance(value, str):
        return ORIGIN.fullmatch(value) is not None and value.isascii()
    if isinstance(value, re.Pattern):
        return isinstance(value.pattern, str)
    return callable(value)


def _header_names(part: str, value: Any) -> tuple[str, ...]:
    """These go into response headers as they are, so anything but a token would be a hole."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise _wrong("cors", value, f"{part} to be a list of names")
    names = tuple(value)
    if not all(isinstance(name, str) and TOKEN.fullmatch(name) for name in names):
        raise _wrong("cors", names, f"{part} to be a list of names of letters, digits and !#$%&'*+-.^_`|~")
    return names


def _unknown(name: str, known: Collection[str], what: str = "an option", shown: Callable[[str], str] = str) -> ConfigurationError:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {shown(close[0])}?" if close else f"there are {', '.join(map(shown, known))}"
    return ConfigurationError(f"{shown(name)} is not {what}; {hint}")


# -- checks: each takes an option's name and what was given, and returns what the option becomes


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not SHORTEST <= value <= LONGEST:
        raise _wrong(name, value, f"a number of seconds from {SHORTEST} to {LONGEST}")
    return float(value)


def _bytes(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _wrong(name, value, "a number of bytes, at least 1")
    return value


def _count(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise _wrong(name, value, "a number, at least 1, or None")
    return value


def _hosts(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    hosts = (value,) if isinstance(value, str) else tuple(value) if hasattr(value, "__iter__") else ()
    if not hosts or not all(isinstance(host, str) and HOST.fullmatch(host) for host in hosts):
        raise _wrong(name, value, 'a list of host names such as "example.org", ".example.org" or "localhost:8000", or None')
    return hosts


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def _callable(name: str, value: Any) -> Callable[..., Any] | None:
    if value is not None and not callable(value):
        raise _wrong(name, value, "a callable that takes the request, or None")
    return value  # type: ignore[no-any-return]


def _path(name: str, value: Any) -> str:
    if not isinstance(value, str) or not PATH.fullmatch(value):
        raise _wrong(name, value, 'a path of ASCII characters such as "/engine.io"')
    return "/" + value.strip("/")


def _transports(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise _wrong(name, value, f"a list of {', '.join(TRANSPORTS)}")
    names = tuple(value)
    if "webtransport" in names:
        raise _wrong(name, names, "no webtransport: it needs HTTP/3, which WSGI servers do not speak")
    if not names or any(transport not in TRANSPORTS for transport in names):
        raise _wrong(name, names, f"a list of {', '.join(TRANSPORTS)}")
    return tuple(dict.fromkeys(names))


def _subprotocols(name: str, value: Any) -> tuple[str, ...] | Callable[..., Any] | None:
    if value is None or callable(value):
        return value  # type: ignore[no-any-return]
    are_names = isinstance(value, (list, tuple)) and all(isinstance(each, str) and TOKEN.fullmatch(each) for each in value)
    if not are_names or len(set(value)) != len(value):
        raise _wrong(name, value, "None, a list of different names of letters, digits and !#$%&'*+-.^_`|~, or a callable")
    return tuple(value)


def _message(name: str, value: Any) -> str | bytes | None:
    if value is not None and not isinstance(value, (str, bytes)):
        raise _wrong(name, value, "a message (str or bytes), or None")
    return value


def _cors(name: str, value: Any) -> Cors | None:
    if value is None or isinstance(value, Cors):
        return value
    if isinstance(value, Mapping):
        return _build(name, Cors, value)
    return Cors(origins=value)


def _cookie(name: str, value: Any) -> Cookie | None:
    if isinstance(value, str):
        return Cookie(name=value)
    return _switch(name, value, Cookie)


def _deflate(name: str, value: Any) -> Deflate | None:
    return _switch(name, value, Deflate)


def _http_compression(name: str, value: Any) -> HttpCompression | None:
    return _switch(name, value, HttpCompression)


def _switch(name: str, value: Any, kind: type[T]) -> T | None:
    """``True`` is all defaults, ``False`` and ``None`` is off, a mapping is its arguments."""
    if value is None or value is False:
        return None
    if value is True:
        return kind()
    if isinstance(value, Mapping):
        return _build(name, kind, value)
    if isinstance(value, kind):
        return value
    raise _wrong(name, value, f"True, False, or {kind.__name__}(…)")


def _build(name: str, kind: type[T], arguments: Mapping[str, Any]) -> T:
    known = [declared.name for declared in fields(kind)]  # type: ignore[arg-type]  # all of them are dataclasses
    for argument in arguments:
        if argument not in known:
            raise _unknown(argument, known, f"a part of {name}")
    return kind(**arguments)


def _cluster(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and names_redis(value):
        RedisLocation.parse(value)
    elif not (isinstance(value, str) and CLUSTER.fullmatch(value)):
        raise _wrong(name, value, f'None, "local", "local:NAME", or the URL of a Redis: {REDIS_URLS}')
    if not _has_unix_sockets():
        raise _wrong(name, value, "None: this platform has no Unix sockets that keep messages apart (SOCK_SEQPACKET)")
    return value


def _has_unix_sockets() -> bool:
    try:
        _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET).close()
    except (AttributeError, OSError):
        return False
    return True


def _option(default: Any, check: Callable[[str, Any], Any], description: str, parse: Callable[[str], Any] | None = None,
            shown: str | None = None) -> Any:
    """A field of :class:`Options`.

    Args:
        check: takes name and value; returns what the option becomes, or raises ``ConfigurationError``.
        description: for the docs and ``--help``.
        parse: from the text of a command line or of an environment variable; ``None`` if text cannot say it.
        shown: the default, where its ``repr`` would not do.
    """
    metadata = {"check": check, "help": description, "parse": parse, "shown": shown or repr(default)}
    return field(default=default, metadata=metadata)


def _parse_flag(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    return values[text.strip().lower()]


def _parse_count(text: str) -> int:
    return int(text)


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _parse_origins(text: str) -> Any:
    names = _parse_names(text)
    return names[0] if len(names) == 1 else list(names)


def _parse_cookie(text: str) -> Any:
    try:
        return _parse_flag(text)
    except KeyError:
        return text


class TextForm(NamedTuple):
    """How an option is written as text: in ``--help``, and in a sentence."""

    shown: str
    expected: str


_FORMS = {
    float: TextForm("SECONDS", "a number of seconds"),
    int: TextForm("BYTES", "a whole number of bytes"),
    str: TextForm("TEXT", "text"),
    _parse_count: TextForm("NUMBER", "a whole number"),
    _parse_flag: TextForm("true|false", "true or false"),
    _parse_names: TextForm("NAME,…", "names separated by commas"),
    _parse_origins: TextForm("ORIGIN,…", "origins separated by commas"),
    _parse_cookie: TextForm("true|NAME", "true, false or a name"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that can be set on a server, checked. Seconds and bytes throughout.

    Raises:
        ConfigurationError: a wrong type or an impossible value; the text names the option, what was expected and what
            was given. :meth:`create` does so for an option that does not exist, too.
    """

    path: str = _option("/engine.io", _path, "the resource that is intercepted", str)
    add_trailing_slash: bool = _option(True, _flag, "whether the resource ends with a slash", _parse_flag)
    transports: tuple[str, ...] = _option(("polling", "websocket"), _transports,
                                          "the transports that are served, of polling, websocket, flashsocket", _parse_names)
    ping_interval: float = _option(25.0, _seconds, f"seconds between two pings; {SHORTEST} to {LONGEST}", float)
    ping_timeout: float = _option(20.0, _seconds, f"seconds that the answer to a ping may take; {SHORTEST} to {LONGEST}", float)
    upgrade_timeout: float = _option(
        10.0, _seconds, f"seconds until an unfinished upgrade is dropped; {SHORTEST} to {LONGEST}", float)
    max_http_buffer_size: int = _option(1_000_000, _bytes, "bytes of the largest POST body and of the largest WebSocket "
                                        "message, after decompression; refused before it is read, with 413 or 1009", int)
    allow_upgrades: bool = _option(True, _flag, "whether sessions may move to another transport", _parse_flag)
    allow_request: Callable[..., bool] | None = _option(
        None, _callable, "callable(request) -> bool, called for every handshake; may block, may raise Forbidden")
    allow_eio3: bool = _option(False, _flag, "whether protocol revisions 1 to 3 are served, too", _parse_flag)
    jsonp: bool = _option(False, _flag, "whether JSONP polling is served", _parse_flag)
    cors: Cors | None = _option(None, _cors, "allowed cross-origin origins; None allows the same origin only", _parse_origins)
    allowed_hosts: tuple[str, ...] | None = _option(
        None, _hosts, "the hosts that a request may name, with or without a port; .name allows every host below it; "
        "None allows any", _parse_names)
    cookie: Cookie | None = _option(None, _cookie, "a cookie with the session id: True, a name, or Cookie(…)", _parse_cookie)
    initial_packet: str | bytes | None = _option(None, _message, "a message that is sent with the handshake", str)
    http_compression: HttpCompression | None = _option(
        True, _http_compression, "gzip or deflate for poll responses over 1024 bytes: a bool, or HttpCompression(…)",
        _parse_flag)
    per_message_deflate: Deflate | None = _option(
        False, _deflate, "permessage-deflate for WebSocket messages: a bool, or Deflate(…)", _parse_flag)
    subprotocols: tuple[str, ...] | Callable[..., str | None] | None = _option(
        None, _subprotocols, "the WebSocket sub-protocols of the application, the preferred one first, or "
        "callable(offered, request) -> str or None; None takes the first that a client offers", _parse_names)
    max_buffered: int = _option(2_000_000, _bytes, "bytes that may wait for a client before send() blocks; "
                                "one message may exceed it", int)
    max_inbox: int = _option(1_000_000, _bytes, "bytes that may wait for a listener before the transport stops reading", int)
    max_sessions_per_address: int | None = _option(
        None, _count, "sessions that one client address (of IPv6, one /64 network) may have; None: any number", _parse_count)
    max_handshakes_per_address: int | None = _option(
        None, _count, "handshakes of one client address in a minute; None: any number", _parse_count)
    generate_id: Callable[..., str] | None = _option(
        None, _callable, "callable(request) -> str, to make the session ids yourself", shown="worker mark + 120 random bits")
    policy_file: bool = _option(False, _flag, "whether Flash policy requests are answered", _parse_flag)
    cluster: str | None = _option(None, _cluster, "which workers serve each other's sessions. None: no others; local: all "
                                  "workers of this user on this machine; local:NAME: those with the same NAME; "
                                  "the URL of a Redis: those of all machines that use it", str)

    def __post_init__(self) -> None:
        for declared in fields(self):
            value = declared.metadata["check"](declared.name, getattr(self, declared.name))
            object.__setattr__(self, declared.name, value)

    @classmethod
    def create(cls, **given: Any) -> Options:
        """Options from keyword arguments, with an error that helps for those that do not exist."""
        known = [declared.name for declared in fields(cls)]
        for name in given:
            if name not in known:
                raise _unknown(name, known)
        return cls(**{**_defaults.get(), **given})

    @property
    def resource(self) -> str:
        """What the path of an engine request starts with."""
        return self.path + "/" if self.add_trailing_slash else self.path


#: what the options of servers default to where the command line says so
_defaults: ContextVar[Mapping[str, Any]] = ContextVar("engineio_wsgi_option_defaults", default={})  # noqa: B039  never written


@contextmanager
def option_defaults(defaults: Mapping[str, Any]) -> Iterator[None]:
    """Inside of this, ``defaults`` are the values of options that a server is not given."""
    token = _defaults.set(defaults)
    try:
        yield
    finally:
        _defaults.reset(token)


def simple_options() -> dict[str, tuple[TextForm, str]]:
    """The options that can be given as text: how they are written, and their help."""
    return {declared.name: (_FORMS[declared.metadata["parse"]], declared.metadata["help"])
            for declared in fields(Options) if declared.metadata["parse"]}


def parse_option(name: str, text: str) -> Any:
    """An option's value from text.

    Raises:
        ConfigurationError: the text cannot be one.
    """
    declared = next(declared for declared in fields(Options) if declared.name == name)
    parse = declared.metadata["parse"]
    try:
        value = parse(text)
    except (KeyError, ValueError):
        raise _wrong(name, text, _FORMS[parse].expected) from None
    return declared.metadata["check"](name, value)


def from_environ(environ: Mapping[str, str], prefix: str = "ENGINEIO_") -> dict[str, Any]:
    """The options that environment variables set (``ENGINEIO_PING_INTERVAL=10``), for ``Server(**…)``.

    Raises:
        ConfigurationError: a variable with the prefix is no option, or its text is no value of it.
    """
    given: dict[str, Any] = {}
    names = simple_options()
    for variable, text in environ.items():
        if not variable.startswith(prefix):
            continue
        name = variable.removeprefix(prefix).lower()
        if name not in names:
            raise _unknown(name, names, "an option that the environment can set", lambda name: prefix + name.upper())
        given[name] = parse_option(name, text)
    return given


def option_table() -> list[tuple[str, str, str]]:
    """Name, default and meaning of every option, for the documentation."""
    return [(declared.name, declared.metadata["shown"], declared.metadata["help"])
            for declared in fields(Options) if declared.default is not MISSING]
