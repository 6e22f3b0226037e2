"""Sessions that move to the next worker when gunicorn is reloaded, and what becomes of them when a worker dies meanwhile."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from support.clients import PollingSession, Session, WebSocketSession, probe
from support.codec import Packet
from support.processes import ServerProcess
from support.rawhttp import Headers, Response
from support.rawwebsocket import TEXT, Closed, frame_bytes

OURS = "engineio_wsgi.gunicorn.Worker"
HOOKS = ("-c", "python:engineio_wsgi.gunicorn", "--keep-alive", "60")
PATIENCE = 60.0

#: answers each message with its number in the session, and the process; "die in X" ends the process at the event X
APPLICATION = '''
import json, logging, os, resource, signal, time
import gevent
import engineio_wsgi

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
time.sleep(float(os.environ.get("IMPORT_SECONDS", "0")))
server = engineio_wsgi.Server(handover=True, allow_eio3=True, **json.loads(os.environ["OPTIONS"]))

def listen(socket):
    @socket.on("message")
    def message(data):
        if data.startswith("die in "):
            socket.data["die in"] = data[7:]
        while data.startswith("wait for ") and not os.path.exists(data[9:]):
            gevent.sleep(0.01)
        if data.startswith("broadcast "):
            server.broadcast(data)
            return
        if data == "megabytes":
            for number in range(5):
                socket.send(str(number) * 1_000_000)
        socket.data["count"] = socket.data.get("count", 0) + 1
        socket.send(f"{socket.data['count']} {os.getpid()} {data}")
    socket.on("close", lambda reason, _: os.write(1, f"closed: {reason}\\n".encode()))

def die(event, socket):
    if socket.data.get("die in") == event:
        os.kill(os.getpid(), signal.SIGKILL)

@server.on("connection")
def connected(socket):
    listen(socket)

@server.on("resume")
def resumed(socket):
    die("resume", socket)
    if "FILES" in os.environ:
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + int(os.environ.pop("FILES")), 1000))
    if socket.data.get("die in") == "an error of resume":
        raise RuntimeError("this listener cannot go on")
    listen(socket)

@server.on("leave")
def leave(socket):
    die("leave", socket)

def application(environ, start_response):
    body = json.dumps({"pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

app = server.wrap(application)
'''

Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A factory of servers: ``start(kind, *arguments)``."""
    running: list[ServerProcess] = []

    def start_server(kind: str, *arguments: str, options: dict[str, Any] | None = None, **environment: str) -> ServerProcess:
        hooks = () if kind == OURS else HOOKS
        running.append(ServerProcess(tmp_path, kind, *hooks, *arguments, application=APPLICATION, environment=environment,
                                     options=options, has_access_log=False))
        return running[-1]

    yield start_server
    for server in running:
        server.stop()


class Browser(PollingSession):
    """A polling client that opens another connection when the server ends one, as browsers do."""

    def start_poll(self, headers: Headers = ()) -> None:
        """Send a GET without waiting."""
        if self.last is not None and ends(self.last):
            self.getting = self.served.connect()
        super().start_poll(headers)

    def recv(self) -> Packet:
        """The next packet that is no noop."""
        while (packet := super().recv()) == "6":
            pass
        return packet

    def post(self, *packets: Packet) -> Response:
        """POST packets."""
        response = super().post(*packets)
        if ends(response):
            self.posting = self.served.connect()
        return response


def ends(response: Response) -> bool:
    """Whether the connection ends with this response."""
    return "close" in response.tokens("Connection")


class Talker:
    """Sends numbered messages without a pause, and checks that each is answered once and in order."""

    def __init__(self, session: Any) -> None:
        self.session: Session = session.open()
        self.count = 0
        self.pids: list[int] = []
        self.heard: list[str] = []
        self._stopped = False
        self._greenlet: gevent.Greenlet | None = None

    def talk(self, *data: str) -> int:
        """Send messages, and check the answers. Returns the process that gave the last one."""
        for each in data:
            self.session.say(each)
            answer = str(self.session.hear())
            while answer.startswith("broadcast "):
                self.heard.append(answer)
                answer = str(self.session.hear())
            self.count += 1
            number, pid, text = answer.split(" ", 2)
            assert (int(number), text) == (self.count, each)
            if self.pids[-1:] != [int(pid)]:
                self.pids.append(int(pid))
        return self.pids[-1]

    def start(self) -> None:
        """Talk in the background."""

        def go_on() -> None:
            while not self._stopped:
                self.talk(f"message {self.count}")

        self._stopped = False
        self._greenlet = gevent.spawn(go_on)

    def stop(self) -> None:
        """Stop talking; raises what has gone wrong."""
        self._stopped = True
        assert self._greenlet is not None
        self._greenlet.get(timeout=PATIENCE)

    def has_come_to(self, pids: set[int]) -> bool:
        """Whether the last answer is of one of these processes; raises what has gone wrong."""
        assert self._greenlet is not None
        if self._greenlet.ready():
            self._greenlet.get()
        return bool(self.pids) and self.pids[-1] in pids


