"""gunicorn: a worker that serves with our own handler, and what its unchanged gevent workers need to stop gracefully.

Owns the translation of gunicorn's settings and of its worker's life to ours. Imported by name only::

    gunicorn -k engineio_wsgi.gunicorn.Worker module:app
    gunicorn -k gevent -c python:engineio_wsgi.gunicorn module:app
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Group, Pool
from greenlet import getcurrent, greenlet

from engineio_wsgi.clock import monotonic
from engineio_wsgi.deadline import Deadline
from engineio_wsgi.engine.worker import set_default_cluster
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.gunicorn.settings import refusal
from engineio_wsgi.handoff.adopted import ConnectionRoster, RosteredHandler
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.request_head import InvalidRequest, RequestHead
from engineio_wsgi.runtime.connection import Wire
from engineio_wsgi.runtime.forks import call_in_child, serve
from engineio_wsgi.server import HttpServer, close_servers, join_clusters
from engineio_wsgi.throttle import Throttle
from engineio_wsgi.version import __version__

try:
    from gunicorn import sock as gunicorn_sock
    from gunicorn.errors import AppImportError, HaltServer
    from gunicorn.http.wsgi import base_environ
    from gunicorn.workers.ggevent import GeventWorker

    from engineio_wsgi.gunicorn.heads import HeadReader, Reading, is_in, preface_size
except ModuleNotFoundError as missing:
    text = f"engineio_wsgi.gunicorn needs {(missing.name or '').partition('.')[0]}: pip install 'engineio-wsgi[gunicorn]'"
    if "gunicorn.app.base" in sys.modules:
        # gunicorn is starting, and would print the tracebacks of what it could not import
        sys.exit(f"Error: {text}")
    raise ModuleNotFoundError(text, name=missing.name) from None

__all__ = ["ClientPool", "GunicornHandler", "GunicornServer", "LimitWatch", "Worker", "post_worker_init", "worker_exit"]

logger = logging.getLogger("engine")

#: seconds between two signs of life to gunicorn's master, and to which its own workers take to see that they have to stop
NOTIFY_PERIOD = 1.0
#: seconds of ``graceful_timeout`` that are kept for what comes after the sessions: the last responses, and clients' FINs
RESERVE = 1.0
#: seconds between two looks at a worker of gunicorn's own: whether it was asked to stop
LOOK_PERIOD = 0.1
#: of a limit, the share at which it is time to say so
NEAR = 0.9
#: seconds for which the same limit is not warned of again
WARNING_PERIOD = 60.0


class ClientPool(Pool):  # type: ignore[misc]
    """The greenlets of a worker's connections. A connection that became a session's WebSocket keeps its place.

    gunicorn's ``worker_connections`` is the number of clients; a session's WebSocket has no greenlet, and is one.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        #: places of connections that have no greenlet any more
        self.kept = 0
        self._keepers: set[Any] = set()

    def keep_place(self, wire: Wire) -> None:
        """The calling greenlet has given its connection away: its place is free when ``wire`` is closed."""
        greenlet = gevent.getcurrent()
        if greenlet in self:
            self._keepers.add(greenlet)
            wire.on_closed(partial(self._give_back, greenlet))

    def _give_back(self, greenlet: Any) -> None:
        if greenlet in self._keepers:
            self._keepers.discard(greenlet)
        else:
            self.kept -= 1
            self._semaphore.release()

    def _discard(self, greenlet: Any) -> None:
        if greenlet in self._keepers:
            self._keepers.discard(greenlet)
            self.kept += 1
            Group._discard(self, greenlet)
        else:
            super()._discard(greenlet)

    def free_count(self) -> int:
        """How many more clients there may be."""
        return max(0, int(self.size) - len(self) - self.kept)


