"""Several workers that share a listener, each in a process of its own, with a port of its own beside it.

The shared port is for clients that reach whichever worker the kernel picks; by its own port, a test picks a worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
from gevent import socket

from engineio_wsgi.cluster.local.names import AbstractNames
from support.clients import PollingSession
from support.rawhttp import HttpConnection
from support.rawwebsocket import WebSocketClient
from support.serving import EventLog, Served

ROOT = Path(__file__).parents[2]
#: seconds that anything may take; only a failing test waits that long
PATIENCE = 60.0
#: between two workers: each keeps up to four to the other
IDLE_CHANNELS = 8

#: argv: sharing ("fork" or "reuseport"), number of workers, handler, options as JSON. Echoes messages; "push N" sends N numbers
SCRIPT = '''
import itertools, json, logging, os, pathlib, socket, sys
import engineio_wsgi
from engineio_wsgi.cluster.local import names as addresses
from engineio_wsgi.cluster.local import channel
from engineio_wsgi.cluster.local import forwarder
from engineio_wsgi.cluster.local import listener as unix_listener
from engineio_wsgi.cluster import router as routing
from engineio_wsgi.cluster.listeners import hops_of
from engineio_wsgi.handoff.client_socket import client_socket
from gevent.pywsgi import WSGIServer, WSGIHandler
from geventwebsocket.handler import WebSocketHandler as StockHandler

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
sharing, number, handler = sys.argv[1], int(sys.argv[2]), sys.argv[3]
options, tls = json.loads(sys.argv[4]), json.loads(sys.argv[5])
limit = options.pop("limit", None)
addresses.BACKLOG = options.pop("backlog", addresses.BACKLOG)
patience = options.pop("patience", channel.PATIENCE)
channel.PATIENCE = unix_listener.PATIENCE = forwarder.PATIENCE = patience
if options.pop("apart", False):
    # no worker finds the others' sockets, as on another machine
    routing.choose_names = lambda group: addresses.AbstractNames(f"{group} of {os.getpid()}")
if options.pop("streams", False):
    # as where sockets cannot keep records apart
    from engineio_wsgi.cluster.local import records
    records.KIND = socket.SOCK_STREAM
sockets = options.pop("sockets", None)
if sockets:
    # as where there are no abstract names, and the kernel does not tell the user at the other end
    del socket.SO_PEERCRED
    routing.choose_names = lambda group: addresses.Folder(pathlib.Path(sockets))
if str(options.get("cluster")).startswith("redis"):
    from engineio_wsgi.cluster.redis import remote
    remote.PATIENCE = patience
if options.pop("own_ids", False):
    options["generate_id"] = lambda request, numbers=itertools.count(1): f"number {next(numbers)}"
topics = options.pop("topics", ())
traced, observed = options.pop("traced", False), options.pop("observed", False)
# made before the fork, as with gunicorn --preload
server = engineio_wsgi.Server(**options)

if observed:
    from engineio_wsgi.metrics import observe
    observe(server)

if traced:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
    from engineio_wsgi.tracing import trace

    class Printer(SpanExporter):
        def export(self, spans):
            for span in spans:
                parent = 0 if span.parent is None else span.parent.span_id
                content = [os.getpid(), span.name, span.context.trace_id, span.context.span_id, parent, dict(span.attributes)]
                tell("span: " + json.dumps(content))

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Printer()))
    trace(server, provider)

heard = []

def subscriber(data):
    if data == "fail":
        raise RuntimeError("a subscriber that fails")
    if data == "block":
        import gevent.event
        gevent.event.Event().wait()
    heard.append(data if isinstance(data, str) else data.hex())
    return None if data == "nothing" else data

for topic in topics:
    server.cluster.subscribe(topic, subscriber)

def ask_in_a_thread(*arguments, **options):
    import gevent
    return gevent.get_hub().threadpool.apply(server.cluster.ask, arguments, options)

def outcome_of(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except (engineio_wsgi.EngineError, ValueError) as error:
        return f"{type(error).__name__}: {error}"

def metric(name, **labels):
    from prometheus_client import REGISTRY
    return REGISTRY.get_sample_value(f"engineio_{name}", {"path": server.options.path, **labels})

CALLS = {"publish": lambda *arguments, **options: outcome_of(server.cluster.publish, *arguments, **options),
         "ask": lambda *arguments, **options: outcome_of(server.cluster.ask, *arguments, **options),
         "ask_in_a_thread": ask_in_a_thread, "heard": lambda: heard,
         "metric": metric, "count": lambda: server.cluster.count(), "workers": lambda: server.cluster.workers()}

def tell(text):
    # one write: the workers share this file, and what they print in pieces would mix
    os.write(2, (text + "\\n").encode())

@server.on("connection")
def connected(socket):
    @socket.on("message")
    def message(data):
        if isinstance(data, str) and data.startswith("push "):
            for number in range(int(data[5:])):
                socket.send(str(number))
        elif data == "who":
            socket.send(json.dumps([os.getpid(), socket.remote_address]))
        else:
            socket.send(data)
    socket.on("close", lambda reason, _: tell(f"closed: {reason}"))

server.on("cluster_lost", lambda error: tell(f"lost: {error}"))
server.on("cluster_back", lambda seconds: tell(f"back after {seconds} s"))

@server.on("connection_error")
def refused(error):
    context = {key: str(value) for key, value in error.context.items()}
    tell(f"refused: {int(error.code)} {json.dumps(context)}")

@server.use
def slowly(engine):
    def serve(environ, start_response):
        if "slowly" in environ["QUERY_STRING"]:
            import gevent
            gevent.sleep(0.5)
            tell("a slow request goes on")
        return engine(environ, start_response)
    return serve

def close():
    server.close(5)
    tell("the server is closed")

def application(environ, start_response):
    if environ["PATH_INFO"] == "/close":
        import gevent
        gevent.spawn(close)
    cluster = server.cluster
    if environ["PATH_INFO"] == "/call":
        name, arguments, options = json.loads(environ["wsgi.input"].read())
        # a list is the messages of a bundle
        arguments = [engineio_wsgi.Bundle(*each) if isinstance(each, list) else each for each in arguments]
        owner = server.clients[arguments.pop(0)] if name in ("join", "leave") else server
        outcome = (CALLS.get(name) or getattr(owner, name))(*arguments, **options)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(outcome, default=bytes.hex).encode()]
    content = {"pid": os.getpid(), "clients": server.clients_count, "id": server._registry.worker_id,
               "address": environ.get("REMOTE_ADDR"), "port": environ.get("REMOTE_PORT"), "scheme": environ["wsgi.url_scheme"],
               "counters": vars(cluster.counters) if cluster else {}, "adopted": cluster.adopted if cluster else 0,
               "connected": cluster.connected if cluster else None,
               "files": len(os.listdir("/proc/self/fd")), "hops": hops_of(environ, client_socket(environ))}
    body = json.dumps(content).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

def bound(port=0):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sharing == "reuseport":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock

def work(shared):
    import gevent.ssl
    from gevent import socket as gevent_socket
    from gevent.pool import Pool
    kinds = {"ours": engineio_wsgi.WebSocketHandler, "stock": StockHandler, "pywsgi": WSGIHandler}
    more = {}
    if tls:
        more["ssl_context"] = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
        more["ssl_context"].load_cert_chain(**tls)
    if limit:
        more["spawn"] = Pool(limit)
    app = server.wrap(application)
    servers = []
    if sharing == "reuseport":
        shared = bound(shared)
    for sock in (shared, bound()):
        sock.listen(512)
        own = gevent_socket.socket(fileno=sock.detach())
        own.setblocking(False)
        servers.append(WSGIServer(own, app, handler_class=kinds[handler], log=sys.stderr, **more))
        servers[-1].start()
    os.write(1, f"worker {os.getpid()} {servers[1].server_port}\\n".encode())
    servers[0].serve_forever()

# with SO_REUSEPORT, this socket only reserves the port: it never listens
first = bound()
port = first.getsockname()[1]
os.write(1, f"shared {port}\\n".encode())
for _ in range(number):
    if os.fork() == 0:
        work(port if sharing == "reuseport" else first)
        os._exit(0)
for _ in range(number):
    os.wait()
'''


class Worker(Served):
    """One of the workers, by its own port."""

    def __init__(self, pid: int, port: int, tls: Any) -> None:
        super().__init__(("127.0.0.1", port), EventLog(), handler="ours")
        self.pid = pid
        self._tls = tls

    def connect(self, **options: Any) -> HttpConnection:
        """A new connection."""
        return super().connect(**({"tls": self._tls} if self._tls is not None else {}), **options)

    def ask(self) -> dict[str, Any]:
        """The state of the worker: ``pid``, ``clients``, ``id``, ``counters``, ``adopted``, ``connected``, ``files``."""
        connection = self.connect()
        content: dict[str, Any] = connection.get("/").json()
        connection.close()
        return content

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the worker's server or cluster, or of the session whose id comes first: what it returns."""
        connection = self.connect()
        outcome = connection.post("/call", json.dumps([name, arguments, options]).encode()).json()
        connection.close()
        return outcome


