"""Processes that are forked from one that serves: they serve nobody, end nothing, and hold nothing that their parent serves."""

from __future__ import annotations

import json
import os
import signal
import socket as plain_socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from support.clients import PollingSession, WebSocketSession
from support.processes import ServerProcess
from support.rawhttp import HttpConnection

from engineio_wsgi import Emitter

OURS = "engineio_wsgi.gunicorn.Worker"
#: connections stay, however slow the machine is
STAY = ("--keep-alive", "60")
HOOKS = ("-c", "python:engineio_wsgi.gunicorn", *STAY)

#: a page, or a message, that says "fork HOW" forks; everything is answered with the process that answers. A child runs the event
#: loop, tells what came of its calls, and lives until the file "end" says how it ends
APPLICATION = '''
import concurrent.futures, json, multiprocessing, os, pathlib, signal, subprocess, sys, time
import gevent
import gevent.os
from gevent import monkey
import engineio_wsgi

HERE = pathlib.Path(__file__).parent
OPTIONS = json.loads(os.environ["OPTIONS"])
server = engineio_wsgi.Server(**OPTIONS)
sessions, pools = [], []
fork = multiprocessing.get_context("fork")

if server.cluster:
    # the child has the subscription, too, and hears nothing
    server.cluster.subscribe("news", lambda data: server.broadcast(data, local=True))

@server.on("connection")
def connected(socket):
    sessions.append(socket)
    socket.on("close", lambda *reason: tell("closed", f"{os.getpid()} {reason}"))
    for data in socket:
        if data.startswith("fork "):
            start(data[5:])
        socket.send(str(os.getpid()))

def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/fork/"):
        start(environ["PATH_INFO"][6:])
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

app = server.wrap(application)

def tell(name, text):
    (HERE / f".{name}").write_text(text)
    (HERE / f".{name}").rename(HERE / name)

def tried(function, *arguments, **options):
    try:
        return repr(function(*arguments, **options))
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def child():
    calls = {"send to a session": tried(sessions[0].send, "from the child"),
             "send": tried(server.send, sessions[0].id, "from the child by its id"),
             "broadcast": tried(server.broadcast, "from the child to all", local=True),
             "broadcast to the cluster": tried(server.broadcast, "from the child to the cluster"),
             "count": tried(lambda: server.cluster and server.cluster.count()),
             "publish": tried(lambda: server.cluster and server.cluster.publish("news", "published by the child")),
             "ask": tried(lambda: server.cluster and server.cluster.ask("news", "?"))}
    gevent.sleep(0.01)
    tell("running", json.dumps([os.getpid(), calls]))
    while not (HERE / "end").exists():
        gevent.sleep(0.01)
    tell("ended", "")

def leave():
    child()
    if (HERE / "end").read_text() == "exit":
        sys.exit(0)
    os._exit(0)

def thread():
    # gevent's own is for the main thread only
    if monkey.get_original("os", "fork")() == 0:
        child()
        os._exit(0)

def daemon():
    # gevent would handle SIGCHLD only after the first fork: it would miss the end of a child that ends at once
    gevent.get_hub().loop.install_sigchld()
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    os.setsid()
    if os.fork() == 0:
        leave()
    os._exit(0)

def start(how):
    if how == "process":
        fork.Process(target=child).start()
    elif how == "pool":
        pools.append(fork.Pool(2))
        pools[-1].apply_async(child)
    elif how == "executor":
        pools.append(concurrent.futures.ProcessPoolExecutor(2, mp_context=fork))
        pools[-1].submit(child)
    elif how == "thread":
        monkey.get_original("_thread", "start_new_thread")(thread, ())
    elif how == "greenlet":
        if monkey.get_original("os", "fork")() == 0:
            leave()
    elif how == "gevent":
        if gevent.os.fork() == 0:
            leave()
    elif how == "daemon":
        daemon()
    elif how == "popen":
        program = "import os, pathlib, time; open('.running', 'w').write(f'[{os.getpid()}, {{}}]');" \
                  "os.rename('.running', 'running');" \
                  "[time.sleep(0.01) for _ in iter(lambda: pathlib.Path('end').exists(), True)]"
        subprocess.Popen([sys.executable, "-c", program], close_fds=False, cwd=HERE)
'''
MAINS = {
    "ours": "from gevent.pywsgi import WSGIServer; import app, engineio_wsgi;"
            "s = WSGIServer(('127.0.0.1', 0), app.app, handler_class=engineio_wsgi.WebSocketHandler, log=None); s.start();"
            "print('Listening at: http://127.0.0.1:%d' % s.server_port, flush=True); s.serve_forever()",
    "patched": "from gevent import monkey; monkey.patch_all(); from gevent.pywsgi import WSGIServer; import app;"
               "s = WSGIServer(('127.0.0.1', 0), app.application, log=None); app.server.attach(s); s.start();"
               "print('Listening at: http://127.0.0.1:%d' % s.server_port, flush=True); s.serve_forever()",
    "serve": "import sys; from engineio_wsgi.cli.command import main; "
             "sys.exit(main(['serve', 'app:app', '--bind', '127.0.0.1:0']))",
}
SERVERS = {"ours": (), "plain": (), "patched": (), "serve": (), OURS: STAY, "gevent": HOOKS, "gevent_pywsgi": HOOKS}
WAYS = ["process", "thread", "greenlet", "gevent", "daemon", "popen", "pool", "executor"]
#: the threads of a `multiprocessing.Pool` stop every greenlet where they are patched, with or without us
CASES = [(server, way) for server in ("ours", OURS) for way in WAYS if (server, way) != (OURS, "pool")] + [
    (server, way) for server in SERVERS if server not in ("ours", OURS) for way in ("process", "gevent")]

Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A factory of servers: ``start(kind, **options)``."""
    running: list[ServerProcess] = []

    def begin(kind: str, *arguments: str, **options: Any) -> ServerProcess:
        running.append(ServerProcess(tmp_path, kind, *SERVERS[kind], *arguments, application=APPLICATION, mains=MAINS,
                                     options=options))
        return running[-1]

    yield begin
    (tmp_path / "end").write_text("_exit")
    for server in running:
        server.stop()


class Clients:
    """A client of each kind, with connections that stay."""

    def __init__(self, server: ServerProcess) -> None:
        self.page = server.served.connect()
        self.pid = int(self.page.get("/").body)
        self.websocket = WebSocketSession(server.served).open()
        self.polling = PollingSession(server.served).open()

    def talk(self, rounds: int = 20) -> None:
        """Everything is answered, and by the server."""
        for _ in range(rounds):
            self.websocket.say("hello")
            self.polling.say("hello")
            answers = [self.websocket.hear(), self.polling.hear(), self.page.get("/").body.decode()]
            assert answers == [str(self.pid)] * 3


def running_child(server: ServerProcess, folder: Path) -> tuple[int, dict[str, str]]:
    """The process that was forked, and what came of its calls."""
    server.until((folder / "running").exists, server.logs)
    pid, calls = json.loads((folder / "running").read_text())
    (folder / "running").unlink()
    return pid, calls


def end_child(server: ServerProcess, folder: Path, pid: int, way: str = "", how: str = "_exit") -> None:
    """Let it end, and wait until it has."""
    (folder / "end").write_text(how)
    # a process of a pool waits for its next task
    gone = (folder / "ended").exists if way in ("pool", "executor") else lambda: state_of(pid) in ("", "Z")
    server.until(gone, server.logs)


def state_of(pid: int) -> str:
    """``"Z"`` for a process that has ended and that nobody has waited for; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    return {link[8:-1] for link in links if link.startswith("socket:")}


