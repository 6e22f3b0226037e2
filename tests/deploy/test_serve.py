"""``engineio-wsgi serve --workers``: its workers, how they are replaced, what becomes of those that fail, where it listens."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM
from typing import Any

import gevent
import pytest
from support.clients import PollingSession, WebSocketSession, drain, open_session
from support.processes import APPLICATION, PATIENCE, ROOT, ServerProcess
from support.rawhttp import HttpConnection

Start = Callable[..., ServerProcess]
#: whose sessions move; it says so
MOVING = APPLICATION.replace('@server.on("connection")', """@server.on("resume")
def resumed(socket):
    os.write(1, f"resumed: {socket.data['number']}\\n".encode())
    connected(socket)

@server.on("connection")
def opened(socket):
    socket.data["number"] = server.clients_count
    connected(socket)
""")
#: with another module, which the application imports
IMPORTING = f"import helper\n{APPLICATION}"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A factory of servers: ``start(*arguments)``, in the folder ``tmp_path / "0"``, ``"1"``, …"""
    running: list[ServerProcess] = []

    def start_server(*arguments: str, **options: Any) -> ServerProcess:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        (folder / "helper.py").write_text("")
        running.append(ServerProcess(folder, "serve", *arguments, **options))
        return running[-1]

    yield start_server
    for server in running:
        server.stop()


class Disconnecting(PollingSession):
    """A polling client that has a new connection for each request."""

    def start_poll(self, headers: Any = ()) -> None:
        """Send a GET without waiting."""
        self.getting.close()
        self.getting = self.served.connect()
        super().start_poll(headers)

    def post(self, *packets: Any) -> Any:
        """POST packets."""
        self.posting.close()
        self.posting = self.served.connect()
        return super().post(*packets)


def pids(server: ServerProcess, count: int) -> set[int]:
    """The workers that answer, once there are ``count``."""
    found: set[int] = set()

    def ask() -> bool:
        found.add(server.ask()["pid"])
        return len(found) == count

    server.until(ask)
    return found


def replaced(server: ServerProcess, old: set[int]) -> None:
    """Return once none of the old workers exists."""
    server.until(lambda: not any(map(exists, old)))