class GunicornHandler(RosteredHandler):
    """Our handler with gunicorn's settings, environ and access log."""

    #: in an environ: the address that is connected, of a proxy that has named its client; ``UNIX`` for a Unix socket's
    PEER, UNIX = "engineio.peer", "unix"

    #: what the connection's last request said, and what its proxy said of the client
    _reading: Reading | None = None
    _proxied: Mapping[str, Any] | None = None
    #: the PROXY header that has just been read; ``None`` until it has been looked for
    _preface: bytes | None = None
    _trusted: bool | None = None

    def _take_head(self) -> bytes:
        if self._preface is None:
            mode = self.server.worker.heads.proxy_mode
            # who was accepted elsewhere has said it there
            self._preface = b"" if mode == "off" or self._origin else self._take_preface(mode)
        return super()._take_head()

    def _take_preface(self, mode: str) -> bytes:
        connection = self._connection
        deadline = monotonic() + self.header_timeout
        while (size := preface_size(connection.buffer, mode)) is None:
            try:
                more = connection.receive(max(deadline - monotonic(), 0))
            except TimeoutError as error:
                raise InvalidRequest("408 Request Timeout", "the PROXY header was not complete in time") from error
            if not more:
                raise ConnectionResetError("the client went away in the midst of a PROXY header")
            connection.buffer += more
        preface, connection.buffer = connection.buffer[:size], connection.buffer[size:]
        return preface

    @property
    def _origin(self) -> Mapping[str, Any]:
        """What the environs of an adopted connection hold; of others, nothing."""
        return getattr(self, "origin", {})

    def _parse(self, head: bytes) -> RequestHead:
        worker: Worker = self.server.worker
        if self._trusted is None:
            peer = self._origin.get(self.PEER)
            self._peer = self.client_address if peer is None else "" if peer == self.UNIX else (peer, 0)
            self._trusted = is_in(self._peer, worker.cfg.forwarded_allow_ips)
        preface, self._preface = self._preface or b"", b""
        self._reading = reading = worker.heads.read(head, self, self._peer, self._trusted, preface)
        if preface and reading.proxied:
            self._learn_client(reading.proxied)
        return reading.request

    def _learn_client(self, said: Mapping[str, Any]) -> None:
        """Whose connection it is, by a PROXY header. A proxy's own check names nobody: that is the proxy's."""
        self._proxied = {"PROXY_PROTOCOL": said["proxy_protocol"]}
        if said["client_addr"] is not None:
            self._proxied.update(PROXY_ADDR=said["proxy_addr"], PROXY_PORT=str(said["proxy_port"]))
            self._proxied[self.PEER] = self._peer[0] if isinstance(self._peer, tuple) else self.UNIX
            self.client_address = (said["client_addr"], said["client_port"])

    def handle_one_response(self) -> None:
        """Answer one request, and count it."""
        worker: Worker = self.server.worker
        original = None if self._reading is None else self._reading.original
        worker.count_request()
        if not worker.cfg.keepalive:
            self.close_connection = True
        environ = self.environ
        super().handle_one_response()
        if self._wire is not None and not self.departed:
            self.log_request()
        if original is not None:
            try:
                worker.cfg.post_request(worker, original, environ, self._as_response())
            except Exception:
                worker.log.exception("Exception in post_request hook")

    def run_application(self) -> None:
        """Have the request answered by the application, after gunicorn's hook."""
        original = None if self._reading is None else self._reading.original
        if original is not None:
            self.server.worker.cfg.pre_request(self.server.worker, original)
        super().run_application()

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        """PEP 3333's ``start_response``. Whoever is turned away by a worker that stops finds the next one by a new connection."""
        if status.startswith("503") and not self.server.worker.alive:
            self.close_connection = True
        return super().start_response(status, headers, exc_info)

    def _leave(self, connection: Any) -> None:
        wire = self._wire
        if wire is not None and not wire.secure and not wire.closed:
            self.server.pool.keep_place(wire)
        super()._leave(connection)

    def get_environ(self) -> dict[str, Any]:
        """The environ of a request, as the settings, and the proxies that they trust, have it."""
        environ = super().get_environ()
        environ["RAW_URI"] = self.path
        if self._reading is not None and self._reading.additions:
            environ.update(self._reading.additions)
        if self._proxied is not None:
            environ.update(self._proxied)
        return environ

    def _as_response(self) -> SimpleNamespace:
        """The response, as gunicorn's loggers and hooks know one."""
        status = "101 Switching Protocols" if self._wire is not None else self._orig_status or "000"
        return SimpleNamespace(status=status, headers=self.response_headers or (), sent=self.response_length,
                               headers_sent=self.headers_sent, response_length=self.response_length)

    def log_request(self) -> None:
        """Write a line to gunicorn's access log, in its format; of a WebSocket when it begins."""
        seconds = max(self.time_finish - self.time_start, 0) if self.time_finish else 0
        self.server.worker.log.access(self._as_response(), self.headers.items(), self.environ, timedelta(seconds=seconds))


