"""The servers of this process that have accepted a request of the engine.

Owns the choice of the server for a connection that another worker has accepted: the one that listens on the same address, or one
of the same kind. A request on such a connection must go through the same application as on its own server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from wsgiref.types import WSGIEnvironment

import gevent
from gevent.baseserver import BaseServer
from gevent.server import StreamServer

from engineio_wsgi.cluster.messages import MovedConnection
from engineio_wsgi.engine.worker import Worker
from engineio_wsgi.handoff.adopter import ConnectionAdopter
from engineio_wsgi.handoff.listening import PrimedSocket, accepted_by, adopt, application_of
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.roster import ConnectionRoster
from engineio_wsgi.runtime.connection import Connection

__all__ = ["HOPS", "Listener", "Listeners", "OwnListener", "hops_of"]

#: adopted connections at a time, if the server has no limit of its own; beyond it, requests are relayed
MAX_ADOPTED = 10_000
#: in the environ of requests on an adopted connection, under our handler: how often the connection has changed its worker
HOPS = "engineio.hops"
#: modules of servers whose behaviour depends on their class and handler only; gunicorn's depends on its settings, too
PLAIN_SERVERS = ("gevent.pywsgi", "engineio_wsgi.server")


class ServerAdopter(ConnectionAdopter):
    """An adopter for an existing server: it has the server's attributes, and serves in its pool.

    A handler reads attributes of its server, such as gunicorn's worker.
    """

    def __init__(self, server: StreamServer) -> None:
        super().__init__(server.handler_class)
        self.server = server

    def __getattr__(self, name: str) -> Any:  # whatever the server has
        return getattr(self.__dict__["server"], name)

    @property
    def full(self) -> bool:
        """Whether it accepts no further connection: it has too many, or is stopping."""
        pool = self.server.pool
        too_many = len(self.roster) >= MAX_ADOPTED if pool is None else pool.full()
        return self.roster.stopping or too_many

    def _spawn(self, function: Callable[[], object]) -> gevent.Greenlet:
        """Spawn in the server's pool, unless it is full: such a connection is about to become a session's WebSocket."""
        pool = self.server.pool
        return gevent.spawn(function) if pool is None or pool.full() else pool.spawn(function)


class Listener:
    """One server, as other workers see it.

    Args:
        server: a running one.
        worker: this process as a worker.

    Attributes:
        address: that it listens on.
        kind: the same for servers that serve in the same way; empty if only the address identifies the server.
    """

    def __init__(self, server: StreamServer, worker: Worker) -> None:
        self.server = server
        self._worker = worker
        self.address = repr(server.socket.getsockname())
        self.kind = _kind_of(server)

    @property
    def names(self) -> tuple[str, str]:
        """The address and kind, by which another worker finds an equal server of its own."""
        return self.address, self.kind

    @property
    def moves(self) -> bool:
        """Whether another worker can serve its connections.

        Not if anything is wrapped around the engine: it would see only some of a connection's requests. Nor with TLS, whose state
        is in this process.
        """
        application = application_of(self.server)
        return not self.server.ssl_enabled and application is not None and self._worker.is_outermost(application)

    @property
    def crowded(self) -> bool:
        """Whether it has as many connections as it may have."""
        return bool(self.server.full())

    @property
    def full(self) -> bool:
        """Whether it accepts no more connections."""
        return self.server.closed or self.crowded

    @property
    def serves(self) -> bool:
        """Whether it can serve connections of other workers. A server of another kind needs its listener for that."""
        return not self.server.closed

    @property
    def over(self) -> bool:
        """Whether the server has stopped, and none of its connections is left."""
        return bool(self.server.closed)

    @property
    def counts_websockets(self) -> bool:
        """Whether the WebSockets of sessions count towards the limit of connections."""
        return hasattr(self.server.pool, "keep_place")

    def count_websocket(self, connection: Connection) -> None:
        """Count the WebSocket of a session that has come from another worker, until it is closed."""
        self.server.pool.take_place(connection)

    def adopt(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        """Serve a connection. Its file descriptor belongs to the server now. Blocks only while the server's pool is full."""
        adopt(self.server, PrimedSocket(number, read_ahead, connection.hops + 1), connection.address)


