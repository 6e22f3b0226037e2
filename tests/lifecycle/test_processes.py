"""How processes with an engine in them begin and end: forks, signals, the interpreter's end, listeners that do not let go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import Session, WebSocketSession, open_session
from support.processes import ROOT
from support.rawhttp import ConnectionEnded
from support.rawwebsocket import Closed
from support.serving import EventLog, Served

#: seconds within which a process has to be gone; only a failing test waits that long
PATIENCE = 60.0

#: what all programs begin with. They print the port, and "ready"
HEAD = '''
import os, signal, sys, threading
import gevent
import engineio_wsgi
from gevent import pywsgi

server = engineio_wsgi.Server()

@server.on("connection")
def connected(socket):
    socket.on("message", message(socket))
    socket.on("close", lambda reason, description: print("closed:", reason, flush=True))

def message(socket):
    def on_message(data):
        if data == "interrupt":
            raise KeyboardInterrupt
        if data == "exit":
            sys.exit(3)
        if data == "hang":
            socket.send("hanging")
            gevent.sleep(1000)
        if data == "hang on":
            socket.send("hanging")
            while True:
                try:
                    gevent.sleep(1000)
                except gevent.GreenletExit:
                    pass
        socket.send(data)
    return on_message

def hello(environ, start_response):
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]

def listen(engine=server):
    http = pywsgi.WSGIServer(("127.0.0.1", 0), engine.wrap(hello), handler_class=engineio_wsgi.WebSocketHandler, log=None)
    http.start()
    print(http.server_port, flush=True)
    return http
'''

#: what a user writes to stop gracefully
GRACEFUL = HEAD + '''
http = listen()

def stop():
    http.stop_accepting()
    server.close(60)
    http.stop(1)

gevent.signal_handler(signal.SIGTERM, stop)
http.serve_forever()
print("done", flush=True)
'''
#: what a user writes who does not care
CARELESS = HEAD + "listen().serve_forever()"
#: the main program returns with sessions open
RETURNS = HEAD + '''
http = listen()
sys.stdin_ready = gevent.event.Event()
server.on("connection", lambda socket: socket.on("message", lambda data: sys.stdin_ready.set()))
sys.stdin_ready.wait()
'''
#: the server was made before the fork
FORKS = HEAD + '''
for _ in range(2):
    if gevent.os.fork() == 0:
        listen().serve_forever()
        os._exit(0)
os.write(1, b"forked\\n")
signal.pause()
'''
TWO = HEAD + '''
other = engineio_wsgi.Server()
other.on("connection", lambda socket: socket.on("message", lambda data: server.close(60)))
listen()
listen(other).serve_forever()
'''
LISTENS = HEAD + '''
server.listen(("127.0.0.1", 0))
print(server.address[1], flush=True)
gevent.signal_handler(signal.SIGTERM, lambda: gevent.spawn(server.close, 60))
server.serve_forever()
print("done", flush=True)
'''


class Program:
    """A program of the above, running."""

    def __init__(self, folder: Path, text: str) -> None:
        (folder / "program.py").write_text(text)
        self._errors = folder / "stderr"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", str(folder / "program.py")], stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def served(self) -> Served:
        """The server whose port comes next."""
        return Served(("127.0.0.1", int(self.line())), EventLog(), handler="ours")

    def ended(self) -> tuple[int, list[str]]:
        """Its exit status, and what it has printed meanwhile."""
        status = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        return status, self.process.stdout.read().splitlines()

    def errors(self) -> str:
        """What it has written to stderr."""
        return self._errors.read_text()

    def stop(self) -> None:
        """End it, however far it is."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Starts a program."""
    programs: list[Program] = []

    def start(text: str) -> Program:
        programs.append(Program(tmp_path, text))
        return programs[-1]

    yield start
    for program in programs:
        program.stop()


Run = Callable[[str], Program]


