"""Serves an application on listening sockets until the process has to stop, and stops gracefully.

Owns the HTTP servers of the command, and what signals mean to a process that serves. It must not know where the sockets and the
application come from.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from wsgiref.types import WSGIApplication

import gevent
from gevent import ssl
from gevent.event import AsyncResult
from gevent.socket import socket as GeventSocket

from engineio_wsgi.cli.link import Stop, WorkerEnd
from engineio_wsgi.cli.logs import AccessLog
from engineio_wsgi.handover import Generations, Handover
from engineio_wsgi.http.http_server import StoppableServer, stop_all
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.forks import call_in_child
from engineio_wsgi.server import close_servers

__all__ = ["Serving", "ignore_terminal"]

#: what a signal asks a process for that serves
SIGNALS = {signal.SIGTERM: Stop.GRACEFUL, signal.SIGINT: Stop.QUICK}
#: signals of a terminal, which go to the workers, too; their master tells them what to do
TERMINAL = (signal.SIGINT, signal.SIGHUP)
#: seconds that sessions have to fetch what is left, and requests to be answered, when they are all ended at once
QUICK_TIMEOUT = 3.0
#: seconds between two looks for modules that were loaded
FILES_PERIOD = 1.0


class Serving:
    """The HTTP servers of this process.

    Args:
        application: what they serve.
        listeners: the sockets, one for each server.
        log: of the requests.
        ssl_context: for TLS.
        has_siblings: whether other processes accept connections on the same sockets.
    """

    def __init__(self, application: WSGIApplication, listeners: Sequence[GeventSocket], log: AccessLog | None,
                 ssl_context: ssl.SSLContext | None, has_siblings: bool) -> None:
        secure = {} if ssl_context is None else {"ssl_context": ssl_context}
        environ = {"wsgi.multiprocess": has_siblings}
        self._servers = [StoppableServer(listener, application, log=log, environ=environ, **secure) for listener in listeners]
        self._stop: AsyncResult[str] = AsyncResult()
        self._watchers: list[tuple[int, gevent.hub.signal]] = []
        self._generations: Generations | None = None
        self._handover: Handover | None = None

    def start(self) -> None:
        """Accept connections. Does not block.

        Raises:
            CannotListen: a socket cannot be used.
        """
        for server in self._servers:
            server.listen()

    def watch_signals(self) -> None:
        """Let SIGTERM and SIGINT stop it."""
        for number, how in SIGNALS.items():
            self._watchers.append((number, gevent.signal_handler(number, self.stop, how)))
        call_in_child(_reset_signals)

    def watch_master(self, link: WorkerEnd, count: int, tells_files: bool) -> None:
        """Let SIGTERM and the master stop it, and take over the sessions of workers that leave.

        Args:
            count: the number of workers of a generation.
            tells_files: whether the master wants to know what is loaded.
        """
        self._generations = Generations(link.generation)
        self._handover = Handover(self._generations, link.generation, count)
        self._handover.ready(self._servers)
        self._watchers.append((signal.SIGTERM, gevent.signal_handler(signal.SIGTERM, self.stop, Stop.LEAVING)))
        call_in_child(_reset_signals)
        gevent.spawn(link.wait_for_stop, self.stop)
        if tells_files:
            gevent.spawn(_tell_files, link.tell_files)

    def stop(self, how: str) -> None:
        """Have it stop, in one of the ways of `Stop`. Does not block. The first call decides how, except for a later `QUICK`."""
        if not self._stop.ready():
            self._stop.set(how)
        elif how == Stop.QUICK:
            gevent.spawn(close_servers, QUICK_TIMEOUT, at_once=True)

    def run(self, graceful_timeout: float) -> None:
        """Block until it has been stopped.

        Args:
            graceful_timeout: seconds that it may take to stop gracefully.
        """
        how = self._stop.get()
        timeout = min(graceful_timeout, QUICK_TIMEOUT) if how == Stop.QUICK else graceful_timeout
        deadline = monotonic() + timeout
        if self._handover is not None and how in (Stop.REPLACED, Stop.LEAVING):
            self._move_sessions(deadline, how == Stop.REPLACED)
        stop_all(self._servers, max(0.0, deadline - monotonic()), lambda left: close_servers(left, at_once=how == Stop.QUICK))
        for number, watcher in self._watchers:
            watcher.cancel()
            signal.signal(number, signal.SIG_IGN)  # the interpreter is about to end


    def _move_sessions(self, deadline: float, is_replaced: bool) -> None:
        """Move what can be moved to other workers. Blocks. The others accept the connections that come now."""
        assert self._generations is not None
        assert self._handover is not None
        if is_replaced:
            self._generations.serve(self._generations.begin())
        self._handover.leave(deadline, self._servers)
        for server in self._servers:
            server.close()


def ignore_terminal() -> None:
    """In a worker: do nothing on the signals of a terminal. Programs that it starts have the usual effects of these signals."""
    for number in TERMINAL:
        signal.signal(number, lambda *_: None)
    call_in_child(_reset_signals)


def _tell_files(tell: Callable[[], None]) -> None:
    while True:
        gevent.sleep(FILES_PERIOD)
        tell()


def _reset_signals(served: bool) -> None:
    """In a forked child: let a signal end the process at once. The child may never run an event loop that could handle it."""
    for number in {*SIGNALS, *TERMINAL}:
        signal.signal(number, signal.SIG_DFL)