def workers(server: ServerProcess) -> set[int]:
    """The processes of the workers."""
    path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return {int(pid) for pid in path.read_text().split()}


def replaced(server: ServerProcess, old: set[int], count: int) -> set[int]:
    """Wait until the workers are others than the ``old`` ones. Returns them."""
    server.until(lambda: len(workers(server) - old) == count)
    return workers(server) - old


def talkers_of(server: ServerProcess, count: int) -> list[Talker]:
    """Clients over WebSocket and by polling, of both revisions."""
    served = server.served
    makers: list[Callable[[], Any]] = [
        lambda: WebSocketSession(served), lambda: Browser(served), lambda: WebSocketSession(served, 3),
        lambda: Browser(served, 3)]
    return [Talker(makers[number % len(makers)]()) for number in range(count)]


@pytest.mark.parametrize("kind", [OURS, "gevent", "gevent_pywsgi"])
def test_a_reload_ends_no_session(start: Start, kind: str) -> None:
    server = start(kind, "-w", "2")
    talkers = talkers_of(server, 8)
    for talker in talkers:
        talker.start()
    for _ in range(3):
        old = workers(server)
        server.signal(signal.SIGHUP)
        new = replaced(server, old, 2)
        server.until(lambda: all(talker.has_come_to(new) for talker in talkers), lambda: server.logs()[-3000:])  # noqa: B023
    for talker in talkers:
        talker.stop()
    assert "closed:" not in server.logs()


def test_an_application_that_takes_long_to_start_is_waited_for(start: Start) -> None:
    server = start(OURS, "-w", "1", IMPORT_SECONDS="2")
    talkers = talkers_of(server, 4)
    for talker in talkers:
        talker.start()
    old = workers(server)
    server.signal(signal.SIGHUP)
    new = replaced(server, old, 1)
    server.until(lambda: all(talker.has_come_to(new) for talker in talkers), lambda: server.logs()[-3000:])
    for talker in talkers:
        talker.stop()
    assert "closed:" not in server.logs()


def test_a_worker_that_is_one_too_many_moves_its_sessions_to_the_others(start: Start) -> None:
    server = start(OURS, "-w", "2")
    talkers = talkers_of(server, 8)
    for talker in talkers:
        talker.talk("a")
    server.signal(signal.SIGTTOU)
    server.until(lambda: len(workers(server)) == 1)
    assert {talker.talk("b") for talker in talkers} == workers(server)
    assert "closed:" not in server.logs()


def test_each_session_gets_a_broadcast_once(start: Start) -> None:
    server = start(OURS, "-w", "2")
    talkers = talkers_of(server, 6)
    speaker = Talker(WebSocketSession(server.served))
    for talker in talkers:
        talker.start()
    old = workers(server)
    server.signal(signal.SIGHUP)
    sent = []
    while not {speaker.talk("where am I?")} & (workers(server) - old):
        sent.append(f"broadcast {len(sent)}")
        speaker.session.say(sent[-1])
    new = replaced(server, old, 2)
    server.until(lambda: all(talker.has_come_to(new) for talker in talkers))
    server.until(lambda: all(len(talker.heard) >= len(sent) for talker in talkers))
    for talker in talkers:
        talker.stop()
        talker.talk("last")
        assert talker.heard == sent


