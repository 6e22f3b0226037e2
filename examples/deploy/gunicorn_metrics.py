"""gunicorn's configuration for metrics_app.py with several workers: see there.

The directory in PROMETHEUS_MULTIPROC_DIR has to be empty when gunicorn starts.
"""

from prometheus_client import multiprocess

worker_class = "engineio_wsgi.gunicorn.Worker"


def child_exit(server, worker):
    """Drop the gauges of a worker that has ended; its counters stay."""
    multiprocess.mark_process_dead(worker.pid)
