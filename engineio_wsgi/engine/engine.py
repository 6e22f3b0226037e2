"""The engine: admits requests, finds or makes their session, and answers. The ways in are `server.Server`'s.

Owns the way of a request through the middlewares, to its session or to another worker. A WSGI application inside and out:
what the application's middlewares see is what a client gets, upgrades included.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from threading import Lock
from typing import Any, ClassVar, Protocol
from weakref import WeakValueDictionary

from geventwebsocket.exceptions import WebSocketError
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Request

from engineio_wsgi.clock import monotonic
from engineio_wsgi.engine.admission import Demand, Errand, ask_application, examine
from engineio_wsgi.engine.advice import Advice
from engineio_wsgi.engine.registry import SessionHost, hosts, send_or_not
from engineio_wsgi.errors import ErrorCode, PayloadTooLarge, RequestRefused, ServerClosing
from engineio_wsgi.handoff.accepted_websocket import (
    DetachedWebSocket,
    check_handshake,
    close_accepted,
    detach_websocket,
    offered_subprotocols,
)
from engineio_wsgi.handoff.client_socket import client_socket
from engineio_wsgi.handoff.upgrades import can_upgrade, upgrade_of
from engineio_wsgi.http.hub_thread import call_in_hub, in_plain_thread, start_hub
from engineio_wsgi.http.policies.cookies import session_cookie
from engineio_wsgi.http.policies.cors import OriginPolicy
from engineio_wsgi.http.policies.hosts import HostPolicy
from engineio_wsgi.http.response import Response, finish, refused
from engineio_wsgi.http.subprotocols import SUBPROTOCOL, choose_subprotocol, take_subprotocol
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.log import shorten, tell_of_client
from engineio_wsgi.options.options import Options
from engineio_wsgi.protocol.websocket.deflate import Deflater, Inflater
from engineio_wsgi.protocol.websocket.frames import FrameDecoder
from engineio_wsgi.runtime.forks import serve
from engineio_wsgi.runtime.threads import current_thread
from engineio_wsgi.session.session import Session
from engineio_wsgi.session.socket import Socket, as_message
from engineio_wsgi.throttle import Throttle
from engineio_wsgi.transports import transports
from engineio_wsgi.transports.jsonp import JSONPTransport
from engineio_wsgi.transports.polling import PollingTransport
from engineio_wsgi.transports.websocket import WebSocketTransport

__all__ = ["Engine", "Front", "join_clusters"]

logger = logging.getLogger("engine")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

#: seconds for which the same refusal of the same address is not logged again
REFUSAL_PERIOD = 60.0
#: random bytes of a session id: 120 bits
SESSION_ID_BYTES = 15
#: where an admitted upgrade waits until the middlewares have had their say
ADMITTED = "engineio.admitted"
#: in the environ of a request: why its session's worker did not take it
UNREACHED = "engineio.unreached"
SWITCHING = "101 Switching Protocols"


class Reach(Protocol):
    """A way to the sessions of other workers."""

    def broadcast(self, data: str | bytes, exclude: Iterable[str] = (), compress: bool = True) -> object:
        """Send one message to every session of the other workers."""
        ...

    def send(self, sid: str, data: str | bytes, compress: bool = True) -> bool:
        """Send one message to a session. Returns whether its worker has queued it."""
        ...

    def disconnect(self, sid: str) -> bool:
        """Close a session. Returns whether there is one."""
        ...


class Router(Reach, Protocol):
    """What an engine needs of the layer that knows other workers."""

    worker_id: str

    def route(self, environ: Environ, start_response: StartResponse | None, handler: Any) -> Iterable[bytes] | None:
        """Answer a request for another worker's session; ``None`` if it is to be answered here. May block."""
        ...

    def forsake(self) -> None:
        """Leave the parent's place among the workers alone, in a forked child."""
        ...

    def close(self, timeout: float) -> None:
        """Leave the cluster. Blocks for ``timeout`` seconds at most."""
        ...


class Front(Protocol):
    """An engine with the application that it is wrapped around."""

    application: Application
    server: Engine


#: those of this process, by their identity: an application need not be hashable
_fronts: WeakValueDictionary[int, Front] = WeakValueDictionary()