def test_an_upgrade_that_begins_while_its_session_waits_to_move(start: Start, tmp_path: Path) -> None:
    server = start(OURS, "-w", "1")
    talker = Talker(Browser(server.served))
    talker.talk("a")
    old = workers(server)
    waiting = gevent.spawn(talker.talk, f"wait for {tmp_path}/end")
    server.signal(signal.SIGHUP)
    replaced(server, old, 1)
    # the old worker accepts nothing any more, and the session is still there
    server.until(lambda: server.ask()["pid"] not in old)
    candidate = gevent.spawn(probe, talker.session)
    # time enough for the handshake to arrive; if it does not, the test is an easier one
    for _ in range(5):
        server.ask()
    (tmp_path / "end").touch()
    waiting.get(timeout=PATIENCE)
    upgraded = candidate.get(timeout=PATIENCE)
    upgraded.send("5")
    talker.session = upgraded
    assert talker.talk("b") in workers(server)
    assert "closed:" not in server.logs()


def test_a_worker_whose_sessions_have_moved_passes_handshakes_on(start: Start) -> None:
    """Connections that stay open, as those of proxies do, may bring some."""
    server = start("gevent", "-w", "1")
    connection = server.served.connect()
    assert connection.get("/").json()["pid"] in workers(server)
    talker = Talker(WebSocketSession(server.served))
    talker.talk("a")
    old = workers(server)
    server.signal(signal.SIGHUP)
    server.wait_for("the sessions have moved to another worker")
    session = Browser(server.served)
    session.getting = connection
    late = Talker(session)
    assert late.talk("a") not in old
    assert late.talk("b") == talker.talk("b") not in old
    assert "closed:" not in server.logs()


def test_a_plain_stop_closes_the_sessions(start: Start) -> None:
    server = start(OURS, "-w", "2")
    talkers = talkers_of(server, 2)
    for talker in talkers:
        talker.talk("a")
    server.signal(signal.SIGTERM)
    assert talkers[0].session.ws.wait_closed().reason == "server shutting down"  # type: ignore[attr-defined]
    assert talkers[1].session.recv() == "1"
    assert server.wait() == 0


# -- faults


def outcomes(talkers: list[Talker], pids: set[int]) -> tuple[int, int]:
    """How many sessions go on in one of these processes, and how many have ended with a sign to their clients."""
    goes_on = ended = 0
    for talker in talkers:
        try:
            goes_on += talker.talk("after") in pids
        except Exception:  # the connection was reset, or the session is unknown
            ended += 1
    return goes_on, ended


def test_a_worker_that_is_killed_while_it_leaves_ends_the_sessions_that_have_not_moved(start: Start) -> None:
    server = start(OURS, "-w", "1")
    talkers = [Talker(WebSocketSession(server.served)) for _ in range(6)]
    for talker in talkers[:3] + talkers[4:]:
        talker.talk("a")
    talkers[3].talk("die in leave")
    old = workers(server)
    server.signal(signal.SIGHUP)
    new = replaced(server, old, 1)
    server.until(lambda: not old & workers(server))
    goes_on, ended = outcomes(talkers, new)
    assert (goes_on + ended, ended >= 1) == (6, True)
    # a client of a session that has ended is told so
    lost = PollingSession(server.served)
    lost.info["sid"] = talkers[3].session.sid
    assert lost.served.connect().get(lost.target()).json()["code"] == 1


def test_a_worker_that_is_killed_while_it_takes_sessions_ends_those_only_that_it_has_taken(start: Start) -> None:
    server = start(OURS, "-w", "2")
    talkers = [Talker(WebSocketSession(server.served)) for _ in range(40)]
    for talker in talkers[1:]:
        talker.talk("a")
    talkers[0].talk("die in resume")
    old = workers(server)
    server.signal(signal.SIGHUP)
    server.until(lambda: not old & workers(server) and len(workers(server)) == 2, lambda: server.logs()[-3000:])
    goes_on, ended = outcomes(talkers, workers(server))
    assert goes_on + ended == 40
    assert goes_on > 0
    assert "closed:" not in server.logs()


def test_workers_with_other_options_get_no_sessions(start: Start, tmp_path: Path) -> None:
    server = start(OURS, "-w", "1")
    talker = Talker(WebSocketSession(server.served))
    talker.talk("a")
    (tmp_path / "app.py").write_text(APPLICATION.replace("handover=True,", "handover=True, ping_interval=7,"))
    server.signal(signal.SIGHUP)
    assert talker.session.ws.wait_closed().reason == "server shutting down"  # type: ignore[attr-defined]
    assert server.logs().count("cannot take sessions of this one: it has other options") == 1
    assert os.path.exists(tmp_path)


@pytest.mark.parametrize(("before", "after"), [("handover=True, ", ""), ("handover=True, ", 'handover=True, path="/other/", ')],
                         ids=["without the option", "in another cluster"])
