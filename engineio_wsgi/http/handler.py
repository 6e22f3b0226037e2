"""The HTTP server side of a connection: it reads requests, calls the WSGI application, and detaches WebSockets.

Owns the loop over the requests of a connection, keep-alive, the limits, and the attributes of gevent-websocket's handler. Knows
nothing of Engine.IO: the engine is a WSGI application like any other.
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from time import time
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

import gevent
from gevent.socket import socket as GeventSocket
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import Client
from geventwebsocket.handler import WebSocketHandler as PlainWebSocketHandler

from engineio_wsgi.http.access_log import is_silent
from engineio_wsgi.http.body import NO_BODY, open_body
from engineio_wsgi.http.connection import HttpConnection
from engineio_wsgi.http.lane_handler import LaneResponder
from engineio_wsgi.http.lending import SOCKET_KEYS, LentSocket
from engineio_wsgi.http.request_head import HeadParser, InvalidRequest, RequestHead, check_partial_head, fill_environ, name_client
from engineio_wsgi.http.response_head import ResponseHead
from engineio_wsgi.log import log_violation
from engineio_wsgi.options.values import Deflate
from engineio_wsgi.protocol.websocket.deflate import DeflateSettings
from engineio_wsgi.protocol.websocket.handshake import HandshakeRefused, asks_for_websocket
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.connection import Connection
from engineio_wsgi.runtime.deadline import DeadlineTimer
from engineio_wsgi.websocket.websocket import WebSocket

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["WebSocketHandler"]

logger = logging.getLogger("engine.http")

#: the response to a handshake that the application has not answered in time
UNANSWERED, UNANSWERED_BODY = "503 Service Unavailable", b"The application has not answered this WebSocket handshake in time\n"


class WebSocketHandler(LaneResponder, PlainWebSocketHandler):  # type: ignore[misc]
    """A ``handler_class`` for any ``gevent.pywsgi.WSGIServer``, instead of pywsgi's or gevent-websocket's.

    Subclass it to set its limits. A request beyond one of them is answered with the status below, and the connection is closed;
    the logger ``engine.http`` has a line at INFO.

    Example::

        class Handler(WebSocketHandler):
            max_header_size = 8192

        WSGIServer(("", 8000), application, handler_class=Handler).serve_forever()
    """

    #: bytes of a request line; beyond it 414
    max_request_line = 8_192
    #: bytes of a request's headers; beyond it 431
    max_header_size = 32_768
    #: headers of a request; beyond it 431
    max_header_count = 100
    #: seconds from the first byte of a request to the end of its headers, then 408; a new connection on which nothing
    #: arrives for so long is closed without a response
    header_timeout = 20.0
    #: seconds between two requests on a connection, then it is closed without a response
    keepalive_timeout = 75.0
    #: seconds that a client may pause while it sends a body, then 408
    body_timeout = 60.0
    #: bytes of a request's body that the application did not read, and that are read and dropped to keep the connection;
    #: with more it is closed
    max_discarded_body = 65_536
    #: bytes of the largest message that ``environ["wsgi.websocket"]`` takes, after decompression; beyond it the
    #: WebSocket is closed with 1009. The engine has an option of its own for its sessions
    max_message_size = 1_000_000
    #: whether ``environ["wsgi.websocket"]`` compresses (RFC 7692): ``False``, ``True``, or a ``Deflate``
    per_message_deflate: bool | DeflateSettings = False

    #: whether polls and POSTs of sessions are answered without a call of the application, where nothing else has to see them. In
    #: a subclass that overrides a method which reads or answers requests: only if the same class sets it
    lane = True

    #: whether this is so for the first one of a connection, and for handshakes, too; as above
    first_lane = True

    #: the WebSocket of the request, from its handshake until the application returns
    websocket: WebSocket | None = None
    #: the same connection, for an application that implements the protocol itself
    _lent: LentSocket | None = None
    #: whether WebSockets are accepted without a call of the application; for subclasses
    prevent_wsgi_call = False

    #: bytes of the connection that were read before it was this handler's
    read_ahead = b""

    # Any: both are ``None`` between requests, which no method that uses them has to check
    environ: Any = None
    application: Any = None  # as above
    _request: RequestHead | None = None
    #: whether the connection was detached together with its unanswered request
    handed_off = False
    #: whether the handshake was answered in the application's place, which has taken too long
    overdue = False
    #: the time that the application has for it; the limit that is over first decides
    _limits: tuple[DeadlineTimer, ...] = ()

    def __init__(self, sock: GeventSocket | None, address: object, server: Any) -> None:  # see `Responder.server`
        # pywsgi's own constructor would make a buffered reader, of 5 KB
        self._socket = sock
        self.client_address = address
        self.server = server
        self._is_logging = not is_silent(server.log) or type(self).log_request is not WebSocketHandler.log_request

    @property
    def headers(self) -> Message:
        """The headers of the request, for code that expects them here and not in the environ."""
        message = Message()
        request = self._request
        for key, value in () if request is None else request.variables.items():
            message[key.removeprefix("HTTP_").replace("_", "-").title()] = value
        return message

    # -- the connection

    def handle(self) -> None:
        """Serve the connection until it ends, or needs no greenlet. Blocks; called once, by the server."""
        connection = self._connection = HttpConnection(self.socket, self.read_ahead)
        self._parser = HeadParser()
        connection.no_delay()
        try:
            if connection.fill_first(self.header_timeout):
                self._serve_requests(self.header_timeout)
        finally:
            self._leave_connection()

    def handle_one_request(self) -> bool:
        """Read a request and answer it. Returns whether another may follow on this connection."""
        try:
            self._head_read = head = self._take_head()
            self._request = request = self._parse(head)
        except InvalidRequest as error:
            self._refuse(error)
            return False
        except OSError:
            return False
        self.requestline = request.line
        self.command = request.command
        self.path = request.path
        self.request_version = request.version
        self.content_length = request.length
        self.close_connection = request.close
        self.environ = self.get_environ()
        self.application = self.server.application
        self.handle_one_response()
        return not self.close_connection

    def _parse(self, head: bytes) -> RequestHead:
        """Parse a head. Servers with settings of their own override it. Raises `InvalidRequest`."""
        return self._parser.parse(head, self)

    def _take_head(self) -> bytes:
        connection = self._connection
        data = connection.buffer
        if data[:1] == b"\r":
            # RFC 9112 section 2.2: some clients send an empty line after a body
            data = data.lstrip(b"\r\n")
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            data, end = self._complete_head(data)
        connection.keep(data[end:])
        return data[:end]

    def _complete_head(self, data: bytes) -> tuple[bytes, int]:
        """Wait for the rest of a head. Returns the bytes that arrived, and where the head ends in them."""
        deadline = monotonic() + self.header_timeout
        while (end := data.find(b"\r\n\r\n") + 4) < 4:
            if data:
                check_partial_head(data, self)
            try:
                more = self._connection.receive(max(deadline - monotonic(), 0))
            except TimeoutError as error:
                detail = f"the headers were not complete after {self.header_timeout:g} s"
                raise InvalidRequest("408 Request Timeout", detail) from error
            if not more:
                raise ConnectionResetError("the client went away before the headers were complete")
            data += more
        return data, end

    def _end_connection(self, connection: HttpConnection) -> None:
        """End the greenlet: close the connection, unless it was detached."""
        if self.websocket is not None:
            self.websocket.finish()
        detached = self._detached
        if detached is None:
            if connection.lost or (self.wsgi_input.complete and not connection.has_input()):
                connection.close()
            else:
                # if it were closed now, the kernel would reset it at the next bytes of the body, and the client, or its proxy,
                # might not receive the response
                detached = connection.detach()
                detached.linger()
        # the application may keep this object; the data of the request is released
        self.environ = self.result = self.websocket = self._request = self._head = None
        self._head_read = b""
        self._lane = None
        self.wsgi_input = NO_BODY
        del self._connection
        self.__dict__.pop("_parser", None)
        if detached is not None and detached.secure:
            # the server closes the TLS socket when this greenlet ends
            detached.wait_closed()

    # -- the environ

    def get_environ(self) -> WSGIEnvironment:
        """The environ of the request that has just been read. Subclasses may add to it."""
        request, connection = self._request, self._connection
        assert request is not None
        environ: WSGIEnvironment = self.server.get_environ()
        fill_environ(environ, request)
        name_client(environ, self.client_address)
        self.wsgi_input = open_body(connection, request.length, self.body_timeout, environ)
        environ["wsgi.input"] = self.wsgi_input
        environ["wsgi.input_terminated"] = True
        environ["wsgi.file_wrapper"] = FileWrapper
        environ["engineio.socket"] = connection.raw
        environ["engineio.handler"] = self
        return environ

    # -- the response

    def handle_one_response(self) -> None:
        """Call the application, send its response, and log the request."""
        self.time_start = time()
        self.time_finish = 0
        self.status = self._orig_status = None
        self.headers_sent = False
        self._head = None
        self.response_length = 0
        try:
            self.run_application()
        except Exception as error:
            self._on_failure(error)
        except BaseException:
            self.close_connection = True
            self.handle_error(*sys.exc_info())
        if not self.close_connection and not self._discard_body():
            self.close_connection = True
        if self._is_logging and self._detached is None:
            self.time_finish = time()
            self.log_request()

    def _on_failure(self, error: Exception) -> None:
        """Handle an exception of the application: a client that violates the protocol or has gone, or a bug."""
        address = self.client_address
        if self._detached is not None and isinstance(error, WebSocketError):
            log_violation(logger, address, "broke off", "< %s: a WebSocket broke off: %s", address, error)
        elif self._connection.lost or (isinstance(error, OSError) and error.errno in self.ignored_socket_errors):
            self.close_connection = True
        elif isinstance(error, InvalidRequest):
            self._refuse(error)
        elif isinstance(error, HandshakeRefused) and not self.headers_sent:
            self._answer(error.status, error.headers, error.detail)
        else:
            self.handle_error(*sys.exc_info())

    def _refuse(self, error: InvalidRequest) -> None:
        address = self.client_address
        log_violation(logger, address, error.status, "< %s: refused, %s: %s", address, error.status, error.detail)
        is_request = self.environ is not None
        if not is_request:
            self._reset_request()
        self._answer(error.status, error.headers, error.detail)
        if self._is_logging and not is_request:
            self.time_finish = time()
            self.log_request()

    def _reset_request(self) -> None:
        """Forget the last request, so that a head that cannot be parsed is answered and logged by itself."""
        self.requestline, self.command, self.request_version = "", "-", "HTTP/1.1"
        self.wsgi_input = NO_BODY
        self._request = None
        self.headers_sent = False
        self.response_length = 0
        self.time_start = time()
        self.environ = self.server.get_environ()
        self.environ.update(REQUEST_METHOD="-", RAW_URI="-", SERVER_PROTOCOL="-")

    def run_application(self) -> None:
        """Call the application, with a WebSocket in its environ if the request asks for one."""
        if "HTTP_UPGRADE" in self.environ and self._offers_websocket():
            self.upgrade_websocket()
            self.run_websocket()
        else:
            self._run_wsgi()

    def _run_wsgi(self) -> None:
        result = self.result = self.application(self.environ, self.start_response)
        try:
            if self._detached is None:
                self.process_result()
        finally:
            self.result = None
            if hasattr(result, "close"):
                result.close()

    # -- WebSockets

    def _offers_websocket(self) -> bool:
        if not asks_for_websocket(self.environ):
            return False
        hook = getattr(self.server, "pre_start_hook", None)
        return not (hook and hook(self))

    def upgrade_websocket(self) -> None:
        """Put a WebSocket into the environ. Its handshake is answered when the application uses it."""
        self.close_connection = True
        deflate = self.per_message_deflate
        choose = getattr(self.application, "app_protocol", None)
        protocol = choose and choose(self.environ["PATH_INFO"])
        self.websocket = WebSocket(
            self.environ, self._answer_handshake, handler=self, max_size=self.max_message_size,
            deflate=Deflate() if deflate is True else deflate or None, protocols=(protocol,) if protocol else ())
        self.environ["wsgi.websocket"] = self.websocket
        self.environ["wsgi.websocket_version"] = self.environ.get("HTTP_SEC_WEBSOCKET_VERSION")
        self._lent = lent = LentSocket(self._detach, self.write_timeout)
        for key in SOCKET_KEYS:
            self.environ[key] = lent

    def run_websocket(self) -> None:
        """Call the application with a WebSocket in its environ, and close that afterwards."""
        websocket = self.websocket
        assert websocket is not None
        if self.prevent_wsgi_call:
            websocket.accept()
            return
        clients = self.server.__dict__.setdefault("clients", {})
        clients[self.client_address] = Client(self.client_address, websocket)
        code = 1011
        try:
            self._run_wsgi()
            code = 1000
        except StopIteration:
            # gunicorn's convention: the application has used the socket itself
            if self._lent is None or not self._lent.taken:
                raise
        finally:
            clients.pop(self.client_address, None)
            self.environ["wsgi.websocket"] = self.websocket = None
            self._end_loan()
            websocket.finish(code)

    def _end_loan(self) -> None:
        """Close the socket that was lent to the application, which has returned."""
        self.lift_limit()
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.close()
        for key in SOCKET_KEYS:
            self.environ.pop(key, None)

    def _no_response(self) -> Exception:
        if self.websocket is not None and self.websocket.refusal is not None:
            return self.websocket.refusal
        return super()._no_response()

    def _answer_handshake(self, head: bytes, more: bool) -> Connection:
        """Detach the connection for a WebSocket, and answer its handshake with ``head``."""
        detached = self._detach()
        detached.write(head, more)
        return detached

    def _detach(self) -> Connection:
        if self.headers_sent:
            raise self.ApplicationError("the handshake has been answered with an ordinary response")
        if self.overdue:
            raise BrokenPipeError(errno.EPIPE, "the handshake was not answered in time, and the connection has been closed")
        if self._detached is not None:
            raise self.ApplicationError("the connection has been detached already")
        self.lift_limit()
        self._detached = detached = self._connection.detach()
        self.environ.pop("engineio.socket", None)
        return detached

    # -- a handshake that the application does not answer

    def limit_upgrade(self, timeout: float, on_overdue: Callable[[], object]) -> None:
        """Give the application some time to answer the WebSocket handshake that is the current request, or to take its WebSocket.

        After that, the handshake is answered with 503, and the connection is closed. The application is not interrupted, but what
        it does with the request has no effect any more. Does not block. Of several limits, the one that is over first counts.
        Does nothing if the request is no handshake, or if it is called in another thread than the handler's.

        Args:
            timeout: seconds.
            on_overdue: called in a greenlet when the time is over.
        """
        lent = self._lent
        if lent is not None and lent.is_here:
            limit = DeadlineTimer(gevent.get_hub().loop, timeout, gevent.spawn, self._answer_overdue, on_overdue)
            self._limits = (*self._limits, limit)

    def lift_limit(self) -> None:
        """Let the handshake take any time from now on."""
        limits, self._limits = self._limits, ()
        for limit in limits:
            limit.close()

    def _answer_overdue(self, on_overdue: Callable[[], object]) -> None:
        if not self._limits or self._head is not None:
            return
        head = ResponseHead(UNANSWERED, [("Content-Type", "text/plain; charset=UTF-8")])
        data = head.frame(len(UNANSWERED_BODY), self.request_version, True, False) + UNANSWERED_BODY
        detached = self._detach()
        self.overdue = True
        self.status = self._orig_status = UNANSWERED
        self.response_length = len(data)
        with suppress(OSError):  # the client has gone
            detached.write(data)
        detached.linger()
        on_overdue()
        self.time_finish = time()
        if self._is_logging:
            self.log_request()

    # -- detaching the connection

    def request_as_read(self, environ: WSGIEnvironment) -> bytes | None:
        """The bytes of the request that is being answered, and of what has been read behind it.

        Returns ``None`` when a part of its body has been read, or of its response sent.
        """
        body = self.wsgi_input
        if environ.get("wsgi.input") is not body or not body.untouched or self.headers_sent or self._detached is not None:
            return None
        return self._head_read + self._connection.buffer

    def detach(self, pending: bytes = b"") -> Connection:
        """Give the connection away without sending anything. Its new owner answers the current request.

        Args:
            pending: bytes that are read first from the result; nothing else that was read before is.
        """
        self.close_connection = True
        self.handed_off = True
        self._detached = connection = self._connection.detach(pending)
        self.environ.pop("engineio.socket", None)
        return connection
