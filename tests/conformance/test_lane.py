"""The lane: known polls and POSTs pass nothing but the engine, unless something else has to see them."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flask
import gevent
import gevent.event
import gevent.ssl
import pytest
from gevent.pywsgi import WSGIServer
from support.rawhttp import ConnectionEnded, HttpConnection, Response
from support.serving import EventLog, Served, fallback, record_events, server_context

import engineio_wsgi
from engineio_wsgi import Cors, HttpCompression, Server, WebSocketHandler, handshake_only
from engineio_wsgi.contrib.flask import EngineIO
from engineio_wsgi.http.roster import ConnectionRoster, RosteredHandler

pytestmark = pytest.mark.ours
HEADERS = [("User-Agent", "test"), ("Accept", "*/*"), ("Cookie", "a=b")]
#: more than the kernel takes for a client with a small buffer
SLOW = "x" * 8_000_000
SMALL = 4096


class Witness:
    """A middleware that keeps the requests that it sees, and can be marked as one that only matters at the handshake."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, application: Any) -> Any:
        def wrapped(environ: dict[str, Any], start_response: Any) -> Any:
            if "sid=" in environ["QUERY_STRING"]:
                self.seen.append(environ["REQUEST_METHOD"])
            return application(environ, start_response)

        return wrapped


class Site:
    """One engine that echoes, on any number of HTTP servers; a witness sees the requests that do not go over the lane."""

    def __init__(self, server: Server | None = None, **options: Any) -> None:
        self.engine = Server(**options) if server is None else server
        self.witness = Witness()
        self.events = EventLog()
        record_events(self.engine, self.events)
        self.http: list[Any] = []

        @self.engine.on("connection")
        def connection(socket: Any) -> None:
            socket.on("message", socket.send)

    def wrap(self, application: Any = fallback) -> Any:
        """The engine, inside the witness."""
        return handshake_only(self.witness)(self.engine.wrap(application))

    def serve(self, handler: type = WebSocketHandler, application: Any = None, log: Any = None, tls: Any = None,
              **more: Any) -> Served:
        """Serve it under a handler."""
        secure = {} if tls is None else {"ssl_context": server_context(**tls)}
        http = WSGIServer(("127.0.0.1", 0), self.wrap() if application is None else application, handler_class=handler, log=log,
                          **secure, **more)
        http.roster = ConnectionRoster()
        http.start()
        self.http.append(http)
        return Served(http.address, self.events, handler="ours", server=self.engine)

    def stop(self) -> None:
        """Stop everything."""
        self.engine.close(timeout=0)
        HttpConnection.close_all()
        for http in self.http:
            http.stop(timeout=1)


@contextmanager
def running(server: Server | None = None, **options: Any) -> Iterator[Site]:
    """A site, until the end of the block."""
    site = Site(server, **options)
    yield site
    site.stop()


class Client:
    """One connection of a client that sends the same headers with each request, and its session."""

    def __init__(self, served: Served, *headers: tuple[str, str], sid: str | None = None, receive_buffer: int | None = None,
                 tls: Any = None, **query: str) -> None:
        self.connection = served.connect(receive_buffer=receive_buffer, tls=tls)
        self.served = served
        self.headers = [*HEADERS, *headers]
        self.extra = "".join(f"{name}={value}&" for name, value in query.items())
        self.sid = sid
        self.number = 0
        if sid is None:
            response = self.get()
            assert response.status == 200, response
            self.sid = json.loads(response.body[1:])["sid"]

    @property
    def target(self) -> str:
        """Of the next request."""
        self.number += 1
        sid = "" if self.sid is None else f"&sid={self.sid}"
        return f"/engine.io/?{self.extra}EIO=4&transport=polling&t=P{self.number}{sid}"

    def start(self) -> None:
        """Send a GET, and return when it waits."""
        self.connection.start("GET", self.target, self.headers)
        self.served.settle()

    def get(self) -> Response:
        """One GET."""
        return self.connection.get(self.target, self.headers)

    def post(self, body: str | bytes) -> Response:
        """One POST."""
        data = body.encode() if isinstance(body, str) else body
        return self.connection.post(self.target, data, [("Content-Type", "text/plain;charset=UTF-8"), *self.headers])

    def start_post(self, text: str) -> None:
        """Send a POST."""
        fields = [("Content-Type", "text/plain;charset=UTF-8"), *self.headers]
        self.connection.start("POST", self.target, fields, text.encode())

    def echo(self, text: str) -> Response:
        """A POST, and the GET with its echo."""
        response = self.post(f"4{text}")
        assert (response.status, response.body) == (200, b"ok")
        return self.get()


