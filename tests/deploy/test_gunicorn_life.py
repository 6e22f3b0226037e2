"""gunicorn's settings under our worker, and how its workers stop, reload and warn."""

from __future__ import annotations

import os
import re
import resource
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGTERM
from typing import Any

import pytest
from gevent import socket as gevent_socket
from support.clients import PollingSession, WebSocketSession, open_session
from support.processes import ROOT, ServerProcess
from support.rawhttp import HttpConnection

OURS = "engineio_wsgi.gunicorn.Worker"
#: what makes gunicorn's own workers close the sessions
HOOKS = ("-c", "python:engineio_wsgi.gunicorn")

Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A factory of servers: ``start(kind, *arguments)``."""
    running: list[ServerProcess] = []

    def start_server(kind: str, *arguments: str, **options: Any) -> ServerProcess:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(ServerProcess(folder, kind, *arguments, **options))
        return running[-1]

    yield start_server
    for server in running:
        server.stop()


# -- stopping

def test_graceful_stop(start: Start) -> None:
    """Whoever is there gets what waits for it and a close; the process ends by itself, and says nothing."""
    server = start(OURS)
    websocket = WebSocketSession(server.served).open()
    waiting = PollingSession(server.served).open()
    waiting.park()
    away = PollingSession(server.served).open()
    away.say("push 100")
    server.signal(SIGTERM)
    closed = websocket.ws.wait_closed()
    assert (closed.code, closed.reason) == (1001, "server shutting down")
    websocket.vanish()
    assert waiting.end_poll() == ["1"]
    assert away.hear_many(100) == [str(number) for number in range(100)]
    assert away.recv() == "1"
    assert server.wait() == 0
    assert server.logs().count("closed: server shutting down") == 3
    assert not server.complaints()


def test_stop_while_the_worker_starts(start: Start) -> None:
    """The signal is not lost: nobody has to be killed."""
    server = start(OURS)
    server.signal(SIGTERM)
    assert server.wait() == 0
    assert "Worker exiting" in server.logs()


def test_stop_does_not_wait_for_idle_connections(start: Start) -> None:
    server = start(OURS, "--keep-alive", "60")
    idle = server.served.connect()
    assert idle.get("/").status == 200
    server.signal(SIGTERM)
    assert idle.read_to_end() == b""
    assert server.wait() == 0
    assert not server.complaints()


def test_stop_gives_up_clients_that_do_not_come(start: Start) -> None:
    server = start(OURS, "--graceful-timeout", "2")
    gone = PollingSession(server.served).open()
    gone.say("push 1")
    gone.disconnect()
    server.signal(SIGTERM)
    assert server.wait() == 0
    assert "closed: server shutting down" in server.logs()
    assert not server.complaints()


@pytest.mark.parametrize("kind", ["gevent", "gevent_pywsgi"])
def test_graceful_stop_of_unchanged_workers(start: Start, kind: str) -> None:
    server = start(kind, *HOOKS)
    websocket = WebSocketSession(server.served).open()
    waiting = PollingSession(server.served).open()
    waiting.park()
    server.signal(SIGTERM)
    assert websocket.ws.wait_closed().code == 1001
    assert waiting.end_poll() == ["1"]
    HttpConnection.close_all()
    assert server.wait() == 0
    assert not server.complaints()


@pytest.mark.parametrize("kind", [OURS, "gevent", "gevent_pywsgi"])
def test_sessions_are_closed_one_by_one(start: Start, kind: str) -> None:
    """The worker lives until the last one is closed, and is not killed."""
    server = start(kind, *HOOKS, options={"drain_rate": 1})
    sessions = [WebSocketSession(server.served).open() for _ in range(3)]
    server.signal(SIGTERM)
    assert [session.ws.wait_closed().code for session in sessions] == [1001] * 3
    HttpConnection.close_all()
    assert server.wait() == 0
    assert re.findall(r"(\d+) sessions are closed within ([\d.]+) s", server.logs()) == [("3", "3.0")]
    assert server.logs().count("closed: server shutting down") == 3
    assert not server.complaints()


@pytest.mark.parametrize("kind", [OURS, "gevent"])
def test_reload(start: Start, kind: str) -> None:
    """Old sessions are closed, and find the new worker; nobody is refused in between."""
    server = start(kind, *HOOKS)
    first = server.ask()["pid"]
    websocket = WebSocketSession(server.served).open()
    waiting = PollingSession(server.served).open()
    waiting.park()
    server.signal(SIGHUP)
    assert websocket.ws.wait_closed().code == 1001
    assert waiting.end_poll() == ["1"]
    HttpConnection.close_all()
    again = open_session(server.served, "upgraded")
    again.say("hello")
    assert again.hear() == "hello"
    server.until(lambda: bool(server.ask()["pid"] != first))
    server.wait_for(rf"Worker exiting \(pid: {first}\)")
    assert not server.complaints()


# -- settings

def test_access_log(start: Start) -> None:
    server = start(OURS, "--access-logformat", "%(h)s %(m)s %(U)s %(q)s %(s)s %({x-test}i)s %({content-type}o)s %(L)s")
    server.served.connect().get("/page?a=1", [("X-Test", "yes")])
    WebSocketSession(server.served).open()
    server.until(lambda: server.access_log.read_text().count("\n") == 2)
    page, websocket = server.access_log.read_text().splitlines()
    assert page.startswith("127.0.0.1 GET /page a=1 200 yes application/json 0.")
    assert websocket.startswith("127.0.0.1 GET /engine.io/ EIO=4&transport=websocket 101 ")


def test_unix_socket(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = start(OURS, bind=f"unix:{path}")
    connection = gevent_socket.socket(gevent_socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n")
    assert b'"scheme": "https"' in connection.recv(65536), "what comes through a Unix socket comes from a proxy of one's own"
    connection.close()
    assert not server.complaints()


@pytest.mark.parametrize("kind", [OURS, "gevent", "gevent_pywsgi"])
def test_tls(start: Start, kind: str, certificate: dict[str, str]) -> None:
    context = ssl.create_default_context(cafile=certificate["certfile"])
    server = start(kind, "--certfile", certificate["certfile"], "--keyfile", certificate["keyfile"], *HOOKS, tls=context)
    assert server.ask()["scheme"] == "https"
    for way in ("polling", "websocket", "upgraded"):
        session = open_session(server.served, way)
        session.say("text", "x" * 100_000)
        assert session.hear_many(2) == ["text", "x" * 100_000]
        session.close()
    for _ in range(10):
        WebSocketSession(server.served).open().vanish()
    server.until(lambda: bool(server.ask()["clients"] == 0))
    assert not server.complaints()


def test_forwarded_scheme(start: Start) -> None:
    """A proxy on this machine is trusted to say what the client spoke, unless the settings trust another one."""
    trusting, distrusting = start(OURS), start(OURS, "--forwarded-allow-ips", "192.0.2.1")
    headers = [("X-Forwarded-Proto", "https")]
    assert trusting.served.connect().get("/", headers).json()["scheme"] == "https"
    assert trusting.ask()["scheme"] == "http"
    assert distrusting.served.connect().get("/", headers).json()["scheme"] == "http"


def test_worker_connections(start: Start) -> None:
    """A WebSocket is a client as any other. Who is one too many is served when there is room, and the log tells."""
    server = start(OURS, "--worker-connections", "2", "--keep-alive", "60")
    first, second = WebSocketSession(server.served).open(), WebSocketSession(server.served).open()
    server.wait_for(r"WARNING engine: 2 of 2 worker_connections are in use: raise the limit")
    third = server.served.connect()
    third.start("GET", "/")
    third.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        third.response()
    third.sock.settimeout(60)
    first.close()
    assert third.response().status == 200
    second.say("still here")
    assert second.hear() == "still here"
    assert len(server.complaints()) == 1


def test_keepalive(start: Start) -> None:
    never, short = start(OURS, "--keep-alive", "0"), start(OURS, "--keep-alive", "3")
    assert never.served.connect().get("/").tokens("Connection") == {"close"}
    connection = short.served.connect()
    assert connection.get("/").tokens("Connection") == set()
    assert connection.get("/").status == 200
    assert connection.read_to_end() == b""


@pytest.mark.parametrize("kind", [OURS, "gevent"])
def test_max_requests(start: Start, kind: str) -> None:
    server = start(kind, "--max-requests", "3", *HOOKS)
    server.wait_for("WARNING engine: max_requests is 3, and each poll and each message of a polling client is a request")
    first = server.ask()["pid"]
    server.ask(), server.ask()
    server.until(lambda: bool(server.ask()["pid"] != first))


def test_two_workers_that_know_nothing_of_each_other(start: Start) -> None:
    """A request for the other one's session gets code 1, and the log says once why and what to do."""
    server = start("gevent", "-w", "2")
    sid = PollingSession(server.served).open().sid

    def is_refused() -> bool:
        response = server.served.connect().get(f"/engine.io/?EIO=4&transport=websocket&sid={sid}x")
        return bool(response.json()["code"] == 1)

    first = server.ask()["pid"]
    server.until(lambda: bool(server.ask()["pid"] != first))
    for _ in range(20):
        assert is_refused()
    server.until(lambda: bool(server.complaints()))
    said = server.complaints()
    assert 1 <= len(said) <= 2, "once in a worker"
    assert 'Set cluster="local"' in said[0]


