"""A page that uses the official client, as applications should.

Run ``npm install`` in this folder, then ``python app.py [PORT]``, and open http://127.0.0.1:8000. ``NODE_MODULES`` may name
another folder with npm's packages.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gevent.pywsgi import WSGIServer

import engineio_wsgi as engine

HERE = Path(__file__).resolve().parent
PACKAGES = Path(os.environ.get("NODE_MODULES", HERE / "node_modules"))
FILES = {
    "/": (HERE / "index.html", "text/html; charset=utf-8"),
    "/engine.io.min.js": (PACKAGES / "engine.io-client" / "dist" / "engine.io.min.js", "text/javascript"),
}

server = engine.Server()


def pages(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The page and the client's script."""
    if environ["PATH_INFO"] not in FILES:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not found\n"]
    path, kind = FILES[environ["PATH_INFO"]]
    start_response("200 OK", [("Content-Type", kind)])
    return [path.read_bytes()]


@server.on("connection")
def connected(socket: engine.Socket) -> None:
    """Tell the page what the server sees, and send every message back."""
    socket.on("upgrade", lambda transport: socket.send(f"the server sees {transport.name}"))
    socket.on("message", socket.send)
    socket.send(f"the server sees {socket.transport.name}")


application = server.wrap(pages)

if __name__ == "__main__":
    address = ("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    WSGIServer(address, application, handler_class=engine.WebSocketHandler).serve_forever()