def sockets_on(port: int) -> set[str]:
    """The inodes of all TCP sockets of this machine whose own port it is: of the listener and its connections."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[1].endswith(f":{port:04X}")}


@pytest.mark.parametrize("where", ["view", "handler"])
@pytest.mark.parametrize(("kind", "way"), CASES)
def test_the_parent_goes_on_and_the_child_serves_nobody(start: Start, tmp_path: Path, kind: str, way: str, where: str) -> None:
    server = start(kind)
    clients = Clients(server)
    if where == "view":
        assert clients.page.get(f"/fork/{way}").body == str(clients.pid).encode()
    else:
        clients.websocket.say(f"fork {way}")
        assert clients.websocket.hear() == str(clients.pid)
    child, calls = running_child(server, tmp_path)
    assert child != clients.pid
    clients.talk()
    port = server.served.address[1]
    assert sockets_on(port) & sockets_of(clients.pid)
    assert not sockets_on(port) & sockets_of(child)
    if calls:
        assert "the process that this one was forked from" in calls["send to a session"]
        for call in ("send", "broadcast", "broadcast to the cluster"):
            assert calls[call].startswith("UsageError: the sessions are those of the process that this one was forked from")
    # who is let go sees it, although the child lives
    last = server.served.connect()
    last.start("GET", "/", [("Connection", "close")])
    assert last.response().status == 200
    assert last.read_to_end() == b""
    end_child(server, tmp_path, child, way)
    clients.talk()
    assert not (tmp_path / "closed").exists()
    assert not server.complaints(), server.logs()


@pytest.mark.parametrize("how", ["local", "redis"])
@pytest.mark.parametrize("kind", ["ours", OURS])
def test_a_child_reaches_the_sessions_by_the_cluster(start: Start, tmp_path: Path, request: pytest.FixtureRequest, kind: str,
                                                     how: str) -> None:
    """Its parent stays the worker that it was, and answers what others ask."""
    name = f"local:{uuid4()}" if how == "local" else f"{request.getfixturevalue('shared_redis').url}?group={uuid4()}"
    server = start(kind, cluster=name)
    clients = Clients(server)
    emitter = Emitter(name)
    workers = [clients.websocket.sid[:4]]
    assert emitter.workers() == workers
    clients.page.get("/fork/process")
    child, calls = running_child(server, tmp_path)
    assert (calls["send"], calls["broadcast to the cluster"], calls["count"]) == ("True", "None", "2")
    assert calls["broadcast"].startswith("UsageError: the sessions are those of the process that this one was forked from")
    assert (calls["publish"], calls["ask"].split(":")[0]) == ("1", "UsageError")
    heard = ["from the child by its id", "from the child to the cluster", "published by the child"]
    assert clients.websocket.hear_many(3) == heard
    assert clients.polling.hear_many(2) == heard[1:]
    for _ in range(10):
        assert (emitter.workers(), emitter.count()) == (workers, 2)
    clients.talk()
    end_child(server, tmp_path, child)
    assert (emitter.workers(), emitter.count()) == (workers, 2)
    clients.talk()
    assert not server.complaints(), server.logs()


@pytest.mark.parametrize("kind", ["ours", "serve", OURS, "gevent"])
def test_a_child_that_leaves_by_sys_exit(start: Start, tmp_path: Path, kind: str) -> None:
    """What runs at the end of a process ends no session of the parent's."""
    server = start(kind)
    clients = Clients(server)
    clients.websocket.say("fork gevent")
    assert clients.websocket.hear() == str(clients.pid)
    child, _ = running_child(server, tmp_path)
    end_child(server, tmp_path, child, how="exit")
    clients.talk()
    assert not (tmp_path / "closed").exists()


