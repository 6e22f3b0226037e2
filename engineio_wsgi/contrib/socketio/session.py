"""The engine below `EngineAdapter`: sessions whose environ python-socketio keeps, and its session cookie."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from wsgiref.types import WSGIEnvironment

from werkzeug.wrappers import Request

from engineio_wsgi.contrib.socketio.options import Translated
from engineio_wsgi.contrib.socketio.origins import ORIGIN, forwarded_origin
from engineio_wsgi.contrib.socketio.untyped import Value
from engineio_wsgi.engine.hooks import ADDED_HEADERS
from engineio_wsgi.errors import RequestRefused
from engineio_wsgi.http.hub_thread import in_plain_thread
from engineio_wsgi.log import Throttle
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.threads import current_thread
from engineio_wsgi.server import Server
from engineio_wsgi.session.delivery import OnSlow
from engineio_wsgi.session.outgoing import Bundle, prepare
from engineio_wsgi.session.session import Session
from engineio_wsgi.session.socket import Socket

__all__ = ["SocketIOEngine", "SocketIOSession"]

logger = logging.getLogger("engine.socketio")



class SocketIOSession(Socket):
    """One client's session, with the attributes that python-socketio and its admin UI look at."""

    __slots__ = ("_running",)

    def __init__(self, session: Session, environ: WSGIEnvironment | Callable[[], WSGIEnvironment]) -> None:
        super().__init__(session, environ)
        session.let_listeners_overlap()
        self._running = 0
        self._environ["wsgi.input"] = io.BytesIO()
        self._environ["wsgi.errors"] = sys.stderr
        if ORIGIN in self._environ:
            self._environ["HTTP_ORIGIN"] = self._environ.pop(ORIGIN)

    @property
    def sid(self) -> str:
        """The session id."""
        return self.id

    @property
    def upgraded(self) -> bool:
        """Whether the session uses WebSocket, be it from its beginning: what python-engineio calls so."""
        return self.transport.name == "websocket"

    @property
    def environ(self) -> WSGIEnvironment:
        """The environ of the handshake: one mutable dict for the whole session."""
        return self._environ

    def begin_handler(self, limit: int) -> None:
        """The handler of an event begins. The client's next events do not wait for it, unless ``limit`` handlers are running."""
        if self._running < limit:
            self._session.inbox.release_turn()  # type: ignore[attr-defined]  # an `OverlappingDispatcher`
        self._running += 1

    def end_handler(self) -> None:
        """The handler has returned."""
        self._running -= 1

    @property
    def session(self) -> Session:
        """What the engine knows of the session."""
        return self._session

    def replace_data(self, data: dict[Value, Value]) -> None:
        """Replace the dict for the application's own data."""
        self._data = data


class SocketIOEngine(Server):
    """The engine that `EngineAdapter` stands in front of.

    Args:
        translated: the options.
        new_id: returns a new session id.
        on_start: called when the process begins to serve.
    """

    _socket_class = SocketIOSession

    def __init__(self, translated: Translated, new_id: Callable[[], str], on_start: Callable[[], object]) -> None:
        super().__init__(**translated.options)
        self._new_id = new_id
        self._started = on_start
        self._cookie = translated.cookie
        self._throttle = Throttle()
        for middleware in translated.middlewares:
            self.use(middleware)
        if not translated.trust_forwarded:
            self.on("connection_error", self._advise)

    def join(self) -> None:
        """Be a worker of the cluster from now on. In a plain thread this does nothing: greenlets alone can be workers."""
        if not in_plain_thread():
            self._worker.join_cluster()

    def make_id(self) -> str:
        """A session id; the first characters name this worker."""
        return self._registry.new_id()

    def generate_id(self, request: Request) -> str:
        """The id of a new session."""
        return self._new_id()

    def deliver_to(self, sockets: Iterable[SocketIOSession], bundle: Bundle, on_slow: OnSlow) -> None:
        """Send a bundle to several sessions, framed once. Never blocks. Any thread may call this."""
        registry = self._registry
        if registry.hub is None:
            return
        sessions, message = [socket.session for socket in sockets], prepare(bundle, compress=True)
        if current_thread() != registry.thread:
            registry.hub.loop.run_callback_threadsafe(registry.deliver_to, sessions, message, on_slow)
        else:
            registry.deliver_to(sessions, message, on_slow)

    def _admit(self, environ: WSGIEnvironment) -> str:
        sid = super()._admit(environ)
        if self._registry.in_cluster and not sid.startswith(self._registry.worker_id):
            sid = self._registry.worker_id + sid
        if self._cookie is not None:
            environ.setdefault(ADDED_HEADERS, []).append(("Set-Cookie", _cookie(self._cookie, sid)))
        return sid

    def _on_start(self) -> None:
        self._started()

    def _advise(self, refusal: RequestRefused) -> None:
        """Name the option that lets pages in whose requests come through a proxy."""
        origin = refusal.context.get("origin")
        environ = refusal.request.environ
        if refusal.context.get("name") == "ORIGIN" and origin == forwarded_origin(environ) \
                and self._throttle.passes("origin", monotonic()):
            logger.warning("a page of %s was refused, which is this server's origin as its proxy names it: python-engineio "
                           "trusts X-Forwarded-Proto and X-Forwarded-Host, and this engine does not. Set trust_forwarded=True if "
                           "clients reach this server through the proxy only, or wrap the application in werkzeug's ProxyFix",
                           origin)


def _cookie(attributes: Mapping[str, Value], sid: str) -> str:
    """The value of ``Set-Cookie``: the attributes are written as they are given."""
    parts = [f"{attributes.get('name', 'io')}={sid}"]
    for attribute, given in attributes.items():
        value = given() if callable(given) else given
        if attribute != "name" and value is not False and value is not None:
            parts.append(attribute if value is True else f"{attribute}={value}")
    return "; ".join(parts)
