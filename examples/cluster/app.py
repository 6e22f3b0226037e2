"""A room in which every visitor hears every other, whichever worker of whichever machine serves them.

Where the workers are is said from outside: gunicorn's ``-w`` is enough on one machine, ``ENGINEIO_CLUSTER`` names the Redis of
several.
"""

import logging
import os

from werkzeug.middleware.proxy_fix import ProxyFix

import engineio_wsgi

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
server = engineio_wsgi.Server.from_environ()


@server.on("connection")
def connected(socket):
    socket.send(f"worker {os.getpid()} has this session")
    socket.on("message", lambda data: server.broadcast(data))


def home(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"worker %d: %d sessions at %d workers\n" % (os.getpid(), server.cluster.count(), len(server.cluster.workers()))]


app = server.wrap(home)
if "BEHIND_PROXY" in os.environ:
    # nothing but the proxy can reach the workers: what it says of the client is true
    app = ProxyFix(app, x_for=1, x_proto=1, x_host=1)
