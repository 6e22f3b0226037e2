"""gunicorn's gevent worker with our own handler. Owns the translation of its settings, and when its servers start and stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

import gevent
from gevent.event import Event
from gevent.socket import socket
from gunicorn import sock as gunicorn_sock
from gunicorn.errors import HaltServer
from gunicorn.http.wsgi import base_environ
from gunicorn.workers.ggevent import GeventWorker

from engineio_wsgi.gunicorn.client_pool import ClientPool
from engineio_wsgi.gunicorn.handler import GunicornHandler
from engineio_wsgi.gunicorn.heads import HeadReader
from engineio_wsgi.gunicorn.limits import LimitWatch
from engineio_wsgi.gunicorn.process import (
    LOOK_PERIOD,
    count_worker,
    join_workers,
    new_handover,
    note_worker,
    warn_of_max_requests,
)
from engineio_wsgi.gunicorn.settings import refusal
from engineio_wsgi.handover import Handover
from engineio_wsgi.heap import freeze_heap, limit_collections
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.http.http_server import HttpServer
from engineio_wsgi.http.roster import ConnectionRoster
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.server import close_servers
from engineio_wsgi.version import __version__

__all__ = ["GunicornServer", "Worker"]

#: seconds between two signs of life to gunicorn's master; gunicorn's own workers take so long to see that they have to stop
NOTIFY_PERIOD = 1.0
#: seconds of ``graceful_timeout`` that are kept for the time after the sessions: for the last responses, and clients' FINs
RESERVE = 1.0


class GunicornServer(HttpServer):
    """The HTTP server on one of a worker's listeners.

    Args:
        listener: gunicorn's listening socket.
        worker: the worker.
        options: of :class:`gevent.pywsgi.WSGIServer`.
    """

    def __init__(self, listener: socket, worker: Worker, **options: object) -> None:
        self.worker = worker
        self.roster = ConnectionRoster()
        super().__init__(listener, worker.wsgi, log=worker.log, error_log=worker.log, **options)


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gevent worker with :class:`~engineio_wsgi.WebSocketHandler`.

    Access log, ``worker_connections``, ``keepalive``, ``graceful_timeout``, ``max_requests``, ``--preload``, TLS and Unix
    sockets are gunicorn's. When the worker has to stop, the sessions' clients get what waits for them and a close, within
    ``graceful_timeout``.

    Example::

        gunicorn -k engineio_wsgi.gunicorn.Worker module:app
    """

    #: a subclass of :class:`GunicornHandler`, to set other limits
    wsgi_handler = GunicornHandler

    # gunicorn's own arguments, which change with its versions
    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)
        refused = refusal(self.cfg)
        if refused is not None:
            raise HaltServer(refused)
        # this is still the master
        count_worker(self.cfg)
        if self.cfg.preload_app:
            # what its workers share with it: a collection in a worker would write to all of this memory, and so copy it
            freeze_heap()
        #: whether the worker goes on; gunicorn's
        self.alive: bool = True
        self._woken: Event | None = None

    def init_process(self) -> None:
        """What gunicorn calls in the new process.

        gunicorn handles signals only after it has patched the standard library. Until then a SIGTERM would be lost.
        """
        signal.signal(signal.SIGTERM, self.handle_exit)
        note_worker(self)
        super().init_process()

    def load_wsgi(self) -> None:
        """What gunicorn calls to get the application."""
        super().load_wsgi()
        join_workers(self)
        limit_collections()
        freeze_heap()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What gunicorn calls on SIGTERM."""
        super().handle_exit(sig, frame)
        self._wake()

    def count_request(self) -> None:
        """Count one request. After the last one that ``max_requests`` allows, the worker stops."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
            self._wake()

    def _wake(self) -> None:
        """Let the main loop see that the worker has to stop. Also from a signal handler."""
        if self._woken is not None:
            gevent.get_hub().loop.run_callback_threadsafe(self._woken.set)

    def run(self) -> None:
        """Serve until the worker has to stop, then end the sessions and connections. Blocks."""
        self._woken = Event()
        #: reads the requests' heads
        self.heads = HeadReader(self.cfg)
        warn_of_max_requests(self.cfg)
        handover = new_handover(self.cfg)
        servers = [self._serve(listener) for listener in self.sockets]
        handover.ready(servers)
        watch = LimitWatch(self.worker_connections)
        while self.alive:
            self.notify()
            watch.look(max(server.pool.size - server.pool.free_count() for server in servers))
            self._woken.wait(NOTIFY_PERIOD)
        self._shut_down(servers, handover)

    def _serve(self, listener: socket) -> GunicornServer:
        listener.setblocking(1)
        cfg = self.cfg
        environ = {**base_environ(cfg), "wsgi.multithread": True, "SERVER_SOFTWARE": f"engineio-wsgi/{__version__} gunicorn"}
        limits = {"keepalive_timeout": cfg.keepalive, **self.heads.limits()}
        if self.wsgi_handler.max_header_size != WebSocketHandler.max_header_size:
            # a subclass has set its own limit, for which gunicorn has no setting
            del limits["max_header_size"]
        server = GunicornServer(
            listener, self, spawn=ClientPool(self.worker_connections), environ=environ,
            handler_class=type("Handler", (self.wsgi_handler,), limits),
            **({"ssl_context": gunicorn_sock.ssl_context(cfg)} if cfg.is_ssl else {}))
        server.start()
        return server

    def _shut_down(self, servers: list[GunicornServer], handover: Handover) -> None:
        """Move the sessions, or close them; accept nothing more, and let the requests that are under way be answered."""
        deadline = monotonic() + self.cfg.graceful_timeout
        signs_of_life = gevent.spawn(self._keep_notifying)
        # what does not move has this time to be closed
        handover.leave(deadline - RESERVE, servers)
        for server in servers:
            server.close()
        # while polling clients fetch what waits for them, their connections are served as before
        close_servers(deadline - RESERVE - monotonic())
        for server in servers:
            server.roster.stop(deadline - RESERVE - monotonic())
        _wait_until(lambda: not any(len(server.roster) for server in servers), deadline - RESERVE)
        # the last bytes are on their way: to end the process now would make the kernel reset these connections
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