# -- what goes over the lane


def test_known_requests_pass_nothing_but_the_engine() -> None:
    with running() as site:
        client = Client(site.serve())
        assert [client.echo(text).text for text in "abc"] == ["4a", "4b", "4c"]
        # the POSTs have other headers than the GETs, which are those of the handshake
        assert site.witness.seen == ["POST"]


def test_names_of_the_application_in_the_query() -> None:
    with running() as site:
        client = Client(site.serve(), token="a.b-c", room="4")
        assert [client.echo(text).text for text in "ab"] == ["4a", "4b"]
        assert site.witness.seen == ["POST"]


def test_any_number_of_bytes() -> None:
    with running() as site:
        client = Client(site.serve())
        for size in (0, 1, 9, 10, 99, 100, 1000, 60_000):
            assert client.echo("x" * size).text == "4" + "x" * size
        assert site.witness.seen == ["POST"]


def test_binary_messages_and_several_packets() -> None:
    with running() as site:
        client = Client(site.serve())
        client.post("4first")
        assert client.post("bAAEC\x1e4two\x1e4\N{SNOWMAN}").body == b"ok"
        received = client.get().text.split("\x1e")
        while len(received) < 4:
            received += client.get().text.split("\x1e")
        assert received == ["4first", "bAAEC", "4two", "4\N{SNOWMAN}"]
        assert site.witness.seen == ["POST"]


def test_a_connection_that_carries_two_sessions() -> None:
    with running() as site:
        served = site.serve()
        one = Client(served)
        two = Client(served)
        two.connection = one.connection
        assert [client.echo(text).text for client, text in ((one, "a"), (two, "b"), (one, "c"))] == ["4a", "4b", "4c"]
        assert site.witness.seen == ["POST"]


def test_a_flask_application() -> None:
    app = flask.Flask("site")
    engineio = EngineIO(app)
    with running(engineio) as site:
        app.wsgi_app = handshake_only(site.witness)(app.wsgi_app)  # type: ignore[method-assign]
        client = Client(site.serve(application=app))
        assert [client.echo(text).text for text in "ab"] == ["4a", "4b"]
        assert site.witness.seen == ["POST"]


def test_two_servers_around_one_application() -> None:
    with running() as site:
        outer = Server(path="/other.io")
        client = Client(site.serve(application=outer.wrap(site.wrap())))
        assert [client.echo(text).text for text in "ab"] == ["4a", "4b"]
        assert site.witness.seen == ["POST"]


def test_a_session_of_this_worker_of_a_cluster(tmp_path: Any) -> None:
    with running(cluster=f"local:{tmp_path.name}") as site:
        client = Client(site.serve())
        assert [client.echo(text).text for text in "ab"] == ["4a", "4b"]
        assert site.witness.seen == ["POST"]


# -- what has to see each request


def test_a_middleware_sees_every_request() -> None:
    with running() as site:
        client = Client(site.serve(application=site.witness(site.engine.wrap(fallback))))
        for text in "ab":
            client.echo(text)
        assert site.witness.seen == ["POST", "GET"] * 2


@pytest.mark.parametrize(("mark", "seen"), [(lambda middleware: middleware, 4), (handshake_only, 1)], ids=["plain", "marked"])
def test_a_middleware_of_the_engine(mark: Callable[[Any], Any], seen: int) -> None:
    with running() as site:
        inner = Witness()
        site.engine.use(mark(inner))
        client = Client(site.serve())
        for text in "ab":
            client.echo(text)
        assert len(inner.seen) == seen


def test_a_middleware_that_is_used_later() -> None:
    with running() as site:
        client = Client(site.serve())
        client.echo("a")
        inner = Witness()
        site.engine.use(inner)
        client.echo("b")
        assert inner.seen == ["POST", "GET"]


def test_listeners_of_headers() -> None:
    with running() as site:
        client = Client(site.serve())
        assert client.echo("a").header("X-Site") is None
        site.engine.on("headers", lambda headers, request: headers.set("X-Site", "seen"))
        assert [client.post("4b").header("X-Site"), client.get().header("X-Site")] == ["seen", "seen"]


