"""Calls for the sessions of a cluster before the process serves: in threads of the application, and when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from support.clients import PollingSession, WebSocketSession
from support.processes import ROOT, ServerProcess

#: all calls, in a thread of its own, and only then a server. argv: the cluster
PROGRAM = '''
import sys, threading
import gevent
import engineio_wsgi
from gevent import socket
from gevent.pywsgi import WSGIServer

server = engineio_wsgi.Server(cluster=sys.argv[1])
server.on("connection", lambda socket: socket.on("message", socket.send))

def schedule():
    server.broadcast("a tick")
    print(server.send("zzzz-no-such-session", "x"), server.disconnect("zzzz-no-such-session"), server.cluster.count(),
          server.cluster.workers(), server.cluster.connected)

def get(target):
    with socket.create_connection(("127.0.0.1", http.server_port), timeout=20) as client:
        client.sendall(f"GET {target} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
        return client.makefile("rb").readline().decode().strip()

thread = threading.Thread(target=schedule)
thread.start()
thread.join()
app = server.wrap(lambda environ, start: (start("200 OK", [("Content-Length", "2")]), [b"ok"])[1])
http = WSGIServer(("127.0.0.1", 0), app, handler_class=engineio_wsgi.WebSocketHandler, log=None)
http.start()
print(get("/"), get("/engine.io/?EIO=4&transport=polling"))
thread = threading.Thread(target=lambda: print(server.cluster.count(), len(server.cluster.workers())))
thread.start()
while thread.is_alive():
    gevent.sleep(0.01)
'''

#: a call when it is imported, in gunicorn's master with --preload
APPLICATION = '''
import json, os
import engineio_wsgi

server = engineio_wsgi.Server(**json.loads(os.environ["OPTIONS"]))
server.broadcast("imported")
assert server.send("zzzz-no-such-session", "x") is False
assert server.cluster.count() == 0
server.on("connection", lambda socket: socket.on("message", socket.send))

def application(environ, start_response):
    body = " ".join([*sorted(server.cluster.workers()), server.cluster.worker_id]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

app = server.wrap(application)
'''


@pytest.fixture(params=["local", "redis"])
def name(request: pytest.FixtureRequest) -> str:
    """Of a cluster that nobody else has."""
    if request.param == "local":
        return f"local:{uuid4()}"
    return f"{request.getfixturevalue('shared_redis').url}?group={uuid4()}"


def run(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder to its end."""
    return subprocess.run([sys.executable, "-W", "error", str(folder / "program.py"), name], check=False, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()\n"], ids=["unpatched", "patched"])
def test_in_a_thread_before_the_first_request(tmp_path: Path, name: str, patch: str) -> None:
    (tmp_path / "program.py").write_text(patch + PROGRAM)
    done = run(tmp_path, name)
    assert done.stderr == ""
    first, pages, later = done.stdout.splitlines()
    if patch:
        # a thread is a greenlet then, and this process a worker since
        assert first.startswith("False False 0 ['")
    else:
        assert first == "False False 0 [] True"
    assert pages == "HTTP/1.1 200 OK HTTP/1.1 200 OK"
    assert later == "1 1"


def test_in_a_thread_where_redis_cannot_be_reached(tmp_path: Path) -> None:
    """One line says so."""
    program = PROGRAM[:PROGRAM.index("def schedule")] + '''
try:
    server.broadcast("a tick")
except ConnectionError as error:
    print(error)
'''
    (tmp_path / "program.py").write_text(program)
    done = run(tmp_path, "redis://127.0.0.1:1")
    assert done.stdout.startswith("redis://127.0.0.1:1/0 cannot be reached: ")
    assert len(done.stdout.splitlines()) == 1


@pytest.fixture(params=["engineio_wsgi.gunicorn.Worker", "gevent"])
def preloaded(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> Iterator[ServerProcess]:
    """Four workers of one application that was imported before they were forked."""
    server = ServerProcess(tmp_path, request.param, "-c", "python:engineio_wsgi.gunicorn", "--preload", "-w", "4",
                           "--keep-alive", "60",
                           application=APPLICATION, options={"cluster": name})
    yield server
    server.stop()


def test_when_it_is_imported_before_workers_are_forked(preloaded: ServerProcess) -> None:
    """Each worker has an identity of its own: a request finds its session, whichever worker it comes to."""
    page = preloaded.served.connect()
    preloaded.until(lambda: len(page.get("/").body.split()) == 5, preloaded.logs)
    assert len(set(page.get("/").body.split())) == 4
    for number in range(10):
        session = PollingSession(preloaded.served).open()
        for part in range(3):
            session.posting = preloaded.served.connect()
            session.say(f"{number} {part}")
        assert session.hear_many(3) == [f"{number} {part}" for part in range(3)]
    websocket = WebSocketSession(preloaded.served).open()
    websocket.say("still there")
    assert websocket.hear() == "still there"
    assert not preloaded.complaints()
