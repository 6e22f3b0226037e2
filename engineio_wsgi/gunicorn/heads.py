"""Request heads as gunicorn's settings want them read: what is refused, what is accepted, and what an environ says of it.

Owns the choice of the parser: ours for the heads on which no setting has a say, and gunicorn's own for all others. Knows no
connection. Imported by :mod:`engineio_wsgi.gunicorn` only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from engineio_wsgi.http.request_head import HeadLimits, InvalidRequest, RequestHead, complete_head, parse_head

__all__ = ["HeadReader", "Reading", "is_in", "preface_size"]

BAD_REQUEST = "400 Bad Request"
URI_TOO_LONG = "414 URI Too Long"
HEADERS_TOO_LARGE = "431 Request Header Fields Too Large"
FAILURE = "500 Internal Server Error"
#: what gunicorn answers to those that are no 400
STATUSES = {
    "LimitRequestLine": URI_TOO_LONG, "LimitRequestHeaders": HEADERS_TOO_LARGE, "ForbiddenProxyRequest": "403 Forbidden",
    "UnsupportedTransferCoding": "501 Not Implemented", "ExpectationFailed": "417 Expectation Failed",
    "ConfigurationProblem": FAILURE,
}  # fmt: skip

#: what gunicorn's documentation allows at most
MAX_LINE, MAX_FIELDS = 8190, 32768
#: bytes of a head where a setting says "unlimited", and of any head unless one of its fields may be larger
MAX_HEAD = 1 << 20
#: a header's name with an underscore in it: in an environ it cannot be told from another's with a hyphen
UNDERSCORED = re.compile(rb"\n[^:\n_]*_")

#: how a PROXY header in bytes begins (version 2), how many bytes it has up to the end of its length, and how one in text begins
SIGNATURE, FIXED_SIZE, WORD = b"\r\n\r\n\0\r\nQUIT\n", 16, b"PROXY "
#: bytes of the longest header in text (version 1)
MAX_WORDS = 107
#: PROXY headers that name no client: of a proxy's own check, or of a client that it does not know
NAMELESS = ("LOCAL", "UNSPEC")

_NOTHING: Mapping[str, Any] = {}


class Reading(NamedTuple):
    """What was read: ``additions`` to the environ, gunicorn's object if its parser was asked, and what a PROXY header said."""

    request: RequestHead
    additions: Mapping[str, Any] = _NOTHING
    original: Any = None
    proxied: Mapping[str, Any] | None = None


def is_in(address: Any, allowed: list[str]) -> bool:
    """Whether a client's address is one of those that a setting lists, as networks or ``*``. A Unix socket's client always is."""
    if not isinstance(address, tuple) or "*" in allowed:
        return True
    try:
        number = ip_address(address[0])
    except ValueError:
        return False
    return any(number in ip_network(network) for network in allowed)


def preface_size(data: bytes, mode: str) -> int | None:
    """How long the PROXY header at the beginning of a connection is: 0 if there is none, ``None`` if more of it has to come.

    Args:
        data: what has come; something.
        mode: of the setting ``proxy_protocol``: ``"v1"``, ``"v2"`` or ``"auto"``.

    Raises:
        InvalidRequest: it has no end.
    """
    if mode != "v2" and WORD.startswith(data[:len(WORD)]):
        end = data.find(b"\r\n") + 2
        if end < 2 and len(data) > MAX_WORDS:
            raise InvalidRequest(BAD_REQUEST, f"a PROXY header in text is longer than {MAX_WORDS} bytes")
        return end if end >= 2 else None
    if mode != "v1" and SIGNATURE.startswith(data[:len(SIGNATURE)]):
        size = FIXED_SIZE + int.from_bytes(data[FIXED_SIZE - 2:FIXED_SIZE])
        return size if len(data) >= max(size, FIXED_SIZE) else None
    return 0


