"""The opening handshake of a WebSocket (RFC 6455 section 4.2): it checks requests and makes the response.

Owns the checks, their refusals, and the response's headers. It reads a WSGI environ. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

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
]

VERSION = "13"

#: 16 bytes in base64
_KEY = re.compile(r"[+/0-9A-Za-z]{22}==")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
#: characters that would end a header
_LINE_BREAK = re.compile(r"[\r\n\0]")
#: one extension whose parameters are tokens, as browsers send them; and a list of such extensions, which needs no parsing to be
#: valid. The quantifiers are possessive, so that matching takes linear time
_EXTENSION = rf"{_TOKEN.pattern}(?:[ \t]*+;[ \t]*+{_TOKEN.pattern}(?:={_TOKEN.pattern})?+)*+"
_PLAIN_EXTENSIONS = re.compile(rf"{_EXTENSION}(?:[ \t]*+,[ \t]*+{_EXTENSION})*+")

#: the beginning of every 101 response
_RESPONSE = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "


class Handshake(NamedTuple):
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
    missing = _missing(environ)
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
    value: str = environ.get(header, "").lower()
    return value == token or any(member.strip() == token for member in value.split(","))


def _missing(environ: WSGIEnvironment) -> list[str]:
    """The required headers that a request lacks."""
    missing = []
    if not _has_token(environ, "HTTP_UPGRADE", "websocket"):
        missing.append("Upgrade: websocket")
    if not _has_token(environ, "HTTP_CONNECTION", "upgrade"):
        missing.append("Connection: Upgrade")
    if not environ.get("HTTP_SEC_WEBSOCKET_KEY"):
        missing.append("Sec-WebSocket-Key")
    if not environ.get("HTTP_SEC_WEBSOCKET_VERSION"):
        missing.append("Sec-WebSocket-Version")
    return missing


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
    if not header or _PLAIN_EXTENSIONS.fullmatch(header) is not None:
        return header
    try:
        parse_extensions(header)
    except ProtocolError as error:
        raise HandshakeRefused("400 Bad Request", str(error)) from None
    return header


def choose_protocol(offered: Sequence[str], supported: Iterable[str]) -> str | None:
    """The first of the client's sub-protocols, most wanted first, that is in ``supported``; ``None`` if none is."""
    if not offered:
        return None
    known = frozenset(supported)
    return next((name for name in offered if name in known), None)


def response_head(
    handshake: Handshake,
    *,
    protocol: str | None = None,
    extensions: str | None = None,
    extra: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The whole 101 response.

    Args:
        protocol: the chosen sub-protocol.
        extensions: the ``Sec-WebSocket-Extensions`` that `negotiate` returned.
        extra: headers of the application.

    Raises:
        ValueError: a header of the application contains a line break, or characters beyond Latin-1.
    """
    lines = [_RESPONSE + accept_key(handshake.key)]
    if protocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    if extensions is not None:
        lines.append(f"Sec-WebSocket-Extensions: {extensions}")
    for name, value in extra:
        if _TOKEN.fullmatch(name) is None or _LINE_BREAK.search(value) is not None:
            raise ValueError(f"not a header: {name!r}: {value!r}")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
