"""gunicorn's hooks by which its unchanged gevent workers close the engine's sessions when they stop."""

from __future__ import annotations

import os

import gevent
from gunicorn.workers.ggevent import GeventWorker

from engineio_wsgi.gunicorn.limits import LimitWatch
from engineio_wsgi.gunicorn.process import LOOK_PERIOD, join_workers, note_worker, warn_of_max_requests
from engineio_wsgi.gunicorn.worker import NOTIFY_PERIOD, RESERVE, Worker
from engineio_wsgi.server import close_servers
from engineio_wsgi.vendors.gunicorn_workers import GunicornWorker

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
    # for so long it may still accept connections, whose sessions must not be refused
    gevent.sleep(NOTIFY_PERIOD)
    close_servers(worker.cfg.graceful_timeout - NOTIFY_PERIOD - RESERVE)


def worker_exit(server: object, worker: GunicornWorker) -> None:
    """gunicorn's hook of this name: closes the sessions that have no request under way, for which its workers do not wait.

    Args:
        server: gunicorn's.
        worker: gunicorn's.
    """
    if not isinstance(worker, Worker):
        close_servers(RESERVE)
