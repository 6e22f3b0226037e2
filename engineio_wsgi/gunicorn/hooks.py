"""gunicorn's hooks by which its unchanged gevent workers move or close the engine's sessions when they stop."""

from __future__ import annotations

import os

import gevent
from gevent.event import Event
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from engineio_wsgi.gunicorn.limits import LimitWatch
from engineio_wsgi.gunicorn.process import (
    LOOK_PERIOD,
    count_worker,
    join_workers,
    new_handover,
    note_worker,
    warn_of_max_requests,
)
from engineio_wsgi.gunicorn.worker import NOTIFY_PERIOD, RESERVE, Worker
from engineio_wsgi.handover import Handover
from engineio_wsgi.heap import freeze_heap, limit_collections
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.server import close_servers
from engineio_wsgi.vendors.gunicorn_workers import GunicornSettings, GunicornWorker, running_servers

__all__ = ["post_worker_init", "pre_fork", "worker_exit"]

#: seconds that a worker has to start its servers
START_TIMEOUT = 10.0
#: what ends the sessions of this worker
_watches: list[gevent.Greenlet] = []
#: set when this worker accepts no more connections
_accepts_nothing = Event()


def pre_fork(server: object, worker: GunicornWorker) -> None:
    """gunicorn's hook of this name, in its master: a worker is about to be started.

    By it, a worker that stops knows whether another one takes its place, to which its sessions can move.

    Args:
        server: gunicorn's.
        worker: gunicorn's.
    """
    count_worker(worker.cfg)


def post_worker_init(worker: GunicornWorker) -> None:
    """gunicorn's hook of this name: sessions under its own gevent workers move or are closed when the worker is asked to stop.

    It freezes the heap as well, and limits full collections (:mod:`engineio_wsgi.heap`).

    Set it, :func:`pre_fork` and :func:`worker_exit`, by ``-c python:engineio_wsgi.gunicorn``, or import them into a configuration
    file.

    Args:
        worker: gunicorn's.
    """
    if not isinstance(worker, Worker):
        warn_of_max_requests(worker.cfg)
        limit_collections()
        freeze_heap()
        if isinstance(worker, GeventWorker):
            note_worker(worker)
            join_workers(worker)
        _watches[:] = [gevent.spawn(_watch_worker, worker, new_handover(worker.cfg))]


def _watch_worker(worker: GunicornWorker, handover: Handover) -> None:
    servers = _await_servers(len(list(worker.sockets)))
    handover.ready(servers)
    watch = LimitWatch(None)
    while worker.alive:
        if os.getpid() != worker.pid:
            return
        watch.look(0)
        gevent.sleep(LOOK_PERIOD)
    began = monotonic()
    deadline = began + worker.cfg.graceful_timeout - RESERVE
    handover.leave(deadline, [], lambda: _await_closed(servers))
    # for so long it may still accept connections, whose sessions must not be refused
    _accepts_nothing.wait(max(0.0, NOTIFY_PERIOD - (monotonic() - began)))
    close_servers(deadline - monotonic())


def _await_servers(count: int) -> list[StreamServer]:
    """Wait until the worker's main greenlet has started so many servers. Returns them, or none if that takes too long."""
    deadline = Deadline(START_TIMEOUT)
    while not deadline.has_passed():
        servers = running_servers(gevent.get_hub().parent)
        if len(servers) == count and all(server.started for server in servers):
            return servers
        gevent.sleep(LOOK_PERIOD)
    return []


def _await_closed(servers: list[StreamServer]) -> None:
    """Wait until the worker's main greenlet has closed its servers, which it does within a second after it was asked to stop.

    Their connections can be handed over to other workers until then, so that they are not closed here.
    """
    deadline = Deadline(2 * NOTIFY_PERIOD)
    while not all(server.closed for server in servers) and not deadline.has_passed():
        gevent.sleep(LOOK_PERIOD)


def worker_exit(server: object, worker: GunicornWorker) -> None:
    """gunicorn's hook of this name: waits for sessions that move or have no request under way. gunicorn's workers do not.

    Args:
        server: gunicorn's.
        worker: gunicorn's.
    """
    if isinstance(worker, Worker):
        return
    if not worker.alive:
        _accepts_nothing.set()
        gevent.joinall(_watches, timeout=_silence(worker.cfg))
    close_servers(RESERVE)


def _silence(cfg: GunicornSettings) -> float:
    """The seconds for which a worker that shows no signs of life any more is not killed by the master."""
    seconds = min(cfg.graceful_timeout, cfg.timeout - NOTIFY_PERIOD) if cfg.timeout else cfg.graceful_timeout
    return max(0.0, seconds - RESERVE)
