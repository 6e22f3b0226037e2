"""Counts the refusals of one server by their kind, with the time of the last one and advice.

Under an attack there are thousands in a second: one costs a dict lookup and two additions, and its texts are made once a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from wsgiref.types import WSGIEnvironment

from engineio_wsgi.engine.refusal_advice import cure_of, kind_of
from engineio_wsgi.errors import ErrorCode, RequestRefused

__all__ = ["RefusalLog"]

#: kinds that are kept: an application may have any number of its own
MAX_KINDS = 60
#: seconds after which the texts of a kind are made again
TEXT_PERIOD = 1.0
#: characters of a text, which may repeat what a client has sent
MAX_TEXT = 400
OTHER = "OTHER"
TOO_LARGE = "TOO_LARGE"

_SHARED_ADDRESS = ("If many users share an address, raise {}. If all have the proxy's address, wrap the application in "
                   "werkzeug's ProxyFix.")
_OVERLAP = ("A client had two requests of this kind under way. Check that no proxy repeats requests, and that no two pages share "
            "a session.")
#: what to do, by the name of the refusal, where `refusal_advice` has nothing that depends on the request
ADVICE = {
    "ALLOW_REQUEST_FAILED": "allow_request raised an exception; the log has the traceback.",
    "ALLOWED_HOSTS": "Add the host to Django's ALLOWED_HOSTS, if it is yours.",
    "BAD_PAYLOAD": "A client has sent something that is no payload of Engine.IO. If it is yours, check its version.",
    "BODY_INCOMPLETE": "A connection broke off while a POST was under way, as on mobile networks. If it is frequent, check the "
                       "proxy's timeouts.",
    "DATA_OVERLAP": _OVERLAP,
    "DJANGO_MIDDLEWARE": "A middleware of the Django site has answered instead of the engine.",
    "HANDSHAKES_PER_ADDRESS": _SHARED_ADDRESS.format("max_handshakes_per_address"),
    "ID_GENERATION_ERROR": "generate_id failed; the log has the traceback.",
    "INVALID_CONTENT": "A client has sent a binary payload, which revision 4 does not have. If it is yours, check its version.",
    "NO_UPGRADE": "A client tried an upgrade that the options allow_upgrades or transports exclude, or a second one.",
    "OWNER_GONE": "The session's worker has ended or does not answer. After a restart, clients connect anew; otherwise look at "
                  "that worker.",
    "POLL_OVERLAP": _OVERLAP,
    "SERVER_CLOSING": "This worker is shutting down; clients connect to another one.",
    "SESSIONS_PER_ADDRESS": _SHARED_ADDRESS.format("max_sessions_per_address"),
    "TRANSPORT_HANDSHAKE_ERROR": "A request for a WebSocket came without a valid handshake. If clients stay on polling, have the "
                                 "proxy pass on the Upgrade and Connection headers.",
    "UPGRADE_UNDER_WAY": "A client tried a second upgrade beside the first one.",
    TOO_LARGE: "A message was larger than max_http_buffer_size. Raise the option if such messages are wanted.",
}
#: by the line of the error table, for all other names
ADVICE_BY_CODE = {
    ErrorCode.TRANSPORT_UNKNOWN: "A client asked for a transport that the option transports does not name.",
    ErrorCode.SESSION_UNKNOWN: "The session has ended, or is in a process that is not found: several workers need the option "
                               "cluster.",
    ErrorCode.BAD_HANDSHAKE_METHOD: "A session begins with a GET. This was no client of Engine.IO.",
    ErrorCode.BAD_REQUEST: "A request that is no valid one of the protocol. If the client is yours, check its version.",
    ErrorCode.FORBIDDEN: "allow_request has refused the client: usually one that is not logged in.",
    ErrorCode.UNSUPPORTED_PROTOCOL_VERSION: "A client of a revision that this server does not speak. Check its version.",
}


@dataclass(slots=True)
class RefusalKind:
    """The refusals of one kind.

    Attributes:
        last: when the last one was, on the monotonic clock.
        told: when the texts were made.
    """

    name: str
    code: int
    count: int = 0
    last: float = 0.0
    told: float = float("-inf")
    message: str = ""
    advice: str = ""
    address: str = ""

    def count_in(self, now: float) -> bool:
        """Count one more. Returns whether its texts are to be made: :meth:`tell`."""
        self.count += 1
        self.last = now
        return now - self.told >= TEXT_PERIOD

    def tell(self, message: str, advice: str, address: str) -> None:
        """Keep the texts of the latest one."""
        self.message, self.advice, self.address = message[:MAX_TEXT], advice[:MAX_TEXT], address[:MAX_TEXT]
        self.told = self.last


class RefusalLog:
    """Counts the refusals of one server. For the hub's thread only."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[int, str], RefusalKind] = {}
        #: all refusals
        self.count = 0

    def add(self, refusal: Exception, environ: WSGIEnvironment, now: float) -> None:
        """A request was refused, at the time ``now`` of the monotonic clock.

        Args:
            refusal: a `RequestRefused`, or a `PayloadTooLarge`.
        """
        self.count += 1
        kind = self._kind_of(refusal, environ)
        if kind.count_in(now):
            kind.tell(_message(refusal), _advice(kind.name, refusal, environ), str(environ.get("REMOTE_ADDR") or ""))

    def _kind_of(self, refusal: Exception, environ: WSGIEnvironment) -> RefusalKind:
        code, name = int(ErrorCode.BAD_REQUEST), TOO_LARGE
        if isinstance(refusal, RequestRefused):
            code, name = int(refusal.code), str(kind_of(refusal, environ) or "")
        kind = self._kinds.get((code, name))
        if kind is None:
            if len(self._kinds) >= MAX_KINDS:
                name = OTHER
            kind = self._kinds.setdefault((code, name), RefusalKind(name, code))
        return kind

    def describe(self, now: float) -> list[dict[str, object]]:
        """All kinds, the latest first, as the page gets them."""
        kinds = sorted(self._kinds.values(), key=lambda kind: kind.last, reverse=True)
        return [{"name": kind.name, "code": kind.code, "count": kind.count, "age": round(now - kind.last, 1),
                 "message": kind.message, "advice": kind.advice, "address": kind.address} for kind in kinds]


def _message(refusal: Exception) -> str:
    return refusal.message if isinstance(refusal, RequestRefused) else str(refusal)


def _advice(name: str, refusal: Exception, environ: WSGIEnvironment) -> str:
    """What to do about a refusal."""
    if not isinstance(refusal, RequestRefused):
        return ADVICE[TOO_LARGE]
    return cure_of(refusal, environ) or ADVICE.get(name) or ADVICE_BY_CODE[refusal.code]