@pytest.mark.parametrize("kind", ["serve", OURS, "gevent"])
@pytest.mark.parametrize("way", ["process", "gevent"])
def test_a_child_can_be_terminated(start: Start, tmp_path: Path, kind: str, way: str) -> None:
    server = start(kind)
    clients = Clients(server)
    clients.page.get(f"/fork/{way}")
    child, _ = running_child(server, tmp_path)
    os.kill(child, signal.SIGTERM)
    server.until(lambda: state_of(child) in ("", "Z"))
    clients.talk()


@pytest.mark.parametrize("kind", ["ours", OURS, "gevent"])
def test_a_child_outlives_the_server(start: Start, tmp_path: Path, kind: str) -> None:
    """The port is free for the next one."""
    server = start(kind)
    clients = Clients(server)
    clients.page.get("/fork/daemon")
    child, _ = running_child(server, tmp_path)
    # a session whose client does not fetch its close would keep the worker for its whole graceful timeout
    clients.polling.close()
    HttpConnection.close_all()
    server.signal(signal.SIGTERM)
    server.wait()
    assert state_of(child) not in ("", "Z")
    with plain_socket.socket() as again:
        again.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_REUSEADDR, 1)
        again.bind(server.served.address)
        again.listen()
    os.kill(child, signal.SIGKILL)
