"""The request for a WebTransport session as a WSGI environ, and as it was answered. No I/O."""

from __future__ import annotations

import io
import sys
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.http3.offer import OFFER, SessionOffer
from engineio_wsgi.version import __version__

__all__ = ["DRAFT", "environ_of", "is_session_request"]

Headers = list[tuple[bytes, bytes]]

#: names the version of the protocol; browsers want it in the response
DRAFT = (b"sec-webtransport-http3-draft", b"draft02")
#: variables whose values are joined by something else than a comma (RFC 9114 section 4.2.1)
COOKIE = "HTTP_COOKIE"


def is_session_request(headers: Headers) -> bool:
    """Whether a request asks for a WebTransport session (RFC 8441, draft-ietf-webtrans-http3-02 section 3.3)."""
    pseudo = {name: value for name, value in headers if name[:1] == b":"}
    return (pseudo.get(b":method"), pseudo.get(b":protocol"), pseudo.get(b":scheme")) == (b"CONNECT", b"webtransport", b"https")


def environ_of(headers: Headers, offer: SessionOffer, client: tuple[str, int], server: tuple[str, int]) -> WSGIEnvironment:
    """The environ of a request: a GET, as that of a WebSocket handshake."""
    pseudo = {name: value.decode("latin-1") for name, value in headers if name[:1] == b":"}
    path, _, query = pseudo.get(b":path", "/").partition("?")
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/3",
        "SERVER_SOFTWARE": f"engineio-wsgi/{__version__}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "HTTP_HOST": pseudo.get(b":authority", ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        OFFER: offer,
    }
    for name, value in headers:
        _add_header(environ, name.decode("latin-1"), value.decode("latin-1"))
    return environ


def _add_header(environ: WSGIEnvironment, name: str, value: str) -> None:
    # a name with an underscore would have the variable of another one
    if name[:1] == ":" or "_" in name or name == "host":
        return
    key = name.upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
    if key in environ:
        value = f"{environ[key]}{'; ' if key == COOKIE else ','}{value}"
    environ[key] = value
