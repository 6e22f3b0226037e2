"""The spans of a server, after each thing that can happen to it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import opentelemetry.trace
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry
from support.clients import open_session, probe, upgrade
from support.rawwebsocket import handshake_headers

from engineio_wsgi import Bundle, Forbidden
from engineio_wsgi.errors import UsageError
from engineio_wsgi.metrics import observe
from engineio_wsgi.server import Server
from engineio_wsgi.tracing import trace

pytestmark = pytest.mark.ours

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE}-{PARENT}-01")


class Traced:
    """A served server and its spans."""

    def __init__(self, served: Any, exporter: InMemorySpanExporter) -> None:
        self.served = served
        self._exporter = exporter

    def spans(self, name: str) -> list[ReadableSpan]:
        """The spans with a name that have ended so far."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name.format(self.resource)]

    @property
    def resource(self) -> str:
        """The path of the engine's requests."""
        return str(self.served.server.options.resource)

    def span(self, name: str) -> ReadableSpan:
        """The only one with a name."""
        (span,) = self.spans(name)
        return span


def ids(span: ReadableSpan) -> tuple[str, str]:
    """The ids of a span: of its trace, and its own."""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    """The id of the span that it belongs to."""
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def links_of(span: ReadableSpan) -> list[tuple[str, str]]:
    """The ids of the spans that it is linked to."""
    return [(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links]


@pytest.fixture
def start(serve: Any) -> Callable[..., Traced]:
    """A factory of served servers that are traced."""
    def run(app: str = "echo", prepare: Callable[[Server], object] = lambda server: None, **options: Any) -> Traced:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        server = Server(**{"allow_eio3": True, **options})
        trace(server, provider)
        prepare(server)
        return Traced(serve(app=app, server=server), exporter)

    return run


def test_a_handshake(start: Any, transport: str, eio: int) -> None:
    traced = start()
    session = open_session(traced.served, transport, eio)
    traced.served.settle()
    span = traced.span("GET {}")
    assert (span.kind, span.parent, span.status.status_code) == (SpanKind.SERVER, None, StatusCode.UNSET)
    assert span.attributes is not None
    expected = {
        "http.request.method": "GET", "http.route": traced.resource, "url.path": traced.resource, "url.scheme": "http",
        "http.response.status_code": 200 if transport == "polling" else 101, "engineio.transport": transport,
        "engineio.protocol": eio, "client.address": "127.0.0.1",
    }  # fmt: skip
    assert {name: span.attributes.get(name) for name in expected} == expected
    assert str(span.attributes["session.id"]).endswith("…")
    assert session.sid not in str(span.to_json())


def test_a_client_continues_its_trace(start: Any, transport: str) -> None:
    traced = start()
    headers = [TRACEPARENT]
    if transport == "websocket":
        headers += handshake_headers("AAAAAAAAAAAAAAAAAAAAAA==")
    traced.served.connect().request("GET", f"{traced.served.path}?EIO=4&transport={transport}", headers)
    traced.served.settle()
    span = traced.span("GET {}")
    assert (ids(span)[0], parent_of(span)) == (TRACE, PARENT)
    connection = traced.span("on connection {}")
    assert (ids(connection)[0], parent_of(connection)) == (TRACE, ids(span)[1])


def test_a_refused_handshake(start: Any, transport: str) -> None:
    def forbid(request: Any) -> bool:
        raise Forbidden("log in first")

    traced = start(allow_request=forbid)
    headers = handshake_headers("AAAAAAAAAAAAAAAAAAAAAA==") if transport == "websocket" else []
    status = traced.served.connect().request("GET", f"{traced.served.path}?EIO=4&transport={transport}", headers).status
    traced.served.settle()
    span = traced.span("GET {}")
    assert span.attributes is not None
    assert (span.attributes["engineio.refusal.code"], span.attributes["error.type"]) == (4, "Forbidden")
    # gevent-websocket's handler has accepted the WebSocket before the engine is asked
    assert span.attributes.get("http.response.status_code", 101) == status
    assert "session.id" not in span.attributes
    assert traced.spans("on connection {}") == []


def test_the_application_s_spans_belong_to_the_handshake(start: Any, transport: str) -> None:
    def allow(request: Any) -> bool:
        with tracer.start_as_current_span("look up the user"):
            return True

    traced = start(allow_request=allow)
    tracer = traced.served.server._registry.observers.of_answers[0]._tracer
    open_session(traced.served, transport)
    traced.served.settle()
    assert parent_of(traced.span("look up the user")) == ids(traced.span("GET {}"))[1]


def test_each_message_is_a_trace_of_its_own_with_a_link_to_the_handshake(start: Any, transport: str) -> None:
    traced = start()
    session = open_session(traced.served, transport)
    session.say("one", "four")
    assert session.hear_many(2) == ["one", "four"]
    traced.served.settle()
    handshake = ids(traced.span("GET {}"))
    messages, sends = traced.spans("on message {}"), traced.spans("send {}")
    assert len({ids(span)[0] for span in messages} | {handshake[0]}) == 3
    assert [links_of(span) for span in messages + sends] == [[handshake]] * 4
    assert [(span.kind, parent_of(span)) for span in messages] == [(SpanKind.CONSUMER, None)] * 2
    assert [(span.kind, parent_of(span)) for span in sends] == [(SpanKind.PRODUCER, ids(span)[1]) for span in messages]
    assert sends[1].attributes is not None
    assert messages[0].attributes is not None
    assert (sends[1].attributes["messaging.message.body.size"], sends[1].attributes["messaging.operation.type"]) == (4, "send")
    assert messages[0].attributes["messaging.operation.type"] == "process"
    assert "message" in str(messages[0].attributes["code.function.name"])


def test_messages_of_every_kind_have_a_span(start: Any, transport: str) -> None:
    traced = start("silent")
    session = open_session(traced.served, transport)
    socket = traced.served.socket(session.sid)
    socket.send("a").send(b"bc").send("ü").send(Bundle("d", "e")).send("f", compress=False)
    assert session.hear_many(6) == ["a", b"bc", "ü", "d", "e", "f"]
    sizes = [span.attributes["messaging.message.body.size"] for span in traced.spans("send {}")]
    assert sizes == [1, 2, 2, 2, 1]


def test_a_listener_that_fails(start: Any, transport: str, caplog: pytest.LogCaptureFixture) -> None:
    def prepare(server: Server) -> None:
        @server.on("connection")
        def connected(socket: Any) -> None:
            @socket.on("message")
            def message(data: str) -> None:
                raise LookupError(data)

    traced = start("silent", prepare)
    session = open_session(traced.served, transport)
    with caplog.at_level(logging.CRITICAL, "engine.socket"):
        session.say("nobody")
        traced.served.settle()
        session.close()
        traced.served.events.wait("close")
    span = traced.span("on message {}")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "LookupError")
    assert [event.name for event in span.events] == ["exception"]


