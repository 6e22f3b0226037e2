"""The checks of a request against the options and the sessions.

Owns the order of the checks, and the text of each refusal. A check looks at an environ and raises.
Only `ask_application` may block.
"""

from __future__ import annotations

import enum
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple
from wsgiref.types import WSGIEnvironment

from werkzeug.wrappers import Request

from engineio_wsgi.errors import ErrorCode, Forbidden, RequestRefused
from engineio_wsgi.http.query import parse_query
from engineio_wsgi.options.options import Options
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports import transports
from engineio_wsgi.transports.base import CloseReason

__all__ = ["WEBTRANSPORT", "CheckedRequest", "RequestKind", "ask_application", "check_packet", "check_request"]

logger = logging.getLogger("engine")

#: the transport of sessions that do not come through the HTTP server
WEBTRANSPORT = "webtransport"
#: the revision of a client that names none; the reference server's
DEFAULT_REVISION = "3"
REVISIONS = {"1": 1, "2": 2, "3": 3, "4": 4}
#: the WebSocket handshake's headers: a proxy that drops one of them is the usual reason for a failed upgrade
UPGRADE_HEADERS = {
    "HTTP_UPGRADE": "Upgrade: websocket",
    "HTTP_CONNECTION": "Connection: Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": "Sec-WebSocket-Key",
    "HTTP_SEC_WEBSOCKET_VERSION": "Sec-WebSocket-Version: 13",
}


class RequestKind(enum.Enum):
    """What a request asks for."""

    HANDSHAKE = enum.auto()
    POLL = enum.auto()
    POST = enum.auto()
    UPGRADE = enum.auto()


#: what a request of a session that polls asks for, by its method
KINDS = {"GET": RequestKind.POLL, "POST": RequestKind.POST}


class CheckedRequest(NamedTuple):
    """A request that passed the checks. ``session`` is ``None`` for a handshake."""

    kind: RequestKind
    transport: str
    query: Mapping[str, str]
    protocol: int
    session: Session | None


def check_request(environ: WSGIEnvironment, options: Options, sessions: Mapping[str, Session],
                  is_upgrade: bool) -> CheckedRequest:
    """Check a request, and find out what it asks for.

    Args:
        is_upgrade: whether it is a WebSocket handshake, with an accepted or acceptable WebSocket in the environ.

    Raises:
        RequestRefused: the request failed a check.
    """
    query = parse_query(environ.get("QUERY_STRING", ""))
    name = query.get("transport", "")
    # the transport of a request may not be one that is served beside the HTTP server
    if name not in options.transports or not transports[name].over_http:
        raise RequestRefused(ErrorCode.TRANSPORT_UNKNOWN, context={"transport": name[:40]})
    protocol = _revision(query, options)
    sid = query.get("sid")
    if sid:
        session = _find_session(sid, sessions)
        checked = _check_session_request(environ["REQUEST_METHOD"], query, name, protocol, session, is_upgrade)
        if is_upgrade:
            _check_upgrades_allowed(options)
        return checked
    if environ["REQUEST_METHOD"] != "GET":
        raise RequestRefused(ErrorCode.BAD_HANDSHAKE_METHOD, context={"method": environ["REQUEST_METHOD"]})
    _check_transport(environ, name, is_upgrade)
    if not protocol:
        raise _unsupported_revision(query)
    if "j" in query and not options.jsonp:
        raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "JSONP_DISABLED", "option": "jsonp"})
    return CheckedRequest(RequestKind.HANDSHAKE, name, query, protocol, None)


def check_packet(sid: str, options: Options, sessions: Mapping[str, Session]) -> CheckedRequest:
    """Check the first packet of a WebTransport session.

    Args:
        sid: the session that it is to be upgraded; empty for a handshake.

    Raises:
        RequestRefused: it failed a check.
    """
    query = {"transport": WEBTRANSPORT, "EIO": "4", "sid": sid}
    if not sid:
        return CheckedRequest(RequestKind.HANDSHAKE, WEBTRANSPORT, query, 4, None)
    checked = _check_session_request("GET", query, WEBTRANSPORT, 4, _find_session(sid, sessions), is_upgrade=True)
    _check_upgrades_allowed(options)
    return checked


def _check_upgrades_allowed(options: Options) -> None:
    if not options.allow_upgrades:
        raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "NO_UPGRADE", "option": "allow_upgrades"})


