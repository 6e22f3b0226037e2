"""gunicorn's parser of request heads. Imports gunicorn.

Relies on: ``gunicorn.http.message.Request(cfg, unreader, peer_addr, req_number)`` parsing when it is made, with
``limit_request_field_size`` set before ``parse`` is called; ``IterUnreader``; the names of the ``ParseException`` classes.
"""

from __future__ import annotations

from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from engineio_wsgi.vendors.gunicorn_workers import GunicornSettings

__all__ = ["FAILURE", "STATUSES", "UNLIMITED", "ParseException", "parse"]

#: bytes of a header field where the setting says that there is no limit
UNLIMITED = 1 << 20
FAILURE = "500 Internal Server Error"
#: statuses that gunicorn answers to refused heads, by exception; to all others it answers 400
STATUSES = {
    "LimitRequestLine": "414 URI Too Long", "LimitRequestHeaders": "431 Request Header Fields Too Large",
    "ForbiddenProxyRequest": "403 Forbidden", "UnsupportedTransferCoding": "501 Not Implemented",
    "ExpectationFailed": "417 Expectation Failed", "ConfigurationProblem": FAILURE,
}  # fmt: skip


class _Request(Request):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's request, where ``limit_request_field_size`` 0 means no limit, as its documentation says."""

    def parse(self, unreader: IterUnreader) -> object:
        """What gunicorn calls when the limits are set."""
        if not self.cfg.limit_request_field_size:
            self.limit_request_field_size = UNLIMITED
        return super().parse(unreader)


def parse(cfg: GunicornSettings, data: bytes, peer: object, number: int) -> Request:
    """Have gunicorn parse a head.

    Args:
        cfg: gunicorn's.
        data: the head, with the PROXY header before it if there is one.
        peer: the address that is connected: the client's, or a proxy's.
        number: of the request on its connection; only before the first one is a PROXY header looked for.

    Returns:
        gunicorn's ``Request``.

    Raises:
        ParseException: the head is refused.
    """
    return _Request(cfg, IterUnreader([data]), peer, number)