class Workers:
    """A running group.

    Args:
        folder: an empty one, for the logs.
        number: of workers.
        sharing: ``"fork"`` (one listener, bound before the fork) or ``"reuseport"``.
        handler: ``"ours"``, ``"stock"`` (gevent-websocket's) or ``"pywsgi"``.
        tls: the client's context, if the workers speak TLS; their certificate is ``certificate`` then.
        options: the engine's, beside ``cluster``; ``limit`` connections for each worker; ``own_ids`` for sessions called
            "number 1" and so on; ``patience``, the seconds that workers give each other; ``backlog`` of their Unix sockets;
            ``apart``, if each is to be on a machine of its own; ``sockets``, a directory for theirs, instead of abstract names;
            ``topics`` that they subscribe to before the fork; ``traced``, if they are to log their spans; ``observed``, if they
            have metrics.
    """

    def __init__(self, folder: Path, number: int = 3, *, sharing: str = "fork", handler: str = "ours", tls: Any = None,
                 certificate: dict[str, str] | None = None, **options: Any) -> None:
        script = folder / "main.py"
        script.write_text(SCRIPT)
        self._log = folder / "log"
        settings = json.dumps({"cluster": "local", **options})
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(script), sharing, str(number), handler, settings, json.dumps(certificate)],
                env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        assert self.process.stdout is not None
        words = [self._announced() for _ in range(number + 1)]
        self.workers = [Worker(int(word[1]), int(word[2]), tls) for word in words if word[0] == "worker"]
        self.shared = Worker(0, next(int(word[1]) for word in words if word[0] == "shared"), tls)

    def _announced(self) -> list[str]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().split()
        if not line:
            self.stop()
            raise AssertionError(self.log())
        return line

    def log(self) -> str:
        """What was written to stderr: log lines, access log, refusals, closes."""
        return self._log.read_text()

    def wait_for_log(self, text: str, count: int = 1) -> None:
        """Wait until the log has a text so many times."""
        deadline = monotonic() + PATIENCE
        while self.log().count(text) < count:
            assert monotonic() < deadline, f"no {text!r} in {self.log()}"
            gevent.sleep(0.02)

    def total(self, name: str) -> int:
        """The sum of a counter over all workers."""
        return sum(worker.ask()["counters"].get(name, 0) for worker in self.workers)

    def complaints(self) -> list[str]:
        """The lines of the log that report a failure."""
        return [line for line in self.log().splitlines() if line.startswith(("WARNING", "ERROR", "Traceback"))]

    def stop(self) -> None:
        """Stop all workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Nomad(PollingSession):
    """A polling client with a new connection for every request, to the server that ``served`` is at the time."""

    def post(self, *packets: Any) -> Any:
        self.posting.close()
        self.posting = self.served.connect()
        return super().post(*packets)

    def start_poll(self, headers: Any = ()) -> None:
        self.getting.close()
        self.getting = self.served.connect()
        super().start_poll(headers)

    def upgrade(self) -> WebSocketClient:
        """The whole upgrade."""
        websocket = WebSocketClient.open(self.served.connect(), self.target(transport="websocket"))
        websocket.send("2probe")
        assert websocket.recv() == "3probe"
        return websocket

    def close_websocket(self, websocket: WebSocketClient) -> None:
        """End the session, and wait until the server has seen it."""
        websocket.close()
        websocket.wait_closed()


def settled(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    with gevent.Timeout(PATIENCE, AssertionError("it does not come about")):
        while not condition():
            gevent.sleep(0.02)


def assert_descriptors_are_given_back(owner: Worker, other: Worker) -> None:
    """Send many messages through another worker than the session's, which must leave no more files open than idle channels."""
    session = Nomad(owner).open()
    limits = {worker: worker.ask()["files"] + IDLE_CHANNELS for worker in (owner, other)}
    session.served = other
    for number in range(30):
        session.echo(str(number))
    session.getting.close()
    session.posting.close()
    settled(lambda: all(worker.ask()["files"] <= limit for worker, limit in limits.items()))


def knock(worker_id: str, group: str = "local/engine.io") -> Any:
    """Connect to a worker's Unix socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(PATIENCE)
    sock.connect(AbstractNames(group).address(worker_id))
    return sock
