"""`EngineAdapter`: the interface of python-engineio's `Server` over this engine, as far as python-socketio uses it.

Owns the translation of calls, events and close reasons. Knows nothing of Socket.IO's packets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from functools import partial
from threading import Thread
from typing import NamedTuple
from wsgiref.types import StartResponse, WSGIEnvironment

import engineio
import gevent
import gevent.event
import gevent.queue

from engineio_wsgi.contrib.socketio.options import translate
from engineio_wsgi.contrib.socketio.session import SocketIOEngine, SocketIOSession
from engineio_wsgi.contrib.socketio.untyped import Foreign, Handler, Value
from engineio_wsgi.errors import BundleTooLarge, MalformedPacket, SocketClosed, WriteTimeout
from engineio_wsgi.http.hub_thread import in_plain_thread
from engineio_wsgi.log import log_violation
from engineio_wsgi.session.delivery import OnSlow
from engineio_wsgi.session.outgoing import Bundle, Data
from engineio_wsgi.transports.base import GOODBYE, CloseReason

__all__ = ["MAX_HTTP_BUFFER_SIZE", "EngineAdapter", "Hooks"]

logger = logging.getLogger("engine.socketio")

#: the default of the option, as the engine's own
MAX_HTTP_BUFFER_SIZE = 1_000_000
#: seconds for which `send` waits for a client whose write buffer is full; then the session is closed
SEND_TIMEOUT = 10.0
#: the oldest revision whose clients ask to be connected to the default namespace
OLDEST_ASKING = 4
CLIENT_DISCONNECT: str = engineio.Server.reason.CLIENT_DISCONNECT
TRANSPORT_ERROR: str = engineio.Server.reason.TRANSPORT_ERROR
#: our close reasons in python-engineio's words; all others are ``transport error``
REASONS: dict[str, str] = {
    CloseReason.FORCED_CLOSE: engineio.Server.reason.SERVER_DISCONNECT,
    CloseReason.SERVER_SHUTTING_DOWN: engineio.Server.reason.SERVER_DISCONNECT,
    CloseReason.PING_TIMEOUT: engineio.Server.reason.PING_TIMEOUT,
    CloseReason.TRANSPORT_CLOSE: engineio.Server.reason.TRANSPORT_CLOSE,
}


class Hooks(NamedTuple):
    """What a server wants to be told of, beside python-engineio's events.

    Attributes:
        on_start: called when the process begins to serve.
        on_old_client: called with the id of a session of the revisions 1 to 3, whose clients expect to be connected.
        on_malformed: called when a client has sent what the protocol does not have.
        take_event: called with each message, its session and the session's id, before the ``message`` handler. Returns whether
            that is all that is to be done with the message.
    """

    on_start: Callable[[], object] = lambda: None
    on_old_client: Callable[[str], object] = lambda sid: None
    on_malformed: Callable[[], object] = lambda: None
    take_event: Callable[[SocketIOSession, str, str | bytes], bool] = lambda socket, sid, data: False


class EngineAdapter:
    """What python-socketio takes for an ``engineio.Server``.

    Args:
        given: options in python-engineio's spelling, and this engine's own.

    Raises:
        ValueError: an option has an impossible value.
    """

    reason = engineio.Server.reason
    event_names = engineio.Server.event_names
    #: every engine of this package runs on gevent, in whatever server
    async_mode = "gevent"

    def __init__(self, **given: Value) -> None:
        translated = translate(given)
        self._keep(given)
        self.logger = given["logger"] if isinstance(given.get("logger"), logging.Logger) else logging.getLogger("engine")
        self.handlers: dict[str, Handler] = {}
        #: the sessions by id; each until its ``disconnect`` handlers have returned
        self.sockets: dict[str, SocketIOSession] = {}
        #: the packet that was sent last, and what it was framed as: others may get the same
        self._last: tuple[Foreign, Bundle] | None = None
        self._hooks = Hooks()
        self._take_event = self._hooks.take_event
        self.engine = SocketIOEngine(translated, lambda: self.generate_id(), lambda: self._hooks.on_start())
        self.engine.on("connection", self._on_connection)

    def _keep(self, given: dict[str, Value]) -> None:
        """Keep the options that are read back, in python-engineio's spelling."""
        interval = given.get("ping_interval", 25)
        self.ping_interval, self.ping_interval_grace_period = interval if isinstance(interval, (tuple, list)) else (interval, 0)
        self.ping_timeout = given.get("ping_timeout", 20)
        self.max_http_buffer_size = given.get("max_http_buffer_size", MAX_HTTP_BUFFER_SIZE)
        self.allow_upgrades = given.get("allow_upgrades", True)
        self.http_compression = given.get("http_compression", True)
        self.compression_threshold = given.get("compression_threshold", 1024)
        self.cookie = given.get("cookie")
        self.cors_allowed_origins = given.get("cors_allowed_origins")
        self.cors_credentials = given.get("cors_credentials", True)
        self.async_handlers = given.get("async_handlers", True)
        transports = given.get("transports") or ["polling", "websocket"]
        self.transports = [transports] if isinstance(transports, str) else list(transports)

    def hook(self, hooks: Hooks) -> None:
        """Have the server called from now on; ``take_event`` only until the ``message`` handler is replaced."""
        self._hooks = hooks
        self._take_event = hooks.take_event

    def is_asyncio_based(self) -> bool:
        """Always false."""
        return False

    # -- events

    def on(self, event: str, handler: Handler | None = None) -> Handler:
        """Set the handler of ``connect``, ``message`` or ``disconnect``; the one before is replaced. Also a decorator.

        Raises:
            ValueError: there is no such event.
        """
        if event not in self.event_names:
            raise ValueError(f"event: expected one of {', '.join(self.event_names)}; got {event!r}")
        if handler is None:
            return partial(self.on, event)
        if event == "message":
            self._take_event = Hooks().take_event
        self.handlers[event] = handler
        return handler

    def _on_connection(self, socket: SocketIOSession) -> None:
        self.sockets[socket.id] = socket
        socket.on("close", partial(self._on_close, socket))
        if "connect" in self.handlers:
            self.handlers["connect"](socket.id, socket.environ)
        if socket.protocol < OLDEST_ASKING:
            self._hooks.on_old_client(socket.id)
        socket.on("message", partial(self._on_message, socket, socket.id))

    def _on_message(self, socket: SocketIOSession, sid: str, data: str | bytes) -> None:
        try:
            if not self._take_event(socket, sid, data):
                self.handlers["message"](sid, data)
        except MalformedPacket as error:
            self._refuse(socket, error)

    def _refuse(self, socket: SocketIOSession, error: Exception) -> None:
        """End the session of a client that has sent what the protocol does not have."""
        self._hooks.on_malformed()
        log_violation(logger, socket.remote_address, type(error), "< %s", error)
        socket.close(discard=True, reason=CloseReason.PARSE_ERROR)

    def _on_close(self, socket: SocketIOSession, reason: str, description: object) -> None:
        try:
            if "disconnect" in self.handlers:
                self.handlers["disconnect"](socket.id, self._reason(reason, description))
        finally:
            self.sockets.pop(socket.id, None)

    def _reason(self, reason: str, description: object) -> str:
        if description == GOODBYE and getattr(description, "code", None) is None:
            # a close packet; a WebSocket that is closed with a code is the browser's, when the page ends
            return CLIENT_DISCONNECT
        return REASONS.get(reason, TRANSPORT_ERROR)

    # -- sending

    def send(self, sid: str, data: Data | Bundle, volatile: bool = False) -> None:
        """Send a message or a bundle; nothing if the session is gone. Blocks as :meth:`send_to`."""
        socket = self.sockets.get(sid)
        if socket is not None:
            self.send_to(socket, data, volatile)

    def send_to(self, socket: SocketIOSession, data: Data | Bundle, volatile: bool = False) -> None:
        """Send a message or a bundle; nothing if the session has ended. Blocks while the client's write buffer is full.

        A client that makes no room within ``SEND_TIMEOUT`` seconds is disconnected: ``client too slow``. What is ``volatile`` is
        dropped if the write buffer is full.
        """
        try:
            socket.send(data, timeout=SEND_TIMEOUT, volatile=volatile)
        except SocketClosed:
            pass
        except WriteTimeout:
            socket.close(discard=True, reason=CloseReason.CLIENT_TOO_SLOW)
        except BundleTooLarge:
            self._send_large(socket, data)

    def _send_large(self, socket: SocketIOSession, bundle: Data | Bundle) -> None:
        """Send a bundle that does not fit into a write buffer, once the buffer is empty."""
        with suppress(SocketClosed):
            if isinstance(bundle, Bundle) and socket.flush(SEND_TIMEOUT):
                self.broadcast([socket], bundle)
            else:
                socket.close(discard=True, reason=CloseReason.CLIENT_TOO_SLOW)

    def send_packet(self, sid: str, pkt: Foreign) -> None:
        """Send one of python-engineio's packets; nothing if the session is gone. The packet is framed once for all who get it."""
        socket = self.sockets.get(sid)
        if socket is None:
            return
        if self._last is None or self._last[0] is not pkt:
            self._last = pkt, Bundle(pkt.data)
        self.broadcast([socket], self._last[1])

    def broadcast(self, sockets: Iterable[SocketIOSession], bundle: Bundle, volatile: bool = False) -> None:
        """Send a bundle to several sessions; never blocks. A session whose buffer is full is closed, or left out if volatile."""
        self.engine.deliver_to(sockets, bundle, OnSlow.DROP if volatile else OnSlow.CLOSE)

    # -- sessions

    def _get_socket(self, sid: str) -> SocketIOSession:
        """A session.

        Raises:
            KeyError: it is gone.
        """
        return self.sockets[sid]

    def get_session(self, sid: str) -> dict[Value, Value]:
        """The application's own dict of a session. Raises ``KeyError`` if the session is gone."""
        return self._get_socket(sid).data

    def save_session(self, sid: str, session: dict[Value, Value]) -> None:
        """Replace the dict. Raises ``KeyError`` if the session is gone."""
        self._get_socket(sid).replace_data(session)

    def session(self, sid: str) -> AbstractContextManager[dict[Value, Value]]:
        """A context with the dict, which is saved when the context ends."""
        made: AbstractContextManager[dict[Value, Value]] = engineio.Server.session(self, sid)
        return made

    def transport(self, sid: str) -> str:
        """The name of a session's transport. Raises ``KeyError`` if the session is gone."""
        return self._get_socket(sid).transport.name

    def generate_id(self) -> str:
        """A new id, for a session or for a client in a namespace; the first characters name this worker. May be replaced."""
        return self.engine.make_id()

    def disconnect(self, sid: str | None = None) -> None:
        """Close a session, or all of them, once the clients have fetched what waits. Does not block."""
        for socket in list(self.sockets.values()) if sid is None else [self.sockets.get(sid)]:
            if socket is not None:
                socket.close()

    # -- requests

    def handle_request(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request: a WSGI application."""
        return self.engine.handle_request(environ, start_response)

    def shutdown(self) -> None:
        """Close all sessions, and open no more."""
        self.engine.close()

    def _ok(self, packets: object = None, headers: list[tuple[str, str]] | None = None,
            jsonp_index: int | None = None) -> dict[str, Value]:
        """The response that python-socketio's admin UI gives to requests of its own."""
        return {"status": "200 OK", "headers": headers or [], "response": b"OK"}

    # -- concurrency

    def start_background_task(self, target: Callable[..., object], *args: Value, **kwargs: Value) -> Foreign:
        """Run ``target`` in a greenlet, or in a thread if a plain thread asks for it. What is returned has ``join()``."""
        if in_plain_thread():
            task = Thread(target=target, args=args, kwargs=kwargs, daemon=True)
            task.start()
            return task
        return gevent.spawn(target, *args, **kwargs)

    def sleep(self, seconds: float = 0) -> None:
        """Block this greenlet."""
        gevent.sleep(seconds)

    def create_queue(self, *args: Value, **kwargs: Value) -> Foreign:
        """A queue whose methods block greenlets."""
        return gevent.queue.JoinableQueue(*args, **kwargs)

    def get_queue_empty_exception(self) -> type[Exception]:
        """What such a queue raises when it is empty."""
        empty: type[Exception] = gevent.queue.Empty
        return empty

    def create_event(self, *args: Value, **kwargs: Value) -> Foreign:
        """An event whose `wait` blocks greenlets."""
        return gevent.event.Event(*args, **kwargs)