def test_a_cors_function_is_asked_each_time() -> None:
    asked: list[str] = []

    def allows(origin: str) -> bool:
        asked.append(origin)
        return len(asked) < 6

    with running(cors=Cors(origins=allows)) as site:
        client = Client(site.serve(), ("Origin", "http://page.example"))
        before = len(asked)
        client.post("4a")
        assert len(asked) > before
        while client.get().status == 200:
            client.post("4a")
        assert asked[5:], "it was asked until it refused"


def test_cors_headers() -> None:
    with running(cors=Cors(origins=re.compile(r"http://page\.example"), credentials=True)) as site:
        client = Client(site.serve(), ("Origin", "http://page.example"))
        first, *others = [response for text in "abc" for response in (client.post(f"4{text}"), client.get())]
        names = ("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Vary")
        assert [[response.header(name) for name in names] for response in others] == [
            [first.header(name) for name in names]] * 5
        assert site.witness.seen == ["POST"]


def test_the_same_bytes_on_a_connection_with_another_scheme(certificate: dict[str, str]) -> None:
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate["certfile"])
    with running() as site:
        plain, secure = site.serve(), site.serve(tls=certificate)
        headers = [("Host", "page.example"), ("Origin", "http://page.example")]
        client = Client(plain, *headers)
        assert [client.echo("a").status, client.echo("b").status] == [200, 200]
        assert Client(secure, *headers, sid=client.sid, tls=context).get().status == 403


def test_the_limits_of_the_handler() -> None:
    class Own(WebSocketHandler):
        """Has limits that change."""

    with running() as site:
        client = Client(site.serve(Own))
        client.echo("a")
        for name, limit in (("max_request_line", 40), ("max_header_count", 3), ("max_header_size", 50)):
            other = Client(site.serve(Own))
            other.echo("a")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Own, name, limit)
                assert other.get().status in (414, 431)


def test_a_body_beyond_the_limit() -> None:
    with running(max_http_buffer_size=10) as site:
        client = Client(site.serve())
        client.echo("a")
        assert client.post("4" + "x" * 10).status == 413


def test_an_invalid_payload() -> None:
    with running() as site:
        client = Client(site.serve())
        client.echo("a")
        assert client.post(b"4\xff").status == 400
        assert site.events.wait("close")["reason"] == "parse error"
        assert client.get().json() == {"code": 1, "message": "Session ID unknown"}


def test_a_second_get_and_a_second_post() -> None:
    with running() as site:
        client = Client(site.serve())
        client.echo("a")
        client.start()
        other = Client(client.served, sid=client.sid)
        assert other.get().status == 400
        assert client.connection.response().text == "1"
        assert site.events.wait("close")["reason"] == "transport error"


# -- hooks of handlers


def test_a_handler_with_a_hook_sees_every_request() -> None:
    for method in ("get_environ", "run_application", "handle_one_response", "log_request"):
        calls: list[str] = []

        class Own(WebSocketHandler):
            """Overrides one method."""

        def hook(self: Any, calls: list[str] = calls, method: str = method) -> Any:
            calls.append(method)
            return getattr(WebSocketHandler, method)(self)

        setattr(Own, method, hook)
        with running() as site:
            client = Client(site.serve(Own))
            for text in "ab":
                client.echo(text)
        assert len(calls) == 5, method


def test_a_handler_that_wants_the_lane_all_the_same() -> None:
    class Own(WebSocketHandler):
        lane = True

        def get_environ(self) -> Any:
            return {**super().get_environ(), "own": True}

    with running() as site:
        client = Client(site.serve(Own))
        assert [client.echo(text).text for text in "ab"] == ["4a", "4b"]
        assert site.witness.seen == ["POST"]


def test_a_handler_without_the_lane() -> None:
    class Own(WebSocketHandler):
        lane = False

    with running() as site:
        client = Client(site.serve(Own))
        client.echo("a")
        client.echo("b")
        assert site.witness.seen == ["POST", "GET"] * 2


