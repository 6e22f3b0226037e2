"""Servers in processes of their own, as they are deployed: gunicorn with any worker, gevent, the standard library."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import gevent

from support.rawhttp import HttpConnection
from support.serving import EventLog, Served

ROOT = Path(__file__).parents[2]
#: seconds that anything may take; only a failing test waits that long
PATIENCE = 180.0

#: echoes messages; "push N" sends N numbers; says on stdout which sessions closed and why
APPLICATION = '''
import json, logging, os
import engineio_wsgi
from engineio_wsgi.cluster.listeners import hops_of
from engineio_wsgi.handoff.client_socket import client_socket

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
server = engineio_wsgi.Server(**json.loads(os.environ["OPTIONS"]))

@server.on("connection")
def connected(socket):
    @socket.on("message")
    def message(data):
        if isinstance(data, str) and data.startswith("push "):
            for number in range(int(data[5:])):
                socket.send(str(number))
        else:
            socket.send(data)
    socket.on("close", lambda reason, _: os.write(1, f"closed: {reason}\\n".encode()))

def application(environ, start_response):
    content = {"clients": server.clients_count, "pid": os.getpid(), "scheme": environ["wsgi.url_scheme"],
               "address": environ.get("REMOTE_ADDR"), "hops": hops_of(environ, client_socket(environ))}
    body = json.dumps(content).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

app = server.wrap(application)
'''

MAINS = {
    "plain": "from gevent.pywsgi import WSGIServer; import app; s = WSGIServer(('127.0.0.1', 0), app.app); s.start();"
             "print('Listening at: http://127.0.0.1:%d' % s.server_port, flush=True); s.serve_forever()",
    "wsgiref": "from wsgiref.simple_server import make_server; import app; s = make_server('127.0.0.1', 0, app.app);"
               "print('Listening at: http://127.0.0.1:%d' % s.server_port, flush=True); s.serve_forever()",
    "werkzeug": "from werkzeug.serving import make_server; import app;"
                "s = make_server('127.0.0.1', 0, app.app, threaded=True);"
                "print('Listening at: http://127.0.0.1:%d' % s.server_port, flush=True); s.serve_forever()",
}


class ServerProcess:
    """A server in a process, and its logs.

    Args:
        folder: an empty one.
        kind: one of ``MAINS``, ``"serve"`` for the command of this package, or a worker class of gunicorn's.
        arguments: gunicorn's, or the command's.
        options: the engine's.
        tls: the client's context, if the server speaks TLS.
        application: the text of the module ``app``.
        environment: variables that it has beside those of this process.
        mains: more programs.
        has_access_log: whether gunicorn writes an access log, which it does not by default.
    """

    def __init__(self, folder: Path, kind: str, *arguments: str, options: dict[str, Any] | None = None, tls: Any = None,
                 bind: str = "127.0.0.1:0", application: str = APPLICATION, environment: dict[str, str] | None = None,
                 mains: dict[str, str] | None = None, has_access_log: bool = True) -> None:
        (folder / "app.py").write_text(application)
        self.kind = kind
        self.error_log, self.access_log, self.output = folder / "error.log", folder / "access.log", folder / "output.log"
        for path in (self.error_log, self.access_log):
            path.touch()
        programs = {**MAINS, **(mains or {})}
        gunicorn = ["gunicorn", "-k", kind, "-b", bind, "--error-logfile", str(self.error_log),
                    *(("--access-logfile", str(self.access_log)) if has_access_log else ()),
                    "--graceful-timeout", "20", "--no-control-socket", *arguments, "app:app"]
        serve = ["engineio_wsgi", "serve", "app:app", "--bind", bind, "--graceful-timeout", "20", *arguments]
        program = ["-c", programs[kind]] if kind in programs else ["-m", *(serve if kind == "serve" else gunicorn)]
        command = [sys.executable, *program]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "OPTIONS": json.dumps(options or {}),
                   **(environment or {})}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT,
                                            start_new_session=True)
        where = r"\w+://127.0.0.1:(\d+)" if bind.startswith("127") else r"(\w+):"
        match = self.wait_for(f"(?:Listening at:|listens on) {where}")
        if kind not in programs and kind != "serve":
            self.wait_for("Booting worker")
        port = int(match[1]) if match[1].isdigit() else 0
        self.served = _Served(("127.0.0.1", port), tls, kind)

    def logs(self) -> str:
        """The log without the access log."""
        return self.error_log.read_text() + self.output.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until a line of the log matches. Returns the match."""
        found: list[re.Match[str] | None] = []

        def look() -> bool:
            found[:] = [re.search(pattern, self.logs())]
            return found[0] is not None

        self.until(look, lambda: f"no {pattern!r} in {self.logs()}")
        assert found[0] is not None
        return found[0]

    def until(self, condition: Callable[[], bool], explain: Callable[[], str] = lambda: "") -> None:
        """Wait until a condition holds."""
        deadline = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < deadline, explain()
            assert self.process.poll() is None or condition(), self.logs()
            gevent.sleep(0.02)

    def ask(self) -> dict[str, Any]:
        """The state that the wrapped application reports: ``clients``, ``pid``, ``scheme``, ``address``."""
        connection = self.served.connect()
        content: dict[str, Any] = connection.get("/").json()
        connection.close()
        return content

    def complaints(self) -> list[str]:
        """The lines of the logs that report a failure."""
        return [line for line in self.logs().splitlines()
                if re.search(r"^(WARNING|ERROR|CRITICAL)|\[(WARNING|ERROR|CRITICAL)\]|Traceback|Invalid", line)]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's first process."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait until the server has ended. Returns its exit status."""
        with gevent.Timeout(PATIENCE, AssertionError("it does not end")):
            while self.process.poll() is None:
                gevent.sleep(0.02)
        return int(self.process.returncode)

    def stop(self) -> None:
        """Kill the server and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class _Served(Served):
    def __init__(self, address: tuple[str, int], tls: Any, kind: str) -> None:
        super().__init__(address, EventLog(), handler=kind)
        self._tls = tls

    def connect(self, **options: Any) -> HttpConnection:
        return super().connect(**({"tls": self._tls} if self._tls is not None else {}), **options)
