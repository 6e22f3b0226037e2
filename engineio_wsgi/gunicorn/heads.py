"""Reading request heads by gunicorn's settings: which are refused, and what the environ of the others holds.

Owns the choice of the parser: ours for the heads that no setting decides about, and gunicorn's own for all others. Knows no
connection.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from engineio_wsgi.http.request_head import (
    BAD_REQUEST,
    HEADERS_TOO_LARGE,
    URI_TOO_LONG,
    HeadLimits,
    InvalidRequest,
    RequestHead,
    build_head,
    parse_head,
)
from engineio_wsgi.vendors.gunicorn_parser import FAILURE, STATUSES, UNLIMITED, ParseException, parse
from engineio_wsgi.vendors.gunicorn_workers import GunicornSettings

__all__ = ["HeadReader", "Reading", "is_in", "preface_size"]


#: gunicorn's ``Request``, which has no types
GunicornRequest: TypeAlias = Any
#: a client's address: a tuple that begins with the host, or for a Unix socket anything else
Address: TypeAlias = object

#: the largest limits that gunicorn's documentation allows
MAX_LINE, MAX_FIELDS = 8190, 32768
#: bytes of a head where a setting says "unlimited", and of any head unless one of its fields may be larger
MAX_HEAD = UNLIMITED
#: a header name with an underscore: in an environ it cannot be told from the name with a hyphen
UNDERSCORED = re.compile(rb"\n[^:\n_]*_")

#: first bytes of a binary PROXY header (version 2), its bytes up to the end of its length, first bytes of one in text
SIGNATURE, FIXED_SIZE, WORD = b"\r\n\r\n\0\r\nQUIT\n", 16, b"PROXY "
#: bytes of the longest PROXY header in text (version 1)
MAX_WORDS = 107
_NOTHING: Mapping[str, object] = {}


class Reading(NamedTuple):
    """A head that was read.

    Attributes:
        request: what our handler needs to know of it.
        additions: values of the environ that are not of the head itself.
        original: gunicorn's object, if its parser has read the head.
        proxied: what a PROXY header says, by gunicorn's names.
    """

    request: RequestHead
    additions: Mapping[str, object] = _NOTHING
    original: GunicornRequest = None
    proxied: Mapping[str, object] | None = None


def is_in(address: Address, allowed: list[str]) -> bool:
    """Whether a setting that lists networks, or ``*``, has a client's address. The client of a Unix socket always is in it."""
    if not isinstance(address, tuple) or "*" in allowed:
        return True
    try:
        number = ip_address(address[0])
    except ValueError:
        return False
    return any(number in ip_network(network) for network in allowed)