def test_a_server_and_a_middleware_with_a_method_of_their_own() -> None:
    class OwnServer(Server):
        def handle_request(self, environ: Any, start_response: Any) -> Any:
            return super().handle_request(environ, start_response)

    class OwnMiddleware(engineio_wsgi.Middleware):
        def __call__(self, environ: Any, start_response: Any) -> Any:
            return super().__call__(environ, start_response)

    for server, wrap in ((OwnServer(), None), (Server(), OwnMiddleware)):
        with running(server) as site:
            inner = site.wrap() if wrap is None else handshake_only(site.witness)(wrap(fallback, server))
            client = Client(site.serve(application=inner))
            client.echo("a")
            client.echo("b")
            assert site.witness.seen == ["POST", "GET"] * 2


def test_the_access_log() -> None:
    lines: list[str] = []

    class Log:
        def write(self, line: str) -> None:
            lines.append(line)

    with running() as site:
        client = Client(site.serve(log=Log()))
        client.echo("a")
        client.start()
        site.engine.clients[client.sid].send("late")
        assert client.connection.response().text == "4late"
        assert site.witness.seen == ["POST"]
        pattern = r'127\.0\.0\.1 - - \[[-\d: ]{19}\] "(GET|POST) /engine\.io/\?EIO=4\S+ HTTP/1\.1" 200 \d+ 0\.\d{6}\n'
        matches = [re.fullmatch(pattern, line) for line in lines if "/settled" not in line]
        assert [match and match[1] for match in matches] == ["GET", "POST", "GET", "GET"]


# -- the connection


def test_a_message_for_a_get_that_waits() -> None:
    with running() as site:
        client = Client(site.serve())
        for text in ("one", "two"):
            client.start()
            site.engine.clients[client.sid].send(text)
            assert client.connection.response().text == f"4{text}"
        assert site.witness.seen == []


def test_several_messages_for_a_get_that_waits() -> None:
    with running() as site:
        client = Client(site.serve())
        client.start()
        for text in "abc":
            site.engine.clients[client.sid].send(text)
        assert client.connection.response().text == "4a\x1e4b\x1e4c"
        client.start()
        site.engine.clients[client.sid].send("d")
        assert client.connection.response().text == "4d"


def test_pages_between_polls() -> None:
    with running() as site:
        client = Client(site.serve())
        for number in range(3):
            client.start()
            site.engine.clients[client.sid].send(f"{number}")
            assert client.connection.response().text == f"4{number}"
            # the application gets a greenlet and a socket again
            assert client.connection.get(f"/page{number}").text == f"application /page{number}"
            assert client.echo("x").text == "4x"


def test_a_get_that_waits_holds_no_greenlet() -> None:
    def greenlets() -> int:
        gc.collect()
        return sum(isinstance(each, gevent.Greenlet) for each in gc.get_objects())

    with running() as site:
        served = site.serve()
        before = greenlets()
        clients = [Client(served) for _ in range(50)]
        for client in clients:
            client.connection.start("GET", client.target, client.headers)
        served.settle()
        assert greenlets() - before < 10
        for client in clients:
            site.engine.clients[client.sid].send("a")
        assert [client.connection.response().text for client in clients] == ["4a"] * 50


def test_a_post_that_waits_for_a_full_inbox() -> None:
    with running(max_inbox=100) as site:
        client = Client(site.serve())
        client.echo("a")
        client.start()
        busy = gevent.event.Event()
        site.engine.clients[client.sid].on("message", lambda data: busy.wait())
        # the listener waits, and the rest of what comes is queued
        site.engine.clients[client.sid].send("b")
        assert client.connection.response().text == "4b"
        assert client.post("4" + "x" * 200).body == b"ok"
        client.start_post("4" + "y" * 200)
        client.served.settle()
        busy.set()
        assert client.connection.response().body == b"ok"
        assert client.get().text.startswith("4")


def test_a_client_that_leaves_while_a_get_waits() -> None:
    for leave in (HttpConnection.close, HttpConnection.reset):
        with running() as site:
            client = Client(site.serve())
            client.start()
            leave(client.connection)
            assert site.events.wait("close")["reason"] == "transport close"


def test_a_client_that_ends_its_side_while_a_get_waits() -> None:
    with running() as site:
        client = Client(site.serve())
        client.start()
        client.connection.finish()
        assert client.connection.response().text == "6"
        assert client.connection.read_to_end() == b""