class _Request(Request):  # type: ignore[misc]
    """gunicorn's, where ``limit_request_field_size`` 0 means what its documentation says."""

    def parse(self, unreader: Any) -> Any:
        """What gunicorn calls when the limits are set."""
        if not self.cfg.limit_request_field_size:
            self.limit_request_field_size = MAX_HEAD
        return super().parse(unreader)


class HeadReader:
    """Reads the heads of a worker's requests.

    Args:
        cfg: gunicorn's.

    Raises:
        RuntimeError: the parser that ``http_parser`` names is not to be had.
    """

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._script_name = os.environ.get("SCRIPT_NAME", "")
        self._field_size = cfg.limit_request_field_size or MAX_HEAD
        self._maps_all = getattr(cfg, "header_map", "drop") != "drop"
        names = [name.upper() for name in getattr(cfg, "forwarder_headers", ())]
        self._trusts_all = "*" in names
        marked = b"|".join(re.escape(name.encode("latin-1")) for name in names if "_" in name)
        #: headers of trusted proxies that our parser would drop
        self._trusted_names = re.compile(rb"\n(?:%b)[ \t]*:" % marked, re.IGNORECASE) if marked else None
        self._schemes = tuple(("HTTP_" + name.upper().replace("-", "_"), value)
                              for name, value in cfg.secure_scheme_headers.items())
        #: whether gunicorn's own object is needed for every request
        self._always = _wants_requests(cfg)
        #: of the PROXY protocol: ``"off"``, ``"v1"``, ``"v2"`` or ``"auto"``
        self.proxy_mode = _proxy_mode(cfg)
        self._ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "", b"")

    def limits(self) -> dict[str, int]:
        """The settings' limits, by our handler's names for them."""
        cfg = self._cfg
        line, fields = cfg.limit_request_line, cfg.limit_request_fields
        count = fields if 0 < fields <= MAX_FIELDS else MAX_FIELDS
        return {
            "max_request_line": min(line, MAX_LINE) if line > 0 else MAX_HEAD,
            # of a folded header, each line counts here: gunicorn's parser counts better
            "max_header_count": MAX_HEAD if getattr(cfg, "permit_obsolete_folding", False) else count,
            "max_header_size": min(count * (self._field_size + 2) + 4, max(MAX_HEAD, self._field_size + 2)),
        }

    def read(self, head: bytes, limits: HeadLimits, peer: Any, trusted: bool, preface: bytes = b"") -> Reading:
        """Read one complete head, its empty line included.

        Args:
            peer: the address of whoever is connected.
            trusted: whether that is in ``forwarded_allow_ips``.
            preface: the PROXY header before it.

        Raises:
            InvalidRequest: it is refused.
        """
        if preface or self._always or self._has_say(head, trusted):
            return self._read_with_gunicorn(head, peer, preface)
        if len(head) > self._field_size:
            self._check_field_sizes(head)
        try:
            request = parse_head(head, limits)
        except InvalidRequest as error:
            if error.status in (URI_TOO_LONG, HEADERS_TOO_LARGE):
                raise
            # gunicorn takes more methods and versions than we do, and settings let it take more than that
            return self._read_with_gunicorn(head, peer, preface, error)
        scheme = self._scheme_of(request.variables) if trusted else ""
        if scheme is None:
            return self._read_with_gunicorn(head, peer, preface)
        if not scheme and not self._script_name:
            return Reading(request)
        return Reading(request, {**({"wsgi.url_scheme": scheme} if scheme else {}), **_split_path(request, self._script_name)})

    def _has_say(self, head: bytes, trusted: bool) -> bool:
        """Whether a setting decides about one of the headers."""
        if self._maps_all or (trusted and self._trusts_all):
            return UNDERSCORED.search(head) is not None
        return trusted and self._trusted_names is not None and self._trusted_names.search(head) is not None

    def _check_field_sizes(self, head: bytes) -> None:
        # gunicorn counts the end of the line, too
        if any(len(line) + 2 > self._field_size for line in head.split(b"\r\n")[1:]):
            raise InvalidRequest(HEADERS_TOO_LARGE, f"a header is larger than {self._field_size} bytes")

    def _scheme_of(self, variables: Mapping[str, str]) -> str | None:
        """What a trusted proxy says of the scheme: ``""`` for nothing, ``None`` if it says so more than once in a header."""
        found = ""
        for key, secure in self._schemes:
            value = variables.get(key)
            if value is None:
                continue
            if "," in value:
                return None
            scheme = "https" if value == secure else "http"
            if found not in ("", scheme):
                raise InvalidRequest(BAD_REQUEST, "the proxy's headers contradict each other about the scheme")
            found = scheme
        return found

    def _ask(self, head: bytes, peer: Any, preface: bytes) -> Any:
        """Have gunicorn parse a head. A PROXY header is looked for before a connection's first request only."""
        return _Request(self._cfg, IterUnreader([preface + head]), peer, 1 if preface else 2)

    def _read_with_gunicorn(self, head: bytes, peer: Any, preface: bytes, reason: InvalidRequest | None = None) -> Reading:
        try:
            original = self._ask(head, peer, preface)
        except ParseException as error:
            status = STATUSES.get(type(error).__name__, BAD_REQUEST)
            # where both refuse it alike, our reason is the one in plain words
            raise reason if reason is not None and reason.status == status else InvalidRequest(status, str(error)) from error
        request = _translate(original, head)
        complete_head(request)
        said = [value for name, value in original.headers if name == "SCRIPT_NAME"]
        additions = {
            "wsgi.url_scheme": original.scheme, "SERVER_PROTOCOL": "HTTP/{}.{}".format(*original.version),
            **_split_path(request, said[-1] if said else self._script_name),
        }  # fmt: skip
        return Reading(request, additions, original, original.proxy_protocol_info)


