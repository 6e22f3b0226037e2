"""A Flask application with an engine, for a proxy in front: echoes, and tells each client its address.

    pip install 'engineio-wsgi[gunicorn,flask]'
    gunicorn app:app

gunicorn reads gunicorn.conf.py in the directory in which it is started. The last line is what the proxy needs.
"""

import logging

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

import engineio_wsgi

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
logger = logging.getLogger("app")

pages = Flask(__name__)
# reads options from the environment: ENGINEIO_PING_INTERVAL=10
server = engineio_wsgi.Server.from_environ()


@pages.get("/")
def home():
    return {"url": request.host_url, "address": request.remote_addr, "sessions": server.clients_count}


@pages.get("/health")
def health():
    return "ok\n"


@server.on("connection")
def connected(socket):
    socket.send(f"hello {socket.remote_address}")
    socket.on("message", socket.send)
    socket.on("close", lambda reason, description: logger.info("%s has left: %s", socket.remote_address, reason))


# ProxyFix is around everything: it puts the public scheme and host and the client's address into the environ, and the
# engine needs them there to check the page's origin and to know remote_address. It trusts one proxy. Let the server listen
# where only that proxy can reach it, or anybody could send these headers
app = ProxyFix(server.wrap(pages), x_for=1, x_proto=1, x_host=1)
