"""Any WSGI application under our handler, without an engine: for the tests of what is HTTP and nothing else."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent.pywsgi
import gevent.ssl

from support.rawhttp import HttpConnection
from support.serving import ErrorText


class LogText:
    """A ``log`` for pywsgi that keeps what was written."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        """One request."""
        self.lines.append(text.rstrip("\n"))


class LogRecords(logging.Handler):
    """Keeps what goes to a logger."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def records_of(name: str) -> Iterator[list[logging.LogRecord]]:
    """What is logged under a name at INFO and above while the block runs."""
    handler, logger = LogRecords(), logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def server_side(tls: dict[str, str] | None) -> dict[str, Any]:
    """The TLS arguments of a gevent server."""
    if tls is None:
        return {}
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls["certfile"], tls["keyfile"])
    return {"ssl_context": context}


def client_side(tls: dict[str, str]) -> gevent.ssl.SSLContext:
    """The context of a client that trusts the server."""
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls["certfile"])
    return context


class PlainServer:
    """A running server.

    Args:
        application: the WSGI application.
        handler_class: ours, unless the test compares.
        attributes: class attributes of the handler, such as its limits.
    """

    def __init__(
        self, application: Any, handler_class: type | None = None, tls: dict[str, str] | None = None, **attributes: Any
    ) -> None:
        if handler_class is None:
            from engineio_wsgi.http.handler import WebSocketHandler

            handler_class = WebSocketHandler
        self.log = LogText()
        self.errors = ErrorText()
        self.http = gevent.pywsgi.WSGIServer(
            ("127.0.0.1", 0),
            application,
            log=self.log,
            error_log=self.errors,
            handler_class=type("Handler", (handler_class,), attributes),
            **server_side(tls),
        )
        self.http.start()
        self.connections: list[HttpConnection] = []

    def connect(self, data: bytes = b"", **options: Any) -> HttpConnection:
        """A new connection, on which ``data`` is sent."""
        connection = HttpConnection(self.http.address, **options)
        self.connections.append(connection)
        if data:
            connection.send(data)
        return connection

    def exchange(self, data: bytes) -> bytes:
        """Send ``data`` on a new connection; everything that comes back until the server closes it."""
        return self.connect(data).read_to_end()

    def stop(self) -> None:
        """Stop listening, and close what the test has opened."""
        for connection in self.connections:
            connection.close()
        self.http.stop(timeout=1)


@contextmanager
def serving(
    application: Any, handler_class: type | None = None, tls: dict[str, str] | None = None, **attributes: Any
) -> Iterator[PlainServer]:
    """A `PlainServer` for the length of a block."""
    server = PlainServer(application, handler_class, tls, **attributes)
    try:
        yield server
    finally:
        server.stop()