class GunicornServer(HttpServer):
    """One of a worker's listeners."""

    def __init__(self, listener: Any, worker: Worker, **options: Any) -> None:
        self.worker = worker
        self.roster = ConnectionRoster()
        super().__init__(listener, worker.wsgi, log=worker.log, error_log=worker.log, **options)


class LimitWatch:
    """Warns when a worker comes near a limit beyond which clients wait and see nothing.

    Args:
        clients: how many there may be; ``None`` if that is not known.
    """

    def __init__(self, clients: int | None) -> None:
        self._clients = clients
        self._said = Throttle(WARNING_PERIOD)

    def look(self, clients: int) -> None:
        """Compare the limits with ``clients``, and with the number of open files."""
        self._compare("worker_connections", clients, self._clients)
        soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._compare("open files (ulimit -n)", _count_files(), soft_limit)

    def _compare(self, name: str, used: int, limit: int | None) -> None:
        if limit is None or limit < 0 or used < NEAR * limit or not self._said.passes(name, monotonic()):
            return
        logger.warning("%d of %d %s are in use: raise the limit, or start more workers; beyond it new clients get no answer",
                       used, limit, name)


def _count_files() -> int:
    """How many files are open, or fewer: the lowest number that is free. Near the limit there are no gaps below it."""
    try:
        number = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return sys.maxsize
    os.close(number)
    return number


class Worker(GeventWorker):  # type: ignore[misc]
    """gunicorn's gevent worker with :class:`~engineio_wsgi.WebSocketHandler`.

    Access log, ``worker_connections``, ``keepalive``, ``graceful_timeout``, ``max_requests``, ``--preload``, TLS and Unix
    sockets are gunicorn's. When it has to stop, the sessions get what waits for them and a close, within
    ``graceful_timeout``.

    Example::

        gunicorn -k engineio_wsgi.gunicorn.Worker module:app
    """

    #: a subclass of :class:`GunicornHandler`, to set other limits
    wsgi_handler = GunicornHandler

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        refused = refusal(self.cfg)
        if refused is not None:
            raise HaltServer(refused)
        #: whether the worker goes on; gunicorn's
        self.alive: bool = True
        self._woken: Event | None = None

    def init_process(self) -> None:
        """What gunicorn calls in the new process. It sees to signals only after patching: until then a SIGTERM would be lost."""
        signal.signal(signal.SIGTERM, self.handle_exit)
        _note_worker(self)
        super().init_process()

    def load_wsgi(self) -> None:
        """What gunicorn calls to get the application."""
        super().load_wsgi()
        _join_workers(self.cfg)

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """What gunicorn calls on SIGTERM."""
        super().handle_exit(sig, frame)
        self._wake()

    def count_request(self) -> None:
        """One more request; perhaps the last one (``max_requests``)."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
            self._wake()

    def _wake(self) -> None:
        """Let the main loop see that it is not alive any more. Also from a signal handler."""
        if self._woken is not None:
            gevent.get_hub().loop.run_callback_threadsafe(self._woken.set)

    def run(self) -> None:
        """The worker's life: serve until it was asked to stop, then end what is there."""
        self._woken = Event()
        #: reads the requests' heads
        self.heads = HeadReader(self.cfg)
        _tell_of_max_requests(self.cfg)
        servers = [self._serve(listener) for listener in self.sockets]
        watch = LimitWatch(self.worker_connections)
        while self.alive:
            self.notify()
            watch.look(max(server.pool.size - server.pool.free_count() for server in servers))
            self._woken.wait(NOTIFY_PERIOD)
        self._shut_down(servers)

    def _serve(self, listener: Any) -> GunicornServer:
        listener.setblocking(1)
        cfg = self.cfg
        environ = {**base_environ(cfg), "wsgi.multithread": True, "SERVER_SOFTWARE": f"engineio-wsgi/{__version__} gunicorn"}
        limits = {"keepalive_timeout": cfg.keepalive, **self.heads.limits()}
        if self.wsgi_handler.max_header_size != WebSocketHandler.max_header_size:
            # a subclass's own bound, for which gunicorn has no setting
            del limits["max_header_size"]
        server = GunicornServer(
            listener, self, spawn=ClientPool(self.worker_connections), environ=environ,
            handler_class=type("Handler", (self.wsgi_handler,), limits),
            **({"ssl_context": gunicorn_sock.ssl_context(cfg)} if cfg.is_ssl else {}))
        server.start()
        return server

    def _shut_down(self, servers: list[GunicornServer]) -> None:
        """Accept nothing more, close the sessions, and let the requests that are under way be answered."""
        deadline = monotonic() + self.cfg.graceful_timeout
        signs_of_life = gevent.spawn(self._keep_notifying)
        for server in servers:
            server.close()
        # while sessions that poll fetch what waits for them, their connections are served as ever
        close_servers(deadline - RESERVE - monotonic())
        for server in servers:
            server.roster.stop(deadline - RESERVE - monotonic())
        _wait_until(lambda: not any(len(server.roster) for server in servers), deadline - RESERVE)
        # what was written last is on its way: whoever closes now would have the kernel take it back
        _wait_until(lambda: not any(server.pool.kept for server in servers), min(deadline, monotonic() + RESERVE))
        if any(len(server.roster) for server in servers):
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
        for server in servers:
            server.stop(timeout=0)
        signs_of_life.kill()

    def _keep_notifying(self) -> None:
        while True:
            self.notify()
            gevent.sleep(NOTIFY_PERIOD)


