"""The server under test, with one interface: ours in this process and its hub, or the reference server in another process.

``Served`` is what a test gets; ``EventLog`` has what happened on the server's side, so that no test has to sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import gevent
import gevent.event
import gevent.pywsgi
import gevent.ssl
import geventwebsocket.handler

from support.apps import APPS
from support.rawhttp import HttpConnection

#: seconds that an event may take; only a failing test ever waits that long
PATIENCE = 60.0


class EventLog:
    """What happened on the server's side, in order."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, dict[str, Any]]] = []
        self._changed = gevent.event.Event()

    def add(self, name: str, **fields: Any) -> None:
        """Add an event."""
        self.entries.append((name, fields))
        self._changed.set()

    def of(self, name: str) -> list[dict[str, Any]]:
        """The events with a name, until now."""
        return [fields for entry, fields in self.entries if entry == name]

    def wait(self, name: str, count: int = 1) -> dict[str, Any]:
        """The ``count``-th event of a name; blocks until it has happened."""
        while len(self.of(name)) < count:
            self._changed.clear()
            # counted from the last event: many of them may take a slow machine long
            with gevent.Timeout(PATIENCE, AssertionError(f"no {name!r} number {count}; there was {self.entries}")):
                self._changed.wait()
        return self.of(name)[count - 1]


class Served:
    """A running server.

    ``server`` is the engine itself (``None`` if it runs in another process), ``handler`` the name of its HTTP handler.
    """

    def __init__(
        self, address: tuple[str, int], events: EventLog, *, handler: str, server: Any = None, path: str = "/engine.io/"
    ) -> None:
        self.address = address
        self.events = events
        self.handler = handler
        self.server = server
        self.path = path

    @property
    def origin(self) -> str:
        """The origin of a page that this server would have served."""
        return "http://{}:{}".format(*self.address)

    def connect(self, **options: Any) -> HttpConnection:
        """A new connection; closed at the end of the test if the test has not done it."""
        return HttpConnection(self.address, **options)

    def settle(self) -> None:
        """Return when the server has seen all that was sent to it before: a round trip on a connection of its own."""
        self.connect().get("/settled")

    def socket(self, sid: str) -> Any:
        """The server's side of a session."""
        return self.server.clients[sid]


class ErrorText:
    """A ``error_log`` for pywsgi that keeps what was written."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, text: str) -> None:
        """Called by pywsgi with a traceback."""
        self.parts.append(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """The same for several."""
        self.parts.extend(lines)

    def flush(self) -> None:
        """Does nothing: nothing is buffered."""

    @property
    def text(self) -> str:
        """All that was written."""
        return "".join(self.parts)


def record_events(server: Any, events: EventLog) -> None:
    """Record what happens on a server."""

    @server.on("connection")
    def connection(socket: Any) -> None:
        sid = socket.id

        @socket.on("close")
        def close(reason: str, description: object) -> None:
            unsent = [packet.data for packet in socket.write_buffer]
            events.add("close", sid=sid, reason=str(reason), description=description, unsent=unsent)

        socket.on("upgrading", lambda transport: events.add("upgrading", sid=sid, transport=transport.name))
        socket.on("upgrade", lambda transport: events.add("upgrade", sid=sid, transport=transport.name))
        socket.on("heartbeat", lambda: events.add("heartbeat", sid=sid))
        socket.on("error", lambda error: events.add("error", sid=sid, error=error))
        events.add("connection", sid=sid, transport=socket.transport.name, protocol=socket.protocol)

    @server.on("connection_error")
    def connection_error(error: Any) -> None:
        events.add("connection_error", code=int(error.code), message=error.message, context=dict(error.context))


def fallback(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The application that is wrapped."""
    body = f"application {environ['PATH_INFO']}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def handler_class(name: str) -> type:
    """The pywsgi handler that a test is run under."""
    if name == "stock":
        return geventwebsocket.handler.WebSocketHandler
    import engineio_wsgi

    if name == "laneless":
        return type("LanelessHandler", (engineio_wsgi.WebSocketHandler,), {"lane": False})
    return engineio_wsgi.WebSocketHandler


def server_context(certfile: str, keyfile: str) -> Any:
    """The TLS context of a server."""
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile, keyfile)
    return context


class LocalServer:
    """One of our servers under a gevent WSGI server in this process.

    Args:
        app: the name of one of `support.apps`, or ``None``.
        handler: ``"ours"``, the same without its lane, ``"laneless"``, or ``"stock"``.
        wsgi: what the WSGI server runs, instead of the engine wrapped round `fallback`.
        server: the engine, if the test has made one.
        takes_first: whether the lane takes handshakes and the first requests of connections, from the beginning.
        tls: ``certfile`` and ``keyfile`` of a server that speaks TLS.
        options: the engine's.
    """

    def __init__(
        self,
        app: str | None,
        handler: str,
        *,
        wsgi: Any = None,
        server: Any = None,
        tls: dict[str, str] | None = None,
        takes_first: bool = True,
        **options: Any,
    ) -> None:
        import engineio_wsgi
        from engineio_wsgi.http.http_server import HttpServer

        self.errors = ErrorText()
        self.engine = server if server is not None else engineio_wsgi.Server(**options)
        self.http = (HttpServer if takes_first and handler != "stock" else gevent.pywsgi.WSGIServer)(
            ("127.0.0.1", 0),
            wsgi(self.engine) if wsgi is not None else self.engine.wrap(fallback),
            handler_class=handler_class(handler),
            log=None,
            error_log=self.errors,
            **({} if tls is None else {"ssl_context": server_context(**tls)}),
        )
        self.events = EventLog()
        record_events(self.engine, self.events)
        if app is not None:
            APPS[app](self.engine)
        self.http.start()
        if handler == "ours" and takes_first:
            # what the first request does: the tests have few, and those of the lane may be the first of their connections
            self.engine._worker.enter_hub()
            self.engine._worker.introduce(self.http)
        path = self.engine.options.path.rstrip("/") + "/"
        self.served = Served(self.http.address, self.events, handler=handler, server=self.engine, path=path)

    def stop(self) -> None:
        """Close the sessions, then the server. Check that every session has ended once, and that no failure was logged."""
        self.engine.close(timeout=0)
        for _ in self.events.of("connection"):
            self.events.wait("close", len(self.events.of("connection")))
        HttpConnection.close_all()
        self.http.stop(timeout=1)
        closed = [fields["sid"] for fields in self.events.of("close")]
        opened = [fields["sid"] for fields in self.events.of("connection")]
        assert sorted(closed) == sorted(opened)
        assert self.engine.clients_count == 0
        assert not self.engine.clients
        assert "Traceback" not in self.errors.text, self.errors.text
