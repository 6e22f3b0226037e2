"""The server of the soak test, and of ``tests/hostile/``: an echo, a broadcast every second, and /stats, which says what the
process holds. Takes more options of the engine's as JSON, and the files of a certificate and its key to serve WebTransport, too.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from typing import Any

import gevent
from greenlet import greenlet

import engineio_wsgi
from engineio_wsgi.heap import freeze_heap, limit_collections

PAGE = os.sysconf("SC_PAGE_SIZE")


def stats(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """What the process holds, after a collection."""
    if environ["PATH_INFO"] != "/stats":
        start_response("404 Not Found", [])
        return [b""]
    gc.collect()
    objects = gc.get_objects()
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * PAGE
    body = json.dumps({
        "resident_kb": resident // 1024,
        "files": len(os.listdir("/proc/self/fd")),
        "greenlets": sum(isinstance(thing, greenlet) for thing in objects),
        "timers": sum(type(thing).__name__ == "timer" for thing in objects),
        "objects": len(objects) + gc.get_freeze_count(),
        "sessions": server.clients_count,
        "quic_connections": sum(each._listener.connections for each in webtransports),
    }).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]


def broadcast() -> None:
    """Something for everybody, every second."""
    while True:
        gevent.sleep(1.0)
        server.broadcast("to everybody")


webtransports: list[engineio_wsgi.WebTransportServer] = []
options = {"ping_interval": 5.0, "ping_timeout": 4.0, "max_buffered": 200_000}
server = engineio_wsgi.Server(**{**options, **json.loads(sys.argv[1] if sys.argv[1:] else "{}")})


@server.on("connection")
def connected(socket: Any) -> None:
    """Echo, and for ``flood`` more than a slow client can take."""

    @socket.on("message")
    def message(data: str | bytes) -> None:
        if data == "flood":
            for _ in range(200):
                socket.send("x" * 10_000)
        else:
            socket.send(data)


def main() -> None:
    """Serve on a port of the system's choice, and print it."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    http = engineio_wsgi.http.http_server.HttpServer(("127.0.0.1", 0), server.wrap(stats))
    http.start()
    if sys.argv[2:]:
        certfile, keyfile = sys.argv[2:]
        address = ("127.0.0.1", http.server_port)
        webtransports.append(engineio_wsgi.WebTransportServer(address, server, certfile=certfile, keyfile=keyfile))
        webtransports[0].start()
    # as `engineio-wsgi serve` does
    freeze_heap()
    limit_collections()
    print(http.server_port, flush=True)
    gevent.spawn(broadcast)
    http.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
