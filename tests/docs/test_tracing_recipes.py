"""The manual's page about tracing: each of its applications sends its spans to a collector, which stands for the vendor's."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest
from gevent.pywsgi import WSGIServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.clients import WebSocketSession
from support.manual import DOCS, Shown, code_of, program
from support.workers import settled

pytestmark = [pytest.mark.ours, pytest.mark.deadline(600)]
FILES = {code.name: code.text for code in code_of((DOCS / "guides" / "tracing.rst").read_text()) if code.name}
#: what an echo of one message is made of
SPANS = {"GET /engine.io/", "on connection /engine.io/", "on message /engine.io/", "send /engine.io/"}


class Received(NamedTuple):
    """A request to the collector."""

    path: str
    headers: dict[str, str]
    body: bytes


class Collector:
    """Takes whatever a tracer sends it."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self._server = WSGIServer(("127.0.0.1", 0), self._take, log=None)
        self._server.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def _take(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        if environ.get("HTTP_CONTENT_ENCODING") == "gzip":
            body = gzip.decompress(body)
        headers = {key.removeprefix("HTTP_"): value for key, value in environ.items() if isinstance(value, str)}
        self.requests.append(Received(environ["PATH_INFO"], headers, body))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]

    def of(self, path: str) -> list[Received]:
        """The requests for a path."""
        return [request for request in self.requests if request.path.startswith(path)]

    def otlp(self, path: str) -> set[str]:
        """The names of the spans that came by OpenTelemetry's protocol."""
        sent = [ExportTraceServiceRequest.FromString(request.body) for request in self.of(path)]
        return {span.name for each in sent for resource in each.resource_spans for scope in resource.scope_spans
                for span in scope.spans}

    def datadog(self) -> set[str]:
        """The names of the spans that came by version 0.5 of the Agent's protocol, which has each text once."""
        names = set()
        for request in self.of("/v0.5/traces"):
            texts, traces = msgpack.unpackb(request.body, strict_map_key=False)
            names |= {texts[span[2]] for spans in traces for span in spans}
        return names

    def stop(self) -> None:
        """Take nothing more."""
        self._server.stop()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector."""
    started = Collector()
    yield started
    started.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Serves one of the page's applications."""
    running: list[Shown] = []

    def run(name: str, **environment: str) -> Shown:
        (tmp_path / name).write_text(FILES[name])
        command = f"engineio-wsgi serve {name.removesuffix('.py')}:app --bind 127.0.0.1:0"
        running.append(Shown(tmp_path / f"logs {len(running)}", program(command), tmp_path, **environment))
        return running[-1]

    yield run
    for server in running:
        server.stop()


def echo(server: Shown, *messages: str) -> None:
    """A session that says something and hears the last message."""
    session = WebSocketSession(server.site).open()
    session.say(*messages)
    assert session.hear() == messages[-1]
    session.close()


def test_opentelemetry_alone(start: Any) -> None:
    server = start("traced_app.py", OTEL_BSP_SCHEDULE_DELAY="100")
    echo(server, "hello")
    settled(lambda: all(json.dumps(name) in server.logs() for name in SPANS))


def test_sentry(start: Any, collector: Collector) -> None:
    dsn = collector.url.replace("http://", "http://key@") + "/7"
    server = start("sentry_app.py", SENTRY_DSN=dsn, OTEL_BSP_SCHEDULE_DELAY="100")
    echo(server, "fail", "hello")
    settled(lambda: collector.otlp("/api/7/integration/otlp/v1/traces") >= SPANS)
    settled(lambda: any(b"LookupError" in request.body for request in collector.of("/api/7/envelope/")))
    assert "sentry_key=key" in collector.of("/api/7/integration/otlp")[0].headers["X_SENTRY_AUTH"]


def test_new_relic(start: Any, collector: Collector) -> None:
    server = start("otlp_app.py", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_EXPORTER_OTLP_HEADERS="api-key=secret",
                   OTEL_SERVICE_NAME="chat", OTEL_BSP_SCHEDULE_DELAY="100")
    echo(server, "hello")
    settled(lambda: collector.otlp("/v1/traces") >= SPANS)
    received = collector.of("/v1/traces")[0]
    assert received.headers["API_KEY"] == "secret"
    assert b"chat" in received.body


def test_datadog(start: Any, collector: Collector) -> None:
    server = start("datadog_app.py", DD_TRACE_AGENT_URL=collector.url, DD_SERVICE="chat",
                   DD_INSTRUMENTATION_TELEMETRY_ENABLED="false", DD_REMOTE_CONFIGURATION_ENABLED="false")
    echo(server, "hello")
    settled(lambda: collector.datadog() >= SPANS)
