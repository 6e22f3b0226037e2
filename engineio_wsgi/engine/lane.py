"""The engine's side of the lane: which sessions it serves, and whether anything else has to see their requests.

The lane itself, which knows the connection, is `http.lane`. Also owns the mark of a middleware that only
matters at the handshake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from engineio_wsgi.engine.handshakes import Handshakes
from engineio_wsgi.engine.registry import Registry
from engineio_wsgi.errors import RequestRefused
from engineio_wsgi.http.policies.cors import OriginPolicy
from engineio_wsgi.http.policies.hosts import HostPolicy
from engineio_wsgi.options.values import HttpCompression
from engineio_wsgi.transports.polling import PollingTransport

__all__ = ["EngineLane", "HandshakeOnly", "WSGIMiddleware", "handshake_only"]

WSGIMiddleware = Callable[[WSGIApplication], WSGIApplication]


class HandshakeOnly:
    """An application inside a middleware that need not see the polls and POSTs of sessions."""

    def __init__(self, middleware: WSGIMiddleware, application: WSGIApplication) -> None:
        #: inside the middleware
        self.application = application
        self._whole = middleware(application)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request, the middleware included."""
        return self._whole(environ, start_response)


def handshake_only(middleware: WSGIMiddleware) -> WSGIMiddleware:
    """Say of a WSGI middleware that it only matters for handshakes and for the application's own requests.

    A middleware around the engine sees every request, so each poll and POST has to go through it, which doubles their cost.
    One that is marked may miss polls and POSTs of sessions whose handshake it has seen. So it must not count them, or change
    their responses.

    Args:
        middleware: ``f(app) -> app``.

    Returns:
        The same for the application, and to be used in its place.

    Example::

        app = handshake_only(lambda app: ProxyFix(app, x_for=1))(server.wrap(flask_app))
        server.use(handshake_only(require_login))
    """
    return lambda application: HandshakeOnly(middleware, application)


class EngineLane:
    """Finds the sessions of one server for the lane.

    Args:
        registry: where the sessions are.
        handshakes: opens new ones.
    """

    _origins: OriginPolicy
    _hosts: HostPolicy
    _resource: str
    _is_for_all: bool

    def __init__(self, registry: Registry, handshakes: Handshakes) -> None:
        self._registry = registry
        self._handshakes = handshakes
        self._sessions = registry.sessions
        self._events = registry.events
        #: whether a middleware or a callable option has to see each request
        self._is_closed = False
        #: whether a middleware has to see handshakes
        self._has_middlewares = False

    def configure(self, origins: OriginPolicy, hosts: HostPolicy, applications: Sequence[WSGIApplication]) -> None:
        """Serve requests only if ``origins`` need not be asked for each, and no ``applications`` have to see each."""
        self._origins, self._hosts = origins, hosts
        options = self._registry.options
        # what both policies say then of a request without an origin
        self._resource = options.resource
        self._is_for_all = options.cors is None and options.allowed_hosts is None
        self._is_closed = origins.is_asked or not all(isinstance(each, HandshakeOnly) for each in applications)
        self._has_middlewares = bool(applications)

    def close(self) -> None:
        """Serve nothing more: this server gives its sessions away."""
        self._is_closed = True

    @property
    def compression(self) -> HttpCompression | None:
        """How answers are compressed."""
        return self._registry.options.http_compression

    @property
    def is_open(self) -> bool:
        """Whether nothing else has to see the requests of sessions."""
        # most applications have no such listeners: the attribute is found faster
        return not self._is_closed and not (self._events.edits_headers and "headers" in self._events)

    def admit(self, path: str, host: str, origin: str | None, scheme: str) -> list[tuple[str, str]] | None:
        """The CORS headers of the response to a request that no other has preceded, if nothing has to see its environ.

        Args:
            path: of the request, without escapes.
            host: its ``Host``.
            origin: its ``Origin``, if it has one.
            scheme: of the URL.

        Returns:
            ``None`` if the general way has to decide.
        """
        if self._registry.observers.of_answers or not (path.startswith(self._resource) and self.is_open):
            return None
        if origin is None and self._is_for_all:
            return []
        environ = {"wsgi.url_scheme": scheme, "HTTP_HOST": host}
        if origin is not None:
            environ["HTTP_ORIGIN"] = origin
        try:
            self._hosts.check(environ)
            self._origins.check(environ)
        except RequestRefused:
            return None
        return self._origins.headers(environ)

    def open_session(self, address: str | None, environ: Callable[[], WSGIEnvironment]) -> PollingTransport | None:
        """Open a session of revision 4 that polls, for a client that :meth:`admit` has admitted.

        Args:
            address: the client's.
            environ: makes the environ of the handshake.

        Returns:
            Its transport; ``None`` if the general way has to decide, and nothing has happened yet.
        """
        if self._has_middlewares or self._events.edits_headers:
            return None
        return self._handshakes.open_unasked(address, environ)

    def find(self, sid: str, revision: int) -> PollingTransport | None:
        """The transport of a session that polls, if nothing but the transport has to see its requests now."""
        session = self._sessions.get(sid)
        if session is None or not self.is_open or session.state.upgrading or session.protocol != revision:
            return None
        transport = session.transport
        # what comes after the deadline is refused, and the session ends
        if type(transport) is not PollingTransport or session.heartbeat.overdue():
            return None
        return transport