class Engine(SessionHost):
    """See the module. Applications use :class:`Server`."""

    #: what stands for the option ``cluster`` where it was not given: a server with several workers sets it
    default_cluster: ClassVar[str | None] = None
    #: what the application sees of a session: a framework's server sets a subclass of its own
    _socket_class: ClassVar[type[Socket]] = Socket

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._middlewares: list[Callable[[Application], Application]] = []
        self._application: Application = self._serve
        self._refusals = Throttle(REFUSAL_PERIOD)
        self._advice = Advice()
        self._entering = Lock()
        self._cluster: Router | None = None
        #: ``SERVER_PORT`` of the last request
        self.port: str | None = ""
        #: the first application that it was wrapped around, and whether there is no other
        self._wrapped: Application | None = None
        self.has_one_application = True

    def _configure(self, options: Options) -> None:
        super()._configure(options)
        self._origins = OriginPolicy(options.cors)
        self._hosts = HostPolicy(options.allowed_hosts)

    def _become_worker(self) -> str:
        group = self.options.cluster or self.default_cluster
        if group is None:
            return super()._become_worker()
        self._cluster = self._join(group)
        return self._cluster.worker_id

    def start_anew(self, served: bool) -> None:
        """See :class:`SessionHost`. What the parent is among the workers, it stays."""
        super().start_anew(served)
        if self._cluster is not None:
            self._cluster.forsake()
            self._cluster = None
        self._entering = Lock()
        self.port = ""

    def _join(self, group: str) -> Router:
        """Make this process one of the workers of ``group``. `Server` knows the layer that does so.

        Raises:
            ConfigurationError: see :meth:`join_cluster`.
        """
        raise NotImplementedError

    def _outside(self, group: str) -> Reach:
        """The way to the workers of ``group`` for a process that is none of them."""
        raise NotImplementedError

    def _reach(self) -> Reach | None:
        """The way to the other workers; ``None`` without the option ``cluster``. This process may become a worker by this."""
        group = self.options.cluster or self.default_cluster
        if self._hub is None and group is not None and (self.forked or in_plain_thread()):
            return self._outside(group)
        self.join_cluster()
        return self._cluster

    def join_cluster(self) -> None:
        """Be one of the workers from now on, and not only from the first request; nothing without the option.

        Blocks while Redis is looked for. Not before any fork.

        Raises:
            ConfigurationError: Redis cannot be reached, or this platform has not what workers find each other by.
        """
        if self._hub is None and (self.options.cluster or self.default_cluster) is not None:
            self._enter_hub()

    def _enter(self, environ: Environ) -> None:
        """The first request: find the hub, or make one that runs, if the server has only threads."""
        if not in_plain_thread() or can_upgrade(environ):
            self._enter_hub()
            return
        with self._entering:
            if self._hub is None:
                start_hub(self._enter_hub)

    # -- the applications that it is wrapped around

    def on_wrapped(self, front: Front) -> None:
        """The engine has been wrapped around an application."""
        if self._wrapped is None:
            self._wrapped = front.application
        elif self._wrapped is not front.application:
            self.has_one_application = False
        _fronts[id(front)] = front

    def is_outermost(self, application: Any) -> bool:
        """Whether a request to ``application`` meets nothing before this engine, other engines left aside."""
        while (front := _fronts.get(id(application))) is not None:
            if front.server is self:
                return True
            application = front.application
        return False

    # -- requests

    def use(self, middleware: Callable[[Application], Application]) -> Callable[[Application], Application]:
        """Wrap the engine's own requests, upgrades included, in a WSGI middleware.

        Args:
            middleware: ``f(app) -> app``. The first one used sees a request first.

        Returns:
            ``middleware``, so that this is a decorator, too.
        """
        self._middlewares.append(middleware)
        application: Application = self._serve
        for wrap in reversed(self._middlewares):
            application = wrap(application)
        self._application = application
        return middleware

    def handle_request(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request of the engine's: a WSGI application. Blocks as long as a poll has to wait."""
        if environ.get("SERVER_PORT") != self.port:
            self.note_listener(environ)
        if self._hub is None:
            self._enter(environ)
        handler = environ.pop("engineio.handler", None)
        websocket = environ.get("wsgi.websocket")
        if websocket is None and current_thread() != self._thread:
            limit = self.options.max_http_buffer_size
            response = call_in_hub(self._hub.loop, self.answer, environ, limit)
            start_response(response.status, response.headers)
            return [response.body]
        if self._cluster is not None and (routed := self._cluster.route(environ, start_response, handler)) is not None:
            return routed
        if websocket is not None:
            return self._upgrade(environ, start_response)
        if "HTTP_UPGRADE" in environ and (upgrade := upgrade_of(environ)) is not None:
            upgrade.serve(self._upgrade, start_response)
        return self._application(environ, start_response)

    def note_listener(self, environ: Environ) -> None:
        """This process serves the listener that a request came by: processes that are forked from it must not."""
        self.port = environ.get("SERVER_PORT")
        sock = client_socket(environ)
        if sock is not None:
            serve(sock)

    def answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """The same for a request whose connection is not here, in a greenlet of the engine's hub."""
        if self._cluster is not None and (routed := self._cluster.route(environ, start_response, None)) is not None:
            return routed
        return self._application(environ, start_response)

    def handle_upgrade(self, environ: Environ, websocket: Any) -> None:
        """Serve an accepted WebSocket: one of this package's or gevent-websocket's, or anything of their shape.

        Blocks until the WebSocket is closed, unless its connection can be taken over.
        """
        self.note_listener(environ)
        if self._hub is None:
            self._enter_hub()
        environ["wsgi.websocket"] = websocket
        handler = environ.pop("engineio.handler", None)
        if self._cluster is None or self._cluster.route(environ, None, handler) is None:
            self._upgrade(environ, None)

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """The innermost application, inside all middlewares."""
        try:
            response = self._respond(environ)
        except RequestRefused as refusal:
            self.observer.on_refused(int(refusal.code))
            self._tell_refusal(refusal, environ)
            response = refused(refusal)
        except PayloadTooLarge as error:
            self.observer.on_refused(int(ErrorCode.BAD_REQUEST))
            tell_of_client(logger, environ.get("REMOTE_ADDR"), type(error), "< %s", error)
            response = refused(error)
        response.headers.extend(self._origins.headers(environ))
        start_response(response.status, self._announce_headers(response.headers, environ))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _respond(self, environ: Environ) -> Response:
        self._hosts.check(environ)
        if environ["REQUEST_METHOD"] == "OPTIONS":
            return self._origins.preflight(environ)
        self._origins.check(environ)
        websocket = environ.get("wsgi.websocket")
        demand = examine(environ, self.options, self._clients, websocket is not None)
        if demand.errand is Errand.POLL:
            return self._finish(self._polling(demand).poll(environ), environ)
        if demand.errand is Errand.POST:
            return self._finish(self._polling(demand).post(environ), environ)
        if websocket is not None:
            return self._admit_upgrade(environ, demand, websocket)
        return self._open_polling(environ, demand)

    @staticmethod
    def _polling(demand: Demand) -> PollingTransport:
        transport = demand.session.transport if demand.session is not None else None
        assert isinstance(transport, PollingTransport)
        return transport

    def _finish(self, response: Response, environ: Environ) -> Response:
        return finish(response, environ, self.options.http_compression)

    def _announce_headers(self, headers: list[tuple[str, str]], environ: Environ) -> list[tuple[str, str]]:
        """Let the listeners of ``initial_headers`` and ``headers`` see and change a response's headers."""
        initial = "engineio.initial" in environ and "initial_headers" in self._listeners
        if not initial and "headers" not in self._listeners:
            return headers
        editable = Headers(headers)
        request = self.request_of(environ)
        if initial:
            self.emit("initial_headers", editable, request)
        self.emit("headers", editable, request)
        return editable.to_wsgi_list()

    def _tell_refusal(self, refusal: RequestRefused, environ: Environ) -> None:
        address = environ.get("REMOTE_ADDR")
        if refusal.code is ErrorCode.SESSION_UNKNOWN:
            refusal.context.update(environ.pop(UNREACHED, {}))
        if self._refusals.passes((address, refusal.code, refusal.context.get("name")), monotonic()):
            logger.info("< %s: refused: %d %s %s", address, refusal.code, refusal.message, _loggable(refusal.context))
        if refusal.code is ErrorCode.SESSION_UNKNOWN and self.options.generate_id is None and self._cluster is None:
            self._advice.foreign_session(environ, refusal.context["sid"], self.worker_id)
        elif "missing" in refusal.context:
            self._can_upgrade(environ)
        if "connection_error" not in self._listeners:
            return
        refusal.request = self.request_of(environ)
        self._announce("connection_error", refusal)

    def request_of(self, environ: Environ) -> Any:
        """A request as the application gets to see it. A framework's subclass answers the framework's."""
        return Request(environ)

    # -- handshakes

    def _admit(self, environ: Environ) -> str:
        """Ask the application, and make up an id."""
        if self._closing:
            raise ServerClosing()
        address = environ.get("REMOTE_ADDR")
        self._quota.count_handshake(address, monotonic())
        self._quota.check(address)
        self._ask_application(environ)
        try:
            sid = self.generate_id(self.request_of(environ))
        except RequestRefused:
            raise
        except Exception as error:
            raise _bad_id(error) from error
        if not isinstance(sid, str) or not sid or sid in self._clients:
            raise _bad_id(ValueError(f"generate_id must return a new, non-empty str; it returned {type(sid).__name__}"))
        environ["engineio.initial"] = True
        if self._cluster is not None and not sid.startswith(self.worker_id):
            sid = self.worker_id + sid
        return sid

    def _ask_application(self, environ: Environ) -> None:
        if self.options.allow_request is not None:
            ask_application(self.options.allow_request, self.request_of(environ))

    def generate_id(self, request: Request) -> str:
        """A session id: URL-safe, this worker's mark and 120 random bits. Override it, or set the option.

        May block, and may raise: the client then gets code 3.
        """
        if self.options.generate_id is not None:
            return self.options.generate_id(request)
        return self.worker_id + secrets.token_urlsafe(SESSION_ID_BYTES)

    def _open_polling(self, environ: Environ, demand: Demand) -> Response:
        session = self._new_session(self._admit(environ), demand, environ)
        limit = self.options.max_http_buffer_size
        meter = self.observer.meter("polling")
        transport: PollingTransport
        if "j" in demand.query:
            transport = JSONPTransport(demand.protocol, limit, meter)
        else:
            transport = PollingTransport(demand.protocol, limit, "b64" not in demand.query, meter)
        self._open(session, transport, self._can_upgrade(environ))
        response = self._finish(transport.poll(environ), environ)
        response.headers.extend(self._cookies(session.id))
        return response

    def _cookies(self, sid: str) -> list[tuple[str, str]]:
        cookie = self.options.cookie
        return [] if cookie is None else [("Set-Cookie", session_cookie(cookie, sid))]

    def _new_session(self, sid: str, demand: Demand, environ: Environ) -> Session:
        session = Session(self, sid, demand.protocol, environ.get("REMOTE_ADDR"))
        session.present_as(self._socket_class(session, environ))
        return session

    def _can_upgrade(self, environ: Environ) -> bool:
        """Whether a session that polls may be offered a WebSocket: its connection has to be one that can be had."""
        possible = can_upgrade(environ)
        if not possible and "websocket" in self.options.transports:
            self._advice.polling_only(environ)
        return possible

    # -- upgrades: admitted inside the middlewares, carried out outside of them

    def _upgrade(self, environ: Environ, start_response: StartResponse | None) -> Iterable[bytes]:
        websocket = environ["wsgi.websocket"]
        answered = call(self._application, environ)
        admitted = environ.pop(ADMITTED, None)
        if admitted is None or answered.status != SWITCHING:
            return _refuse_upgrade(websocket, start_response, answered)
        self._carry_out(websocket, answered.headers, environ, *admitted)
        return []

    def _admit_upgrade(self, environ: Environ, demand: Demand, websocket: Any) -> Response:
        check_handshake(websocket)
        headers: list[tuple[str, str]] = []
        sid = ""
        if demand.session is None:
            sid = self._admit(environ)
            headers = self._cookies(sid)
        # where the handshake has been answered already, nothing is offered any more
        subprotocol = choose_subprotocol(self.options.subprotocols, offered_subprotocols(websocket),
                                         lambda: self.request_of(environ))
        if subprotocol is not None:
            headers.append((SUBPROTOCOL, subprotocol))
        environ[ADMITTED] = (demand, sid)
        return Response(SWITCHING, headers, b"")

    def _carry_out(self, websocket: Any, headers: list[tuple[str, str]], environ: Environ, demand: Demand,
                   sid: str) -> None:
        """Take the connection over and give it to its session."""
        options = self.options
        headers, subprotocol = take_subprotocol(headers, offered_subprotocols(websocket))
        try:
            connection = detach_websocket(websocket, headers, options.per_message_deflate, subprotocol)
        except (OSError, WebSocketError) as error:
            address = environ.get("REMOTE_ADDR")
            tell_of_client(logger, address, "left", "< a client left during its WebSocket handshake: %s", error)
            return
        session = demand.session
        if session is None:
            self._open_or_close(self._new_session(sid, demand, environ), self._websocket(connection, demand))
        else:
            candidate = self._websocket(connection, demand)
            if not session.start_upgrade(candidate, self.observer.on_upgrade):
                candidate.refuse(RequestRefused(ErrorCode.BAD_REQUEST))
        if connection.wait is not None:
            connection.wait()

    def _open_or_close(self, session: Session, transport: WebSocketTransport) -> None:
        try:
            self._open(session, transport)
        except RequestRefused as refusal:
            transport.refuse(refusal)
            return
        transport.open()
        transport.flush()

    def _websocket(self, connection: DetachedWebSocket, demand: Demand) -> WebSocketTransport:
        limit = self.options.max_http_buffer_size
        deflate, settings = connection.deflate, self.options.per_message_deflate
        inflater = None if deflate is None else Inflater(deflate, limit)
        deflater = None if deflate is None else Deflater(deflate)
        decoder = FrameDecoder(limit, inflate=inflater, masked=connection.masked)
        kind = transports[demand.transport]
        assert issubclass(kind, WebSocketTransport)
        return kind(connection.wire, self.greenlets, decoder, demand.protocol, "b64" not in demand.query,
                    deflater, 0 if settings is None else settings.threshold, self.observer.meter(demand.transport),
                    connection.subprotocol)

    # -- sessions wherever they live

    def broadcast(self, data: str | bytes, exclude: Collection[Any] = (), compress: bool = True, cluster: bool = False) -> None:
        """Send one message to every session of this process, encoded once. Never blocks; from any thread.

        Args:
            exclude: sessions, or their ids, that do not get it.
            cluster: send it to the sessions of all workers. Each worker gets what is broadcast here in its order.

        A session whose write buffer is full is closed (``"client too slow"``): nobody waits for it, and nothing is
        left out silently.

        Where this process is no worker yet, or was forked from one, ``cluster=True`` blocks until the workers have answered,
        for 5 seconds at most.

        Raises:
            UsageError: this process was forked from the one that has the sessions, and they are not to be reached by a cluster.
            ConnectionError: this process is no worker, and Redis cannot be reached.
        """
        reached = self._reach() if cluster else None
        if reached is None or not self.forked:
            super().broadcast(data, exclude, compress)
        if reached is not None:
            reached.broadcast(as_message(data), [getattr(each, "id", each) for each in exclude], compress)

    def send(self, sid: str, data: str | bytes, compress: bool = True) -> bool:
        """Send one message to a session by its id, in whatever worker it lives. From any thread.

        Blocks while the session's write buffer is full, for 4 seconds at most, and until its worker has answered.

        Returns:
            Whether the message was queued. ``False`` if there is no such session, its write buffer stays full, or its worker
            does not answer.

        Raises:
            UsageError, ConnectionError: as :meth:`broadcast`.
        """
        socket = self.clients.get(sid)
        if socket is not None:
            return send_or_not(socket, data, compress)
        reached = self._reach_or_refuse()
        return reached is not None and reached.send(sid, as_message(data), compress)

    def disconnect(self, sid: str) -> bool:
        """Close a session by its id, in whatever worker it lives, after what waits for its client has been fetched.

        From any thread. Blocks until its worker has answered. Returns whether there is such a session.

        Raises:
            UsageError, ConnectionError: as :meth:`broadcast`.
        """
        socket = self.clients.get(sid)
        if socket is not None:
            socket.close()
            return True
        reached = self._reach_or_refuse()
        return reached is not None and reached.disconnect(sid)

    def _reach_or_refuse(self) -> Reach | None:
        """The workers, one of which may have a session that is not here."""
        reached = self._reach()
        if reached is None:
            self._check_not_forked()
        return reached

    def _close_all(self, timeout: float) -> None:
        deadline = monotonic() + timeout
        super()._close_all(timeout)
        if self._cluster is not None:
            self._cluster.close(deadline - monotonic())


def join_clusters() -> None:
    """Have the engines of this process be workers from now on, whatever they are wrapped in. Not before any fork.

    Raises:
        ConfigurationError: see :meth:`Engine.join_cluster`.
    """
    for host in list(hosts):
        if isinstance(host, Engine):
            host.join_cluster()


def _bad_id(error: Exception) -> RequestRefused:
    logger.error("generate_id failed; nobody is let in", exc_info=error)
    return RequestRefused(ErrorCode.BAD_REQUEST, context={"name": "ID_GENERATION_ERROR", "error": error})


def _loggable(context: Mapping[str, Any]) -> dict[str, Any]:
    """A session id is a credential, even one that is unknown here."""
    return {key: shorten(value) if key == "sid" else value for key, value in context.items()}


def _refuse_upgrade(websocket: Any, start_response: StartResponse | None, answered: Response) -> Iterable[bytes]:
    """The same answer that a plain request gets; a WebSocket that was accepted already can only be closed."""
    if start_response is None or getattr(websocket, "accepted", True):
        close_accepted(websocket, 1008, answered.body.decode())
        return []
    start_response(answered.status, answered.headers)
    return [answered.body]