def _wants_requests(cfg: Any) -> bool:
    """Whether hooks are called with each request, or another parser than ours is asked for."""
    hooks = (cfg.settings[name] for name in ("pre_request", "post_request"))
    return (any(hook.get() is not hook.default for hook in hooks) or cfg.loglevel.lower() == "debug"
            or getattr(cfg, "http_parser", "auto") != "auto")


def _proxy_mode(cfg: Any) -> str:
    """Older gunicorns know whether, and not which."""
    mode = cfg.proxy_protocol
    return mode if isinstance(mode, str) else ("v1" if mode else "off")


def _translate(original: Any, head: bytes) -> RequestHead:
    """What gunicorn's object says, as our handler wants to have it."""
    request = RequestHead()
    request.line = head[:head.find(b"\r\n")].decode("latin-1")
    request.command, request.path = original.method, original.uri
    # how a response is framed; the environ has the version as it was sent
    request.version = "HTTP/1.0" if original.version < (1, 1) else "HTTP/1.1"
    variables: dict[str, str] = {}
    request.variables = variables
    for name, value in original.headers:
        key = name.replace("-", "_")
        key = key if name in ("CONTENT-TYPE", "CONTENT-LENGTH") else f"HTTP_{key}"
        joint = "; " if key == "HTTP_COOKIE" else ","
        variables[key] = variables[key] + joint + value if key in variables else value
    return request


def _split_path(request: RequestHead, script_name: str) -> dict[str, str]:
    """``SCRIPT_NAME``, and the path below it.

    Raises:
        InvalidRequest: the path is elsewhere. As with gunicorn, it is the server that is not set up for it.
    """
    if not script_name:
        return {}
    path = request.path.partition("?")[0]
    if not path.startswith(script_name):
        raise InvalidRequest(FAILURE, f"the path {path!r} does not start with SCRIPT_NAME {script_name!r}")
    below = path[len(script_name):]
    return {"SCRIPT_NAME": script_name, "PATH_INFO": unquote_to_bytes(below).decode("latin-1")}