def test_a_request_behind_a_get_that_waits() -> None:
    with running() as site:
        client = Client(site.serve())
        client.echo("a")
        client.start()
        client.connection.start("POST", client.target, [("Content-Type", "text/plain;charset=UTF-8"), *client.headers], b"4b")
        client.connection.start("GET", client.target, client.headers)
        client.served.settle()
        site.engine.clients[client.sid].send("first")
        assert [client.connection.response().text for _ in range(3)] == ["4first", "ok", "4b"]


def test_an_answer_that_the_kernel_does_not_take_at_once() -> None:
    with running(max_buffered=10_000_000) as site:
        served = site.serve()
        client = Client(served, receive_buffer=SMALL)
        client.start()
        site.engine.clients[client.sid].send(SLOW)
        served.settle()
        assert client.connection.response().text == f"4{SLOW}"
        assert client.echo("a").text == "4a"


def test_a_client_that_takes_nothing_of_an_answer() -> None:
    class Own(WebSocketHandler):
        write_timeout = 0.05

    with running(max_buffered=10_000_000) as site:
        client = Client(site.serve(Own, spawn=100), receive_buffer=SMALL)
        client.start()
        open_connections = len(site.http[0].pool)
        site.engine.clients[client.sid].send(SLOW)
        while len(site.http[0].pool) == open_connections:
            gevent.sleep(0.01)
        with pytest.raises(ConnectionEnded):
            while client.connection.read(65_536):
                pass


def test_compression() -> None:
    import gzip

    with running(http_compression=HttpCompression(threshold=100)) as site:
        client = Client(site.serve(), ("Accept-Encoding", "gzip"))
        client.echo("a")
        response = client.echo("x" * 1000)
        assert gzip.decompress(response.body).decode() == "4" + "x" * 1000
        assert (response.header("Content-Encoding"), response.header("Vary")) == ("gzip", "Accept-Encoding")
        assert site.witness.seen == ["POST"]


def test_the_timeout_between_two_requests() -> None:
    class Own(WebSocketHandler):
        keepalive_timeout = 0.2

    with running() as site:
        client = Client(site.serve(Own))
        client.start()
        gevent.sleep(0.4)
        site.engine.clients[client.sid].send("late")
        # a GET may wait longer than that; after its answer, the time runs
        assert client.connection.response().text == "4late"
        assert client.connection.read_to_end() == b""
        assert not site.events.of("close")


def test_a_server_that_stops() -> None:
    with running() as site:
        client = Client(site.serve(RosteredHandler))
        idle = Client(client.served)
        client.start()
        roster = site.http[0].roster
        roster.stop(1.0)
        site.engine.clients[client.sid].send("last")
        response = client.connection.response()
        assert (response.text, response.header("Connection")) == ("4last", "close")
        assert [each.connection.read_to_end() for each in (client, idle)] == [b"", b""]
        assert roster.wait(10)


def test_a_body_that_arrives_in_pieces() -> None:
    with running() as site:
        client = Client(site.serve())
        client.echo("a")
        head = client.connection.head("POST", client.target, [("Content-Type", "text/plain;charset=UTF-8"), *client.headers,
                                                              ("Content-Length", "4")])
        for piece in (head[:20], head[20:], b"4l", b"ng"):
            client.connection.send(piece)
            client.served.settle()
        assert client.connection.response().text == "ok"
        assert client.get().text == "4lng"


def test_a_session_whose_time_is_over() -> None:
    with running(ping_interval=0.05, ping_timeout=0.05) as site:
        client = Client(site.serve())
        site.events.wait("close")
        assert client.get().json()["code"] == 1


def test_the_counts_of_several_packets() -> None:
    from prometheus_client import CollectorRegistry

    from engineio_wsgi.metrics import observe

    server, registry = Server(), CollectorRegistry()
    observe(server, registry)
    with running(server) as site:
        client = Client(site.serve())
        client.post("4first")
        client.get()
        client.post("4a\x1ebAAEC\x1e4b")
        received: list[str] = []
        while len(received) < 3:
            received += client.get().text.split("\x1e")
        assert site.witness.seen == ["POST"]

        def count(name: str) -> float | None:
            return registry.get_sample_value(f"engineio_{name}_total", {"path": "/engine.io", "transport": "polling"})

        assert count("messages_received") == count("messages_sent") == 4
        assert count("received_bytes") == len("4first") + len("4a\x1ebAAEC\x1e4b")
