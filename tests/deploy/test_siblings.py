"""Several processes without a cluster: a broadcast reaches one of them, and the log says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.processes import ServerProcess

APPLICATION = """
import engineio_wsgi

server = engineio_wsgi.Server()

def page(environ, start_response):
    server.broadcast("hello", local=environ["PATH_INFO"] == "/local")
    start_response("200 OK", [("Content-Length", "0")])
    return []

app = server.wrap(page)
"""
WARNING = "a broadcast reached the clients of this process only, and the WSGI server runs several"


@pytest.mark.parametrize(("workers", "paths", "warnings"), [(2, ["/local"], 0), (2, ["/", "/"], 1), (1, ["/", "/"], 0)])
def test_a_broadcast_to_one_process_of_several(tmp_path: Path, workers: int, paths: list[str], warnings: int) -> None:
    server = ServerProcess(tmp_path, "gevent", "-w", str(workers), "--keep-alive", "60", application=APPLICATION)
    try:
        client = server.served.connect()
        # the engine learns of other processes by its first request
        assert client.get("/engine.io/?EIO=4&transport=polling").status == 200
        for path in paths:
            assert client.get(path).status == 200
        assert server.logs().count(WARNING) == warnings
    finally:
        server.stop()
