"""gunicorn's hooks by which its unchanged gevent workers close the engine's sessions when they stop."""

from __future__ import annotations

import os
from weakref import WeakKeyDictionary

import gevent
from gevent.event import Event
from gunicorn.workers.ggevent import GeventWorker

from engineio_wsgi.clock import monotonic
from engineio_wsgi.gunicorn.limits import LimitWatch
from engineio_wsgi.gunicorn.process import LOOK_PERIOD, join_workers, note_worker, warn_of_max_requests
from engineio_wsgi.gunicorn.worker import NOTIFY_PERIOD, RESERVE, Worker
from engineio_wsgi.server import close_servers
from engineio_wsgi.vendors.gunicorn_workers import GunicornSettings, GunicornWorker

__all__ = ["post_worker_init", "worker_exit"]


def post_worker_init(worker: GunicornWorker) -> None:
    """gunicorn's hook of this name: sessions under its own gevent workers are closed when the worker is asked to stop.

    Set it, and :func:`worker_exit`, by ``-c python:engineio_wsgi.gunicorn``, or import both into a configuration file.

    Args:
        worker: gunicorn's.
    """
    if not isinstance(worker, Worker):
        warn_of_max_requests(worker.cfg)
        if isinstance(worker, GeventWorker):
            note_worker(worker)
            join_workers(worker)
        gevent.spawn(_watch_worker, worker)


def _watch_worker(worker: GunicornWorker) -> None:
    watch = LimitWatch(None)
    while worker.alive:
        if os.getpid() != worker.pid:
            return
        watch.look(0)
        gevent.sleep(LOOK_PERIOD)
    _drains[worker] = drain = Drain(worker.cfg)
    drain.start()


class Drain:
    """The end of the sessions of one of gunicorn's own workers, which begins when the worker has been asked to stop.

    Args:
        cfg: gunicorn's settings.
    """

    def __init__(self, cfg: GunicornSettings) -> None:
        self._cfg = cfg
        self._ends = monotonic() + cfg.graceful_timeout - RESERVE
        self._greenlet = gevent.Greenlet(self._run)
        self._accepts_nothing = Event()

    def start(self) -> None:
        """Begin to close the sessions. Does not block."""
        self._greenlet.start()

    def _run(self) -> None:
        # for so long the worker may still accept connections, whose sessions must not be refused
        self._accepts_nothing.wait(NOTIFY_PERIOD)
        close_servers(self._ends - monotonic())

    def wait(self) -> None:
        """Block until the sessions are closed. The worker accepts nothing, and shows the master no more signs of life.

        The master kills a worker that has shown none for its setting ``timeout``. If that is shorter than ``graceful_timeout``,
        the sessions that are left are closed before.
        """
        self._accepts_nothing.set()
        left = self._ends - monotonic()
        silent = self._cfg.timeout - RESERVE - NOTIFY_PERIOD
        self._greenlet.join(min(left, silent) if self._cfg.timeout else left)
        close_servers(RESERVE)


#: the drains of this process' worker
_drains: WeakKeyDictionary[GunicornWorker, Drain] = WeakKeyDictionary()


def worker_exit(server: object, worker: GunicornWorker) -> None:
    """gunicorn's hook of this name: waits until the sessions are closed that have no request under way.

    gunicorn's own workers do not wait for these.

    Args:
        server: gunicorn's.
        worker: gunicorn's.
    """
    if isinstance(worker, Worker):
        return
    drain = _drains.get(worker)
    if drain is not None:
        drain.wait()
    else:
        close_servers(RESERVE)
