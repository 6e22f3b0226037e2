"""The lane: polls and POSTs of sessions in this process, from the bytes of a request to the bytes of its answer.

A request goes over the lane if it equals one that has been accepted before on the same connection (`lane_requests`). It then
needs no environ and no call of the application. The first handshake, poll or POST of a connection goes over it as well, after its
head has been parsed, where nothing has to see its environ. Any other request is left where it is, for the handler, which alone
decides and refuses. So no rule exists twice.

While a GET waits, no greenlet does: the hub answers it, and serves what follows on the connection. When something follows that
may block, the handler gets a greenlet again. Where the greenlet has to stay (TLS, a pool that counts connections, an access log
that may block), it waits for the next request meanwhile.

Owns one connection's part of this: what was learnt, the GET that waits, and the writing of its answer. Knows neither sessions nor
options: for that it has a `LaneEngine`.
"""

from __future__ import annotations

import sys
from functools import lru_cache, partial
from time import time
from typing import TYPE_CHECKING

import gevent
from gevent.hub import Waiter

from engineio_wsgi.http.connection import RECV_SIZE, HttpConnection
from engineio_wsgi.http.lane_ports import LaneEngine, LaneHandler, LaneTransport
from engineio_wsgi.http.lane_requests import Accepted, FirstRequest, Known, accept, read_first
from engineio_wsgi.http.request_head import environ_of
from engineio_wsgi.http.response import Response, finish, payload, posted
from engineio_wsgi.http.response_head import ResponseHead, date_line

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

__all__ = ["HOOKS", "Lane", "keeps_lane"]

#: methods of a handler that a request over the lane does not call
HOOKS = frozenset((
    "_answer", "_parse", "_take_head", "format_request", "get_environ", "handle_one_request", "handle_one_response",
    "log_request", "process_result", "run_application", "start_response", "write",
))  # fmt: skip


def keeps_lane(kind: type, base: type, hooks: frozenset[str], mark: str = "lane") -> bool:
    """Whether a subclass leaves the lane open: no class between it and ``base`` overrides one of ``hooks``, unless the same class
    says by an attribute ``lane`` of its own what it wants.

    Args:
        mark: another attribute by which it says so.
    """
    return bool(getattr(kind, "lane", True) and getattr(kind, mark, True)) and _overrides_none(kind, base, hooks, mark)


@lru_cache(maxsize=64)
def _overrides_none(kind: type, base: type, hooks: frozenset[str], mark: str) -> bool:
    classes = kind.__mro__[:kind.__mro__.index(base)]
    return all(mark in vars(each) or hooks.isdisjoint(vars(each)) for each in classes)


def _top(response: Response) -> bytes:
    """The head of a response up to the value of its Content-Length, which comes last."""
    status, headers, _, _ = finish(response, {}, None)
    lines = [f"HTTP/1.1 {status}", *map(": ".join, headers)]
    return "\r\n".join(lines).encode("latin-1").rstrip(b"0123456789")


_TOPS = {kind: _top(payload(b"", kind)) for kind in ("text/plain; charset=UTF-8", "application/octet-stream")}
_POSTED_BODY = posted().body
_POSTED = _top(posted()) + b"%d\r\n" % len(_POSTED_BODY)
_CLOSE = b"Connection: close\r\n"


