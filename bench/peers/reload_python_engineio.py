"""An echo on python-engineio: the module of ``gunicorn -k gevent``.

Its manual recommends simple-websocket for that, but gevent-websocket, which needs another worker class, goes first if installed.
"""

import sys

sys.modules["geventwebsocket"] = None

import engineio

server = engineio.Server(async_mode="gevent", async_handlers=False, logger=False, cors_allowed_origins=[])


@server.on("message")
def message(sid, data):
    server.send(sid, data)


app = engineio.WSGIApp(server)
