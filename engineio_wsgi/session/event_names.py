"""The names of the events: a listener of an event that never happens is refused when it is registered.

Owns the names and the texts of the refusals. Knows neither `Server` nor `Socket`.
"""

from __future__ import annotations

import difflib

from engineio_wsgi.errors import ConfigurationError

__all__ = ["SERVER_EVENTS", "SESSION_EVENTS", "check_event"]

SERVER_EVENTS = frozenset({
    "cluster_back", "cluster_lost", "connection", "connection_error", "drain", "flush", "headers", "initial_headers",
    "leave", "resume",
})
SESSION_EVENTS = frozenset({
    "close", "data", "drain", "error", "expire", "flush", "heartbeat", "message", "open", "packet", "packet_create", "upgrade",
    "upgrading",
})
#: what other libraries call an event, where the spelling does not give away which one is meant
ALIASES = {
    "connect": "connection", "connected": "connection", "connect_error": "connection_error", "disconnect": "close",
    "disconnected": "close", "disconnecting": "close", "ping": "heartbeat", "pong": "heartbeat",
}

def check_event(event: object, known: frozenset[str]) -> None:
    """Refuse the name of an event that never happens.

    Args:
        known: the events of the object that it is registered with: :data:`SERVER_EVENTS` or :data:`SESSION_EVENTS`.

    Raises:
        ConfigurationError: it is none of them, and has no colon, which the names of an application's own events have.
    """
    if not isinstance(event, str):
        what = "a function" if callable(event) else repr(event)
        raise ConfigurationError(f"on() and once() expect the name of an event, such as {_example(known)!r}; got {what}: "
                                 f"write @….on({_example(known)!r})")
    if event in known or ":" in event:
        return
    raise ConfigurationError(f"{event!r} is not an event of a {_owner(known)}; {_hint(event, known)}")


def _example(known: frozenset[str]) -> str:
    return "connection" if known is SERVER_EVENTS else "message"


def _owner(known: frozenset[str]) -> str:
    return "server" if known is SERVER_EVENTS else "session"


def _hint(event: str, known: frozenset[str]) -> str:
    meant = event if event in SERVER_EVENTS | SESSION_EVENTS else ALIASES.get(event.lower(), "")
    if not meant:
        similar = difflib.get_close_matches(_snake_case(event), known, 1)
        if not similar:
            similar = difflib.get_close_matches(_snake_case(event), SERVER_EVENTS | SESSION_EVENTS, 1)
        if not similar:
            return f"there are {', '.join(sorted(known))}; an event of your own has a colon in its name, such as 'shop:sold'"
        meant = similar[0]
    if meant in known:
        return f"did you mean {meant!r}?"
    if meant in SESSION_EVENTS:
        return f"did you mean a session's: socket.on({meant!r}) in a 'connection' listener?"
    return f"did you mean the server's: server.on({meant!r})?"


def _snake_case(name: str) -> str:
    """``packetCreate``, as the reference server has it, as it is written here."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
