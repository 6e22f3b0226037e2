"""`Server`: the facade that users see.

A server has a registry of sessions, an engine that answers requests, a worker that takes them in, and its events. What other
modules of the package need of a server is on these objects.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self
from weakref import WeakSet
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.socket import socket as GeventSocket
from werkzeug.wrappers import Request

from engineio_wsgi.cluster.router import Cluster
from engineio_wsgi.cluster.topics import Subscriber, Topics
from engineio_wsgi.emitter import Bystander
from engineio_wsgi.engine.engine import Engine, WSGIMiddleware
from engineio_wsgi.engine.hooks import Hooks
from engineio_wsgi.engine.middleware import Middleware, not_implemented
from engineio_wsgi.engine.policy_requests import PolicyGate, answer_policy_request
from engineio_wsgi.engine.registry import Registry, send_or_not
from engineio_wsgi.engine.server_events import ServerEvents
from engineio_wsgi.engine.worker import Reach, Worker
from engineio_wsgi.handoff.accepted_websocket import AnyWebSocket
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.http_server import Address, HttpServer, TlsGate
from engineio_wsgi.http.lane import keeps_lane
from engineio_wsgi.http3.ports import WebTransportSession
from engineio_wsgi.options.environment import from_environ
from engineio_wsgi.options.options import Options
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.forks import call_in_child
from engineio_wsgi.session.delivery import Delivery
from engineio_wsgi.session.event_names import SERVER_EVENTS
from engineio_wsgi.session.events import HasListeners, Listener
from engineio_wsgi.session.outgoing import Bundle, Data, as_outgoing, check_fits
from engineio_wsgi.session.socket import Socket

__all__ = ["Server", "attach", "close_servers", "join_clusters", "listen", "servers"]

#: seconds beyond its timeout in which :meth:`Server.close` has returned, as seen from another thread
CLOSE_MARGIN = 1.0


class Server(HasListeners):
    """An Engine.IO server.

    Args:
        options: see the option table of the documentation; every one can be read back from ``server.options``.

    Raises:
        ConfigurationError: an unknown option, a wrong type, an impossible value.

    Example::

        server = Server(ping_interval=25, ping_timeout=20)

        @server.on("connection")
        def connected(socket):
            socket.send("hello")

        app = server.wrap(flask_app)

    A subclass may override any method. The integration of a framework also overrides some of these hooks:

    - ``_socket_class``: the subclass of :class:`Socket` that the application sees as a session.
    - ``_stand_in(listener)`` returns what is called for a listener of the server: the listener itself, or an
      ``events.StandIn`` that calls it in some context.
    - ``_subscriber(callback)`` does the same for a subscriber of a topic, which is called without a session or request.
    - ``_request_of(environ)`` returns the request that listeners and options see.
    - ``_admit(environ)`` decides about a handshake and returns the session id. It may block; to refuse, it raises
      :class:`Forbidden`. What it puts into the list ``environ[hooks.ADDED_HEADERS]`` is added to the response's headers.
    - ``_unwrap(application)`` returns the application that another one calls first of all with each request.
    - ``_on_start()`` is called when the process begins to serve.

    ``_configure(options)`` replaces the options; before the first request only.
    """

    _known_events = SERVER_EVENTS
    _socket_class: ClassVar[type[Socket]] = Socket

    def __init__(self, **options: object) -> None:
        self._events = ServerEvents(self._stand_in, lambda: self._registry.watch_buffers())
        hooks = Hooks(admit=self._admit, generate_id=self.generate_id, has_own_ids=self._has_own_ids,
                      ask_nobody=self._ask_nobody, request_of=self._request_of, make_socket=self._socket_class,
                      unwrap=self._unwrap, on_start=self._on_start)
        self._registry = Registry(self, self._events, Options.create(**options))
        self._engine = Engine(self._registry, hooks)
        self._topics = topics = Topics(lambda task: self._registry.greenlets.submit(task), self._subscriber)
        self._worker = Worker(self._registry, self._engine, hooks, lambda host, cluster: Cluster(host, cluster, topics),
                              lambda cluster, path: Bystander(cluster, path, topics),
                              keeps_lane(type(self), Server, frozenset(("handle_request",))),
                              keeps_lane(type(self), Server, frozenset(("handle_request",)), "first_lane"))
        self._http: WSGIServer | None = None
        self._ended = Event()
        servers.add(self)

    @classmethod
    def from_environ(cls, **defaults: object) -> Self:
        """A server whose options come from ``ENGINEIO_…`` environment variables; ``defaults`` hold where there is none.

        Raises:
            ConfigurationError: a variable that is no option, or whose text is no value of it.
        """
        return cls(**{**defaults, **from_environ(os.environ)})

    # -- hooks of subclasses

    def _stand_in(self, listener: Listener) -> Listener:
        """What is called for a listener of the server."""
        return listener

    def _subscriber(self, callback: Subscriber) -> Listener:
        """What is called for a subscriber of a topic."""
        return callback

    def _request_of(self, environ: WSGIEnvironment) -> Request:
        """The request that the application sees."""
        return Request(environ)

    def _admit(self, environ: WSGIEnvironment) -> str:
        """Decide about a handshake, and return the session id: ask ``allow_request``, then :meth:`generate_id`.

        Raises:
            RequestRefused: the client gets no session.
        """
        return self._engine.handshakes.ask_application(environ)

    def _unwrap(self, application: WSGIApplication) -> WSGIApplication:
        """The application that ``application`` calls first of all with each request; itself if there is none."""
        return application

    def _on_start(self) -> None:
        """The process begins to serve."""

    def _configure(self, options: Options) -> None:
        """Use other options. Not after the first request."""
        self._registry.configure(options)
        self._engine.configure(options)
        self._worker.configure(options)

    def generate_id(self, request: Request) -> str:
        """A session id: URL-safe, this worker's id and 120 random bits. Override it, or set the option.

        May block, and may raise: the client then gets code 3.
        """
        if self.options.generate_id is not None:
            return self.options.generate_id(request)
        return self._registry.new_id()

    def _has_own_ids(self) -> bool:
        """Whether neither the option nor a subclass decides about session ids."""
        return self._registry.options.generate_id is None and type(self).generate_id is Server.generate_id

    def _ask_nobody(self) -> bool:
        """The same, and no subclass decides about handshakes."""
        return type(self)._admit is Server._admit and self._has_own_ids()

    # -- what it is

    @property
    def options(self) -> Options:
        """The options, validated; a frozen dataclass."""
        return self._registry.options

    @property
    def clients(self) -> Mapping[str, Socket]:
        """The sessions of this process by id; a read-only view."""
        return self._registry.clients

    @property
    def clients_count(self) -> int:
        """How many sessions this process has."""
        return len(self._registry.clients)

    @property
    def address(self) -> Any:  # its form depends on the family of the socket
        """The address that :meth:`listen` got, with the port that was chosen if it was 0; ``None`` before."""
        return None if self._http is None else self._http.address

    @property
    def cluster(self) -> Cluster | Bystander | None:
        """The cluster; ``None`` without the option ``cluster``.

        In a greenlet, this process joins the cluster as a worker. In a plain thread before the first request, and in a process
        that was forked from a worker, it does not: the value is an :class:`Emitter` then, which reaches the workers from outside
        and keeps no connection open.
        """
        reach = self._worker.reach()
        assert reach is None or isinstance(reach, (Cluster, Bystander))
        return reach

    def upgrades(self, transport: str) -> list[str]:
        """The names of the transports that a session may upgrade to from ``transport``."""
        return self._registry.upgrades(transport)

    # -- listeners

    def _add(self, event: str, listener: Listener, once: bool) -> None:
        add = self._events.once if once else self._events.on
        add(event, listener)

    def off(self, event: str | None = None, listener: Listener | None = None) -> None:
        """Remove one listener, all of an event, or (without arguments) all. Unknown ones are ignored."""
        self._events.off(event, listener)

    def listeners(self, event: str) -> list[Listener]:
        """The listeners of ``event``, in the order in which they are called."""
        return self._events.listeners(event)

    def emit(self, event: str, *args: object) -> bool:
        """Call the listeners of ``event`` now, in this greenlet; returns whether there were any.

        An exception that a listener raises is propagated, and the listeners after it are not called.

        Raises:
            ConfigurationError: there is no such event.
        """
        return self._events.emit(event, *args)

    # -- requests

    def use(self, middleware: WSGIMiddleware) -> WSGIMiddleware:
        """Wrap the engine's own requests, upgrades included, in a WSGI middleware.

        Args:
            middleware: ``f(app) -> app``. The first one used sees a request first.

        Returns:
            ``middleware``, so that this is a decorator, too.
        """
        self._engine.use(middleware)
        return middleware

    def handle_request(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request of the engine's: a WSGI application. Blocks as long as a poll has to wait."""
        return self._worker.handle_request(environ, start_response)

    def handle_upgrade(self, environ: WSGIEnvironment, websocket: AnyWebSocket) -> None:
        """Serve an accepted WebSocket: of this package, of gevent-websocket, or any object with the same methods.

        Blocks until the WebSocket is closed, unless its connection can be taken over.
        """
        self._worker.handle_upgrade(environ, websocket)

    def handle_webtransport(self, session: WebTransportSession) -> None:
        """Serve a WebTransport session that another library than this package's :class:`WebTransportServer` has accepted.

        Blocks as long as the middlewares do, and not until the session has ended.

        Args:
            session: an object with ``environ``, the request as a WSGI environ; ``on_stream(callback)``; ``on_end(callback)``; and
                ``close(code, reason)``: see :class:`engineio_wsgi.http3.ports.WebTransportSession`.
        """
        self._worker.handle_webtransport(session)

    def handle_socket(self, sock: GeventSocket) -> bool:
        """Answer a Flash policy request on a raw TCP socket, if it is one and ``policy_file`` is set.

        Looks at the first byte without taking it, and blocks until it has arrived. Returns whether it was a policy request; the
        connection is of no more use then.
        """
        return self.options.policy_file and answer_policy_request(sock)

    # -- ways to be served

    def wrap(self, application: WSGIApplication) -> Middleware:
        """``application`` with the engine in front of it: a WSGI application for any WSGI server."""
        return Middleware(application, self)

    def attach(self, http_server: WSGIServer) -> Self:
        """Serve the engine's path on an HTTP server of gevent's, before or after it was started.

        Its handler becomes :class:`WebSocketHandler`, unless it is one of gevent-websocket already.
        """
        http_server.application = self.wrap(http_server.application)
        if not hasattr(http_server.handler_class, "upgrade_websocket"):
            http_server.handler_class = WebSocketHandler
        if not isinstance(http_server, HttpServer):
            http_server.wrap_socket_and_handle = TlsGate(http_server.wrap_socket_and_handle)
        if self.options.policy_file:
            http_server.set_handle(PolicyGate(self.handle_socket, http_server.handle))
        return self

    def listen(self, address: Address, **server_options: object) -> Self:
        """Listen on ``address`` (a port, ``(host, port)``, ``"host:port"`` or a listening socket) and start.

        Requests outside of the path get 501. ``server_options`` (``ssl_context``, ``spawn``, …) are gevent's.

        Raises:
            CannotListen: the address cannot be used; an ``OSError``.
        """
        http = HttpServer(address, not_implemented, **server_options)
        self.attach(http)
        self._worker.enter_hub()
        greenlets = self._registry.greenlets
        if "spawn" not in server_options and issubclass(http.handler_class, WebSocketHandler) and greenlets.is_here:
            http.set_spawn(greenlets.spawn)
        http.listen()
        self._http = http
        return self

    def serve_forever(self) -> None:
        """Block until :meth:`close` has been called and is done.

        Raises:
            RuntimeError: :meth:`listen` was not called.
        """
        if self._http is None:
            raise RuntimeError("nothing to serve: call listen(address) first")
        self._http.serve_forever()
        # serve_forever() returns once no connection is accepted any more; clients may still fetch messages then
        self._ended.wait()

    def close(self, timeout: float = 10.0) -> None:
        """Open no more sessions, and close each session once its client has fetched what waits for it.

        The sessions are closed one by one in random order, as many in a second as the option ``drain_rate`` says, or more: all
        have been told to close after 0.8 × ``timeout``. Until its turn comes, a session goes on as before.

        Blocks until all sessions are closed and their ``close`` listeners have returned. A session that is still open after
        ``timeout`` seconds is closed then, and listeners that take longer than 2 seconds are not waited for. Harmless if
        repeated. From now on, handshakes are answered with 503 and ``Retry-After``.
        """
        self._stop(timeout)

    def _stop(self, timeout: float, at_once: bool = False) -> None:
        """As :meth:`close`; with ``at_once``, all sessions are told to close in the same moment."""
        self._registry.stop_opening()
        self._registry.run_in_hub(lambda: self._close_all(timeout, at_once), timeout + CLOSE_MARGIN)

    def _close_all(self, timeout: float, at_once: bool) -> None:
        """Close everything. The HTTP server that :meth:`listen` has started goes on until the sessions are closed.

        Clients that poll may have to connect again before it is their turn.
        """
        ends = monotonic() + timeout
        self._registry.close_all(timeout, at_once)
        if self._http is not None:
            self._http.close()
        self._worker.leave_cluster(ends - monotonic())
        if self._http is not None:
            self._http.stop(timeout=1.0)
        self._ended.set()

    def _after_fork(self, served: bool) -> None:
        """In a forked child: what :meth:`listen` has started belongs to the parent, as do the sessions."""
        self._worker.after_fork(served)
        self._topics.after_fork()
        self._http = None
        self._ended = Event()

    # -- sessions of all workers

    def broadcast(self, data: Data | Bundle, *, to: str | None = None, exclude: Iterable[str | Socket] = (),
                  compress: bool = True, local: bool = False, on_slow: str = "close", key: str | None = None) -> None:
        """Send a message or a bundle to the sessions of all workers of the cluster. Never blocks. Any thread may call this.

        It is encoded once, whatever the number of sessions. Each worker gets the broadcasts of this one in order.

        Args:
            to: a group: only its members get the message. Else all sessions do.
            exclude: sessions, or their ids, that do not get it.
            compress: whether the transports may compress it.
            local: send it to the sessions of this process only. Without a cluster this is always so.
            on_slow: what becomes of a session whose write buffer is full. ``"close"`` closes it (``"client too slow"``);
                ``"drop"`` leaves it out; ``"latest"`` queues the message in the place of an earlier one with the same ``key``
                that still waits, whether the buffer is full or not, so that a slow client skips values.
            key: for ``"latest"``: what the message is a value of.

        If this process is not a worker yet, or was forked from one, this blocks until the workers have answered, for 5 seconds at
        most.

        Raises:
            UsageError: this process was forked from the one that has the sessions, and there is no cluster to reach them by.
            ConnectionError: this process is not a worker, and Redis cannot be reached.
            TypeError, ValueError: an argument has a wrong type or value, or the bundle is larger than ``max_buffered``.
        """
        ids = [each.id if isinstance(each, Socket) else each for each in exclude]
        delivery = Delivery.create(to, ids, compress, on_slow, key)
        message = as_outgoing(data)
        check_fits(message, self.options.max_buffered)
        reach = None if local else self._worker.reach()
        if reach is None or not self._registry.forked:
            self._registry.deliver(message, delivery)
        if reach is not None:
            reach.deliver(message, delivery)
        elif not local:
            self._worker.warn_of_siblings()

    def members(self, group: str) -> list[Socket]:
        """The sessions of this process in a group, in the order in which they have joined."""
        members = [session.socket for session in list(self._registry.groups.members(group))]
        return [socket for socket in members if socket is not None]

    def send(self, sid: str, data: Data | Bundle, compress: bool = True) -> bool:
        """Send a message or a bundle to the session with an id, in any worker. Any thread may call this.

        Blocks while the session's write buffer is full, for 4 seconds at most, and until its worker has answered.

        Returns:
            Whether it was queued. ``False`` if there is no such session, its write buffer stays full, or its worker
            does not answer.

        Raises:
            UsageError, ConnectionError, TypeError, ValueError: as :meth:`broadcast`.
        """
        message = as_outgoing(data)
        check_fits(message, self.options.max_buffered)
        socket = self.clients.get(sid)
        if socket is not None:
            return send_or_not(socket, message, compress)
        reach = self._reach_or_refuse()
        return reach is not None and reach.send(sid, message, compress)

    def disconnect(self, sid: str) -> bool:
        """Close the session with an id, in any worker, once its client has fetched what waits for it.

        Any thread may call this. Blocks until the worker has answered. Returns whether there is such a session.

        Raises:
            UsageError, ConnectionError: as :meth:`broadcast`.
        """
        socket = self.clients.get(sid)
        if socket is not None:
            socket.close()
            return True
        reach = self._reach_or_refuse()
        return reach is not None and reach.disconnect(sid)

    def _reach_or_refuse(self) -> Reach | None:
        """The way to the other workers, one of which may have a session that is not here."""
        reach = self._worker.reach()
        if reach is None:
            self._registry.check_not_forked()
        return reach


