"""The smallest server: it greets each client and sends every message back.

Run it with ``python echo.py [PORT]`` and connect any Engine.IO client to ws://127.0.0.1:8000.
"""

from __future__ import annotations

import sys

import engineio_wsgi as engine

server = engine.listen(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000))


@server.on("connection")
def connected(socket: engine.Socket) -> None:
    """Talk to a client until it leaves."""
    socket.send("utf 8 string")
    for message in socket:
        socket.send(message)


server.serve_forever()
