"""Who comes in: the checks of a request against the options and the sessions there are, and what the application says.

Owns the order of the refusals and what each says. It looks at an environ and raises, or tells what was asked for; only the
application's own answer may take time.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from engineio_wsgi.errors import ErrorCode, Forbidden, RequestRefused
from engineio_wsgi.http.query import parse_query
from engineio_wsgi.options.options import Options
from engineio_wsgi.session.session import Session
from engineio_wsgi.transports import transports
from engineio_wsgi.transports.base import CloseReason

__all__ = ["Demand", "Errand", "ask_application", "examine"]

logger = logging.getLogger("engine")

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


class Errand(enum.Enum):
    """What a request that was let in wants."""

    HANDSHAKE = enum.auto()
    POLL = enum.auto()
    POST = enum.auto()
    UPGRADE = enum.auto()


#: what a request of a session that polls wants, by its method
ERRANDS = {"GET": Errand.POLL, "POST": Errand.POST}


class Demand(NamedTuple):
    """A request that passed the checks. ``session`` is ``None`` for a handshake."""

    errand: Errand
    transport: str
    query: Mapping[str, str]
    protocol: int
    session: Session | None


def examine(environ: Mapping[str, Any], options: Options, sessions: Mapping[str, Session], is_upgrade: bool) -> Demand:
    """Find out what a request wants.

    Args:
        is_upgrade: whether it is a WebSocket handshake, with an accepted or acceptable WebSocket in the environ.

    Raises:
        RequestRefused: it may not have it.
    """
    query = parse_query(environ.get("QUERY_STRING", ""))
    name = query.get("transport", "")
    if name not in options.transports:
        raise RequestRefused(ErrorCode.TRANSPORT_UNKNOWN, context={"transport": name[:40]})
    protocol = _revision(query, options)
    sid = query.get("sid")
    if sid:
        demand = _examine_member(environ["REQUEST_METHOD"], query, name, protocol, _find(sid, sessions), is_upgrade)
        if is_upgrade and not options.allow_upgrades:
            raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "NO_UPGRADE", "option": "allow_upgrades"})
        return demand
    if environ["REQUEST_METHOD"] != "GET":
        raise RequestRefused(ErrorCode.BAD_HANDSHAKE_METHOD, context={"method": environ["REQUEST_METHOD"]})
    _check_carrier(environ, name, is_upgrade)
    _check_revision(query, protocol)
    if "j" in query and not options.jsonp:
        raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "JSONP_DISABLED", "option": "jsonp"})
    return Demand(Errand.HANDSHAKE, name, query, protocol, None)


def ask_application(allow: Callable[[Any], object], request: Any) -> None:
    """Ask ``allow_request`` about a handshake. Blocks as long as it does.

    Raises:
        RequestRefused: it said no, in one way or another.
    """
    try:
        allowed = allow(request)
    except RequestRefused:
        raise
    except Exception as error:
        logger.exception("allow_request failed; nobody is let in")
        raise Forbidden(context={"name": "ALLOW_REQUEST_FAILED", "error": error}) from error
    if not allowed:
        raise Forbidden()


def _revision(query: Mapping[str, str], options: Options) -> int:
    """The protocol revision, 0 if it is none that these options serve."""
    revision = REVISIONS.get(query.get("EIO", DEFAULT_REVISION), 0)
    return revision if revision == 4 or options.allow_eio3 else 0


def _check_revision(query: Mapping[str, str], protocol: int) -> None:
    if protocol:
        return
    asked = query.get("EIO", DEFAULT_REVISION)[:8]
    raise RequestRefused(
        ErrorCode.UNSUPPORTED_PROTOCOL_VERSION,
        f"Unsupported protocol version: the client speaks {ascii(asked)[1:-1]}, this server 4",
        {"name": "PROTOCOL", "protocol": asked, "served": 4, "option": "allow_eio3"},
    )


def _check_carrier(environ: Mapping[str, Any], name: str, is_upgrade: bool) -> None:
    """A transport that lives on a connection of its own needs an upgrade; the others cannot use one."""
    if transports[name].handles_upgrades == is_upgrade:
        return
    context = {"name": "TRANSPORT_HANDSHAKE_ERROR", "transport": name}
    if not is_upgrade:
        missing = [text for key, text in UPGRADE_HEADERS.items() if not environ.get(key)]
        context["missing"] = ", ".join(missing) or "a server that can upgrade connections"
        raise RequestRefused(ErrorCode.BAD_REQUEST, f"Bad request: not a WebSocket handshake; missing: {context['missing']}",
                             context)
    raise RequestRefused(ErrorCode.BAD_REQUEST, context=context)


def _find(sid: str, sessions: Mapping[str, Session]) -> Session | None:
    """The session of a request, as it is after all that arrived before the request."""
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


def _examine_member(method: str, query: Mapping[str, str], name: str, protocol: int, session: Session | None,
                    is_upgrade: bool) -> Demand:
    """A request that names a session."""
    if session is None:
        raise RequestRefused(ErrorCode.SESSION_UNKNOWN, context={"sid": query["sid"][:80]})
    if protocol != session.protocol:
        raise _mismatch("PROTOCOL_MISMATCH", protocol, session.protocol)
    if is_upgrade:
        _check_candidate(name, session)
        return Demand(Errand.UPGRADE, name, query, protocol, session)
    if name != session.transport.name:
        raise _mismatch("TRANSPORT_MISMATCH", name, session.transport.name)
    if transports[name].handles_upgrades:
        raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "TRANSPORT_HANDSHAKE_ERROR", "transport": name})
    errand = ERRANDS.get(method)
    if errand is None:
        raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "METHOD", "method": method[:16]})
    return Demand(errand, name, query, protocol, session)


def _mismatch(what: str, got: object, had: object) -> RequestRefused:
    return RequestRefused(ErrorCode.BAD_REQUEST, context={"name": what, "got": got, "session": had})


def _check_candidate(name: str, session: Session) -> None:
    """A second connection for a session: only one at a time, and only upwards."""
    state = session.state
    if state.upgraded and transports[name].handles_upgrades:
        return  # it is accepted and closed, as the reference server does: a client of ws raises an error for a refusal
    if state.upgrading:
        raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "UPGRADE_UNDER_WAY"})
    if name not in session.transport.upgrades_to:
        raise RequestRefused(ErrorCode.BAD_REQUEST,
                             context={"name": "NO_UPGRADE", "from": session.transport.name, "to": name})
