"""The servers of this process that the engine's requests come through, as far as they are known, and what they are for others.

Owns the decision which of them may serve a connection that another worker has accepted: the one that listens on the same address,
or one of the same kind. Whatever is asked on such a connection has to meet all that its own listener would have called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import gevent
from gevent.baseserver import BaseServer

from engineio_wsgi.cluster.messages import MovedConnection
from engineio_wsgi.handoff.adopter import ConnectionAdopter
from engineio_wsgi.handoff.listening import PrimedSocket, accepted_by, adopt, application_of
from engineio_wsgi.http.handler import WebSocketHandler

__all__ = ["HOPS", "Listener", "Listeners", "hops_of"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: adopted connections at a time, where the server has no limit of its own; with more, requests are relayed
MAX_ADOPTED = 10_000
#: in the environ of an adopted connection's requests, under our handler: how often it has changed its worker
HOPS = "engineio.hops"
#: modules of servers whose classes and handlers say how they serve; gunicorn's depend on its settings, too
PLAIN_SERVERS = ("gevent.pywsgi", "engineio_wsgi.server")


class Front(Protocol):
    """What is needed of the engine."""

    #: whether the application that it is wrapped around is one and the same, wherever it was wrapped
    has_one_application: bool

    def is_outermost(self, application: Any) -> bool:
        """Whether a request to an application meets nothing before the engine."""
        ...


class ServerAdopter(ConnectionAdopter):
    """An adopter in the place of a server that exists: it has what the server has at the time, and serves in its pool.

    So a handler finds there what it looks for on its server, such as gunicorn's worker.
    """

    def __init__(self, server: Any) -> None:
        super().__init__(server.handler_class)
        self.server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["server"], name)

    @property
    def full(self) -> bool:
        """Whether another connection would be one too many, or come too late."""
        pool = self.server.pool
        too_many = len(self.roster) >= MAX_ADOPTED if pool is None else pool.full()
        return self.roster.stopping or too_many

    def _spawn(self, function: Callable[[], object]) -> gevent.Greenlet:
        """In the server's pool. What has no place there any more is about to become a session's WebSocket."""
        pool = self.server.pool
        return gevent.spawn(function) if pool is None or pool.full() else pool.spawn(function)


class Listener:
    """One server, as other workers see it.

    Args:
        server: a running one.
        front: the engine.

    Attributes:
        address: that it listens on.
        kind: what it has in common with those that serve in the same way; empty if only its own address tells.
    """

    def __init__(self, server: Any, front: Front) -> None:
        self.server = server
        self._front = front
        self.address = repr(server.socket.getsockname())
        self.kind = _kind_of(server)

    @property
    def names(self) -> tuple[str, str]:
        """By which another worker finds a server of its own that serves as this one."""
        return self.address, self.kind

    @property
    def moves(self) -> bool:
        """Whether its connections can be served by another worker.

        With something between the server and the engine they stay: it would see a request here and there. TLS stays, too: what an
        application can learn of it is in this process.
        """
        return not self.server.ssl_enabled and self._front.is_outermost(application_of(self.server))

    @property
    def full(self) -> bool:
        """Whether it takes no other connection."""
        return self.server.closed or bool(self.server.full())

    @property
    def over(self) -> bool:
        """Whether nothing of it is left."""
        return bool(self.server.closed)

    @property
    def counts_websockets(self) -> bool:
        """Whether a session's WebSocket is one of the connections of which there is a limit."""
        return hasattr(self.server.pool, "keep_place")

    def adopt(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        """Serve a connection, whose file descriptor belongs to the server now. Blocks only while the server's pool is full."""
        adopt(self.server, PrimedSocket(number, read_ahead, connection.hops + 1), connection.address)


class OwnListener(Listener):
    """A server with our handler."""

    def __init__(self, server: Any, front: Front) -> None:
        super().__init__(server, front)
        self.adopter = ServerAdopter(server)

    @property
    def full(self) -> bool:
        """Whether it takes no other connection."""
        return self.server.closed or self.adopter.full

    @property
    def over(self) -> bool:
        """Whether nothing of it is left."""
        return self.server.closed and not len(self.adopter.roster)

    def adopt(self, number: int, connection: MovedConnection, read_ahead: bytes) -> None:
        """Serve a connection. Blocks only while the server's pool is full."""
        origin = {**connection.origin, HOPS: connection.hops + 1}
        self.adopter.adopt(number, connection.address, read_ahead=read_ahead, environ=origin)


class Listeners:
    """Those of this process that have been seen.

    Args:
        front: the engine.
    """

    def __init__(self, front: Front) -> None:
        self._front = front
        self._known: dict[Any, Listener] = {}

    def of(self, environ: dict[str, Any], handler: WebSocketHandler | None) -> Listener | None:
        """The server that a request has come through, which is known from now on; ``None`` if that is not certain.

        Args:
            handler: that has read the request, if it is one of ours.
        """
        if handler is None:
            accepted = accepted_by(environ)
            server = None if accepted is None else accepted.server
        else:
            server = handler.server
            if isinstance(server, ServerAdopter):
                server = server.server
        known = self._known.get(server)
        return known if known is not None or not isinstance(server, BaseServer) else self._learn(server)

    def _learn(self, server: Any) -> Listener | None:
        self._known = {known: listener for known, listener in self._known.items() if not listener.over}
        if server.closed:
            return None
        ours = issubclass(getattr(server, "handler_class", object), WebSocketHandler)
        listener = self._known[server] = (OwnListener if ours else Listener)(server, self._front)
        return listener

    def find(self, names: tuple[str, str]) -> Listener | None:
        """The server that serves as another worker's with these names; ``None`` if none is known."""
        address, kind = names
        by_kind = None
        for listener in self._known.values():
            if listener.address == address:
                return listener
            if kind and listener.kind == kind and self._front.has_one_application:
                by_kind = listener
        return by_kind

    @property
    def adopters(self) -> list[ConnectionAdopter]:
        """Those that serve other workers' connections with our handler."""
        return [listener.adopter for listener in self._known.values() if isinstance(listener, OwnListener)]


def hops_of(environ: Mapping[str, Any], sock: Any) -> int:
    """How often the connection of a request has changed its worker."""
    hops: Any = environ.get(HOPS) or getattr(sock, "hops", 0)
    return int(hops)


def _kind_of(server: Any) -> str:
    if type(server).__module__ not in PLAIN_SERVERS:
        return ""
    handler = server.handler_class
    return f"{type(server).__qualname__} {handler.__module__}.{handler.__qualname__}"
