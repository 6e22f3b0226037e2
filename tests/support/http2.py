"""An HTTP/2 client that sends one request after the other, over TCP without TLS (RFC 9113 section 3.3)."""

from __future__ import annotations

import json
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded

from support.rawhttp import HttpConnection
from support.serving import Served


class Http2Connection:
    """One connection."""

    def __init__(self, served: Served) -> None:
        self._connection: HttpConnection = served.connect()
        self._h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._flush()

    def request(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the response."""
        stream = self._h2.get_next_available_stream_id()
        fields = [(":method", method), (":path", target), (":scheme", "http"), (":authority", "127.0.0.1")]
        if body:
            fields += [("content-type", "text/plain;charset=UTF-8"), ("content-length", str(len(body)))]
        self._h2.send_headers(stream, fields, end_stream=not body)
        if body:
            self._h2.send_data(stream, body, end_stream=True)
        self._flush()
        return self._response()

    def _response(self) -> tuple[int, bytes]:
        status, body = 0, b""
        while True:
            data = self._connection.sock.recv(65536)
            assert data, "the server closed the connection"
            for event in self._h2.receive_data(data):
                if isinstance(event, ResponseReceived):
                    status = int(dict(event.headers)[":status"])
                elif isinstance(event, DataReceived):
                    body += event.data
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    self._flush()
                    return status, body
            self._flush()

    def _flush(self) -> None:
        self._connection.send(self._h2.data_to_send())

    def json(self, target: str) -> Any:
        """The JSON body of the response to a GET."""
        return json.loads(self.request("GET", target)[1])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
