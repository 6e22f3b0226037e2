"""A Flask application with an engine, to be served behind a proxy: echoes, and tells everybody which address they have.

    pip install 'engineio-wsgi[gunicorn,flask]'
    gunicorn app:app

gunicorn reads gunicorn.conf.py by itself, as it is in the directory that it is started in. What is special about the
application is the last line.
"""

import logging

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

import engineio_wsgi

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
logger = logging.getLogger("app")

pages = Flask(__name__)
# an option is ENGINEIO_… in the environment
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


# ProxyFix goes round everything: the engine compares the page's origin with the public scheme and host, and calls the
# client's address remote_address, only if both stand in the environ before it sees the request. One proxy is trusted. The
# server must listen where only that proxy can reach it, or anybody could write these headers
app = ProxyFix(server.wrap(pages), x_for=1, x_proto=1, x_host=1)
