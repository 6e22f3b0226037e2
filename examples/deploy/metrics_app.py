"""An echo server with Prometheus metrics under /metrics, in one process or in several gunicorn workers.

    pip install 'engineio-wsgi[gunicorn,metrics]'
    gunicorn -k engineio_wsgi.gunicorn.Worker metrics_app:app
    mkdir -p /tmp/metrics && rm -f /tmp/metrics/*
    PROMETHEUS_MULTIPROC_DIR=/tmp/metrics gunicorn -w 2 -c gunicorn_metrics.py metrics_app:app

Let the proxy in front refuse /metrics to everybody else.
"""

import os

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Response

import engineio_wsgi
from engineio_wsgi.metrics import observe

server = engineio_wsgi.Server()
observe(server)


@server.on("connection")
def connected(socket):
    socket.on("message", socket.send)


registry = REGISTRY
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)

app = server.wrap(DispatcherMiddleware(Response("see /metrics\n"), {"/metrics": make_wsgi_app(registry)}))
