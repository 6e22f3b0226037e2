"""This process as a worker: where requests come in, and which of them other workers have to answer.

Owns the first request, which enters the hub and joins the cluster; forks; the applications that the server is wrapped around. It
must not know how other workers are reached: for that it gets a `Router`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from types import MappingProxyType
from typing import Protocol
from weakref import WeakValueDictionary
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import gevent
from gevent.event import AsyncResult

from engineio_wsgi.engine.engine import Engine
from engineio_wsgi.engine.gate import Gate
from engineio_wsgi.engine.hooks import Hooks
from engineio_wsgi.engine.lane import HandshakeOnly
from engineio_wsgi.engine.moves import Carrier, move_all
from engineio_wsgi.engine.refusals import UNREACHED
from engineio_wsgi.engine.registry import Registry, new_worker_id
from engineio_wsgi.engine.resumption import PreparedSession
from engineio_wsgi.handoff.client_socket import client_socket
from engineio_wsgi.handoff.relayed_stream import RelayedStream, handshake_for
from engineio_wsgi.handoff.server_loops import THREAD_LOOP
from engineio_wsgi.handoff.thread_loops import ThreadLoop, kind_of_thread_loop
from engineio_wsgi.handoff.upgrades import WEBSOCKETS, can_upgrade
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.http_server import HttpServer
from engineio_wsgi.http.hub_thread import call_in_hub, in_plain_thread, start_hub, wait_for_hub
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.http3.ports import PacketStream, WebTransportSession
from engineio_wsgi.options.options import Options
from engineio_wsgi.protocol.websocket.handshake import asks_for_websocket
from engineio_wsgi.runtime.forks import serve
from engineio_wsgi.runtime.late_patching import warn_of_late_patching
from engineio_wsgi.runtime.loop import IoLoop, Stream
from engineio_wsgi.runtime.observers import Observers
from engineio_wsgi.runtime.threads import current_thread, half_patched
from engineio_wsgi.session.delivery import Delivery
from engineio_wsgi.session.movable import SessionSnapshot
from engineio_wsgi.session.outgoing import Outgoing
from engineio_wsgi.session.socket import Socket

__all__ = ["Front", "Reach", "Router", "Worker", "note_front", "set_default_cluster"]

logger = logging.getLogger("engine")

#: the status of a request that was accepted
OK = 200


class Reach(Protocol):
    """A way to the sessions of other workers."""

    def deliver(self, data: Outgoing, delivery: Delivery) -> object:
        """Send a message or a bundle to sessions of the other workers."""
        ...

    def send(self, sid: str, data: Outgoing, compress: bool = True) -> bool:
        """Send a message or a bundle to a session. Returns whether its worker has queued it."""
        ...

    def disconnect(self, sid: str) -> bool:
        """Close a session. Returns whether there is one."""
        ...


class Router(Reach, Protocol):
    """What a worker needs of the layer that knows the other workers."""

    worker_id: str

    def route(self, environ: WSGIEnvironment, start_response: StartResponse | None,
              handler: WebSocketHandler | None) -> Iterable[bytes] | None:
        """Answer a request for another worker's session; ``None`` if it is to be answered here. May block."""
        ...

    def after_fork(self) -> None:
        """In a forked child: leave the parent's place among the workers alone."""
        ...

    def close(self, timeout: float) -> None:
        """Leave the cluster. Blocks for ``timeout`` seconds at most."""
        ...


class Front(Protocol):
    """A server, or something that passes requests on to one, in front of an application."""

    @property
    def application(self) -> WSGIApplication:
        """The application."""
        ...

    @property
    def lane(self) -> bool:
        """Whether it does nothing with the requests of sessions but to pass them on."""
        ...

    @property
    def server(self) -> object:
        """The server; ``None`` if it is none."""
        ...


#: the fronts of this process by their identity: an application need not be hashable
_fronts: WeakValueDictionary[int, Front] = WeakValueDictionary()


def note_front(front: Front) -> None:
    """Remember something in front of an application that passes the requests of sessions on."""
    _fronts[id(front)] = front


