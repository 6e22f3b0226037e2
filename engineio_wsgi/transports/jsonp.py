"""Polling for pages that may only load scripts: answers are calls of ``___eio[j](…)``, bodies are forms."""

from __future__ import annotations

from typing import Any

from engineio_wsgi.errors import ErrorCode, ProtocolError, RequestRefused
from engineio_wsgi.http.query import parse_query
from engineio_wsgi.http.response import Response, payload
from engineio_wsgi.packet import Packet
from engineio_wsgi.protocol.engineio import jsonp
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.transports.polling import PollingTransport

__all__ = ["JSONPTransport"]

JAVASCRIPT = "text/javascript; charset=UTF-8"


class JSONPTransport(PollingTransport):
    """A session's polling by script tags and forms. Its ``name`` is that of polling: the client says ``polling``, too."""

    __slots__ = ("_index",)

    def __init__(self, protocol: int, limit: int, meter: Meter | None = None) -> None:
        super().__init__(protocol, limit, binary=False, meter=meter)
        self._index = 0

    def poll(self, environ: dict[str, Any]) -> Response:
        """As in polling; the answer calls the function that this request's ``j`` names.

        Raises:
            RequestRefused: ``j`` is not a number, too.
        """
        try:
            self._index = jsonp.parse_index(parse_query(environ.get("QUERY_STRING", "")).get("j"))
        except ProtocolError as error:
            raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "JSONP_INDEX", "error": str(error)}) from error
        return super().poll(environ)

    def wrap(self, body: bytes, content_type: str, compress: bool) -> Response:
        """The call that carries an encoded payload."""
        return payload(jsonp.encode_response(body, self._index), JAVASCRIPT, compress)

    def unwrap(self, body: bytes, binary: bool) -> list[Packet]:
        """The packets in a form's ``d``."""
        return super().unwrap(jsonp.decode_body(body), False)
