"""Every option, declared once: its default, check and help text. Flags, environment variables and the docs' table use this.

An option's value is the first of: the argument of `Server(…)`, the value that :func:`option_defaults` holds (from the command
line's flags and variables), the declaration's default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from engineio_wsgi.options.checks import (
    LONGEST,
    SHORTEST,
    check_bytes,
    check_callable,
    check_cluster,
    check_cookie,
    check_cors,
    check_count,
    check_deflate,
    check_flag,
    check_hosts,
    check_http_compression,
    check_message,
    check_path,
    check_seconds,
    check_subprotocols,
    check_transports,
)
from engineio_wsgi.options.parsing import parse_cookie, parse_count, parse_flag, parse_names, parse_origins
from engineio_wsgi.options.refusals import unknown
from engineio_wsgi.options.values import Cookie, Cors, Deflate, HttpCompression

__all__ = ["Options", "option_defaults", "option_table"]


def _option(default: object, check: Callable[[str, object], object], description: str,
            parse: Callable[[str], object] | None = None, shown: str | None = None) -> Any:  # as `dataclasses.field`
    """A field of :class:`Options`.

    Args:
        check: takes the option's name and value; returns the value that is kept, or raises ``ConfigurationError``.
        description: the text in the docs and in ``--help``.
        parse: converts the text of a flag or of an environment variable; ``None`` if the option cannot be set by text.
        shown: how the docs show the default, if not by its ``repr``.
    """
    metadata = {"check": check, "help": description, "parse": parse, "shown": shown or repr(default)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a server, checked when constructed. Times are seconds, sizes are bytes.

    Raises:
        ConfigurationError: a wrong type or an impossible value. The text names the option, what was expected and what was given.
    """

    path: str = _option("/engine.io", check_path, "the path of the engine's requests", str)
    add_trailing_slash: bool = _option(True, check_flag, "whether that path ends with a slash", parse_flag)
    transports: tuple[str, ...] = _option(("polling", "websocket"), check_transports,
                                          "the transports that are served: polling, websocket, webtransport, flashsocket",
                                          parse_names)
    ping_interval: float = _option(25.0, check_seconds, f"seconds between two pings; {SHORTEST} to {LONGEST}", float)
    ping_timeout: float = _option(
        20.0, check_seconds, f"seconds within which a ping has to be answered; {SHORTEST} to {LONGEST}", float)
    upgrade_timeout: float = _option(
        10.0, check_seconds, f"seconds until an unfinished upgrade is abandoned; {SHORTEST} to {LONGEST}", float)
    destroy_upgrade: bool = _option(
        True, check_flag, "whether a WebSocket handshake outside the path is ended if the wrapped application neither answers it "
        "nor takes the WebSocket in time", parse_flag)
    destroy_upgrade_timeout: float = _option(
        10.0, check_seconds, f"seconds that the application has for it, before the answer is 503; {SHORTEST} to {LONGEST}", float)
    max_http_buffer_size: int = _option(1_000_000, check_bytes, "bytes of the largest POST body and of the largest WebSocket "
                                        "message, after decompression; refused before it is read, with 413 or 1009", int)
    allow_upgrades: bool = _option(True, check_flag, "whether sessions may be upgraded to another transport", parse_flag)
    allow_request: Callable[..., bool] | None = _option(
        None, check_callable, "callable(request) -> bool, called for every handshake; may block, may raise Forbidden")
    allow_eio3: bool = _option(False, check_flag, "whether protocol revisions 1 to 3 are served, too", parse_flag)
    jsonp: bool = _option(False, check_flag, "whether JSONP polling is served", parse_flag)
    cors: Cors | None = _option(None, check_cors, "allowed cross-origin origins; None allows the same origin only", parse_origins)
    allowed_hosts: tuple[str, ...] | None = _option(
        None, check_hosts, "the hosts that a request may name, with or without a port; .name allows every host below it; "
        "None allows any", parse_names)
    cookie: Cookie | None = _option(None, check_cookie, "a cookie with the session id: True, a name, or Cookie(…)", parse_cookie)
    initial_packet: str | bytes | None = _option(None, check_message, "a message that is sent with the handshake", str)
    http_compression: HttpCompression | None = _option(
        True, check_http_compression, "gzip or deflate for poll responses over 1024 bytes: a bool, or HttpCompression(…)",
        parse_flag)
    per_message_deflate: Deflate | None = _option(
        False, check_deflate, "permessage-deflate for WebSocket messages: a bool, or Deflate(…)", parse_flag)
    subprotocols: tuple[str, ...] | Callable[..., str | None] | None = _option(
        None, check_subprotocols, "the WebSocket sub-protocols of the application, the preferred one first, or "
        "callable(offered, request) -> str or None; None takes the first that a client offers", parse_names)
    max_buffered: int = _option(2_000_000, check_bytes, "bytes that may wait for a client before send() blocks; "
                                "one message may exceed it", int)
    max_inbox: int = _option(1_000_000, check_bytes, "bytes that may wait for a listener before the transport stops reading", int)
    max_sessions_per_address: int | None = _option(
        None, check_count, "sessions that one client address (of IPv6, one /64 network) may have; None: any number", parse_count)
    max_handshakes_per_address: int | None = _option(
        None, check_count, "handshakes of one client address in a minute; None: any number", parse_count)
    drain_rate: int | None = _option(
        50, check_count, "sessions of a process that are closed in a second when the server stops; more if the time to stop is "
        "too short for that; None: all at once", parse_count)
    max_messages_per_second: int | None = _option(
        None, check_count, "messages that a client may send in a second; None: any number. A client that sends more is read "
        "more slowly, and closed if it goes on", parse_count)
    max_bytes_per_second: int | None = _option(None, check_count, "the same for the bytes of its messages", parse_count)
    rate_limit_timeout: float = _option(
        10.0, check_seconds, "seconds for which a client may send more than these two limits allow, before it is closed; "
        f"{SHORTEST} to {LONGEST}", float)
    generate_id: Callable[..., str] | None = _option(
        None, check_callable, "callable(request) -> str, to make the session ids yourself", shown="worker mark + 120 random bits")
    policy_file: bool = _option(False, check_flag, "whether Flash policy requests are answered", parse_flag)
    cluster: str | None = _option(None, check_cluster, "which workers serve each other's sessions. None: no others; local: all "
                                  "workers of this user on this machine; local:NAME: those with the same NAME; "
                                  "the URL of a Redis: those of all machines that use it", str)
    handover: bool = _option(False, check_flag, "whether live sessions move to another worker when theirs is replaced; needs a "
                             "listener of resume", parse_flag)

    def __post_init__(self) -> None:
        for declared in fields(self):
            value = declared.metadata["check"](declared.name, getattr(self, declared.name))
            object.__setattr__(self, declared.name, value)

    @classmethod
    def create(cls, **given: Any) -> Options:  # checked when the options are constructed
        """Options from keyword arguments.

        Raises:
            ConfigurationError: as the constructor, and for an option that does not exist; the text names the nearest one.
        """
        known = [declared.name for declared in fields(cls)]
        for name in given:
            if name not in known:
                raise unknown(name, known)
        return cls(**{**_defaults.get(), **given})

    @property
    def resource(self) -> str:
        """The prefix of the path of an engine request."""
        return self.path + "/" if self.add_trailing_slash else self.path


#: defaults that the command line sets
_defaults: ContextVar[Mapping[str, object]] = ContextVar("engineio_wsgi_option_defaults", default={})  # noqa: B039  never written


@contextmanager
def option_defaults(defaults: Mapping[str, object]) -> Iterator[None]:
    """A context in which options that a server is not given have these values."""
    token = _defaults.set(defaults)
    try:
        yield
    finally:
        _defaults.reset(token)


def option_table() -> list[tuple[str, str, str]]:
    """Name, default and meaning of every option, for the documentation."""
    return [(declared.name, declared.metadata["shown"], declared.metadata["help"])
            for declared in fields(Options) if declared.default is not MISSING]