class Worker:
    """The part of a server that belongs to one process.

    Args:
        join: makes this process one of the workers of a cluster. Raises `ConfigurationError` if it cannot.
        outside: returns the way to a cluster's workers for a process that is none of them.
        has_lane: whether polls and POSTs may be answered without a call of the server.
        has_first_lane: whether handshakes and the first requests of connections may, too.
    """

    #: the cluster of a server without the option ``cluster``
    default_cluster: str | None = None

    def __init__(self, registry: Registry, engine: Engine, hooks: Hooks, join: Callable[[Worker, str], Router],
                 outside: Callable[[str, str], Reach], has_lane: bool = True, has_first_lane: bool = True) -> None:
        self._registry = registry
        self._engine = engine
        self._hooks = hooks
        self._join = join
        self._outside = outside
        self._has_lane = has_lane
        self._has_first_lane = has_first_lane
        #: the sessions of this process, as the application sees them
        self.clients: Mapping[str, Socket] = registry.clients
        self._router: Router | None = None
        engine.webtransports.relay_by(self._relay)
        #: guards `start_hub`: one thread starts the hub, the others wait
        self._starting = Lock()
        #: the outcome of :meth:`enter_hub`, while it is under way
        self._entered: AsyncResult | None = None
        #: ``SERVER_PORT`` of the last request
        self.port: str | None = ""
        #: whether the WSGI server runs several processes
        self._has_siblings = False
        self._warned = False
        self._wrapped: WSGIApplication | None = None
        #: whether the server is wrapped around no more than one application
        self.has_one_application = True
        self.configure(registry.options)

    def configure(self, options: Options) -> None:
        """Use other options. Not after the first request."""
        self.options = options
        #: where requests of sessions that are about to move wait; ``None`` if no session ever moves
        self.gate = Gate(self._registry.sessions) if options.handover else None

    @property
    def router(self) -> Router | None:
        """The layer that knows the other workers; ``None`` before the process has joined a cluster, and without one."""
        return self._router

    @property
    def observers(self) -> Observers:
        """Who is told of what happens."""
        return self._registry.observers

    # -- the hub and the cluster

    @property
    def _group(self) -> str | None:
        return self.options.cluster or self.default_cluster

    def enter_hub(self) -> None:
        """Begin to serve in the hub of the calling thread, once; not before the first request, which comes after any fork.

        Blocks while a cluster is joined; requests that come meanwhile wait for the same outcome.

        Raises:
            ConfigurationError: see :meth:`join_cluster`.
        """
        if self._registry.hub is not None:
            return
        if self._entered is not None:
            self._entered.get()
            return
        self._entered = entered = AsyncResult()
        try:
            self._start()
        except BaseException as error:
            entered.set_exception(error)
            raise
        else:
            entered.set(None)
        finally:
            self._entered = None

    def _start(self) -> None:
        missing = half_patched()
        if missing:
            logger.warning("gevent has patched some modules and not %s: listeners that use them will block every session; "
                           "call monkey.patch_all() first of all, or not at all", ", ".join(missing))
        warn_of_late_patching()
        group = self._group
        if group is not None:
            self._router = self._join(self, group)
        worker_id = new_worker_id() if self._router is None else self._router.worker_id
        self._registry.start(gevent.get_hub(), worker_id, in_cluster=self._router is not None)
        self._hooks.on_start()

    def join_cluster(self) -> None:
        """Be one of the workers from now on, and not only from the first request; nothing without the option ``cluster``.

        Blocks until Redis has answered. Not before any fork.

        Raises:
            ConfigurationError: Redis cannot be reached, or the platform lacks what workers find each other by.
        """
        if self._registry.hub is None and self._group is not None:
            self.enter_hub()

    def reach(self) -> Reach | None:
        """The way to the other workers; ``None`` without the option ``cluster``. This process may join the cluster now."""
        group = self._group
        if self._registry.hub is None and group is not None and (self._registry.forked or in_plain_thread()):
            return self._outside(group, self.options.path)
        self.join_cluster()
        return self._router

    def warn_of_siblings(self) -> None:
        """A broadcast has reached the sessions of this process only. Log a warning, once, if there are other processes."""
        if self._has_siblings and not self._warned:
            self._warned = True
            logger.warning("a broadcast reached the clients of this process only, and the WSGI server runs several: set "
                           "cluster='local' to reach those of all, or call broadcast with local=True")

    def leave_cluster(self, timeout: float) -> None:
        """Stop serving other workers. Blocks for ``timeout`` seconds at most."""
        if self._router is not None:
            self._router.close(timeout)

    def after_fork(self, served: bool) -> None:
        """In a forked child: drop what belongs to the parent, which stays in its cluster.

        Args:
            served: whether the parent has served a client.
        """
        self._registry.after_fork(served)
        if self._router is not None:
            self._router.after_fork()
            self._router = None
        self._entered = None
        self._starting = Lock()
        self.port = ""

    # -- requests

    def handle_request(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request of the engine's: a WSGI application. Blocks as long as a poll has to wait."""
        if environ.get("SERVER_PORT") != self.port:
            self.note_listener(environ)
        registry = self._registry
        if registry.hub is None:
            self._enter(environ)
        if current_thread() != registry.thread and environ.get("wsgi.websocket") is None:
            return self._answer_from_thread(environ, start_response)
        return self._take(environ, start_response)

    def _take(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """In the hub: serve a request whose connection is here."""
        handler = environ.pop("engineio.handler", None)
        if handler is not None and "HTTP_UPGRADE" in environ:
            handler.lift_limit()
        gate = self.gate
        if gate is not None:
            gate.wait(environ)
        if self._router is not None and (routed := self._router.route(environ, start_response, handler)) is not None:
            return routed
        if gate is not None:
            body = gate.pass_through(self._engine.handle_request, environ, start_response)
        else:
            body = self._engine.handle_request(environ, start_response)
        if handler is not None and handler.code == OK:
            self._prepare_next(handler, environ)
        return body

    def _prepare_next(self, handler: WebSocketHandler, environ: WSGIEnvironment) -> None:
        """A request has been accepted: let the next ones of its connection, and of its server, come a shorter way."""
        if "sid=" in environ.get("QUERY_STRING", ""):
            handler.note_session()
        if self._is_direct(handler.server.application):
            self._engine.open_lane(handler, environ)
            self.introduce(handler.server)

    def introduce(self, http_server: object) -> None:
        """A request has come from an HTTP server of ours: let the first requests of its connections go over the lane, if nothing
        else has to see them.
        """
        if isinstance(http_server, HttpServer) and http_server.lane_engine is None and self.gate is None:
            front = _fronts.get(id(self._hooks.unwrap(http_server.application)))
            if (front is not None and front.server is self._registry.server and self._has_first_lane
                    and getattr(front, "first_lane", False)):
                http_server.note_engine(self._engine.lane)

    def _enter(self, environ: WSGIEnvironment) -> None:
        """The first request: enter the hub, or start one in a thread of its own if the HTTP server has only plain threads."""
        if not in_plain_thread() or can_upgrade(environ):
            self.enter_hub()
            return
        with self._starting:
            if self._registry.hub is None:
                start_hub(self.enter_hub)

    def _answer_from_thread(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Have a request of a plain thread answered in the hub. Blocks until it is."""
        hub = self._registry.hub
        assert hub is not None
        kind = kind_of_thread_loop(environ)
        if kind is not None and asks_for_websocket(environ):
            return self._upgrade_from_thread(hub.loop, kind(environ), environ, start_response)
        environ.setdefault(WEBSOCKETS, kind is not None)
        response = call_in_hub(hub.loop, self.answer, environ, self.options.max_http_buffer_size)
        start_response(response.status, response.headers)
        return [response.body]

    def _upgrade_from_thread(self, loop: IoLoop, thread: ThreadLoop, environ: WSGIEnvironment,
                             start_response: StartResponse) -> Iterable[bytes]:
        """Answer a WebSocket handshake of a plain thread in the hub, where the connection stays. Blocks until it is answered."""
        response = wait_for_hub(loop, lambda: call(self._take, {**environ, THREAD_LOOP: thread}))
        if thread.has_left:
            return thread.leave(start_response)
        start_response(response.status, response.headers)
        return [response.body]

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request whose connection is not here, in a greenlet of the hub. Blocks as long as a poll has to wait."""
        gate = self.gate
        if gate is not None:
            gate.wait(environ)
        if self._router is not None and (routed := self._router.route(environ, start_response, None)) is not None:
            return routed
        if gate is not None:
            return gate.pass_through(self._engine.answer, environ, start_response)
        return self._engine.answer(environ, start_response)

    def handle_upgrade(self, environ: WSGIEnvironment, websocket: object) -> None:
        """Serve an accepted WebSocket. Blocks until it is closed, unless its connection can be taken over."""
        self.note_listener(environ)
        self.enter_hub()
        environ["wsgi.websocket"] = websocket
        handler = environ.pop("engineio.handler", None)
        if handler is not None:
            handler.lift_limit()
        if self.gate is not None:
            self.gate.wait(environ)
        if self._router is None or self._router.route(environ, None, handler) is None:
            self._engine.handle_upgrade(environ, None)

    def handle_webtransport(self, session: WebTransportSession) -> None:
        """Serve a WebTransport session that was accepted. Blocks as long as the middlewares do."""
        self.enter_hub()
        self._engine.handle_webtransport(session)

    def _relay(self, environ: WSGIEnvironment, sid: str, stream: PacketStream) -> bool:
        """Pass an upgrade to WebTransport on to the worker of its session, which sees a WebSocket. Returns whether it did.

        Blocks until that worker has taken it.
        """
        if self._router is None:
            return False
        address = (environ.get("REMOTE_ADDR", ""), int(environ.get("REMOTE_PORT") or 0))
        relayed = RelayedStream(stream, address, self.options.max_http_buffer_size)
        handshake = handshake_for(environ, sid, relayed)
        if self._router.route(handshake, None, None) is not None:
            return True
        relayed.abandon()
        if UNREACHED in handshake:
            environ[UNREACHED] = handshake[UNREACHED]
        return False

    def note_listener(self, environ: WSGIEnvironment) -> None:
        """Note that this process serves the listener of a request; a process that is forked from it must not."""
        self.port = environ.get("SERVER_PORT")
        self._has_siblings = bool(environ.get("wsgi.multiprocess"))
        sock = client_socket(environ)
        if sock is not None:
            serve(sock)

    # -- when another server takes the place of this one

    def move_sessions(self, carrier: Carrier, deadline: float, is_local: bool = False,
                      stays: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
        """Move every session that can. Blocks until all have arrived, or stay. Only with the option ``handover``.

        Args:
            carrier: takes them.
            deadline: of the monotonic clock.
            is_local: whether they stay in this process, and only their server changes.
            stays: why sessions stay that are not to be moved, by their ids.

        Returns:
            Why sessions stay, by their ids, those of ``stays`` included.
        """
        assert self.gate is not None
        self._engine.lane.close()
        return move_all(self._registry, self.gate, carrier, deadline, is_local, stays)

    def prepare(self, snapshot: SessionSnapshot, stream: Stream | None) -> PreparedSession:
        """Make a session of a snapshot; see `Resumption`.

        Raises:
            ValueError: the snapshot is not valid here.
        """
        self.enter_hub()
        return self._engine.resumption.prepare(snapshot, stream)

    # -- what other workers ask for

    def deliver(self, data: Outgoing, delivery: Delivery, belongs: Callable[[str], bool] | None = None) -> int:
        """Send a message or a bundle to sessions of this process. Returns their number.

        Args:
            data: the message or bundle.
            delivery: to which sessions, and how.
            belongs: whether a session with an id gets it, if not all do. For the hub's thread only.
        """
        if belongs is not None:
            return self._registry.deliver_to_some(data, delivery, belongs)
        self._registry.deliver(data, delivery)
        return len(self._registry.receivers(delivery.to))

    @property
    def resumes(self) -> bool:
        """Whether the application goes on with sessions of other processes: it has a listener of ``resume``."""
        return self.options.handover and bool(self._registry.listeners_of("resume"))

    def announce(self, event: str, argument: object) -> None:
        """Have the server's listeners of an event called. Does not block."""
        self._registry.events.announce(event, argument)

    # -- the applications that the server is wrapped around

    def on_wrapped(self, front: Front) -> None:
        """The server was put in front of an application."""
        if self._wrapped is None:
            self._wrapped = front.application
        elif self._wrapped is not front.application:
            self.has_one_application = False
        note_front(front)

    def is_outermost(self, application: WSGIApplication | None) -> bool:
        """Whether a request to ``application`` reaches this server first; other servers in between do not count.

        Not if the application is not known.
        """
        if application is None:
            return False
        application = self._hooks.unwrap(application)
        while (front := _fronts.get(id(application))) is not None:
            if front.server is self._registry.server:
                return True
            application = front.application
        return False

    def _is_direct(self, application: WSGIApplication) -> bool:
        """Whether nothing that a request to ``application`` passes before this server has to see the polls of sessions."""
        while True:
            application = self._hooks.unwrap(application)
            front = _fronts.get(id(application))
            if isinstance(application, HandshakeOnly):
                application = application.application
            elif front is None or not front.lane:
                return False
            elif front.server is self._registry.server:
                return self._has_lane
            else:
                application = front.application


def set_default_cluster(cluster: str) -> None:
    """Have every server without the option ``cluster`` join ``cluster``. Called by a WSGI server with several workers."""
    Worker.default_cluster = cluster
