"""Flask's hello: usage: flask_hello.py PORT ours|pywsgi|nodelay."""

import socket
import sys

from flask import Flask
from gevent.pywsgi import WSGIHandler, WSGIServer

import engineio_wsgi

app = Flask(__name__)


@app.get("/")
def hello():
    return "Hello, World!"


class NoDelayServer(WSGIServer):
    def handle(self, sock, address):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle(sock, address)


handler = engineio_wsgi.WebSocketHandler if sys.argv[2] == "ours" else WSGIHandler
kind = NoDelayServer if sys.argv[2] == "nodelay" else WSGIServer
kind(("127.0.0.1", int(sys.argv[1])), app, handler_class=handler, log=None).serve_forever()
