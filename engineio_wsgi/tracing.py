"""OpenTelemetry spans of a server. Needs ``opentelemetry-api``: the extra ``[opentelemetry]``.

Owns the names and the attributes of the spans: those of OpenTelemetry's semantic conventions where there are any. Each handshake,
upgrade, call of a listener and ``send`` has a span, and so has what the workers of a cluster send each other. Polls have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIEnvironment

from engineio_wsgi.cluster.carriers import headers_of
from engineio_wsgi.errors import SocketClosed
from engineio_wsgi.log import shorten
from engineio_wsgi.runtime.blame import describe_function
from engineio_wsgi.runtime.observer import EngineCall, Listener, ObservedSession, Observer
from engineio_wsgi.session.events import StandIn
from engineio_wsgi.version import __version__

try:
    import opentelemetry.trace
except ModuleNotFoundError as missing:
    if not str(missing.name).startswith("opentelemetry"):
        raise
    raise ModuleNotFoundError("engineio_wsgi.tracing needs opentelemetry-api: pip install 'engineio-wsgi[opentelemetry]'",
                              name=missing.name) from None

from opentelemetry import propagate
from opentelemetry.context import Context, attach, create_key, detach, get_current, get_value, set_value
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

if TYPE_CHECKING:
    from engineio_wsgi.server import Server

__all__ = ["trace"]

#: the value of ``messaging.system``, and the beginning of the attributes that no convention has
SYSTEM = "engineio"
#: the value of ``rpc.service`` of what workers send each other
CLUSTER = "engineio.cluster"
#: the kinds of spans of listeners; those of all other events are internal
KINDS = {"message": SpanKind.CONSUMER, "data": SpanKind.CONSUMER}
#: attributes of a handshake's span, and the keys of an environ that have their values
OF_REQUEST = {
    "http.request.method": "REQUEST_METHOD", "url.path": "PATH_INFO", "url.scheme": "wsgi.url_scheme",
    "server.address": "SERVER_NAME", "client.address": "REMOTE_ADDR", "user_agent.original": "HTTP_USER_AGENT",
}  # fmt: skip
#: the transports that begin with a WebSocket handshake, and the status of one that was accepted
OF_CONNECTIONS = ("websocket", "flashsocket")
SWITCHED = 101
#: statuses from here on are the server's failures
SERVER_ERROR = 500
#: key of a context: the span of the handshake
HANDSHAKE = create_key("engineio-handshake")


def trace(server: Server, tracer_provider: TracerProvider | None = None) -> None:
    """Make spans of what ``server`` does.

    Args:
        server: one that has no sessions yet.
        tracer_provider: where the spans go; ``None`` for OpenTelemetry's global one.

    Raises:
        UsageError: the server is traced already, or it has sessions.

    Example::

        server = engineio_wsgi.Server()
        engineio_wsgi.tracing.trace(server)
    """
    tracer = opentelemetry.trace.get_tracer("engineio_wsgi", __version__, tracer_provider)
    server._registry.observe(_Tracing(tracer, server.options.resource))


class _TracedListener(StandIn):
    """A listener whose calls have spans."""

    __slots__ = ("_start",)

    def __init__(self, listener: Listener, start: Callable[[], AbstractContextManager[Span]]) -> None:
        super().__init__(listener)
        self._start = start

    def __call__(self, *args: object) -> object:
        with self._start() as span:
            try:
                return self.listener(*args)
            except SocketClosed:
                # the client has left meanwhile, which is no failure of the listener
                raise
            except Exception as error:
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise


class _Tracing(Observer):
    """Makes the spans of one server."""

    added_by = "trace"

    def __init__(self, tracer: Tracer, resource: str) -> None:
        self._tracer = tracer
        self._resource = resource
        #: the context of the handshake of each session, by the session's id
        self._handshakes: dict[str, Context] = {}

    def after_fork(self) -> None:
        self._handshakes.clear()

    # -- handshakes

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse | None, application: EngineCall) -> Iterable[bytes]:
        if "sid=" in environ.get("QUERY_STRING", "") or environ["REQUEST_METHOD"] != "GET":
            return application(environ, start_response)
        with self._handshake(environ) as span:
            return application(environ, start_response and _watched(start_response, span))

    @contextmanager
    def _handshake(self, environ: WSGIEnvironment) -> Iterator[Span]:
        """The span of a handshake. It ends when the session is open, even if this greenlet stays with the WebSocket."""
        attributes = {name: str(environ[key]) for name, key in OF_REQUEST.items() if environ.get(key)}
        attributes["http.route"] = self._resource
        parent, kind = _parent_of(headers_of(environ))
        with self._tracer.start_as_current_span(f"GET {self._resource}", parent, kind, attributes, end_on_exit=False) as span:
            token = attach(set_value(HANDSHAKE, span))
            try:
                yield span
            finally:
                detach(token)
                if span.is_recording():
                    span.end()

    def on_open(self, session: ObservedSession) -> None:
        self._handshakes[session.id] = get_current()
        span = get_value(HANDSHAKE)
        if not isinstance(span, Span):
            return
        span.set_attributes(self._of_session(session))
        if session.transport.name in OF_CONNECTIONS:
            # the request may stay in its greenlet for as long as the session lives
            span.set_attribute("http.response.status_code", SWITCHED)
            span.end()

    def on_refused(self, code: int, error: Exception, environ: WSGIEnvironment) -> None:
        span = get_value(HANDSHAKE)
        if isinstance(span, Span):
            span.set_attribute(f"{SYSTEM}.refusal.code", code)
            span.set_attribute("error.type", type(error).__qualname__)

    def on_closed(self, session: ObservedSession) -> None:
        self._handshakes.pop(session.id, None)

    def on_moved(self, session: ObservedSession, direction: str) -> None:
        # where it goes on, its spans have no links to the handshake
        self._handshakes.pop(session.id, None)

    def _of_session(self, session: ObservedSession) -> dict[str, str | int]:
        # the whole id is a credential
        return {"session.id": shorten(session.id), f"{SYSTEM}.transport": session.transport.name,
                f"{SYSTEM}.protocol": session.protocol}

    def _links(self, session: ObservedSession) -> list[Link]:
        """From a span of a session to that of its handshake."""
        span = opentelemetry.trace.get_current_span(self._handshakes.get(session.id) or Context())
        return [Link(span.get_span_context())] if span.get_span_context().is_valid else []

    # -- upgrades

    def on_upgrade(self, session: ObservedSession, environ: WSGIEnvironment) -> Callable[[bool], object]:
        parent, _ = _parent_of(headers_of(environ))
        span = self._tracer.start_span(f"upgrade {self._resource}", parent, SpanKind.INTERNAL, self._of_session(session),
                                       self._links(session))

        def ended(won: bool) -> None:
            span.set_attribute(f"{SYSTEM}.upgrade.won", won)
            if not won:
                span.set_status(Status(StatusCode.ERROR, "the upgrade was abandoned"))
            span.end()

        return ended

    # -- listeners and messages

    def stand_in(self, session: ObservedSession, event: str, listener: Listener) -> Listener:
        kind = KINDS.get(event, SpanKind.INTERNAL)
        kind_of_operation = "process" if kind is SpanKind.CONSUMER else ""
        attributes = {**self._of_session(session), **self._of_message(f"on {event}", kind_of_operation)}
        if event == "connection":
            # it belongs to the handshake: all other calls are traces of their own, because a session may last for days
            parent, links = self._handshakes.get(session.id), []
        else:
            parent, links = Context(), self._links(session)
            attributes["code.function.name"] = describe_function(listener).partition(" (")[0]

        def start() -> AbstractContextManager[Span]:
            attributes[f"{SYSTEM}.transport"] = session.transport.name
            return self._tracer.start_as_current_span(f"on {event} {self._resource}", parent, kind, attributes, links,
                                                      record_exception=False, set_status_on_exception=False)

        return _TracedListener(listener, start)

    def _of_message(self, name: str, kind: str) -> dict[str, str | int]:
        attributes: dict[str, str | int] = {"messaging.system": SYSTEM, "messaging.destination.name": self._resource,
                                            "messaging.operation.name": name}
        return {**attributes, "messaging.operation.type": kind} if kind else attributes

    def sending(self, session: ObservedSession, size: int) -> AbstractContextManager[object]:
        attributes = {**self._of_session(session), **self._of_message("send", "send"), "messaging.message.body.size": size}
        return self._tracer.start_as_current_span(f"send {self._resource}", None, SpanKind.PRODUCER, attributes,
                                                  self._links(session))

    # -- the cluster

    @contextmanager
    def departing(self, hop: str, worker: str, carrier: dict[str, str]) -> Iterator[None]:
        parent, _ = _parent_of(carrier)
        with self._tracer.start_as_current_span(f"{CLUSTER}/{hop}", parent, SpanKind.CLIENT, _of_hop(hop, worker)):
            propagate.inject(carrier)
            yield

    def arriving(self, hop: str, carrier: Mapping[str, str]) -> AbstractContextManager[object]:
        return self._tracer.start_as_current_span(f"{CLUSTER}/{hop}", propagate.extract(carrier), SpanKind.SERVER, _of_hop(hop))


def _of_hop(hop: str, worker: str = "") -> dict[str, str]:
    attributes = {"rpc.system": SYSTEM, "rpc.service": CLUSTER, "rpc.method": hop}
    return {**attributes, f"{SYSTEM}.worker": worker} if worker else attributes


def _parent_of(headers: Mapping[str, str]) -> tuple[Context | None, SpanKind]:
    """The context and the kind of a request's span: another instrumentation may have made one for the request already."""
    if opentelemetry.trace.get_current_span().get_span_context().is_valid:
        return None, SpanKind.INTERNAL
    return propagate.extract(headers), SpanKind.SERVER


def _watched(start_response: StartResponse, span: Span) -> StartResponse:
    """A ``start_response`` that notes the status in a span."""
    def start(status: str, *arguments: object) -> object:
        code = int(status[:3])
        span.set_attribute("http.response.status_code", code)
        if code >= SERVER_ERROR:
            span.set_status(Status(StatusCode.ERROR))
        return start_response(status, *arguments)  # type: ignore[arg-type]  # whatever the engine gives it

    return start  # type: ignore[return-value]