def preface_size(data: bytes, mode: str) -> int | None:
    """The size of the PROXY header at the beginning of a connection: 0 if there is none, ``None`` if it is not complete.

    Args:
        data: what has arrived, at least one byte.
        mode: of the setting ``proxy_protocol``: ``"v1"``, ``"v2"`` or ``"auto"``.

    Raises:
        InvalidRequest: the header is too long.
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


class HeadReader:
    """Reads the heads of a worker's requests.

    Args:
        cfg: gunicorn's settings.

    Raises:
        RuntimeError: the parser that the setting ``http_parser`` names is not installed.
    """

    def __init__(self, cfg: GunicornSettings) -> None:
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
        # a parser that is not installed is reported now, and not by the first request
        self._ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "", b"")

    def limits(self) -> dict[str, int]:
        """The limits that the settings give, by the names of our handler's attributes."""
        cfg = self._cfg
        line, fields = cfg.limit_request_line, cfg.limit_request_fields
        count = fields if 0 < fields <= MAX_FIELDS else MAX_FIELDS
        return {
            "max_request_line": min(line, MAX_LINE) if line > 0 else MAX_HEAD,
            # each line of a folded header counts here: gunicorn's parser, which reads it, counts the header once
            "max_header_count": MAX_HEAD if getattr(cfg, "permit_obsolete_folding", False) else count,
            "max_header_size": min(count * (self._field_size + 2) + 4, max(MAX_HEAD, self._field_size + 2)),
        }

    def read(self, head: bytes, limits: HeadLimits, peer: Address, trusted: bool, preface: bytes = b"") -> Reading:
        """Read one complete head, its empty line included.

        Args:
            limits: what :meth:`limits` returned, or a subclass's.
            peer: the address that is connected: the client's, or a proxy's.
            trusted: whether that address is in ``forwarded_allow_ips``.
            preface: the PROXY header before the head.

        Raises:
            InvalidRequest: the head is refused.
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
            # gunicorn accepts more methods and versions than we do, and settings make it accept still more
            return self._read_with_gunicorn(head, peer, preface, error)
        reading = self._complete(request, trusted)
        return self._read_with_gunicorn(head, peer, preface) if reading is None else reading

    def _complete(self, request: RequestHead, trusted: bool) -> Reading | None:
        """Add the scheme and ``SCRIPT_NAME``; ``None`` if gunicorn has to decide about the scheme."""
        scheme = self._scheme_of(request.variables) if trusted else ""
        if scheme is None:
            return None
        if not scheme and not self._script_name:
            return Reading(request)
        additions = _split_path(request, self._script_name)
        return Reading(request, {**additions, "wsgi.url_scheme": scheme} if scheme else additions)

    def _has_say(self, head: bytes, trusted: bool) -> bool:
        """Whether a setting decides about one of the headers."""
        if self._maps_all or (trusted and self._trusts_all):
            return UNDERSCORED.search(head) is not None
        return trusted and self._trusted_names is not None and self._trusted_names.search(head) is not None

    def _check_field_sizes(self, head: bytes) -> None:
        # gunicorn counts the end of a line as well
        if any(len(line) + 2 > self._field_size for line in head.split(b"\r\n")[1:]):
            raise InvalidRequest(HEADERS_TOO_LARGE, f"a header is larger than {self._field_size} bytes")

    def _scheme_of(self, variables: Mapping[str, str]) -> str | None:
        """The scheme that a trusted proxy names: ``""`` if it names none, ``None`` if one of its headers came more than once."""
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

    def _ask(self, head: bytes, peer: Address, preface: bytes) -> GunicornRequest:
        """Have gunicorn parse a head. It looks for a PROXY header before a connection's first request only."""
        return parse(self._cfg, preface + head, peer, 1 if preface else 2)

    def _read_with_gunicorn(self, head: bytes, peer: Address, preface: bytes, reason: InvalidRequest | None = None) -> Reading:
        try:
            original = self._ask(head, peer, preface)
        except ParseException as error:
            status = STATUSES.get(type(error).__name__, BAD_REQUEST)
            # where both parsers refuse it with the same status, our reason is the clearer one
            raise reason if reason is not None and reason.status == status else InvalidRequest(status, str(error)) from error
        request = _translate(original, head)
        said = [value for name, value in original.headers if name == "SCRIPT_NAME"]
        additions = {
            "wsgi.url_scheme": original.scheme, "SERVER_PROTOCOL": "HTTP/{}.{}".format(*original.version),
            **_split_path(request, said[-1] if said else self._script_name),
        }  # fmt: skip
        return Reading(request, additions, original, original.proxy_protocol_info)


def _wants_requests(cfg: GunicornSettings) -> bool:
    """Whether each request needs gunicorn's object: for a hook or a log line, or because a setting names the parser."""
    hooks = (cfg.settings[name] for name in ("pre_request", "post_request"))
    return (any(hook.get() is not hook.default for hook in hooks) or cfg.loglevel.lower() == "debug"
            or getattr(cfg, "http_parser", "auto") != "auto")


def _proxy_mode(cfg: GunicornSettings) -> str:
    """The setting ``proxy_protocol``, which in older gunicorns only says whether there is a PROXY header."""
    mode = cfg.proxy_protocol
    return mode if isinstance(mode, str) else ("v1" if mode else "off")


def _translate(original: GunicornRequest, head: bytes) -> RequestHead:
    """A request as our handler knows one, from gunicorn's object.

    Raises:
        InvalidRequest: our handler cannot serve it.
    """
    variables: dict[str, str] = {}
    for name, value in original.headers:
        key = name.replace("-", "_")
        key = key if name in ("CONTENT-TYPE", "CONTENT-LENGTH") else f"HTTP_{key}"
        joint = "; " if key == "HTTP_COOKIE" else ","
        variables[key] = variables[key] + joint + value if key in variables else value
    # the version by which the response is framed; the environ gets the one that was sent
    version = "HTTP/1.0" if original.version < (1, 1) else "HTTP/1.1"
    return build_head(head[:head.find(b"\r\n")].decode("latin-1"), original.method, original.uri, version, variables)


def _split_path(request: RequestHead, script_name: str) -> dict[str, str]:
    """``SCRIPT_NAME``, and the path below it.

    Raises:
        InvalidRequest: the path is not below it. As with gunicorn, the status blames the server's configuration.
    """
    if not script_name:
        return {}
    path = request.path.partition("?")[0]
    if not path.startswith(script_name):
        raise InvalidRequest(FAILURE, f"the path {path!r} does not start with SCRIPT_NAME {script_name!r}")
    below = path[len(script_name):]
    return {"SCRIPT_NAME": script_name, "PATH_INFO": unquote_to_bytes(below).decode("latin-1")}
