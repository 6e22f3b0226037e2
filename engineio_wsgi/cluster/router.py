"""The router: sends each request to the worker of its session, whichever worker has accepted it.

Owns the decision whether a request is for another worker, and whether its connection is handed over or the request relayed, on
this machine or over Redis. The first characters of a session id name its worker, so no registry of sessions is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, TypeVar
from wsgiref.types import StartResponse, WSGIEnvironment

import gevent

from engineio_wsgi.cluster.carriers import pack_headers, unpack_headers
from engineio_wsgi.cluster.forwarder import Forwarder, RequestCopy
from engineio_wsgi.cluster.handover.following import follow
from engineio_wsgi.cluster.handover.heir import candidate
from engineio_wsgi.cluster.handover.succession import Succession
from engineio_wsgi.cluster.handover.worker_names import WorkerNames
from engineio_wsgi.cluster.incoming import TRACE, Counters, Receiver
from engineio_wsgi.cluster.listeners import Listener, hops_of
from engineio_wsgi.cluster.local.calls import LocalCaller
from engineio_wsgi.cluster.local.channel import Channel
from engineio_wsgi.cluster.local.forwarder import LocalForwarder
from engineio_wsgi.cluster.local.listener import UnixListener
from engineio_wsgi.cluster.local.names import choose_names, is_worker_id
from engineio_wsgi.cluster.messages import Action, Call, Kind, Message, MovedConnection, Refusal
from engineio_wsgi.cluster.publisher import Publisher, check_session, check_timeout
from engineio_wsgi.cluster.rpc import WorkerCaller, perform
from engineio_wsgi.cluster.topics import Reply, Subscriber, Topics, check_data, check_topic
from engineio_wsgi.engine.refusals import UNREACHED
from engineio_wsgi.engine.registry import WORKER_ID_SIZE, new_worker_id
from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.errors import ClientGone, ConfigurationError, OwnerGone, OwnerRefused
from engineio_wsgi.handoff.client_socket import client_socket
from engineio_wsgi.handoff.detachable import Detachable, detachable_of
from engineio_wsgi.handoff.server_loops import NO_NAMES
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.hub_thread import wait_for_hub
from engineio_wsgi.http.query import parse_query
from engineio_wsgi.http.request_head import PROXY_KEYS
from engineio_wsgi.log import shorten
from engineio_wsgi.options.redis_url import RedisLocation, group_of, names_redis
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.loop import IoLoop
from engineio_wsgi.runtime.observers import Observers
from engineio_wsgi.runtime.threads import current_thread
from engineio_wsgi.session.delivery import Delivery
from engineio_wsgi.session.outgoing import Bundle, Data, Outgoing, as_outgoing, check_fits

__all__ = ["Cluster"]

logger = logging.getLogger("engine.cluster")

if TYPE_CHECKING:
    from engineio_wsgi.cluster.redis.links import LinkFigures, RedisLinks
    from engineio_wsgi.cluster.redis.remote import RedisReceiver

T = TypeVar("T")

#: attempts to find an id that no other worker has; there are 16 million
MAX_ATTEMPTS = 8
#: the part of an environ that belongs to the connection: its scheme and server, and its client as a proxy has named it
ORIGIN = ("wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "PROXY_PROTOCOL", "PROXY_ADDR", "PROXY_PORT", "engineio.peer")
#: how often a connection may change its worker: one that would change more often carries requests of many clients
MAX_HOPS = 3
#: seconds beyond a heartbeat within which every poll is answered
MARGIN = 10.0


class Cluster:
    """The cluster that this process is a worker of. Made in the hub, after any fork.

    Args:
        worker: this process as a worker.
        cluster: the option ``cluster``.
        topics: with the subscribers of this process.

    Raises:
        ConfigurationError: workers cannot listen on Unix sockets here, or Redis cannot be reached.
    """

    def __init__(self, worker: Worker, cluster: str, topics: Topics) -> None:
        options = worker.options
        self.counters = Counters()
        self._worker = worker
        location = RedisLocation.parse(cluster) if names_redis(cluster) else None
        self._group = group_of(cluster, options.path)
        self._names = choose_names(self._group)
        self._receiver = Receiver(worker, self._group, self.counters, self._perform_for, self._whereabouts)
        #: the names that lead to this process
        self._own = WorkerNames("")
        #: the hand-over of sessions; ``None`` without the option, and among the workers of several machines
        self._succession: Succession | None = None
        self._answer_timeout = options.ping_interval + options.ping_timeout + MARGIN
        self._near = LocalForwarder(self._names, self._answer_timeout)
        self._forwarders: list[Forwarder] = [self._near]
        #: the beginning of this worker's session ids
        self.worker_id = ""
        #: workers that were found on other machines
        self._far: set[str] = set()
        self._caller: WorkerCaller
        self._links: RedisLinks | None = None
        self._remote: RedisReceiver | None = None
        self._topics = topics
        #: ``None`` while the cluster is joined
        self._publisher: Publisher | None = None
        self._unix_listener = self._open(location)
        self._publisher = Publisher(self._group, self.worker_id, topics, self._worker.clients, self._caller)
        self._own_mark = "sid=" + self.worker_id
        self._thread = current_thread()
        self._loop: IoLoop = gevent.get_hub().loop

    def _open(self, location: RedisLocation | None) -> UnixListener:
        """Choose an id that no other worker has, and listen under it."""
        for _ in range(MAX_ATTEMPTS):
            self.worker_id = new_worker_id()
            self._own = WorkerNames(self.worker_id)
            with suppress(FileExistsError), ExitStack() as opened:
                unix_listener = UnixListener(self._names, self.worker_id, self._receive)
                opened.callback(unix_listener.close)
                self._caller = self._join_local() if location is None else self._join(location)
                opened.pop_all()
                logger.debug("= joined the group %s as the worker %s", self._group, self.worker_id)
                return unix_listener
        raise ConfigurationError(f"cluster: {MAX_ATTEMPTS} worker ids in a row are taken")

    def _join_local(self) -> LocalCaller:
        """Become a worker among those of this machine."""
        caller = LocalCaller(self._names, self._own)
        if self._worker.options.handover:
            self._succession = Succession(self._worker, self._names, self._own, caller, self._receiver,
                                          lambda: self._unix_listener)
        return caller

    def _receive(self, channel: Channel, message: Message) -> None:
        """Take what another worker has sent to this worker's first name."""
        if self._succession is not None:
            self._succession.receive(self.worker_id, channel, message)
        elif message.kind is Kind.SEARCH:
            # a worker that leaves need not wait for this one
            channel.send(candidate(self._worker, self._receiver.fingerprint).message())
        else:
            self._receiver.receive(channel, message)

    def _join(self, location: RedisLocation) -> RedisLinks:
        """Become a worker among those of several machines. Blocks until Redis is reached."""
        # redis-py is an optional dependency
        from engineio_wsgi.cluster.redis.links import RedisLinks
        from engineio_wsgi.cluster.redis.remote import RedisForwarder, RedisReceiver

        self._remote = RedisReceiver(self._receiver.receive, self._answer_timeout)
        self._links = RedisLinks(location, self._group, self.worker_id, self._remote.begun,
                                 self._perform, self._worker.announce)
        self._forwarders.append(RedisForwarder(self._links, self._answer_timeout, location.relay_websockets))
        return self._links

    @property
    def connected(self) -> bool:
        """Whether the workers of other machines can be reached: Redis is there. Always true on one machine.

        Without Redis, the sessions of this worker go on. So this is for a dashboard: do not restart a worker for it, or have a
        balancer take it out. The server's events ``cluster_lost`` and ``cluster_back`` tell when it changes.
        """
        return self._links is None or self._links.connected

    def link_figures(self) -> LinkFigures | None:
        """What can be counted about the links to workers of other machines; ``None`` on one machine. Any thread may call this."""
        return None if self._links is None else self._links.figures()

    @property
    def adopted(self) -> int:
        """How many HTTP connections this worker serves that other workers have accepted."""
        return self._receiver.adopted

    # -- a request

    def route(self, environ: WSGIEnvironment, start_response: StartResponse | None, handler: object) -> Iterable[bytes] | None:
        """Forward a request for another worker's session. Blocks until that worker has taken or answered it.

        Args:
            environ: of the request; it may contain an accepted WebSocket.
            start_response: ``None`` if only the WebSocket is left to respond to.
            handler: the handler that has read the request, if it is one of ours and the request is as it was read.

        Returns:
            The body for the server; ``None`` if this worker has to answer the request. It also has to if the session's worker
            cannot be reached: the reason is in ``environ`` then, under :data:`UNREACHED`.
        """
        handler = handler if isinstance(handler, WebSocketHandler) else None
        listener = self._receiver.listeners.of(environ, handler)
        sid = self._foreign_sid(environ)
        if sid is None:
            return None
        try:
            request = RequestCopy(environ, self._receiver.fingerprint, sid, self._worker.options.max_http_buffer_size)
            answer = follow(sid or self.worker_id, self._own, self._worker.clients,
                            lambda owner: self._forward(owner, request, start_response, handler, listener),
                            self._whereabouts)
        except (OwnerGone, OwnerRefused) as error:
            reason = str(error)
        except ClientGone:
            reason = "the client has left"
        else:
            if answer is not None:
                logger.debug("= %s: forwarded a request to its worker", shorten(sid))
            return answer
        self.counters.add("failed")
        logger.debug("= %s: could not forward a request to its worker: %s", shorten(sid), reason)
        environ[UNREACHED] = {"name": "OWNER_GONE", "owner": sid[:WORKER_ID_SIZE], "error": reason}
        return None

    def _foreign_sid(self, environ: WSGIEnvironment) -> str | None:
        """The session id of a request, if it may be another worker's; empty if another worker has to open a session."""
        query, method = environ.get("QUERY_STRING", ""), environ["REQUEST_METHOD"]
        if "sid=" not in query:
            return "" if self._is_leaving and method == "GET" else None
        if (self._own_mark in query and not self._is_leaving) or method not in ("GET", "POST"):
            return None
        sid = parse_query(query).get("sid", "")
        return None if sid in self._worker.clients or not self._may_be_elsewhere(sid[:WORKER_ID_SIZE]) else sid

    def _may_be_elsewhere(self, owner: str) -> bool:
        """Whether sessions of a worker may be in another process than this one."""
        return is_worker_id(owner) and not (self._own.is_own(owner) and not self._own.expects(owner))

    def _forward(self, owner: str, request: RequestCopy, start_response: StartResponse | None,
                 handler: WebSocketHandler | None, listener: Listener | None) -> Iterable[bytes]:
        """Forward a request to a worker. Returns the body. For the errors see :class:`Forwarder`."""
        environ = request.environ
        # only WebSockets leave for another machine
        leaves = request.upgrade or (owner not in self._far and _may_leave(environ, listener, self._is_leaving))
        detachable = detachable_of(environ, handler, NO_NAMES if listener is None else listener.names) if leaves else None
        reasons: list[str] = []
        # a worker of another machine never becomes one of this machine
        for forwarder in self._forwarders[owner in self._far:]:
            if not forwarder.moves_connections:
                self._far.add(owner)
            try:
                return self._send_by(forwarder, owner, detachable, request, start_response)
            except OwnerGone as error:
                reasons.append(str(error))
        self._far.discard(owner)
        raise OwnerGone("; ".join(reasons))

    def _send_by(self, forwarder: Forwarder, owner: str, detachable: Detachable | None, request: RequestCopy,
                 start_response: StartResponse | None) -> Iterable[bytes]:
        if detachable is not None and (request.upgrade or forwarder.moves_connections):
            try:
                with self._departing("hand_over", owner, request):
                    forwarder.hand_over(owner, self._connection(request, detachable), detachable)
            except OwnerRefused as error:
                if not error.is_full:
                    raise
            else:
                self.counters.add("handed_over")
                return detachable.end(start_response)
        if request.upgrade or start_response is None:
            raise OwnerRefused("this server cannot hand the connection over, or the worker has too many")
        with self._departing("relay", owner, request):
            answered = forwarder.relay(owner, request)
        self.counters.add("relayed")
        start_response(answered.status, answered.headers)
        return [answered.body]

    def _departing(self, hop: str, owner: str, request: RequestCopy) -> AbstractContextManager[object]:
        """The context in which a request or its connection is sent to another worker."""
        observers = self._worker.observers
        return self._traced(observers, hop, owner, request) if observers.of_hops else nullcontext()

    @staticmethod
    @contextmanager
    def _traced(observers: Observers, hop: str, owner: str, request: RequestCopy) -> Iterator[None]:
        own = request.headers
        carrier = dict(own)
        with observers.departing(hop, owner, carrier):
            request.carry({name: value for name, value in carrier.items() if own.get(name) != value})
            yield

    def _connection(self, request: RequestCopy, detachable: Detachable) -> MovedConnection:
        environ = request.environ
        origin = {key: environ[key] for key in ORIGIN if key in environ}
        if request.trace:
            origin[TRACE] = pack_headers(request.trace)
        address = detachable.address if isinstance(detachable.address, tuple) else ""
        return MovedConnection(
            self._receiver.fingerprint, request.sid, address, origin, hops_of(environ, detachable.sock),
            detachable.listener, request.texts if request.upgrade else None, detachable.accepted)

    # -- sessions of all workers

    def workers(self) -> list[str]:
        """The ids of all workers, this one included: the first characters of their session ids."""
        return [*self._own.own, *self._caller.others()]

    def count(self) -> int:
        """How many sessions all workers have together. Blocks until they have answered; a worker that does not is left out."""
        message = Call(self._group, Action.COUNT).message()
        others = self._here(lambda: self._caller.ask_all(message))
        return len(self._worker.clients) + sum(others.values())

    def send(self, sid: str, data: Outgoing, compress: bool = True) -> bool:
        """Send one message, or a bundle, to a session of any worker. Blocks until its worker has queued it.

        Returns:
            Whether it was queued. ``False`` if there is no such session, its write buffer stays full, or its worker does not
            answer.

        Raises:
            BundleTooLarge: the bundle is larger than ``max_buffered``.
        """
        check_fits(data, self._worker.options.max_buffered)
        return self._call(Call(self._group, Action.SEND, (sid,), compress=compress), data)

    def disconnect(self, sid: str) -> bool:
        """Close a session of any worker. Blocks until its worker has answered. Returns whether there is such a session."""
        return self._call(Call(self._group, Action.DISCONNECT, (sid,)))

    def _call(self, call: Call, data: Outgoing = b"") -> bool:
        owner = call.sids[0][:WORKER_ID_SIZE]
        if not is_worker_id(owner) or (self._own.is_own(owner) and not self._own.expects(owner)):
            return False
        try:
            with self._departing_call(call, owner) as traced:
                return bool(self._here(lambda: self._caller.ask(owner, traced.message(data))))
        except OwnerGone as error:
            logger.debug("= %s: its worker was not reached: %s", shorten(call.sids[0]), error)
            return False

    @contextmanager
    def _departing_call(self, call: Call, owner: str = "") -> Iterator[Call]:
        """The context in which other workers are called, and the call with the headers that continue a trace."""
        observers = self._worker.observers
        if not observers.of_hops:
            yield call
            return
        carrier: dict[str, str] = {}
        with observers.departing(call.action.value, owner, carrier):
            yield call._replace(trace=pack_headers(carrier))

    def broadcast(self, data: Data | Bundle, *, to: str | None = None, exclude: Iterable[str] = (), compress: bool = True,
                  on_slow: str = "close", key: str | None = None) -> None:
        """Send a message or a bundle to sessions of the other workers, as :meth:`Server.broadcast` does. Does not block."""
        self.deliver(as_outgoing(data), Delivery.create(to, exclude, compress, on_slow, key))

    def deliver(self, data: Outgoing, delivery: Delivery) -> None:
        """Send a message or a bundle to sessions of the other workers, in the order of the calls. Does not block.

        Messages for a worker that ends, or does not answer for 5 seconds, are lost.

        Raises:
            BundleTooLarge: the bundle is larger than ``max_buffered``.
        """
        check_fits(data, self._worker.options.max_buffered)
        with self._departing_call(Call.broadcast(self._group, delivery)) as call:
            message = call.message(data)
            if current_thread() == self._thread:
                self._tell_all(message)
            else:
                self._loop.run_callback_threadsafe(self._tell_all, message)

    def _tell_all(self, message: Message) -> None:
        self._caller.tell_all(message)
        if self._succession is not None:
            self._succession.on_own_broadcast(message)

    # -- topics

    def publish(self, topic: str, data: str | bytes, *, session: str | None = None, worker: str | None = None) -> None:
        """Call the subscribers of a topic in all workers, this one included, with a message. Does not block the event loop.

        Each subscriber gets a message once or not at all, and the messages of one worker in their order. Messages for a worker
        that ends, or does not answer for 5 seconds, are lost; so are those that Redis was about to deliver when it was lost.
        While Redis is away, up to 16 MB wait for it.

        Args:
            topic: 1 to 255 characters.
            data: text or binary, 8 MB at most.
            session: the id of a session: only the worker of this session gets the message, if the session is still open.
            worker: the id of a worker: only this one gets the message.

        Raises:
            TypeError, ValueError: an argument has a wrong type or value.
            UnknownSession: no worker has the session, as far as this one knows.
        """
        check_topic(topic)
        message, sid = check_data(data), check_session(session)
        self._here(lambda: self._publishing().publish(topic, message, sid, worker))

    def ask(self, topic: str, data: str | bytes, *, timeout: float = 1.0, session: str | None = None) -> dict[str, Reply]:
        """Publish a message, and return what the subscribers return. Blocks until all workers have answered.

        Args:
            topic, data, session: as :meth:`publish` has them.
            timeout: seconds, after which the replies that have arrived are returned.

        Returns:
            The replies by the worker's id: text, binary or ``None``. A worker without a subscriber is left out, and so is one
            whose subscribers failed, or did not answer in time. Of several subscribers in a worker, the first reply that is not
            ``None`` counts.

        Raises:
            TypeError, ValueError: an argument has a wrong type or value.
            UnknownSession: no worker has the session, or its worker is not reached at the moment.
        """
        check_topic(topic)
        message, sid, seconds = check_data(data), check_session(session), check_timeout(timeout)
        return self._here(lambda: self._publishing().ask(topic, message, seconds, sid))

    def subscribe(self, topic: str, callback: Subscriber) -> Callable[[], None]:
        """Call ``callback(data)`` with each message of a topic, in a greenlet of the engine, which it may block.

        The messages of one worker stay in order, those of several do not wait for each other. What the callback returns is the
        reply to :meth:`ask`: text, binary or ``None``. An exception is logged, and gives no reply. Any thread may call this.

        Returns:
            A function that ends the subscription. Harmless if repeated.

        Raises:
            TypeError, ValueError: ``topic`` is no name of a topic, or ``callback`` is not callable.
            ConfigurationError: ``callback`` is a coroutine function, or makes a generator.
        """
        return self._topics.subscribe(topic, callback)

    def _publishing(self) -> Publisher:
        assert self._publisher is not None  # the worker has joined
        return self._publisher

    def _perform(self, call: Call, body: bytes) -> int:
        """Carry out a call of another process: see :func:`perform`."""
        if call.action is not Action.PUBLISH:
            if call.trace and self._worker.observers.of_hops:
                with self._worker.observers.arriving(call.action.value, unpack_headers(call.trace)):
                    return perform(self._worker, call, body)
            return perform(self._worker, call, body)
        return 0 if self._publisher is None else self._publisher.receive(call, body)

    def _perform_for(self, call: Call, body: bytes, name: str) -> int | Refusal:
        """Carry out a call that was sent to a name of this process. Returns a refusal if its sessions are elsewhere."""
        if self._succession is None:
            return self._perform(call, body)
        if call.action is Action.PUBLISH and self._publisher is not None:
            publisher = self._publisher
            return self._succession.publish(call, body, name, lambda taken: publisher.receive(call, body, taken))
        return self._succession.perform(call, body, name, self._perform)

    # -- the hand-over

    def _whereabouts(self, sid: str) -> Refusal:
        """What to tell a worker that asks for a session which is not here."""
        return self._own.whereabouts(sid) if self._succession is None else self._succession.whereabouts(sid)

    @property
    def _is_leaving(self) -> bool:
        return not self._own.is_own(self.worker_id)

    def _here(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the thread of this worker's hub, and wait for its result."""
        return function() if current_thread() == self._thread else wait_for_hub(self._loop, function)

    # -- the end

    def close(self, timeout: float) -> None:
        """Leave the cluster. Connections from other workers end with the request that is under way.

        Blocks for ``timeout`` seconds at most. Harmless if repeated.
        """
        deadline = monotonic() + timeout
        self._unix_listener.close()
        if self._succession is not None:
            self._succession.close()
        self._near.close()
        left = self._receiver.close(deadline - monotonic())
        if left:
            logger.warning("%d connections and requests from other workers did not end in time", left)
        if self._links is not None:
            self._links.close(deadline - monotonic())

    def after_fork(self) -> None:
        """In a forked child: forget the cluster. The sockets stay the parent's, which is the worker."""
        self._unix_listener.after_fork()
        if self._succession is not None:
            self._succession.after_fork()
        self._caller.after_fork()
        if self._remote is not None:
            self._remote.after_fork()


def _may_leave(environ: WSGIEnvironment, listener: Listener | None, is_leaving: bool) -> bool:
    """Whether another worker can serve a connection as this one does, and all its requests are likely for the same session.

    The connection of a proxy carries the requests of many clients. A worker that leaves gives it away all the same.
    """
    if listener is None or not listener.moves:
        return False
    return is_leaving or (
        not any(name in environ for name in PROXY_KEYS) and hops_of(environ, client_socket(environ)) < MAX_HOPS)
