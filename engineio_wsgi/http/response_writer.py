"""Sending responses (PEP 3333): `start_response`, `write`, the application's iterable, and the access log.

Owns how a response's body is cut to the announced length. The handler reads the requests and calls the application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from engineio_wsgi.http.access_log import format_line
from engineio_wsgi.http.body import NO_BODY, Body
from engineio_wsgi.http.connection import HttpConnection
from engineio_wsgi.http.response_head import ResponseHead
from engineio_wsgi.runtime.connection import Connection
from engineio_wsgi.vendors.gevent_servers import log_failure

__all__ = ["Responder"]

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType]

#: bytes of a response's first write up to which it is sent together with the head
MAX_JOINED = 1 << 20


class Responder:
    """The part of a pywsgi handler that sends responses. The attributes without an underscore are pywsgi's."""

    #: seconds in which a client takes nothing of a response, after which the connection is lost
    write_timeout = 60.0

    max_discarded_body: int

    #: raised when the application violates PEP 3333
    ApplicationError = AssertionError

    server: Any  # gevent's, or one that has its attributes
    client_address: object  # as ``accept`` returned it
    command: str | None = None
    request_version: str = "HTTP/1.1"
    requestline: str | None = None
    status: str | None = None
    _orig_status: str | None = None
    code: int | None = None
    response_headers: Sequence[tuple[str, str]] | None = None
    response_length = 0
    headers_sent = False
    close_connection = False
    result: Iterable[bytes] | None = None
    wsgi_input: Body = NO_BODY
    log_error: Callable[..., None]
    time_start: float = 0
    time_finish: float = 0

    _connection: HttpConnection
    _head: ResponseHead | None = None
    #: the connection after it was detached; no response is sent then
    _detached: Connection | None = None

    def start_response(self, status: str, headers: Sequence[tuple[str, str]],
                       exc_info: ExceptionInfo | None = None) -> Callable[[bytes], None]:
        """PEP 3333's ``start_response``."""
        if exc_info is not None:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._head is not None:
            raise self.ApplicationError("start_response was called a second time, and without exc_info")
        self._head = head = ResponseHead(status, headers)
        self.status = self._orig_status = status
        self.code = head.code
        self.response_headers = headers
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333's ``write``: send ``data`` now, with the head if that has not been sent. Blocks meanwhile."""
        if self._detached is not None:
            return
        if not self.headers_sent:
            self._send_first(data, None)
        elif data:
            self._send(self._frame_data(data))

    def process_result(self) -> None:
        """Send what the application returned."""
        result = self.result
        assert result is not None
        if isinstance(result, (list, tuple)) and not self.headers_sent:
            data = result[0] if len(result) == 1 else b"".join(result)
            self._send_first(data, len(data))
        elif not self._write_each(result):
            return
        head = self._head
        assert head is not None
        if head.chunked or head.left:
            self._finish_response(head)

    def _write_each(self, result: Iterable[bytes]) -> bool:
        """Send each part of the body. Returns ``False`` if the connection was detached meanwhile."""
        for data in result:
            if data:
                self.write(data)
        if self._detached is not None:
            return False
        if not self.headers_sent:
            self._send_first(b"", 0)
        return True

    def _finish_response(self, head: ResponseHead) -> None:
        if head.chunked:
            self._send(b"0\r\n\r\n")
        if head.left:
            self.close_connection = True
            self.log_error("The application announced more than it sent: %s", self.requestline)

    def _send_first(self, data: bytes, length: int | None) -> None:
        """Send the head and the first of the body together."""
        head = self._head
        if head is None:
            raise self._no_response()
        close = self.wsgi_input.stop_waiting() or self.close_connection
        top = head.frame(length, self.request_version, close, self.command == "HEAD")
        self.close_connection = bool(head.close)
        data = self._frame_data(data)
        if len(data) <= MAX_JOINED:
            top, data = top + data, b""
        self.headers_sent = True
        self._send(top)
        if data:
            self._send(data)

    def _no_response(self) -> Exception:
        """The exception to raise when the application has returned without a response."""
        return self.ApplicationError("the application did not call start_response")

    def _frame_data(self, data: bytes) -> bytes:
        """A piece of the body as it is sent: in a chunk, or cut to the announced length."""
        head = self._head
        assert head is not None
        size = len(data)
        if head.chunked:
            return b"%x\r\n%b\r\n" % (size, data) if size else data
        data = head.cut(data)
        # the client would read the rest as the next response
        if len(data) != size and self.command != "HEAD" and not head.bodiless:
            self.close_connection = True
            self.log_error("The application sent more than it announced: %s", self.requestline)
        return data

    def _send(self, data: bytes) -> None:
        self._connection.send_all(data, self.write_timeout)
        self.response_length += len(data)

    def handle_error(self, kind: type[BaseException] | None, value: BaseException | None,
                     traceback: TracebackType | None) -> None:
        """Log a failure of the application, and answer 500 if nothing was sent yet."""
        log_failure(self, kind, value, traceback)
        self._answer("500 Internal Server Error", (), "Internal Server Error")

    def _answer(self, status: str, headers: Iterable[tuple[str, str]], text: str) -> None:
        """Answer instead of the application, if it has not begun to, and close the connection."""
        self.close_connection = True
        if self.headers_sent or self._detached is not None or self._connection.lost:
            return
        body = text.encode()
        self._head = None
        self.start_response(status, [("Content-Type", "text/plain; charset=UTF-8"), *headers])
        try:
            self._send_first(body, len(body))
        except OSError:
            # the client has gone away
            return

    def _discard_body(self) -> bool:
        try:
            return self.wsgi_input.discard(self.max_discarded_body)
        except OSError:
            return False

    # -- the log

    def log_request(self) -> None:
        """Write a line to the server's access log."""
        self.server.log.write(self.format_request() + "\n")

    def format_request(self) -> str:
        """The line, in gevent's format."""
        status = str(self._orig_status or self.status or "000").split()[0]
        seconds = self.time_finish - self.time_start if self.time_finish else None
        return format_line(self.client_address, self.requestline, status, self.response_length, seconds)