def _wait_until(condition: Callable[[], bool], deadline: float) -> None:
    end = Deadline(deadline - monotonic())
    while not condition() and not end.has_passed():
        gevent.sleep(LOOK_PERIOD)


def _join_workers(cfg: Any) -> None:
    """Several workers serve each other's sessions: those of one gunicorn, and of the one that takes its place (``USR2``).

    They do so from the start. A cluster that cannot be joined ends gunicorn.
    """
    if cfg.workers > 1:
        mark = sha256(repr(sorted(map(str, cfg.address))).encode()).hexdigest()[:12]
        set_default_cluster(f"local:gunicorn-{mark}")
    try:
        join_clusters()
    except ConfigurationError as error:
        # the way in which gunicorn says one line, and stops
        raise AppImportError(str(error)) from error


def _tell_of_max_requests(cfg: Any) -> None:
    if cfg.max_requests:
        logger.warning("max_requests is %d, and each poll and each message of a polling client is a request: the sessions of a "
                       "worker end with it. Leave max_requests out, or set it far higher", cfg.max_requests)


def post_worker_init(worker: Any) -> None:
    """gunicorn's hook of this name: sessions under its own gevent workers are closed when the worker is asked to stop.

    Set it, and :func:`worker_exit`, by ``-c python:engineio_wsgi.gunicorn``, or import both into a configuration file.
    """
    if not isinstance(worker, Worker):
        _tell_of_max_requests(worker.cfg)
        if isinstance(worker, GeventWorker):
            _note_worker(worker)
            _join_workers(worker.cfg)
        gevent.spawn(_watch_worker, worker)


#: the worker that this process is
_workers: list[Any] = []


def _note_worker(worker: Any) -> None:
    """This process is gunicorn's worker, and those that are forked from it are not."""
    for listener in worker.sockets:
        serve(getattr(listener, "sock", listener))
    _workers[:] = [worker]


def _leave_worker(served: bool) -> None:
    """In a process that was forked from a worker: gunicorn's main greenlet, which is there again, must neither act nor end it.

    Signals have their usual effects: a worker's handlers would only ask that main greenlet to stop.
    """
    while _workers:
        worker = _workers.pop()
        for number in worker.SIGNALS:
            if getattr(signal.getsignal(number), "__self__", None) is worker:
                signal.signal(number, signal.SIG_DFL)
        # what it calls in each of its turns; there is no other way into gunicorn's own workers
        worker.notify = partial(_stand_still, getcurrent())


def _stand_still(forker: greenlet) -> None:
    """Block for as long as the greenlet that has forked this process goes on: nothing else has to be done here.

    Raises:
        SystemExit: it has come back, or ended without ending the process.
    """
    while forker is not getcurrent() and not forker.dead:
        gevent.sleep(LOOK_PERIOD)
    sys.exit(0)


call_in_child(_leave_worker)


def _watch_worker(worker: Any) -> None:
    watch = LimitWatch(None)
    while worker.alive:
        if os.getpid() != worker.pid:
            return
        watch.look(0)
        gevent.sleep(LOOK_PERIOD)
    # so long it may go on accepting: who comes now shall not be turned away
    gevent.sleep(NOTIFY_PERIOD)
    close_servers(worker.cfg.graceful_timeout - NOTIFY_PERIOD - RESERVE)


def worker_exit(server: Any, worker: Any) -> None:
    """gunicorn's hook of this name: sessions without a request under way are not what its workers wait for."""
    if not isinstance(worker, Worker):
        close_servers(RESERVE)
