"""A room in which every visitor hears every other one, whichever worker and machine serves them.

On one machine, gunicorn's ``-w`` is all that has to be set. For several, ``ENGINEIO_CLUSTER`` names their Redis.
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
    # only the proxy can reach the workers, so its headers can be trusted
    app = ProxyFix(app, x_for=1, x_proto=1, x_host=1)
