"""engineio-wsgi under gevent's WSGIServer: usage: ours.py PORT."""

import sys

import engineio_wsgi

server = engineio_wsgi.listen(("127.0.0.1", int(sys.argv[1])), ping_interval=25, ping_timeout=20)


@server.on("connection")
def connected(socket):
    @socket.on("message")
    def message(data):
        if data.startswith("broadcast:"):
            count, size = map(int, data.split(":")[1:])
            for _ in range(count):
                server.broadcast("b" * size)
        else:
            socket.send(data)


server.serve_forever()