class Lane:
    """The lane on one connection.

    Args:
        handler: that serves the connection.
        connection: the connection.
        engine: where the sessions are.
        is_logged: whether the access log has a line for each request.
        keeps_greenlet: whether the handler's greenlet may not end before the connection.
        takes_first: whether handshakes, and requests like which none has been accepted before, may go over it as well.
    """

    __slots__ = ("_application", "_began", "_connection", "_engine", "_gets", "_handler", "_is_declined", "_is_due",
                 "_is_logged", "_is_new", "_is_useless", "_keeps_greenlet", "_line", "_posted_to", "_posts", "_sent",
                 "_takes_first", "_transport", "_unsent", "_waiter", "is_released")

    def __init__(self, handler: LaneHandler, connection: HttpConnection, engine: LaneEngine, is_logged: bool,
                 keeps_greenlet: bool, takes_first: bool) -> None:
        self._handler = handler
        self._connection = connection
        self._engine = engine
        self._is_logged = is_logged
        # a log may block
        self._keeps_greenlet = keeps_greenlet or is_logged
        self._takes_first = takes_first
        self._application: WSGIApplication = handler.server.application
        self._gets: Known | Accepted | None = None
        self._posts: Known | Accepted | None = None
        #: whether nothing could be learnt from a request that was accepted
        self._is_useless = False
        #: whether the hub has found that the next request is none for the lane
        self._is_declined = False
        #: whether no request has come over the lane yet
        self._is_new = True
        #: of the session whose GET waits here
        self._transport: LaneTransport | None = None
        #: whether no greenlet serves the connection
        self.is_released = False
        #: of a session whose inbox is full, so that a POST waits for its answer
        self._posted_to: LaneTransport | None = None
        #: whether the greenlet has to write that GET's answer
        self._is_due = False
        #: what the kernel has not taken of an answer, and how much it has
        self._unsent: memoryview | None = None
        self._sent = 0
        #: of the greenlet, while the next request has come and the GET waits
        self._waiter: Waiter[None] | None = None
        self._line = ""
        self._began = 0.0

    def leads_to(self, engine: LaneEngine) -> bool:
        """Whether it is the lane to ``engine``, and the server's application is the same as before."""
        return engine is self._engine and self._handler.server.application is self._application

    def note(self, head: bytes, environ: WSGIEnvironment, headers: list[tuple[str, str]]) -> bool:
        """Note a request that has been accepted, in the place of the one before it; returns whether it may be learnt from.

        Args:
            head: its bytes up to the empty line behind its header fields.
            environ: of the request.
            headers: the CORS headers of its response.
        """
        accepted = None if self._is_useless else accept(head, environ, headers)
        if head[:1] == b"G":
            self._gets = accepted
        else:
            self._posts = accepted
        return accepted is not None

    def _learn(self, accepted: Accepted, is_get: bool) -> Known | None:
        known = accepted.learn()
        if is_get:
            self._gets = known
        else:
            self._posts = known
        self._is_useless = known is None
        return known

    # -- requests

    def serve(self) -> bool:
        """Answer the request in the connection's buffer. In a greenlet that has to stay, it blocks as long as a poll waits.

        Returns:
            ``False`` if it is none for the lane; nothing has been touched then.
        """
        if self._is_declined:
            self._is_declined = False
            return False
        handler, data = self._handler, self._connection.buffer
        if handler.server.application is not self._application:
            return False
        is_get = data[:1] == b"G"
        known = self._gets if is_get else self._posts
        if isinstance(known, Accepted):
            known = self._learn(known, is_get)
        request = None if known is None else known.recognise(data, handler)
        if known is None or request is None:
            served = self._takes_first and self._serve_first(data)
        else:
            served = self._serve_known(request, is_get, known.binary)
        self._finish_sending()
        return served

    def _serve_known(self, request: tuple[str, int, int, int], is_get: bool, binary: bool) -> bool:
        """As :meth:`serve`, for a request that was recognised."""
        sid, revision, head_size, body_size = request
        transport = self._engine.find(sid, revision)
        if transport is None:
            return False
        return self._get(head_size, transport) if is_get else self._post(head_size, body_size, transport, binary)

    def _finish_sending(self) -> None:
        """In a greenlet: send what the kernel has not taken of an answer. Blocks."""
        if self._unsent is not None and not self.is_released:
            self._send_rest()

    def _serve_first(self, data: bytes) -> bool:
        """As :meth:`serve`, for a request like which none has been accepted before."""
        request = None if self._is_useless else read_first(data, self._handler)
        if request is None:
            return False
        headers = self._engine.admit(request.path, request.host, request.origin, self._handler.server.environ["wsgi.url_scheme"])
        transport = None if headers is None else self._find_or_open(request)
        if headers is None or transport is None:
            return False
        accepted = request.accepted(headers)
        # also after a handshake: what follows over the connection is the session's
        self._connection.prefer(True)
        if request.is_post:
            self._posts = accepted
            served = self._post(len(request.head), request.size, transport, accepted.is_binary)
        else:
            self._gets = accepted
            served = self._get(len(request.head), transport)
        return served

    def _find_or_open(self, request: FirstRequest) -> LaneTransport | None:
        """The transport of a request's session; of a new one, if it is a handshake."""
        if request.sid:
            return self._engine.find(request.sid, 4)
        if self._connection.serves_session:
            # its turn came before others', so that the handshake has to wait, which the hub cannot
            return None
        address = self._handler.client_address
        environ = partial(environ_of, request.head, address, self._handler.server.get_environ)
        return self._engine.open_session(str(address[0]) if isinstance(address, tuple) else None, environ)

    def _begin(self, used: int) -> None:
        connection = self._connection
        data = connection.buffer
        connection.keep(data[used:])
        self._is_new = False
        if self._is_logged:
            self._line = data[:data.find(b"\r\n")].decode("ascii")
            self._began = time()
        self._handler.on_lane_request()

    def _post(self, begin: int, size: int, transport: LaneTransport, binary: bool) -> bool:
        body = self._connection.buffer[begin:begin + size]
        packets = transport.decode(body, binary) if len(body) == size else None
        if packets is None:
            return False
        self._begin(begin + size)
        if transport.receive(packets, size):
            self._send(self._posted())
        elif self.is_released:
            self._posted_to = transport
        else:
            self._finish_post(transport)
        return True

    def _finish_post(self, transport: LaneTransport) -> None:
        transport.finish_post({"engineio.socket": self._connection.raw})
        self._send(self._posted())

    def _posted(self) -> bytes:
        known = self._posts
        assert known is not None
        return b"%b%b%b%b\r\n%b" % (_POSTED, known.encoded_headers, date_line(), self._closing(), _POSTED_BODY)

    def _get(self, size: int, transport: LaneTransport) -> bool:
        if transport.polled:
            return False
        self._begin(size)
        if transport.has_answer:
            self._send(self._framed(transport.answer()))
        else:
            self._wait(transport)
        return True

    # -- answers

    def _closing(self) -> bytes:
        if not self._handler.stopping:
            return b""
        self._handler.close_soon()
        return _CLOSE

    def _framed(self, response: Response) -> bytes:
        """The bytes of the answer to a GET."""
        known, compression, body = self._gets, self._engine.compression, response.body
        assert known is not None
        if compression is not None and response.compress and len(body) >= compression.threshold:
            status, headers, body, _ = finish(response, {"HTTP_ACCEPT_ENCODING": known.accept_encoding}, compression)
            closing = self._closing() != b""
            return ResponseHead(status, [*headers, *known.headers]).frame(len(body), "HTTP/1.1", closing, False) + body
        top = _TOPS[response.headers[0][1]]
        return b"%b%d\r\n%b%b%b\r\n%b" % (top, len(body), known.encoded_headers, date_line(), self._closing(), body)

    def _send(self, data: bytes) -> None:
        """Send an answer. In the hub, what the kernel does not take at once is left for a greenlet."""
        try:
            sent = self._connection.send_now(data)
        except OSError:
            self._handler.close_soon()
            sent = 0
        else:
            if sent != len(data):
                self._unsent, self._sent = memoryview(data)[sent:], sent
                return
        self._finish(sent)

    def _finish(self, size: int) -> None:
        """An answer of ``size`` bytes has been sent."""
        if self._is_logged:
            self._handler.log_lane(self._line, self._began, size)
        self._handler.on_lane_response()

    # -- a GET that waits

    def _wait(self, transport: LaneTransport) -> None:
        self._transport = transport
        transport.park(self)
        self._connection.hold()
        if self.is_released or self._may_release:
            return
        try:
            self._wait_in_greenlet()
        finally:
            self._waiter = None
            if self._transport is not None:
                self._transport = None
                transport.unpark()

    def _wait_in_greenlet(self) -> None:
        """Wait until the GET is answered, and for the next request, or the end of the connection.

        The answer is written in the hub, if the kernel takes it at once. So this greenlet is switched to once for both.
        """
        handler, connection = self._handler, self._connection
        while not connection.buffer and not handler.close_connection:
            expired = connection.wait()
            self.settle()
            self._read(expired)
        # the next request, or the end of the connection, has come first
        while self._transport is not None:
            self._waiter = Waiter()
            self._waiter.get()
            self.settle()

    def resume(self) -> None:
        """In the hub: the GET that waits has an answer."""
        try:
            self._resume()
        except Exception:
            self._fail()

    def _resume(self) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._is_logged:
            # a log may block
            self._is_due = True
            self._wake()
            return
        self._transport = None
        self._send(self._framed(transport.answer()))
        if self.is_released:
            self._go_on()
        elif self._unsent is not None or self._waiter is not None or self._handler.close_connection:
            self._wake()
        else:
            self._connection.expect(self._handler.keepalive_timeout)

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.switch(None)
        else:
            self._connection.wake()

    def settle(self) -> None:
        """In the greenlet: send what the hub has left for it. Blocks."""
        transport, posted_to = self._transport, self._posted_to
        if self._is_due and transport is not None:
            self._is_due = False
            self._transport = None
            self._send(self._framed(transport.answer()))
        elif posted_to is not None:
            self._posted_to = None
            self._finish_post(posted_to)
        elif self._unsent is None:
            return
        self._send_rest()
        self._connection.expect(self._handler.keepalive_timeout)

    def _send_rest(self) -> None:
        data, self._unsent = self._unsent, None
        if data is None:
            return
        size = len(data) + self._sent
        try:
            self._connection.send_rest(data, self._handler.write_timeout)
        except OSError:
            self._handler.close_soon()
            self._finish(0)
        else:
            self._finish(size)

    def _read(self, expired: bool) -> None:
        """Read what has come, if anything has."""
        handler = self._handler
        if handler.close_connection:
            return
        try:
            data = self._connection.recv(RECV_SIZE)
        except BlockingIOError:
            if expired and self._transport is None:
                handler.close_soon()
            return
        except OSError:
            data = b""
        self._connection.keep(data)
        if not data:
            self._connection.note_end()
            handler.close_soon()
            if self._transport is not None:
                self._transport.give_up()

    # -- without a greenlet

    @property
    def _may_release(self) -> bool:
        """Whether nothing is left for the greenlet, and it may end."""
        return not (self._keeps_greenlet or self._connection.buffer or self._handler.close_connection)

    def let_go(self) -> bool:
        """Release the greenlet after a request, if it may end; returns whether it has to, after a call of :meth:`take_over`."""
        self.is_released = self._may_release
        return self.is_released

    def begin(self) -> None:
        """Serve a new connection in the hub. Does not block. Its first request has usually arrived with it."""
        self.is_released = True
        self._connection.begin_without_greenlet(self._on_ready)

    def take_over(self) -> None:
        """Serve the connection in the hub from now on. Does not block."""
        self._connection.release(self._on_ready)
        if self._transport is None:
            self._connection.expect(self._handler.keepalive_timeout)

    def _on_ready(self, expired: bool) -> None:
        """In the hub: something has come on a connection that no greenlet serves, or its time is over."""
        try:
            self._read(expired)
            self._go_on()
        except Exception:
            self._fail()

    def _fail(self) -> None:
        """An exception that nothing expects, in the hub: report it, and end the connection."""
        gevent.get_hub().handle_error(self, *sys.exc_info())
        self._handler.close_soon()
        if self.is_released:
            self._handler.end_released()
        else:
            self._wake()

    def _go_on(self) -> None:
        """In the hub: serve what has come, and wait for more. Does not block."""
        handler, connection = self._handler, self._connection
        needs_greenlet = self._serve_all()
        if self._transport is not None:
            self._watch_waiting()
        elif needs_greenlet:
            self.is_released = False
            handler.serve_in_greenlet()
        elif handler.close_connection:
            handler.end_released()
        else:
            connection.watch()
            connection.expect(handler.header_timeout if self._is_new else handler.keepalive_timeout)

    def _serve_all(self) -> bool:
        """In the hub: serve the requests that have come, until a GET waits. Returns whether something is left for a greenlet."""
        handler, connection = self._handler, self._connection
        while connection.buffer and not handler.close_connection and self._transport is None:
            if not self.serve():
                self._is_declined = True
                return True
            if self._unsent is not None or self._posted_to is not None:
                break
        # an answer is to be sent, or has to wait until a session's inbox has room
        return self._unsent is not None or self._posted_to is not None

    def _watch_waiting(self) -> None:
        """While a GET waits, the end of the connection is watched for, until the next request or that end has come."""
        if self._connection.buffer or self._handler.close_connection:
            self._connection.unwatch()
        else:
            self._connection.watch()
