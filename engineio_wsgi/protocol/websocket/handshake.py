"""The opening handshake of a WebSocket (RFC 6455 section 4.2): is a request a valid one, and what is answered.

Owns the checks, their refusals, and the response's headers. Looks at a WSGI environ, and knows no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from websockets.utils import accept_key

from engineio_wsgi.errors import HandshakeRefused, ProtocolError
from engineio_wsgi.protocol.websocket.deflate import parse_extensions

__all__ = [
    "Handshake",
    "HandshakeRefused",
    "asks_for_websocket",
    "check",
    "choose_protocol",
    "response_head",
    "response_headers",
]

VERSION = "13"

#: 16 bytes in base64
_KEY = re.compile(r"[+/0-9A-Za-z]{22}==")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: what must not be in a header, or it would end there
_LINE_BREAK = re.compile(r"[\r\n\0]")

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a valid request asks for: its ``key``, the sub-protocols it offers, and the extensions, unparsed."""

    key: str
    protocols: tuple[str, ...] = ()
    extensions: str = ""


def asks_for_websocket(environ: Mapping[str, Any]) -> bool:
    """Whether a request is meant to become a WebSocket, be it by a valid handshake or not."""
    return environ.get("REQUEST_METHOD") == "GET" and _has_token(environ, "HTTP_UPGRADE", "websocket")


def check(environ: Mapping[str, Any]) -> Handshake:
    """Find out whether a request is a valid opening handshake.

    Raises:
        HandshakeRefused: it is not.
    """
    if environ.get("REQUEST_METHOD") != "GET":
        raise HandshakeRefused("405 Method Not Allowed", "a WebSocket handshake is a GET request", [("Allow", "GET")])
    if environ.get("SERVER_PROTOCOL", "HTTP/1.1") in ("HTTP/0.9", "HTTP/1.0"):
        raise HandshakeRefused("400 Bad Request", "a WebSocket handshake needs HTTP/1.1")
    missing = [text for text, is_there in _REQUIRED.items() if not is_there(environ)]
    if missing:
        raise HandshakeRefused(
            "400 Bad Request",
            f"not a WebSocket handshake; missing: {', '.join(missing)}",
            [("Sec-WebSocket-Version", VERSION)],
        )
    if environ["HTTP_SEC_WEBSOCKET_VERSION"].strip() != VERSION:
        raise HandshakeRefused(
            "426 Upgrade Required",
            f"Sec-WebSocket-Version must be {VERSION}",
            [("Sec-WebSocket-Version", VERSION), ("Upgrade", "websocket")],
        )
    key = environ["HTTP_SEC_WEBSOCKET_KEY"].strip()
    if _KEY.fullmatch(key) is None:
        raise HandshakeRefused("400 Bad Request", "Sec-WebSocket-Key is not 16 bytes in base64")
    return Handshake(key, _offered_protocols(environ), _offered_extensions(environ))


def _has_token(environ: Mapping[str, Any], header: str, token: str) -> bool:
    return any(member.strip().lower() == token for member in environ.get(header, "").split(","))


_REQUIRED: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "Upgrade: websocket": lambda environ: _has_token(environ, "HTTP_UPGRADE", "websocket"),
    "Connection: Upgrade": lambda environ: _has_token(environ, "HTTP_CONNECTION", "upgrade"),
    "Sec-WebSocket-Key": lambda environ: bool(environ.get("HTTP_SEC_WEBSOCKET_KEY")),
    "Sec-WebSocket-Version": lambda environ: bool(environ.get("HTTP_SEC_WEBSOCKET_VERSION")),
}


def _offered_protocols(environ: Mapping[str, Any]) -> tuple[str, ...]:
    header = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")
    if header is None:
        return ()
    protocols = tuple(member.strip(" \t") for member in header.split(","))
    if not all(map(_TOKEN.fullmatch, protocols)) or len(set(protocols)) != len(protocols):
        raise HandshakeRefused("400 Bad Request", "Sec-WebSocket-Protocol is not a list of different tokens")
    return protocols


def _offered_extensions(environ: Mapping[str, Any]) -> str:
    header: str = environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS", "")
    try:
        parse_extensions(header)
    except ProtocolError as error:
        raise HandshakeRefused("400 Bad Request", str(error)) from None
    return header


def choose_protocol(offered: Sequence[str], supported: Iterable[str]) -> str | None:
    """The first of the client's sub-protocols, most wanted first, that is among ``supported``; ``None`` if none is."""
    known = frozenset(supported)
    return next((name for name in offered if name in known), None)


def response_headers(
    handshake: Handshake,
    *,
    protocol: str | None = None,
    extensions: str | None = None,
    extra: Iterable[tuple[str, str]] = (),
) -> Headers:
    """The headers of the 101 response.

    Args:
        protocol: the sub-protocol that was chosen.
        extensions: what was agreed on, as `negotiate` describes it.
        extra: headers of the application.
    """
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(handshake.key)),
    ]
    if protocol is not None:
        headers.append(("Sec-WebSocket-Protocol", protocol))
    if extensions is not None:
        headers.append(("Sec-WebSocket-Extensions", extensions))
    return [*headers, *extra]


def response_head(headers: Iterable[tuple[str, str]]) -> bytes:
    """The 101 response with ``headers``, complete.

    Raises:
        ValueError: a header holds a line break, or something that Latin-1 does not.
    """
    lines = ["HTTP/1.1 101 Switching Protocols"]
    for name, value in headers:
        if _TOKEN.fullmatch(name) is None or _LINE_BREAK.search(value) is not None:
            raise ValueError(f"not a header: {name!r}: {value!r}")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
