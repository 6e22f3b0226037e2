"""gevent-websocket's own WebSocket, without an engine above it: usage: raw_geventwebsocket.py PORT."""

import sys

from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler


def echo(environ, start_response):
    websocket = environ["wsgi.websocket"]
    while (message := websocket.receive()) is not None:
        websocket.send(message)
    return []


WSGIServer(("127.0.0.1", int(sys.argv[1])), echo, handler_class=WebSocketHandler, log=None).serve_forever()