#: the servers of this process
servers: WeakSet[Server] = WeakSet()


def close_servers(timeout: float, at_once: bool = False) -> None:
    """Close every server of this process, whatever it is wrapped in.

    Blocks until the sessions have fetched what waits for them, for ``timeout`` seconds at most.

    Args:
        at_once: whether all sessions are told to close in the same moment, and not one by one.
    """
    gevent.joinall([gevent.spawn(server._stop, max(timeout, 0.0), at_once) for server in list(servers)])


def join_clusters() -> None:
    """Have the servers of this process be workers from now on, whatever they are wrapped in. Not before any fork.

    Raises:
        ConfigurationError: Redis cannot be reached, or the platform lacks what workers find each other by.
    """
    for server in list(servers):
        server._worker.join_cluster()


def _after_fork(served: bool) -> None:
    for server in list(servers):
        server._after_fork(served)


call_in_child(_after_fork)


def listen(address: Address, **options: object) -> Server:
    """A new :class:`Server` that listens on ``address``, and answers 501 to everything outside of its path."""
    return Server(**options).listen(address)


def attach(http_server: WSGIServer, **options: object) -> Server:
    """A new :class:`Server` on an HTTP server of gevent's; see :meth:`Server.attach`."""
    return Server(**options).attach(http_server)
