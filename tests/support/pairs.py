"""Two workers that share one listener, under any server, and connections to the one of them that a test picks.

The kernel chooses the worker that accepts, so the other one is stopped meanwhile.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent

from support.processes import PATIENCE, ServerProcess
from support.rawhttp import HttpConnection

TARGET = "/engine.io/?EIO=4&transport=polling"
HOOKS = ["-c", "python:engineio_wsgi.gunicorn"]
#: worker class or program, and arguments
KINDS: dict[str, tuple[str, list[str]]] = {
    "ours": ("engineio_wsgi.gunicorn.Worker", []),
    "gevent": ("gevent", HOOKS),
    "gevent without hooks": ("gevent", []),
    "gevent_pywsgi": ("gevent_pywsgi", HOOKS),
    "plain": ("WebSocketHandler", []),
    "pywsgi": ("WSGIHandler", []),
    "gevent-websocket": ("PlainWebSocketHandler", []),
}

#: the kinds that are not worker classes
HANDLERS = ("WebSocketHandler", "WSGIHandler", "PlainWebSocketHandler")

#: what is around the engine is in VARIANT; "seen" in the engine's responses is what of the environ has come to it
APPLICATION = '''
import gc, json, os
import engineio_wsgi
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

server = engineio_wsgi.Server(**json.loads(os.environ["OPTIONS"]))
server.on("connection", lambda socket: socket.on("message", socket.send))
NAMES = ["REMOTE_ADDR", "REMOTE_USER", "SCRIPT_NAME", "PATH_INFO", "wsgi.url_scheme", "HTTP_HOST"]

@server.use
def telling(engine):
    def serve(environ, start_response):
        seen = {**{name: environ.get(name) for name in NAMES}, "pid": os.getpid()}
        if "HTTP_UPGRADE" in environ:
            # the response may have been sent already
            os.write(1, f"upgrade {json.dumps(seen)}\\n".encode())
        def start(status, headers, *more):
            return start_response(status, [*headers, ("X-Seen", json.dumps(seen))], *more)
        return engine(environ, start)
    return serve

def clients():
    from gevent.baseserver import BaseServer
    pools = {id(one.pool): one.pool for one in gc.get_objects() if isinstance(one, BaseServer) and one.pool is not None}
    return sum(pool.size - pool.free_count() for pool in pools.values())

def requests():
    from gunicorn.workers.base import Worker
    # what was frozen at the start is in no generation
    gc.unfreeze()
    return sum(one.nr for one in gc.get_objects() if isinstance(one, Worker))

def page(environ, start_response):
    content = {"pid": os.getpid(), "environ": {key: value for key, value in environ.items() if type(value) in (str, bool, tuple)},
               "clients": clients(), "requests": requests(), "cluster": vars(server.cluster.counters)}
    body = json.dumps(content).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

class Guard:
    """Refuses /admin, says who the user is, adds a header, and writes down what it has met."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        os.write(1, f"met {environ['REQUEST_METHOD']} {environ['PATH_INFO']}\\n".encode())
        if environ["PATH_INFO"] == "/admin":
            start_response("401 Unauthorized", [("Content-Length", "0")])
            return [b""]
        environ["REMOTE_USER"] = "alice"
        def start(status, headers, *more):
            return start_response(status, [*headers, ("X-Guard", "was here")], *more)
        return self.inner(environ, start)

app = {
    "bare": lambda: server.wrap(page),
    "guarded": lambda: Guard(server.wrap(page)),
    "dispatched": lambda: DispatcherMiddleware(page, {"/shop": server.wrap(page)}),
    "proxied": lambda: ProxyFix(server.wrap(page), x_prefix=1),
}[os.environ["VARIANT"]]()
'''

PLAIN = """
import os, sys
from gevent import socket
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from geventwebsocket.handler import WebSocketHandler as PlainWebSocketHandler
import engineio_wsgi, app

class WebSocketHandler(engineio_wsgi.WebSocketHandler):
    max_request_line = 400

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(100)
print("Listening at: http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
for _ in range(2):
    if os.fork() == 0:
        import gevent
        gevent.reinit()
        log = open("access.log", "a", buffering=1)
        WSGIServer(listener, app.app, handler_class=HANDLER, spawn=Pool(100), log=log).serve_forever()
for _ in range(2):
    os.wait()
"""


class Pair(ServerProcess):
    """Two workers.

    Args:
        folder: an empty one.
        kind: one of ``KINDS``.
        variant: what is around the engine: ``"bare"`` (nothing), ``"guarded"``, ``"dispatched"`` or ``"proxied"``.
        arguments: gunicorn's.
        environment: variables that they have beside those of this process.
    """

    def __init__(self, folder: Path, kind: str, variant: str = "bare", *arguments: str,
                 environment: dict[str, str] | None = None) -> None:
        program, own = KINDS[kind]
        mains = {name: PLAIN.replace("HANDLER", name) for name in HANDLERS}
        prefix = (environment or {}).get("SCRIPT_NAME", "")
        super().__init__(folder, program, "-w", "2", "--keep-alive", "60", *own, *arguments, application=APPLICATION,
                         options={"cluster": "local"}, environment={"VARIANT": variant, **(environment or {})},
                         mains=mains)
        self.page = prefix + "/who"
        self.target = ("/shop" if variant == "dispatched" else prefix) + TARGET
        #: the workers' processes; the sessions are the first one's
        self.owner: int = self.served.connect().get(self.page).json()["pid"]
        self.other: int = self.accepted_beside(self.owner).get(self.page).json()["pid"]

    def accepted_beside(self, pid: int) -> HttpConnection:
        """A connection that the other worker has accepted."""
        with stopped(pid):
            connection = self.served.connect()
            assert connection.get(self.page).json()["pid"] != pid
        return connection

    def at_owner(self) -> HttpConnection:
        """A connection that the owner has accepted."""
        return self.accepted_beside(self.other)

    def at_other(self) -> HttpConnection:
        """A connection that the other worker has accepted."""
        return self.accepted_beside(self.owner)

    def seen_of_upgrade(self) -> dict[str, Any]:
        """The part of the environ that the engine has got with the only upgrade."""
        [line] = [line for line in self.output.read_text().splitlines() if line.startswith("upgrade ")]
        told: dict[str, Any] = json.loads(line.removeprefix("upgrade "))
        return told

    def open(self) -> str:
        """Open a session of the owner. Returns the target of its requests."""
        response = self.at_owner().get(self.target)
        return f"{self.target}&sid={json.loads(response.body[1:])['sid']}"


def seen(response: Any) -> dict[str, Any]:
    """The part of the environ that the engine has got."""
    told: dict[str, Any] = json.loads(response.header("X-Seen"))
    return told


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process (SIGSTOP) while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def wait(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    with gevent.Timeout(PATIENCE, AssertionError("it does not come about")):
        while not condition():
            gevent.sleep(0.01)