def ask_application(allow: Callable[[Request], object], request: Request) -> None:
    """Call ``allow_request`` for a handshake. Blocks as long as it does.

    Raises:
        RequestRefused: ``allow_request`` returned a false value, or raised an exception.
    """
    try:
        allowed = allow(request)
    except RequestRefused:
        raise
    except Exception as error:
        logger.exception("allow_request failed; the handshake is refused")
        raise Forbidden(context={"name": "ALLOW_REQUEST_FAILED", "error": error}) from error
    if allowed is None or inspect.isawaitable(allowed):
        if inspect.iscoroutine(allowed):
            allowed.close()  # or Python warns that it was never awaited
        what = "None" if allowed is None else f"an awaitable ({type(allowed).__name__}), which nothing awaits"
        raise Forbidden(context={"name": "ALLOW_REQUEST_RETURNED", "returned": what})
    if not allowed:
        raise Forbidden()


def _revision(query: Mapping[str, str], options: Options) -> int:
    """The protocol revision of a request; 0 if these options do not serve it."""
    revision = REVISIONS.get(query.get("EIO", DEFAULT_REVISION), 0)
    return revision if revision == 4 or options.allow_eio3 else 0


def _unsupported_revision(query: Mapping[str, str]) -> RequestRefused:
    asked = query.get("EIO", DEFAULT_REVISION)[:8]
    context = {"name": "PROTOCOL", "protocol": asked, "served": 4, "option": "allow_eio3"}
    text = f"Unsupported protocol version: the client speaks {ascii(asked)[1:-1]}, this server 4"
    if asked in REVISIONS:
        text += "; the server's option allow_eio3=True adds 1 to 3"
        context["name"] = "OLD_PROTOCOL"
    return RequestRefused(ErrorCode.UNSUPPORTED_PROTOCOL_VERSION, text, context)


def _check_transport(environ: WSGIEnvironment, name: str, is_upgrade: bool) -> None:
    """Check that a WebSocket transport comes with a WebSocket handshake, and no other transport does."""
    if transports[name].handles_upgrades == is_upgrade:
        return
    context = {"name": "TRANSPORT_HANDSHAKE_ERROR", "transport": name}
    if not is_upgrade:
        missing = [text for key, text in UPGRADE_HEADERS.items() if not environ.get(key)]
        context["missing"] = ", ".join(missing) or "a server that can upgrade connections"
        raise RequestRefused(ErrorCode.BAD_REQUEST, f"Bad request: not a WebSocket handshake; missing: {context['missing']}",
                             context)
    raise RequestRefused(ErrorCode.BAD_REQUEST, context=context)


def _find_session(sid: str, sessions: Mapping[str, Session]) -> Session | None:
    """The session of a request, after it has read what arrived before the request."""
    session = sessions.get(sid)
    if session is None:
        return None
    if session.state.upgrading:
        session.catch_up()
        session = sessions.get(sid)  # what was read may have ended it
    elif not session.transport.handles_upgrades and session.heartbeat.overdue():
        session.end(CloseReason.PING_TIMEOUT, "a request came after the deadline")
        return None
    return session


def _check_session_request(method: str, query: Mapping[str, str], name: str, protocol: int, session: Session | None,
                           is_upgrade: bool) -> CheckedRequest:
    """Check a request that names a session."""
    if session is None:
        raise RequestRefused(ErrorCode.SESSION_UNKNOWN, context={"sid": query["sid"][:80]})
    if protocol != session.protocol:
        raise _mismatch("PROTOCOL_MISMATCH", protocol, session.protocol)
    if is_upgrade:
        _check_candidate(name, session)
        return CheckedRequest(RequestKind.UPGRADE, name, query, protocol, session)
    if name != session.transport.name:
        raise _mismatch("TRANSPORT_MISMATCH", name, session.transport.name)
    if transports[name].handles_upgrades:
        raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "TRANSPORT_HANDSHAKE_ERROR", "transport": name})
    kind = KINDS.get(method)
    if kind is None:
        raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "METHOD", "method": method[:16]})
    return CheckedRequest(kind, name, query, protocol, session)


def _mismatch(what: str, got: object, had: object) -> RequestRefused:
    return RequestRefused(ErrorCode.BAD_REQUEST, context={"name": what, "got": got, "session": had})


def _check_candidate(name: str, session: Session) -> None:
    """Check that a session may try another transport: one at a time, and only one that it can upgrade to."""
    state = session.state
    if state.upgraded and transports[name].handles_upgrades:
        return  # accepted and then closed, as the reference server does: clients that use ws raise an error for a refusal
    if state.upgrading:
        raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "UPGRADE_UNDER_WAY"})
    if name not in session.transport.upgrades_to:
        raise RequestRefused(ErrorCode.BAD_REQUEST,
                             context={"name": "NO_UPGRADE", "from": session.transport.name, "to": name})
