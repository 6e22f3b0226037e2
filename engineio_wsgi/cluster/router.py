"""The workers that serve each other's sessions, together: a request finds its session's, whichever has accepted it.

Owns the decision whether a request is somebody else's, and whether its connection is given away or the request relayed: on
this machine, or by way of Redis to another. A session's worker is named in the first characters of its id, so that nobody has
to be asked and nothing has to be registered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import gevent

from engineio_wsgi.clock import monotonic
from engineio_wsgi.cluster.incoming import Counters, Host, Owner
from engineio_wsgi.cluster.listeners import Listener, hops_of
from engineio_wsgi.cluster.local.channel import OwnerGone
from engineio_wsgi.cluster.local.forwarder import ClientGone, Courier, LocalCourier, RequestCopy
from engineio_wsgi.cluster.local.listener import Doorway
from engineio_wsgi.cluster.local.names import Names, choose_names, is_worker_id
from engineio_wsgi.cluster.messages import Action, Call, MovedConnection, Refusal
from engineio_wsgi.cluster.rpc import Caller, LocalCaller, perform
from engineio_wsgi.engine.engine import UNREACHED
from engineio_wsgi.engine.registry import WORKER_ID_SIZE, new_worker_id
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.handoff.client_socket import client_socket
from engineio_wsgi.handoff.detachable import Detachable, detachable_of
from engineio_wsgi.http.hub_thread import wait_for_hub
from engineio_wsgi.http.query import parse_query
from engineio_wsgi.log import shorten
from engineio_wsgi.options.redis_url import RedisLocation, group_of, names_redis
from engineio_wsgi.protocol.websocket.handshake import asks_for_websocket
from engineio_wsgi.runtime.threads import current_thread

__all__ = ["Cluster"]

logger = logging.getLogger("engine.cluster")

if TYPE_CHECKING:
    from engineio_wsgi.cluster.redis.links import Exchange

T = TypeVar("T")
Environ = dict[str, Any]
StartResponse = Callable[..., Any]

#: attempts to find an id that no other worker has; there are 16 million
MAX_ATTEMPTS = 8
#: of a server that is not known
NO_NAMES = ("", "")
#: what a proxy adds: its connection carries requests of many clients, and must stay where it is
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_X_FORWARDED_PROTO")
#: what an environ says of its connection: where that came from, and what a proxy has said of its client
ORIGIN = ("wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "PROXY_PROTOCOL", "PROXY_ADDR", "PROXY_PORT", "engineio.peer")
#: how often a connection may change its worker: one that goes on carries requests of many clients, whatever its headers say
MAX_HOPS = 3
#: seconds beyond a heartbeat in which a poll has been answered
MARGIN = 10.0


class Cluster:
    """This worker and the others. Made in the hub, after any fork.

    Args:
        host: the engine.
        cluster: what the option says.
        names: of the sockets of this machine's workers.

    Raises:
        ConfigurationError: there can be no such sockets here, or Redis cannot be reached.
    """

    def __init__(self, host: Host, cluster: str, names: Names | None = None) -> None:
        options = host.options
        self.counters = Counters()
        self._host = host
        location = RedisLocation.parse(cluster) if names_redis(cluster) else None
        self._group = group_of(cluster, options.path)
        self._names = choose_names(self._group) if names is None else names
        self._owner = Owner(host, self._group, self.counters)
        self._answer_timeout = options.ping_interval + options.ping_timeout + MARGIN
        self._near = LocalCourier(self._names, self._answer_timeout)
        self._couriers: list[Courier] = [self._near]
        #: what this worker's session ids begin with
        self.worker_id = ""
        #: workers that have been found on other machines
        self._far: set[str] = set()
        self._caller: Caller
        self._exchange: Exchange | None = None
        self._doorway = self._open(location)
        self._own_mark = "sid=" + self.worker_id
        self._thread = current_thread()
        self._loop: Any = gevent.get_hub().loop

    def _open(self, location: RedisLocation | None) -> Doorway:
        """Find an id that nobody else has, and be reachable by it."""
        for _ in range(MAX_ATTEMPTS):
            self.worker_id = new_worker_id()
            try:
                doorway = Doorway(self._names, self.worker_id, self._owner.receive)
            except FileExistsError:
                continue
            try:
                self._caller = LocalCaller(self._names, self.worker_id) if location is None else self._join(location)
            except FileExistsError:
                doorway.close()
                continue
            except BaseException:
                doorway.close()
                raise
            logger.debug("= this process is the worker %s of the group %s", self.worker_id, self._group)
            return doorway
        raise ConfigurationError(f"cluster: {MAX_ATTEMPTS} worker ids in a row are taken")

    def _join(self, location: RedisLocation) -> Exchange:
        """Be one of several machines' workers. Blocks until Redis is reached."""
        # redis-py is there only where it is needed
        from engineio_wsgi.cluster.redis.links import Exchange
        from engineio_wsgi.cluster.redis.remote import RemoteCourier, RemoteOwner

        self._exchange = Exchange(location, self._group, self.worker_id, RemoteOwner(self._owner, self._answer_timeout).begun,
                                  lambda call, body: perform(self._host, call, body), self._host.announce)
        self._couriers.append(RemoteCourier(self._exchange, self._answer_timeout, location.relay_websockets))
        return self._exchange

    @property
    def connected(self) -> bool:
        """Whether the workers of other machines can be reached: Redis is there. On one machine, always.

        While it is not, sessions of this worker go on. So it is nothing to restart a worker for, and no reason for a balancer to
        take it out; it is for a dashboard. The server's events ``cluster_lost`` and ``cluster_back`` tell when it changes.
        """
        return self._exchange is None or self._exchange.connected

    @property
    def adopted(self) -> int:
        """How many HTTP connections there are that other workers have accepted."""
        return self._owner.adopted

    # -- a request

    def route(self, environ: Environ, start_response: StartResponse | None, handler: Any) -> Iterable[bytes] | None:
        """See to a request that is for another worker's session. Blocks until that worker has taken or answered it.

        Args:
            environ: of the request; it may have an accepted WebSocket in it.
            start_response: ``None`` where there is nothing to respond to but the WebSocket.
            handler: the handler that has read the request, if it is one of ours and the request is as it was read.

        Returns:
            What to return to the server; ``None`` if the request is to be answered here. It is also when its session's
            worker is gone: ``environ`` then tells so under :data:`UNREACHED`.
        """
        listener = self._owner.listeners.of(environ, handler)
        sid = self._foreign_sid(environ)
        if sid is None:
            return None
        owner = sid[:WORKER_ID_SIZE]
        try:
            outcome = self._see_to(owner, sid, environ, start_response, handler, listener)
        except OwnerGone as error:
            outcome = str(error)
        except ClientGone:
            outcome = "the client has left"
        if not isinstance(outcome, str):
            logger.debug("= %s: its worker has taken a request", shorten(sid))
            return outcome
        self.counters.failed += 1
        logger.debug("= %s: its worker did not take a request: %s", shorten(sid), outcome)
        environ[UNREACHED] = {"name": "OWNER_GONE", "owner": owner, "error": outcome}
        return None

    def _foreign_sid(self, environ: Environ) -> str | None:
        """The session that a request names, if it may be another worker's."""
        query = environ.get("QUERY_STRING", "")
        if "sid=" not in query or self._own_mark in query or environ["REQUEST_METHOD"] not in ("GET", "POST"):
            return None
        sid = parse_query(query).get("sid", "")
        owner = sid[:WORKER_ID_SIZE]
        return sid if sid not in self._host.clients and owner != self.worker_id and is_worker_id(owner) else None

    def _see_to(self, owner: str, sid: str, environ: Environ, start_response: StartResponse | None,
                handler: Any, listener: Listener | None) -> Iterable[bytes] | str:
        """The same once it is known whose the request is. Returns a text if it was not taken: why."""
        # to another machine, only WebSockets leave
        leaves = asks_for_websocket(environ) or (owner not in self._far and _may_leave(environ, listener))
        detachable = detachable_of(environ, handler, NO_NAMES if listener is None else listener.names) if leaves else None
        request = RequestCopy(environ, self._owner.terms, sid, self._host.options.max_http_buffer_size)
        reasons: list[str] = []
        # a worker of another machine never becomes one of this
        for courier in self._couriers[owner in self._far:]:
            try:
                outcome = self._send_by(courier, owner, detachable, request, start_response)
            except OwnerGone as error:
                reasons.append(str(error))
            else:
                if not courier.moves_connections:
                    self._far.add(owner)
                return outcome
        self._far.discard(owner)
        raise OwnerGone("; ".join(reasons))

    def _send_by(self, courier: Courier, owner: str, detachable: Detachable | None, request: RequestCopy,
                 start_response: StartResponse | None) -> Iterable[bytes] | str:
        upgrade = asks_for_websocket(request.environ)
        if detachable is not None and (upgrade or courier.moves_connections):
            refusal = courier.hand_over(owner, self._connection(request, detachable, upgrade), detachable)
            if refusal is None:
                self.counters.handed_over += 1
                return detachable.end(start_response)
            if refusal is not Refusal.FULL:
                return _REFUSALS[refusal]
        if upgrade or start_response is None:
            return "the connection cannot be given away by this server, or the worker has too many"
        return self._relay(courier, owner, request, start_response)

    def _connection(self, request: RequestCopy, detachable: Detachable, upgrade: bool) -> MovedConnection:
        environ = request.environ
        origin = {key: environ[key] for key in ORIGIN if key in environ}
        return MovedConnection(self._owner.terms, request.sid, detachable.address, origin, hops_of(environ, detachable.sock),
                          detachable.listener, request.texts if upgrade else None, detachable.accepted)

    def _relay(self, courier: Courier, owner: str, request: RequestCopy, start_response: StartResponse) -> Iterable[bytes] | str:
        answered = courier.relay(owner, request)
        if isinstance(answered, Refusal):
            return _REFUSALS[answered]
        self.counters.relayed += 1
        start_response(answered.status, answered.headers)
        return [answered.body]

    # -- sessions wherever they live

    def workers(self) -> list[str]:
        """The ids of all workers, this one's included: what their session ids begin with."""
        return [self.worker_id, *self._caller.others()]

    def count(self) -> int:
        """How many sessions all workers have together. Blocks until they have said so; who does not answer is left out."""
        message = Call(self._group, Action.COUNT).message()
        others = self._here(lambda: self._caller.ask_all(message))
        return len(self._host.clients) + sum(others.values())

    def send(self, sid: str, data: str | bytes, compress: bool = True) -> bool:
        """Send one message to a session of any worker. Blocks until its worker has queued it.

        Returns:
            Whether it has. ``False`` if there is no such session, its write buffer stays full, or its worker does not answer.
        """
        return self._call(Call(self._group, Action.SEND, (sid,), compress=compress), data)

    def disconnect(self, sid: str) -> bool:
        """Close a session of any worker. Blocks until its worker knows; returns whether there is such a session."""
        return self._call(Call(self._group, Action.DISCONNECT, (sid,)))

    def _call(self, call: Call, data: str | bytes = b"") -> bool:
        owner = call.sids[0][:WORKER_ID_SIZE]
        if owner == self.worker_id or not is_worker_id(owner):
            return False
        try:
            return bool(self._here(lambda: self._caller.ask(owner, call.message(data))))
        except OwnerGone as error:
            logger.debug("= %s: its worker was not reached: %s", shorten(call.sids[0]), error)
            return False

    def broadcast(self, data: str | bytes, exclude: Iterable[str] = (), compress: bool = True) -> None:
        """Send one message to every session of the other workers. Does not block; each gets what is sent here in its order.

        A worker that ends, or takes nothing for 5 seconds, loses what waits for it.
        """
        message = Call(self._group, Action.BROADCAST, tuple(exclude), compress=compress).message(data)
        if current_thread() == self._thread:
            self._caller.tell_all(message)
        else:
            self._loop.run_callback_threadsafe(self._caller.tell_all, message)

    def _here(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the thread of this worker's hub: others had to have a hub of their own."""
        return function() if current_thread() == self._thread else wait_for_hub(self._loop, function)

    # -- the end

    def close(self, timeout: float) -> None:
        """Be no worker for others any more; adopted connections end with the request that is under way.

        Blocks for ``timeout`` seconds at most. Harmless if repeated.
        """
        deadline = monotonic() + timeout
        self._doorway.close()
        self._near.close()
        left = self._owner.close(deadline - monotonic())
        if left:
            logger.warning("%d connections and requests from other workers did not end in time", left)
        if self._exchange is not None:
            self._exchange.close(deadline - monotonic())


    def forsake(self) -> None:
        """In a forked child: this worker is the parent. Nobody is told, and what the parent listens to stays."""
        self._doorway.forsake()
        self._caller.forsake()


_REFUSALS = {
    Refusal.UNKNOWN: "the worker knows no such session",
    Refusal.FULL: "the worker has too many connections",
    Refusal.OTHER_TERMS: "the worker has other options",
}


def _may_leave(environ: Environ, listener: Listener | None) -> bool:
    """Whether a connection is served by another worker as here, and all that comes on it is likely to be for the same session."""
    return (listener is not None and listener.moves and not any(name in environ for name in FORWARDED)
            and hops_of(environ, client_socket(environ)) < MAX_HOPS)
