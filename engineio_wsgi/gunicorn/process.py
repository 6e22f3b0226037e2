"""The engines in gunicorn's processes: workers join the cluster, and a process forked from a worker does nothing."""

from __future__ import annotations

import logging
import sys
from functools import partial

import gevent
from greenlet import getcurrent, greenlet
from gunicorn.errors import AppImportError

from engineio_wsgi.cluster.local.running import automatic_cluster
from engineio_wsgi.engine.worker import set_default_cluster
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.handover import Generations, Handover
from engineio_wsgi.runtime.forks import call_in_child, serve
from engineio_wsgi.server import join_clusters, servers
from engineio_wsgi.vendors.gunicorn_workers import GunicornSettings, GunicornWorker, forget_signals, replace_notify

__all__ = ["LOOK_PERIOD", "count_worker", "join_workers", "new_handover", "note_worker", "warn_of_max_requests"]

logger = logging.getLogger("engine")

#: seconds between two checks of a condition
LOOK_PERIOD = 0.1

#: how often this gunicorn has been reloaded; its master and its workers share it
_generations = Generations()
#: gunicorn's settings with which the last worker was made
_settings: list[GunicornSettings] = []
#: the generation of the worker that was about to be started last; in a worker, its own
_numbers: list[int] = []
#: the worker that this process is
_workers: list[GunicornWorker] = []


def join_workers(worker: GunicornWorker) -> None:
    """Have several workers serve each other's sessions: those of one gunicorn, and of the one that takes its place (``USR2``).

    They are those that listen on the same addresses. A cluster that cannot be joined ends gunicorn.

    Args:
        worker: gunicorn's.

    Raises:
        AppImportError: the cluster cannot be joined. gunicorn logs it in one line, and stops.
    """
    if worker.cfg.workers > 1 or any(server.options.handover for server in list(servers)):
        set_default_cluster(automatic_cluster(worker.sockets))
    try:
        join_clusters()
    except ConfigurationError as error:
        raise AppImportError(str(error)) from error


def count_worker(cfg: GunicornSettings) -> None:
    """In the master, before the fork: a worker with these settings is about to be started. Each reload makes new settings.

    Args:
        cfg: gunicorn's settings.
    """
    if not _settings or _settings[0] is not cfg:
        _settings[:] = [cfg]
        _generations.begin()
    _numbers[:] = [_generations.latest]


def new_handover(cfg: GunicornSettings) -> Handover:
    """In a new worker: how it takes the place of another one, and is replaced later.

    Args:
        cfg: gunicorn's settings.
    """
    return Handover(_generations, _numbers[0] if _numbers else 0, cfg.workers)


def warn_of_max_requests(cfg: GunicornSettings) -> None:
    """Log a warning if workers end after so many requests.

    Args:
        cfg: gunicorn's settings.
    """
    if cfg.max_requests:
        logger.warning("max_requests is %d, and each poll and each message of a polling client is a request: the sessions of a "
                       "worker end with it. Leave max_requests out, or set it far higher", cfg.max_requests)


def note_worker(worker: GunicornWorker) -> None:
    """Note that this process is a worker, and that processes which are forked from it are not.

    Args:
        worker: gunicorn's.
    """
    for listener in worker.sockets:
        serve(getattr(listener, "sock", listener))
    _workers[:] = [worker]


def _leave_worker(served: bool) -> None:
    """In a process that was forked from a worker: keep gunicorn's main greenlet, which exists here too, from doing anything.

    Signals get their usual effects: a worker's handlers would only ask that main greenlet to stop.
    """
    while _workers:
        worker = _workers.pop()
        forget_signals(worker)
        # the main greenlet calls it in each of its turns; gunicorn's own workers can be reached in no other way
        replace_notify(worker, partial(_stand_still, getcurrent()))


def _stand_still(forker: greenlet) -> None:
    """Block for as long as the greenlet that has forked this process goes on: nothing else has to be done here.

    Raises:
        SystemExit: that greenlet has returned to the main loop, or has ended without ending the process.
    """
    while forker is not getcurrent() and not forker.dead:
        gevent.sleep(LOOK_PERIOD)
    sys.exit(0)


call_in_child(_leave_worker)
