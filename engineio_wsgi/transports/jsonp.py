"""Polling for pages that can only load scripts: responses are calls of ``___eio[j](…)``, bodies are forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engineio_wsgi.errors import ErrorCode, ProtocolError, RequestRefused
from engineio_wsgi.http.query import parse_query
from engineio_wsgi.http.response import Response, payload
from engineio_wsgi.packet import Packet
from engineio_wsgi.protocol.engineio import jsonp
from engineio_wsgi.runtime.observer import Meter
from engineio_wsgi.transports.polling import PollingTransport

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["JSONPTransport"]

JAVASCRIPT = "text/javascript; charset=UTF-8"


class JSONPTransport(PollingTransport):
    """Polling by script tags and forms. Its ``name`` is that of polling, because the client's query says ``polling``."""

    __slots__ = ("_index",)

    is_jsonp = True

    def __init__(self, protocol: int, limit: int, meter: Meter | None = None) -> None:
        super().__init__(protocol, limit, binary=False, meter=meter)
        self._index = 0

    def poll(self, environ: WSGIEnvironment) -> Response:
        """As in polling; the response calls the function with the number ``j`` of this request.

        Raises:
            RequestRefused: as in polling, or ``j`` is not a number.
        """
        try:
            self._index = jsonp.parse_index(parse_query(environ.get("QUERY_STRING", "")).get("j"))
        except ProtocolError as error:
            raise RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "JSONP_INDEX", "error": str(error)}) from error
        return super().poll(environ)

    def wrap(self, body: bytes, content_type: str, compress: bool) -> Response:
        """The response with an encoded payload, as a call."""
        return payload(jsonp.encode_response(body, self._index), JAVASCRIPT, compress)

    def unwrap(self, body: bytes, binary: bool) -> list[Packet]:
        """The packets in the field ``d`` of a form."""
        return super().unwrap(jsonp.decode_body(body), False)
