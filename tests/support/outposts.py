"""Two more workers, in processes of their own and under any server: they accept connections for the engine of a test.

The engine in the test's process is the third worker, and has all sessions. Each connection is passed to one of the others
directly after it was accepted, so that the loop of that worker's server reads its requests.
"""

from __future__ import annotations

import array
import json
import signal
import socket as plain_socket
from itertools import cycle
from pathlib import Path
from typing import Any

import gevent
from gevent import socket

from support.processes import ServerProcess

#: gunicorn's worker classes, and gevent's server with ``SO_REUSEPORT``
KINDS = {"gunicorn": "engineio_wsgi.gunicorn.Worker", "gevent": "gevent", "gevent_pywsgi": "gevent_pywsgi", "plain": "plain"}
NUMBER = 2
#: bytes of a record between the test and a worker
ENOUGH = 65_536

#: the module ``app``: its engine is another one for each test
APPLICATION = '''
import array, gc, json, os, traceback
import gevent
from gevent import socket
from gevent.baseserver import BaseServer
import engineio_wsgi
from engineio_wsgi.cluster.local import names as addresses
from engineio_wsgi.cluster import router as routing

if os.environ.get("APART"):
    # no other worker finds its socket, as on another machine
    routing.choose_names = lambda group: addresses.AbstractNames(f"{group} of {os.getpid()}")

engine = None

def fallback(environ, start_response):
    body = f"application {environ['PATH_INFO']}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

class App(engineio_wsgi.Middleware):
    """What the server calls is one object, and in front of fallback one engine after the other."""

    serves = False

    def __init__(self):
        pass

    def begin(self, engine):
        super().__init__(fallback, engine)
        self.serves = True

    def __call__(self, environ, start_response):
        return super().__call__(environ, start_response) if self.serves else fallback(environ, start_response)

app = App()

def begin(options):
    global engine
    engine = engineio_wsgi.Server(**options)
    app.begin(engine)
    engine._worker.join_cluster()

def crossed(_):
    counters = engine.cluster.counters
    return counters.handed_over + counters.relayed

def end(_):
    app.serves = False
    sessions = engine.clients_count
    engine.close(timeout=0)
    assert sessions == 0, f"{sessions} sessions are in the wrong worker"

def settle(owner):
    # two round trips by the way that every request takes
    for _ in range(2):
        assert not engine.send(owner + "no session", "")

def obey():
    # the server is started some time after this module was imported
    while not (servers := [one for one in gc.get_objects() if isinstance(one, BaseServer) and one.started]):
        gevent.sleep(0.01)
    [server] = servers
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.connect(os.environ["CONTROL"])
    while True:
        data, beside, _, _ = control.recvmsg(65536, socket.CMSG_SPACE(4))
        if not data:
            os._exit(0)
        verb, argument = json.loads(data)
        if verb == "serve":
            [(_, _, number)] = beside
            client = socket.socket(fileno=int.from_bytes(number, "little"))
            server.do_handle(client, tuple(argument))
            continue
        try:
            reply = [{"begin": begin, "settle": settle, "crossed": crossed, "end": end}[verb](argument), ""]
        except BaseException:
            reply = [None, traceback.format_exc()]
        control.send(json.dumps(reply).encode())

gevent.spawn(obey)
'''

PLAIN = f"""
import os, sys
from gevent import socket
from gevent.pywsgi import WSGIServer
import engineio_wsgi, app

def listen(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock

first = listen(0)
port = first.getsockname()[1]
print(f"Listening at: http://127.0.0.1:{{port}}", flush=True)
for _ in range({NUMBER}):
    if os.fork() == 0:
        import gevent
        gevent.reinit()
        sock = listen(port)
        sock.listen(100)
        WSGIServer(sock, app.app, handler_class=engineio_wsgi.WebSocketHandler, log=None).serve_forever()
for _ in range({NUMBER}):
    os.wait()
"""


class Outposts:
    """The two workers; they stay for many tests.

    Args:
        folder: an empty one.
        kind: one of ``KINDS``.
        apart: whether each is on a machine of its own.
    """

    def __init__(self, folder: Path, kind: str, *, apart: bool = False) -> None:
        self.kind = kind
        self.apart = apart
        control = str(folder / "control")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(control)
            listener.listen(NUMBER)
            environment = {"CONTROL": control, "APART": "yes" if apart else ""}
            self._process = ServerProcess(folder, KINDS[kind], "-w", str(NUMBER), application=APPLICATION,
                                          environment=environment, mains={"plain": PLAIN})
            with gevent.Timeout(60, AssertionError(f"the workers do not report: {self._process.logs()}")):
                self._workers = [listener.accept()[0] for _ in range(NUMBER)]
        self._turns = cycle(self._workers)
        self._logged = 0

    def begin(self, options: dict[str, Any]) -> None:
        """Create an engine with these options in each, as far as options can be sent to another process."""
        self._order(["begin", {name: value for name, value in options.items() if _can_be_told(value)}])

    def end(self) -> None:
        """Check at the end of a test that they have no sessions, and that nothing was logged about a failure."""
        self._order(["end", None])
        complaints = self._process.complaints()
        new, self._logged = complaints[self._logged:], len(complaints)
        assert not new, self._process.logs()[-4000:]

    def settle(self, owner: str) -> None:
        """Return when they have passed on everything that they received before."""
        self._order(["settle", owner])

    def crossed(self) -> int:
        """How many requests since the beginning they have not answered themselves."""
        return sum(self._order(["crossed", None]))

    def _order(self, message: Any) -> list[Any]:
        for worker in self._workers:
            worker.send(json.dumps(message).encode())
        replies = [json.loads(worker.recv(ENOUGH)) for worker in self._workers]
        troubles = [trouble for _, trouble in replies if trouble]
        assert not troubles, troubles[0]
        return [reply for reply, _ in replies]

    def serve(self, sock: Any, address: Any) -> None:
        """Give a connection to one of them, in turn."""
        message = json.dumps(["serve", address]).encode()
        beside = [(plain_socket.SOL_SOCKET, plain_socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))]
        next(self._turns).sendmsg([message], beside)

    def stop(self) -> None:
        """End both."""
        for worker in self._workers:
            worker.close()
        self._process.signal(signal.SIGTERM)
        self._process.stop()


def _can_be_told(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