def test_workers_that_can_take_no_sessions_are_not_waited_for(start: Start, tmp_path: Path, before: str, after: str) -> None:
    server = start(OURS, "-w", "2", "--graceful-timeout", "3600")
    talker = Talker(WebSocketSession(server.served))
    talker.talk("a")
    (tmp_path / "app.py").write_text(APPLICATION.replace(before, after))
    server.signal(signal.SIGHUP)
    assert talker.session.ws.wait_closed().reason == "server shutting down"  # type: ignore[attr-defined]


def test_a_resume_listener_that_fails_ends_its_session_only(start: Start) -> None:
    server = start(OURS, "-w", "1")
    talkers = [Talker(WebSocketSession(server.served)) for _ in range(4)]
    for talker in talkers[1:]:
        talker.talk("a")
    talkers[0].talk("die in an error of resume")
    old = workers(server)
    server.signal(signal.SIGHUP)
    new = replaced(server, old, 1)
    server.until(lambda: not old & workers(server))
    assert talkers[0].session.ws.wait_closed().reason == "application error"  # type: ignore[attr-defined]
    assert {talker.talk("b") for talker in talkers[1:]} == new
    assert server.logs().count("closed:") == 0
    assert server.logs().count("RuntimeError: this listener cannot go on") == 1


def test_a_worker_without_descriptors_takes_what_it_can(start: Start) -> None:
    """The other sessions go on in the old worker until their turn to be closed comes."""
    server = start(OURS, "-w", "1", "--graceful-timeout", "5", FILES="10")
    talkers = [Talker(WebSocketSession(server.served)) for _ in range(30)]
    for talker in talkers:
        talker.talk("a")
    old = workers(server)
    server.signal(signal.SIGHUP)
    new = replaced(server, old, 1)
    server.until(lambda: not old & workers(server), lambda: server.logs()[-3000:])
    reasons = Counter(outcome_of(talker, new) for talker in talkers)
    assert reasons["goes on"] > 0, (reasons, server.logs()[-3000:])
    assert reasons["server shutting down"] > 0
    assert reasons.total() == reasons["goes on"] + reasons["server shutting down"] == 30
    for line in ("sessions do not move, and will be closed: the other worker does not take it",
                 "sessions of another worker cannot go on here: too many open files"):
        assert server.logs().count(line) == 1


def outcome_of(talker: Talker, pids: set[int]) -> str:
    """Whether a session goes on in one of these processes, or the reason that its client was told."""
    try:
        return "goes on" if talker.talk("after") in pids else "goes on elsewhere"
    except Closed as closed:
        return closed.reason


@pytest.mark.parametrize("kind", [OURS, "gevent"])
def test_megabytes_that_the_client_has_not_read_yet_move(start: Start, kind: str) -> None:
    server = start(kind, "-w", "1", options={"max_buffered": 20_000_000})
    session = WebSocketSession(server.served).open()
    session.say("megabytes")
    # the first one is being sent, and the others wait
    assert session.hear() == "0" * 1_000_000
    talker = Talker(WebSocketSession(server.served))
    talker.talk("a")
    old = workers(server)
    server.signal(signal.SIGHUP)
    replaced(server, old, 1)
    server.until(lambda: not old & workers(server))
    assert talker.talk("b") not in old
    assert session.hear_many(4) == [str(number) * 1_000_000 for number in range(1, 5)]
    assert str(session.hear()).startswith("1 ")
    session.say("after")
    number, pid, text = str(session.hear()).split(" ")
    assert (number, text) == ("2", "after")
    assert int(pid) not in old
    assert "closed:" not in server.logs()


@pytest.mark.parametrize("kind", [OURS, "gevent"])
def test_a_message_of_which_half_has_arrived_moves(start: Start, kind: str) -> None:
    server = start(kind, "-w", "1")
    session = WebSocketSession(server.served).open()
    frame = frame_bytes(TEXT, b"4" + b"x" * 900_000)
    session.ws.http.send(frame[:400_000])
    old = workers(server)
    server.signal(signal.SIGHUP)
    replaced(server, old, 1)
    server.until(lambda: not old & workers(server))
    session.ws.http.send(frame[400_000:])
    number, pid, text = str(session.hear()).split(" ")
    assert (number, text) == ("1", "x" * 900_000)
    assert int(pid) not in old
    assert "closed:" not in server.logs()
