"""gunicorn: a worker that serves with our own handler, and hooks by which its unchanged gevent workers stop gracefully.

Needs the extra ``[gunicorn]``. Imported by name only::

    gunicorn -k engineio_wsgi.gunicorn.Worker module:app
    gunicorn -k gevent -c python:engineio_wsgi.gunicorn module:app

With the second, gunicorn reads its settings from this module: names of the settings must not be used here for anything else.
"""

from __future__ import annotations

import sys
from importlib import import_module

try:
    import_module("gunicorn.workers.ggevent")
except ModuleNotFoundError as missing:
    text = f"engineio_wsgi.gunicorn needs {(missing.name or '').partition('.')[0]}: pip install 'engineio-wsgi[gunicorn]'"
    if "gunicorn.app.base" in sys.modules:
        # gunicorn is starting, and would print the traceback of an import that fails
        sys.exit(f"Error: {text}")
    raise ModuleNotFoundError(text, name=missing.name) from None

from engineio_wsgi.gunicorn.client_pool import ClientPool
from engineio_wsgi.gunicorn.handler import GunicornHandler
from engineio_wsgi.gunicorn.hooks import post_worker_init, pre_fork, worker_exit
from engineio_wsgi.gunicorn.limits import LimitWatch
from engineio_wsgi.gunicorn.worker import GunicornServer, Worker

__all__ = ["ClientPool", "GunicornHandler", "GunicornServer", "LimitWatch", "Worker", "post_worker_init", "pre_fork",
           "setup", "worker_exit"]


def setup() -> None:
    """Called by gunicorn if ``-k`` names this module instead of :class:`Worker`, as if the module were the worker class.

    Raises:
        RuntimeError: always; gunicorn prints its text.
    """
    raise RuntimeError("engineio_wsgi.gunicorn is a module; the worker is engineio_wsgi.gunicorn.Worker: gunicorn -k "
                       "engineio_wsgi.gunicorn.Worker module:app")
