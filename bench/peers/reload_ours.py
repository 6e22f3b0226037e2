"""An echo on engineio-wsgi whose sessions survive a reload if HANDOVER is in the environment: the module of a WSGI server."""

import os

from werkzeug.wrappers import Response

import engineio_wsgi

server = engineio_wsgi.Server(handover="HANDOVER" in os.environ)


@server.on("connection")
@server.on("resume")
def listen(socket):
    socket.on("message", socket.send)


app = server.wrap(Response("a page"))