def exists(pid: int) -> bool:
    """Whether there is a process, not counting one that has ended and is not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def said(server: ServerProcess) -> list[str]:
    """What the command has printed on stderr about itself."""
    return [line.removeprefix("engineio-wsgi: ") for line in server.logs().splitlines() if line.startswith("engineio-wsgi: ")]


# -- workers

def test_workers_serve_each_other_s_sessions(start: Start) -> None:
    server = start("--workers", "3")
    pids(server, 3)
    sessions = [Disconnecting(server.served).open() for _ in range(10)]
    for number, session in enumerate(sessions):
        session.say(str(number))
        assert session.hear() == str(number)
    assert not server.complaints()


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_it_stops_as_one_process(start: Start, number: signal.Signals) -> None:
    server = start("--workers", "2")
    workers = pids(server, 2)
    sessions = [WebSocketSession(server.served).open() for _ in range(6)]
    server.signal(number)
    assert {session.ws.wait_closed().code for session in sessions} == {1001}
    assert server.wait() == 0
    assert not any(map(exists, workers))
    assert server.logs().count("closed: server shutting down") == 6
    assert not said(server)
    assert not server.complaints()


def test_an_interrupt_on_the_terminal_reaches_the_workers_too(start: Start) -> None:
    server = start("--workers", "2")
    session = WebSocketSession(server.served).open()
    os.killpg(server.process.pid, SIGINT)
    assert session.ws.wait_closed().code == 1001
    assert server.wait() == 0
    assert not server.complaints()


def test_without_their_master_the_workers_stop(start: Start) -> None:
    server = start("--workers", "2")
    workers = pids(server, 2)
    session = WebSocketSession(server.served).open()
    server.signal(SIGKILL)
    assert session.ws.wait_closed().code == 1001
    server.process.wait()
    with gevent.Timeout(PATIENCE):
        while any(map(exists, workers)):
            gevent.sleep(0.02)


def test_a_worker_that_is_killed_is_replaced(start: Start) -> None:
    server = start("--workers", "2")
    workers = pids(server, 2)
    victim = workers.pop()
    os.kill(victim, SIGKILL)
    server.wait_for(f"worker {victim} was ended by SIGKILL; another worker is started in ")
    new = set()
    server.until(lambda: bool(new.update({server.ask()["pid"]} - {victim}) or len(new) == 2))
    assert workers < new


def test_a_master_without_descriptors_goes_on(start: Start) -> None:
    """It cannot start a process then, but the workers serve; and it starts the missing ones as soon as it can."""
    server = start("--workers", "2")
    victim, survivor = pids(server, 2)
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (0, limits[1]))
    server.signal(SIGHUP)
    server.wait_for("the old workers go on, new ones cannot start: a worker process could not be started: .* Too many open files")
    os.kill(victim, SIGKILL)
    server.wait_for("engineio-wsgi: a worker process could not be started: .* Too many open files; another worker is started in ")
    assert server.ask()["pid"] == survivor
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
    assert survivor in pids(server, 2)
    server.signal(SIGTERM)
    assert server.wait() == 0


# -- SIGHUP and --reload

def test_a_reload_serves_the_code_of_the_moment(start: Start, tmp_path: Path) -> None:
    """Nobody is refused meanwhile, and the old sessions are closed."""
    server = start("--workers", "2")
    old = pids(server, 2)
    websocket = WebSocketSession(server.served).open()
    waiting = PollingSession(server.served).open()
    waiting.park()
    (tmp_path / "0" / "app.py").write_text(APPLICATION.replace('"pid": os.getpid()', '"pid": os.getpid(), "new": True'))
    server.signal(SIGHUP)
    server.until(lambda: "new" in server.ask())
    assert websocket.ws.wait_closed().code == 1001
    assert waiting.end_poll() == ["1"]
    HttpConnection.close_all()
    replaced(server, old)
    assert "new" in server.ask()
    again = open_session(server.served, "upgraded")
    again.say("hello")
    assert again.hear() == "hello"
    assert said(server) == ["SIGHUP: new workers start", "the new workers serve"]
    assert not server.complaints()


def test_a_polling_session_is_served_until_its_turn_comes(start: Start) -> None:
    """Its requests come over new connections, to the new workers."""
    server = start("--workers", "1", options={"drain_rate": 1})
    old = server.ask()["pid"]
    sessions = [Disconnecting(server.served).open() for _ in range(3)]
    server.signal(SIGHUP)
    server.wait_for("the new workers serve")
    assert [drain(session) for session in sessions] == [[], [], []]
    replaced(server, {old})
    assert not server.complaints()


def test_code_that_cannot_be_loaded_leaves_the_old_workers_running(start: Start, tmp_path: Path) -> None:
    server = start("--workers", "2")
    old = pids(server, 2)
    session = WebSocketSession(server.served).open()
    (tmp_path / "0" / "app.py").write_text("def app(:\n")
    server.signal(SIGHUP)
    server.wait_for("the old workers go on, new ones cannot start: app.py, line 1: SyntaxError: ")
    assert pids(server, 2) == old
    session.say("still here")
    assert session.hear() == "still here"
    assert len(said(server)) == 2
    assert "Traceback" not in server.logs()
    (tmp_path / "0" / "app.py").write_text(APPLICATION)
    server.signal(SIGHUP)
    replaced(server, old)


def test_a_changed_file_restarts_the_workers(start: Start, tmp_path: Path) -> None:
    server = start("--reload", application=IMPORTING)
    helper, old = tmp_path / "0" / "helper.py", server.ask()["pid"]
    helper.write_text("value = 1")
    server.wait_for("helper.py has changed: new workers start")
    replaced(server, {old})
    assert not server.complaints()


def test_a_syntax_error_is_told_and_its_repair_is_noticed(start: Start, tmp_path: Path) -> None:
    """Also where the old workers have never loaded the file."""
    server = start("--reload", application=IMPORTING)
    folder, old = tmp_path / "0", server.ask()["pid"]
    (folder / "other.py").write_text("value =")
    (folder / "helper.py").write_text("import other")
    server.wait_for("the old workers go on, new ones cannot start: other.py, line 1: SyntaxError: invalid syntax")
    assert server.ask()["pid"] == old
    (folder / "other.py").write_text("value = 1")
    server.wait_for("other.py has changed: new workers start")
    replaced(server, {old})
    assert "Traceback" not in server.logs()


# -- sessions that move

@pytest.mark.parametrize("count", ["1", "2"])
def test_a_reload_moves_the_sessions(start: Start, count: str) -> None:
    """Nobody notices anything, twice."""
    server = start("--workers", count, options={"handover": True, "ping_interval": 300}, application=MOVING)
    sessions = [open_session(server.served, way) for way in ("polling", "websocket", "upgraded") for _ in range(4)]
    for turn in range(2):
        old = pids(server, int(count))
        for number, session in enumerate(sessions):
            session.say(f"{number} before")
        server.signal(SIGHUP)
        replaced(server, old)
        for number, session in enumerate(sessions):
            session.say(f"{number} after")
            assert session.hear_many(2) == [f"{number} before", f"{number} after"]
        assert server.logs().count("resumed: ") == len(sessions) * (turn + 1)
    assert "closed: " not in server.logs()
    server.signal(SIGINT)
    assert server.wait() == 0
    assert server.logs().count("closed: server shutting down") == len(sessions)
    assert not server.complaints()


# -- what fails at the start

def run(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENGINEIO_")}
    command = [sys.executable, "-m", "engineio_wsgi", "serve", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300,
                          env={**inherited, "PYTHONPATH": str(ROOT), "OPTIONS": "{}"}, **options)


FAILING = {
    "nothing": ("no_such:app", "", 2, "there is no module 'no_such'"),
    "syntax": ("broken:app", "def", 1, "broken.py, line 1: SyntaxError: invalid syntax"),
    "exit": ("broken:app", "import sys; sys.exit(3)", 1, r"worker \d+ has ended with status 3 before it served"),
    "killed": ("broken:app", "import os; os.kill(os.getpid(), 9)", 1, r"worker \d+ was ended by SIGKILL before it served"),
}


@pytest.mark.parametrize("case", FAILING)
def test_workers_that_cannot_start_are_one_line(tmp_path: Path, case: str) -> None:
    name, text, status, line = FAILING[case]
    (tmp_path / "broken.py").write_text(text)
    ended = run(tmp_path, name, "--workers", "3", "--bind", "127.0.0.1:0")
    assert re.fullmatch(f"engineio-wsgi: {line}\n", ended.stderr), ended.stderr
    assert (ended.returncode, ended.stdout) == (status, "")


def test_an_error_of_the_application_is_shown_once_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("\nimport not_installed_anywhere")
    ended = run(tmp_path, "broken:app", "--workers", "3", "--bind", "127.0.0.1:0")
    assert ended.stderr.count("Traceback") == 1
    last = ended.stderr.splitlines()[-1]
    assert last == "engineio-wsgi: broken.py, line 2: ModuleNotFoundError: No module named 'not_installed_anywhere'"
    assert ended.returncode == 1


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run(tmp_path, "app:app", "--workers", "2", "--bind", "127.0.0.1:0", "--bind", bind)
    assert ended.stderr == f"engineio-wsgi: cannot listen on {bind}: Address already in use\n"
    assert ended.returncode == 1


@pytest.mark.parametrize(("arguments", "line"), [
    (("--workers", "0"), "argument --workers: '0' is not a number of at least 1 "),
    (("--graceful-timeout", "soon"), "argument --graceful-timeout: 'soon' is not a number of seconds "),
    (("--full-collections", "0"), "argument --full-collections: '0' is not a number above 0 and up to 100 "),
    (("--gc-threshold", "700,x"), "argument --gc-threshold: '700,x' is not one to three numbers, separated by commas "),
    (("--bind", "fd:x"), "argument --bind: 'fd:x' is not HOST:PORT, unix:PATH or fd:NUMBER "),
    (("--bind", "fd:77"), "cannot listen on fd:77: Bad file descriptor"),
    (("--bind", "fd:0"), "cannot listen on fd:0: Socket operation on non-socket"),
    (("--bind", "unix:app.py"), "cannot listen on unix:app.py: Address already in use"),
])  # fmt: skip
def test_wrong_arguments_are_one_line(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    ended = run(tmp_path, "app:app", "--workers", "1", *arguments, stdin=subprocess.DEVNULL)
    assert ended.stderr.startswith(f"engineio-wsgi: {line}")
    assert ended.stderr.count("\n") == 1


# -- where it listens

def page(family: int, address: Any) -> bytes:
    """What the application answers to a client of a socket."""
    with socket.socket(family) as client:
        client.connect(address)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_several_addresses(start: Start, tmp_path: Path, workers: tuple[str, ...]) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = start(*workers, "--bind", f"unix:{path}", "--bind", "127.0.0.1:0")
    server.wait_for(r"(?s)listens on http://127.0.0.1:\d+/\n.*listens on unix:.*/sock\n.*listens on http://127.0.0.1:(\d+)/\n")
    other = int(re.findall(r"127.0.0.1:(\d+)/", server.logs())[1])
    assert b'"pid"' in page(socket.AF_UNIX, str(path))
    assert b'"pid"' in page(socket.AF_INET, ("127.0.0.1", other))
    assert server.ask()["scheme"] == "http"
    server.signal(SIGTERM)
    assert server.wait() == 0
    assert not path.exists()
    assert not server.complaints()


def test_the_path_of_another_process_is_not_taken(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    start(bind=f"unix:{path}")
    ended = run(tmp_path / "0", "app:app", "--bind", f"unix:{path}")
    assert ended.stderr == f"engineio-wsgi: cannot listen on unix:{path}: Address already in use\n"
    assert b'"pid"' in page(socket.AF_UNIX, str(path))


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["alone", "workers"])
@pytest.mark.parametrize("way", ["fd", "systemd"])
def test_an_inherited_socket(tmp_path: Path, way: str, workers: tuple[str, ...]) -> None:
    """The variables of systemd name the process that is meant, so the shell that sets them becomes the server."""
    (tmp_path / "app.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "engineio_wsgi", "serve", "app:app", *workers]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.dup2(listener.fileno(), 99)
        exports = "export LISTEN_FDS=1 LISTEN_PID=$$;" if way == "systemd" else ""
        number, bind = ("3", "") if way == "systemd" else ("8", "--bind fd:8")
        process = subprocess.Popen(
            ["bash", "-c", f"{exports} exec {number}<&99; exec \"$@\" {bind}", "bash", *command], cwd=tmp_path, pass_fds=[99],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OPTIONS": "{}"}, stdout=subprocess.PIPE, text=True)
        os.close(99)
        address = listener.getsockname()
    assert process.stdout is not None
    try:
        assert process.stdout.readline().endswith(f" listens on http://127.0.0.1:{address[1]}/\n")
        assert b'"pid"' in page(socket.AF_INET, address)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