def test_open_files_limit(start: Start) -> None:
    """Near the limit of the process the log says which one it is."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        server = start(OURS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    used = len(list(Path(f"/proc/{server.ask()['pid']}/fd").iterdir()))
    sessions = [WebSocketSession(server.served).open() for _ in range(60 - used)]
    server.wait_for(r"WARNING engine: \d+ of 64 open files \(ulimit -n\) are in use")
    assert sessions


# -- what cannot work is said at once

def run_without(module: str, *code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code where a module is missing."""
    text = "; ".join([f"import sys; sys.modules[{module!r}] = None; sys.path.insert(0, {str(ROOT)!r})", *code])
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=300)


def test_module_of_the_worker_instead_of_the_worker(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "-k", "engineio_wsgi.gunicorn", "-b", "127.0.0.1:0", "app:app"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300,
                           env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)})
    assert ended.returncode == 1
    assert ended.stderr.strip() == ("Error: engineio_wsgi.gunicorn is a module; the worker is engineio_wsgi.gunicorn.Worker: "
                                    "gunicorn -k engineio_wsgi.gunicorn.Worker module:app")


def test_missing_packaging() -> None:
    ended = run_without("packaging", f"sys.argv = ['gunicorn', '-k', {OURS!r}, '-b', '127.0.0.1:0', 'app:app']",
                        "from gunicorn.app.wsgiapp import run", "run()")
    assert ended.returncode == 1
    assert ended.stderr.strip() == "Error: engineio_wsgi.gunicorn needs packaging: pip install 'engineio-wsgi[gunicorn]'"


def test_missing_gunicorn() -> None:
    ended = run_without("gunicorn", "import engineio_wsgi.gunicorn")
    assert "engineio_wsgi.gunicorn needs gunicorn: pip install 'engineio-wsgi[gunicorn]'" in ended.stderr.splitlines()[-1]


def test_http2_is_refused(tmp_path: Path) -> None:
    """Where gunicorn has what it needs for HTTP/2, its workers speak it, and ours would not understand."""
    (tmp_path / "settings.py").write_text("import gunicorn.http2\ngunicorn.http2.is_http2_available = lambda: True\n"
                                          "http_protocols = 'h2,h1'")
    command = [sys.executable, "-m", "gunicorn", "-k", OURS, "-b", "127.0.0.1:0", "-c", "settings.py", "app:app"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300,
                           env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)})
    assert ended.returncode == 1
    assert "http_protocols: engineio_wsgi.gunicorn.Worker cannot honour it: only HTTP/1 is served" in ended.stderr
    assert "Traceback" not in ended.stderr
