"""The opening handshake of a WebSocket (RFC 6455 section 4.2): it checks requests and makes the response.

Owns the checks, their refusals, and the response's headers. It reads a WSGI environ. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from websockets.utils import accept_key

from engineio_wsgi.errors import HandshakeRefused, ProtocolError
from engineio_wsgi.protocol.websocket.deflate import parse_extensions

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

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
#: characters that would end a header
_LINE_BREAK = re.compile(r"[\r\n\0]")

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Handshake:
    """A valid request: its ``key``, the sub-protocols that it offers, and its extensions, unparsed."""

    key: str
    protocols: tuple[str, ...] = ()
    extensions: str = ""


def asks_for_websocket(environ: WSGIEnvironment) -> bool:
    """Whether a request asks for a WebSocket, by a valid handshake or not."""
    return environ.get("REQUEST_METHOD") == "GET" and _has_token(environ, "HTTP_UPGRADE", "websocket")


def check(environ: WSGIEnvironment) -> Handshake:
    """Check an opening handshake.

    Raises:
        HandshakeRefused: it is not valid.
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


def _has_token(environ: WSGIEnvironment, header: str, token: str) -> bool:
    return any(member.strip().lower() == token for member in environ.get(header, "").split(","))


_REQUIRED: dict[str, Callable[[WSGIEnvironment], bool]] = {
    "Upgrade: websocket": lambda environ: _has_token(environ, "HTTP_UPGRADE", "websocket"),
    "Connection: Upgrade": lambda environ: _has_token(environ, "HTTP_CONNECTION", "upgrade"),
    "Sec-WebSocket-Key": lambda environ: bool(environ.get("HTTP_SEC_WEBSOCKET_KEY")),
    "Sec-WebSocket-Version": lambda environ: bool(environ.get("HTTP_SEC_WEBSOCKET_VERSION")),
}


def _offered_protocols(environ: WSGIEnvironment) -> tuple[str, ...]:
    header = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")
    if header is None:
        return ()
    protocols = tuple(member.strip(" \t") for member in header.split(","))
    if not all(map(_TOKEN.fullmatch, protocols)) or len(set(protocols)) != len(protocols):
        raise HandshakeRefused("400 Bad Request", "Sec-WebSocket-Protocol is not a list of different tokens")
    return protocols


def _offered_extensions(environ: WSGIEnvironment) -> str:
    header: str = environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS", "")
    try:
        parse_extensions(header)
    except ProtocolError as error:
        raise HandshakeRefused("400 Bad Request", str(error)) from None
    return header


def choose_protocol(offered: Sequence[str], supported: Iterable[str]) -> str | None:
    """The first of the client's sub-protocols, most wanted first, that is in ``supported``; ``None`` if none is."""
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
        protocol: the chosen sub-protocol.
        extensions: the ``Sec-WebSocket-Extensions`` that `negotiate` returned.
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
    """The whole 101 response with ``headers``.

    Raises:
        ValueError: a header contains a line break, or characters beyond Latin-1.
    """
    lines = ["HTTP/1.1 101 Switching Protocols"]
    for name, value in headers:
        if _TOKEN.fullmatch(name) is None or _LINE_BREAK.search(value) is not None:
            raise ValueError(f"not a header: {name!r}: {value!r}")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