def said_goodbye(session: Session) -> bool:
    """Whether a client is told that its session ends."""
    try:
        return session.recv() == "1"
    except Closed as closed:
        return closed.code in (1000, 1001, 1005)


@pytest.mark.parametrize("text", [GRACEFUL, LISTENS], ids=["handler", "listen"])
def test_a_signal_that_the_program_handles(run: Run, text: str, transport: str) -> None:
    program = run(text)
    session = open_session(program.served(), transport)
    session.say("x")
    assert session.hear() == "x"
    program.process.terminate()
    assert said_goodbye(session)
    if isinstance(session, WebSocketSession):
        session.ws.http.close()
    assert program.ended() == (0, ["closed: server shutting down", "done"])
    assert program.errors() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_it_does_not_handle(run: Run, transport: str, number: signal.Signals) -> None:
    program = run(CARELESS)
    session = open_session(program.served(), transport)
    # both connections have been accepted then: an interrupt in the middle of that makes gevent's server complain
    session.say("x")
    assert session.hear() == "x"
    program.process.send_signal(number)
    with pytest.raises((Closed, ConnectionEnded, ConnectionError)):
        session.recv()
    status, _ = program.ended()
    assert status in (-number, 130, 1)
    # Python's own traceback, and perhaps that of what was just running; no other exception
    assert ("KeyboardInterrupt" in program.errors()) == (number is signal.SIGINT)
    assert "Error" not in program.errors()


def test_the_interpreter_ends_with_sessions_open(run: Run, transport: str) -> None:
    program = run(RETURNS)
    session = open_session(program.served(), transport)
    session.send("4go")
    assert program.ended()[0] == 0
    assert program.errors() == ""


def test_made_before_a_fork(run: Run) -> None:
    program = run(FORKS)
    ports, line = [], ""
    while len(ports) < 2:
        line = program.line()
        if line != "forked":
            ports.append(int(line))
    children = [Served(("127.0.0.1", port), EventLog(), handler="ours") for port in ports]
    sessions = [open_session(child, transport) for child in children for transport in ("polling", "websocket")]
    for number, session in enumerate(sessions):
        session.say(str(number))
        assert session.hear() == str(number)
    # each is a worker of its own
    assert len({session.sid[:4] for session in sessions}) == 2
    assert len({child.connect().get("/").body for child in children}) == 2
    assert program.errors() == ""


@pytest.mark.parametrize(("word", "expected"), [("interrupt", (-signal.SIGINT, 130, 1)), ("exit", (3,))])
def test_a_listener_that_ends_the_process(run: Run, transport: str, word: str, expected: tuple[int, ...]) -> None:
    program = run(CARELESS)
    session = open_session(program.served(), transport)
    session.say("x")
    assert session.hear() == "x"
    if transport == "polling":
        session.posting.start("POST", session.target(), body=f"4{word}".encode())  # type: ignore[attr-defined]
    else:
        session.say(word)
    assert program.ended()[0] in expected


@pytest.mark.parametrize("word", ["hang", "hang on"])
def test_a_listener_that_never_returns(run: Run, transport: str, word: str) -> None:
    program = run(GRACEFUL)
    session = open_session(program.served(), transport)
    session.say(word)
    assert session.hear() == "hanging"
    program.process.terminate()
    assert said_goodbye(session)
    if isinstance(session, WebSocketSession):
        session.ws.http.close()
    assert program.ended() == (0, ["closed: server shutting down", "done"])
    assert "Traceback" not in program.errors()


def test_one_of_two_servers_ends(run: Run, transport: str) -> None:
    program = run(TWO)
    first, second = program.served(), program.served()
    going, staying = open_session(first, transport), open_session(second, transport)
    staying.say("close the other one")
    assert said_goodbye(going)
    assert first.connect().get("/engine.io/?EIO=4&transport=polling").status == 503
    again: Any = open_session(second, transport)
    again.say("still there")
    assert second.connect().get("/").status == 200
    assert program.errors() == ""