class OwnListener(Listener):
    """A server with our handler."""

    def __init__(self, server: StreamServer, worker: Worker) -> None:
        super().__init__(server, worker)
        self.adopter = ServerAdopter(server)

    @property
    def crowded(self) -> bool:
        """Whether it has as many connections as it may have."""
        return self.adopter.full

    @property
    def serves(self) -> bool:
        """Whether it can serve connections of other workers: also when it accepts none any more."""
        return True

    @property
    def over(self) -> bool:
        """Whether the server has stopped, and none of its connections is left."""
        return self.server.closed and not len(self.adopter.roster)

    def adopt(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        """Serve a connection. Blocks only while the server's pool is full."""
        origin = {**connection.origin, HOPS: connection.hops + 1}
        self.adopter.adopt(number, connection.address, read_ahead=read_ahead, environ=origin)


class Listeners:
    """The known servers of this process.

    Args:
        worker: this process as a worker.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._known: dict[StreamServer, Listener] = {}

    def of(self, environ: WSGIEnvironment, handler: WebSocketHandler | None) -> Listener | None:
        """The server that has accepted a request, which is known from now on; ``None`` if it cannot be determined.

        Args:
            handler: the handler that has read the request, if it is one of ours.
        """
        if handler is None:
            accepted = accepted_by(environ)
            server = None if accepted is None else accepted.server
        else:
            server = handler.server
            if isinstance(server, ServerAdopter):
                server = server.server
        known = self._known.get(server)
        return known if known is not None or not isinstance(server, BaseServer) else self.learn(server)

    def learn(self, server: StreamServer) -> Listener | None:
        """Add a server to the known ones. Returns ``None`` if it has stopped."""
        self._known = {known: listener for known, listener in self._known.items() if not listener.over}
        if server.closed:
            return None
        ours = issubclass(getattr(server, "handler_class", object), WebSocketHandler)
        listener = self._known[server] = (OwnListener if ours else Listener)(server, self._worker)
        return listener

    def find(self, names: tuple[str, str]) -> Listener | None:
        """The server that equals another worker's with these names; ``None`` if none is known."""
        address, kind = names
        by_kind = None
        for listener in self._known.values():
            if listener.address == address:
                return listener
            if kind and listener.kind == kind and self._worker.has_one_application:
                by_kind = listener
        return by_kind

    def count_websocket(self, connection: Connection) -> None:
        """Count the WebSocket of a session that has come from another worker, if a server counts them."""
        for listener in self._known.values():
            if listener.counts_websockets and not listener.over:
                listener.count_websocket(connection)
                return

    def rosters(self) -> list[tuple[Listener, ConnectionRoster]]:
        """The open connections of the servers with our handler: those that they have accepted, and those of other workers."""
        found: list[tuple[Listener, ConnectionRoster]] = []
        for listener in self._known.values():
            if isinstance(listener, OwnListener):
                own: ConnectionRoster | None = getattr(listener.server, "roster", None)
                found += [(listener, roster) for roster in (own, listener.adopter.roster) if roster is not None]
        return found

    @property
    def adopters(self) -> list[ConnectionAdopter]:
        """The adopters of the servers with our handler."""
        return [listener.adopter for listener in self._known.values() if isinstance(listener, OwnListener)]


def hops_of(environ: Mapping[str, object], sock: object) -> int:
    """How often the connection of a request has changed its worker."""
    hops = environ.get(HOPS) or getattr(sock, "hops", 0)
    return hops if isinstance(hops, int) else 0


def _kind_of(server: StreamServer) -> str:
    if type(server).__module__ not in PLAIN_SERVERS:
        return ""
    handler = server.handler_class
    return f"{type(server).__qualname__} {handler.__module__}.{handler.__qualname__}"
