"""The official test suite of the Socket.IO protocol, revision 5, against a server of this package.

Usage: ``python protocol_suite.py FOLDER``, with docs/socket.io-protocol/v5-test-suite of the repository socketio/socket.io after
``npm install`` in it. It is not part of the tests, because npm does not have it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import socketio
from gevent import subprocess
from gevent.pywsgi import WSGIServer

import engineio_wsgi
from engineio_wsgi.contrib.socketio import Server

#: what the suite expects to listen at
ADDRESS = "localhost:3000"


def make_server() -> Server:
    """A server as the suite wants it."""
    # a client is told that it is connected before its handler emits, as Node does it
    sio = Server(ping_interval=0.3, ping_timeout=0.2, max_http_buffer_size=1_000_000, always_connect=True)

    for namespace in ("/", "/custom"):
        def connect(sid: str, environ: object, auth: object, namespace: str = namespace) -> None:
            sio.emit("auth", auth or {}, to=sid, namespace=namespace)
        sio.on("connect", connect, namespace=namespace)
    sio.on("message", lambda sid, *args: sio.emit("message-back", args, to=sid))
    sio.on("message-with-ack", lambda sid, *args: args)
    return sio


def main(suite: Path) -> int:
    """Run the suite; returns Mocha's exit status, the number of failed tests."""
    http = WSGIServer(("127.0.0.1", 0), socketio.WSGIApp(make_server()), handler_class=engineio_wsgi.WebSocketHandler, log=None)
    http.start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("test-suite.js", "node-imports.js", "package.json"):
            shutil.copy(suite / file, folder)
        (folder / "node_modules").symlink_to((suite / "node_modules").resolve())
        script = folder / "test-suite.js"
        script.write_text(script.read_text().replace(ADDRESS, f"127.0.0.1:{http.server_port}"))
        return int(subprocess.call(["node", "node_modules/mocha/bin/mocha", script.name], cwd=folder))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