def test_listeners_are_removed_as_ever(start: Any) -> None:
    heard: list[str] = []

    def prepare(server: Server) -> None:
        @server.on("connection")
        def connected(socket: Any) -> None:
            first, other = heard.append, heard.extend
            socket.once("message", first)
            socket.on("message", other)
            assert socket.listeners("message")[-2:] == [first, other]
            socket.off("message", other)

    traced = start("silent", prepare)
    session = open_session(traced.served, "websocket")
    session.say("one", "two")
    session.close()
    traced.served.events.wait("close")
    assert heard == ["one"]


@pytest.mark.parametrize("wins", [True, False])
def test_an_upgrade(start: Any, wins: bool) -> None:
    traced = start()
    session = open_session(traced.served)
    if wins:
        upgrade(session)
        traced.served.events.wait("upgrade")
    else:
        session.start_poll()
        probe(session).vanish()
    traced.served.settle()
    span = traced.span("upgrade {}")
    assert links_of(span) == [ids(traced.span("GET {}"))]
    assert span.attributes is not None
    assert span.attributes["engineio.upgrade.won"] is wins
    assert span.status.status_code is (StatusCode.UNSET if wins else StatusCode.ERROR)


def test_a_span_that_another_instrumentation_has_made_is_the_parent(start: Any) -> None:
    traced = start()
    observers = traced.served.server._registry.observers
    environ = {"REQUEST_METHOD": "GET", "QUERY_STRING": "EIO=4&transport=polling", "PATH_INFO": traced.resource}
    with observers.of_answers[0]._tracer.start_as_current_span("the application's") as outside:
        observers.answer(environ, None, lambda environ, start_response: [b""])
    span = traced.span("GET {}")
    assert (span.kind, parent_of(span)) == (SpanKind.INTERNAL, f"{outside.get_span_context().span_id:016x}")


def test_metrics_and_traces_side_by_side(start: Any, transport: str) -> None:
    registry = CollectorRegistry()
    traced = start(prepare=lambda server: observe(server, registry))
    session = open_session(traced.served, transport)
    session.say("one")
    assert session.hear() == "one"
    traced.served.settle()
    labels = {"path": traced.served.server.options.path, "transport": transport}
    assert registry.get_sample_value("engineio_messages_received_total", labels) == 1
    assert len(traced.spans("on message {}")) == 1


def test_a_server_is_traced_once() -> None:
    server = Server()
    trace(server)
    with pytest.raises(UsageError, match=r"observed already in this way: call trace\(server\) once"):
        trace(server)


def test_nothing_is_current_after_a_handshake(start: Any, transport: str) -> None:
    traced = start()
    open_session(traced.served, transport)
    traced.served.settle()
    assert not opentelemetry.trace.get_current_span().get_span_context().is_valid
    assert len(traced.served.server._registry.observers.of_answers[0]._handshakes) == 1
    traced.served.server.close(timeout=0)
    assert traced.served.server._registry.observers.of_answers[0]._handshakes == {}
