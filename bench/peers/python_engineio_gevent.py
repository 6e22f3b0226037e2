"""python-engineio with gevent and gevent-websocket: usage: python_engineio_gevent.py PORT [nodelay].

``nodelay`` sets TCP_NODELAY on accepted connections, which takes away the 40 ms that each response otherwise waits for a
delayed acknowledgement on a keep-alive connection.
"""

from gevent import monkey

monkey.patch_all()

import socket
import sys

import engineio
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler

engineio.payload.Payload.max_decode_packets = 1000
server = engineio.Server(async_mode="gevent", async_handlers=False, logger=False, cors_allowed_origins=[])


@server.on("message")
def message(sid, data):
    if data.startswith("broadcast:"):
        count, size = map(int, data.split(":")[1:])
        for _ in range(count):
            for other in list(server.sockets):
                server.send(other, "b" * size)
    else:
        server.send(sid, data)


class NoDelayServer(WSGIServer):
    def handle(self, sock, address):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle(sock, address)


kind = NoDelayServer if sys.argv[2:] == ["nodelay"] else WSGIServer
kind(
    ("127.0.0.1", int(sys.argv[1])), engineio.WSGIApp(server), handler_class=WebSocketHandler, log=None, backlog=4096
).serve_forever()
