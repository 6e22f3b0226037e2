"""The command line, run as a user runs it: what it serves, what it says when it cannot, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
import pytest
from gevent import subprocess
from support.clients import WebSocketSession, open_session
from support.rawhttp import HttpConnection
from support.serving import EventLog, Served

import engineio_wsgi

APPLICATION = """
import engineio_wsgi

def inner(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"inner"]

class Outer:
    def __init__(self, app):
        self.wsgi_app = app

    def __call__(self, environ, start_response):
        return self.wsgi_app(environ, start_response)

server = engineio_wsgi.Server(SETTINGS)
app = Outer(server.wrap(inner))
bare = inner
number = 5

@server.on("connection")
def connected(socket):
    @socket.on("message")
    def message(data):
        for _ in range(20 if data == "flood" else 1):
            socket.send("x" * 600_000 if data == "flood" else data)
"""
#: the same application inside of what hides the engine
WRAPPERS = """
from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from site_app import app, inner, server

def function(app):
    def wrapped(environ, start_response):
        return app(environ, start_response)
    return wrapped

one = function(app)
many = function(function(function(app)))
werkzeugs = DispatcherMiddleware(ProxyFix(function(app)), {"/other": inner})

def create_app(name="wrapped", *, debug=False):
    flask = Flask(name)
    flask.debug = debug
    flask.wsgi_app = server.wrap(flask.wsgi_app)
    FlaskInstrumentor().instrument_app(flask)
    flask.add_url_rule("/", view_func=lambda: f"{name} {debug}")
    return flask

traced = create_app()

def create_for(name):
    raise TypeError(f"no site is called {name}")

def create_nothing():
    return None

def create_any(*arguments, **named):
    return app
"""
#: its handlers wait for each other
BLOCKING = """
import threading
import engineio_wsgi
from gevent import monkey
from site_app import inner

server = engineio_wsgi.Server()
app = server.wrap(inner)
go_on = threading.Event()

@server.on("connection")
def connected(socket):
    for message in socket:
        if message == "patched?":
            socket.send(str(monkey.is_module_patched("time")))
        elif message == "go on":
            go_on.set()
        else:
            go_on.wait()
            socket.send("waited")
"""
#: together more than the kernel's buffers take
FLOOD, COUNT = "x" * 600_000, 20


class Command:
    """A running ``python -m engineio_wsgi``."""

    def __init__(self, *arguments: str, cwd: Path, stderr: int = subprocess.PIPE, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if name != "DEBUG" and not name.startswith("ENGINEIO_")}
        package = str(Path(engineio_wsgi.__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engineio_wsgi", *arguments],
            cwd=cwd,
            env={**inherited, "PYTHONPATH": package, "PYTHONWARNINGS": "error", **environment},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def address(self) -> tuple[str, int]:
        """Where it listens; blocks until it does."""
        line = self.process.stdout.readline()
        match = re.fullmatch(r"engineio-wsgi \S+ listens on https?://([^/]+):(\d+)/\n", line)
        assert match, (line, self.process.stderr.read())
        return match[1].strip("[]"), int(match[2])

    def served(self) -> Served:
        """The same, for the suites' clients."""
        return Served(self.address(), EventLog(), handler="ours")

    def get(self, target: str) -> Any:
        """The answer to one GET."""
        return HttpConnection(self.address()).get(target)

    def end(self, number: int | None = None) -> tuple[int, str]:
        """The exit status and what stderr got; after the signal, if one is to be sent."""
        if number is not None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=120)
        return self.process.returncode, errors


Run = Callable[..., Command]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts the command in a folder with a module ``site_app``, whose server has the options ``settings``."""
    running: list[Command] = []

    def start(*arguments: str, settings: str = "", **environment: Any) -> Command:
        (tmp_path / "site_app.py").write_text(APPLICATION.replace("SETTINGS", settings))
        (tmp_path / "wrapped_app.py").write_text(WRAPPERS)
        (tmp_path / "broken_app.py").write_text("import not_installed_anywhere\n")
        running.append(Command(*arguments, cwd=tmp_path, **environment))
        return running[-1]

    yield start
    for command in running:
        if command.process.poll() is None:
            command.end(signal.SIGKILL)


def serve(*arguments: str) -> tuple[str, ...]:
    return "serve", "site_app:app", "--bind", "127.0.0.1:0", *arguments


def handshake(command: Command) -> dict[str, Any]:
    """What the open packet says. Over WebSocket: a polling client that never polls would be waited for at the end."""
    info: dict[str, Any] = open_session(command.served(), "websocket").info
    return info


def test_the_demo(run: Run):
    command = run("--bind", "127.0.0.1:0")
    served = command.served()
    connection = served.connect()
    for target, kind in [("/", "text/html"), ("/demo.js", "text/javascript"), ("/client.js", "text/javascript"),
                         ("/style.css", "text/css")]:
        response = connection.get(target)
        assert (response.status, response.header("Content-Type").split(";")[0]) == (200, kind)
        assert "default-src 'none'" in response.header("Content-Security-Policy")
    assert connection.get("/../cli.py").status == 404
    assert connection.get("/__init__.py").status == 404
    session = open_session(served, "websocket")
    assert json.loads(session.hear()) == {"type": "count", "count": 1}
    assert command.end(signal.SIGTERM) == (0, "")


def test_serve_an_application(run: Run, transport: str):
    command = run(*serve())
    session = open_session(command.served(), transport)
    session.say("é")
    assert session.hear() == "é"
    assert session.served.connect().get("/").text == "inner"
    session.close()
    assert command.end(signal.SIGTERM) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_the_sessions_first(run: Run, number: int):
    command = run(*serve())
    session = open_session(command.served(), "websocket")
    session.say("here")
    assert session.hear() == "here"
    command.process.send_signal(number)
    assert session.ws.wait_closed().code == 1001
    assert command.end() == (0, "")


@pytest.mark.parametrize("name", ["one", "many", "werkzeugs", "traced", "create_app()", "create_any()"])
def test_the_sessions_are_closed_whatever_the_engine_is_wrapped_in(run: Run, name: str):
    command = run("serve", f"wrapped_app:{name}", "--bind", "127.0.0.1:0")
    session = open_session(command.served(), "websocket")
    session.say("here")
    assert session.hear() == "here"
    command.process.send_signal(signal.SIGTERM)
    assert session.ws.wait_closed().code == 1001
    assert command.end() == (0, "")


@pytest.mark.parametrize("wrapper", ["one", "werkzeugs"])
def test_a_flag_without_effect_is_told_whatever_the_engine_is_wrapped_in(run: Run, wrapper: str):
    command = run("serve", f"wrapped_app:{wrapper}", "--bind", "127.0.0.1:0", "--ping-interval", "7", settings="ping_interval=9")
    assert handshake(command)["pingInterval"] == 9000
    _, errors = command.end(signal.SIGTERM)
    assert "--ping-interval or ENGINEIO_PING_INTERVAL has no effect: the application sets ping_interval=9.0 itself" in errors


def test_a_cluster_that_cannot_be_joined_is_told_at_once(run: Run):
    """Not at the first request, whatever the engine is wrapped in."""
    with gevent.socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        status, errors = run("serve", "wrapped_app:one", settings=f"cluster='redis://127.0.0.1:{nobody.getsockname()[1]}'").end()
    assert errors.startswith("engineio-wsgi: cluster: ")
    assert (status, errors.count("\n")) == (2, 1)


@pytest.mark.parametrize(("call", "page"), [("create_app()", "wrapped False"), ("create_app('prod', debug=True)", "prod True")])
def test_a_factory_is_called(run: Run, call: str, page: str):
    command = run("serve", f"wrapped_app:{call}", "--bind", "127.0.0.1:0", "--ping-interval", "7")
    served = command.served()
    assert served.connect().get("/").text == page
    assert open_session(served, "websocket").info["pingInterval"] == 7000
    assert command.end(signal.SIGTERM) == (0, "")


def test_what_is_unsent_is_sent_before_the_end(run: Run):
    command = run(*serve(), settings="max_buffered=50_000_000")
    served = command.served()
    session = WebSocketSession(served, http=HttpConnection(served.address, receive_buffer=4096)).open()
    session.say("flood")
    assert session.hear() == FLOOD
    command.process.send_signal(signal.SIGTERM)
    assert session.hear_many(COUNT - 1) == [FLOOD] * (COUNT - 1)
    assert session.ws.wait_closed().code == 1001
    assert command.end() == (0, "")


def test_a_second_signal_does_no_harm(run: Run):
    command = run(*serve())
    served = command.served()
    request = served.connect()
    request.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    session = open_session(served, "websocket")
    command.process.send_signal(signal.SIGTERM)
    assert session.ws.wait_closed().code == 1001
    command.process.send_signal(signal.SIGINT)
    request.send(b"cd")
    assert request.response().text == "inner"
    assert command.end() == (0, "")


SETTINGS = [
    (("--ping-interval", "7"), {}, 7000),
    ((), {"ENGINEIO_PING_INTERVAL": "8"}, 8000),
    (("--ping-interval", "7"), {"ENGINEIO_PING_INTERVAL": "8"}, 7000),
    ((), {}, 25000),
]


@pytest.mark.parametrize(("flags", "environment", "milliseconds"), SETTINGS)
@pytest.mark.parametrize("arguments", [serve(), ("--bind", "127.0.0.1:0")], ids=["serve", "demo"])
def test_options(run: Run, arguments: Any, flags: Any, environment: dict[str, str], milliseconds: int):
    command = run(*arguments, *flags, **environment)
    assert handshake(command)["pingInterval"] == milliseconds
    assert command.end(signal.SIGTERM) == (0, "")


def test_options_before_the_command(run: Run):
    command = run("--ping-interval", "7", *serve("--ping-timeout", "3"))
    opened = handshake(command)
    assert (opened["pingInterval"], opened["pingTimeout"]) == (7000, 3000)


def test_what_the_application_sets_itself_holds_and_the_flag_is_not_ignored_in_silence(run: Run):
    command = run(*serve("--ping-interval", "7", "--ping-timeout", "3"), settings="ping_interval=9, ping_timeout=3")
    assert handshake(command)["pingInterval"] == 9000
    status, errors = command.end(signal.SIGTERM)
    assert status == 0
    assert errors.splitlines() == ["engineio-wsgi: --ping-interval or ENGINEIO_PING_INTERVAL has no effect: "
                                   "the application sets ping_interval=9.0 itself"]


def test_an_application_that_asks_for_the_environment_gets_the_flags(run: Run, tmp_path: Path):
    command = run(*serve("--ping-interval", "7"))
    command.end(signal.SIGKILL)
    text = APPLICATION.replace("Server(SETTINGS)", "Server.from_environ(ping_interval=9, ping_timeout=8)")
    (tmp_path / "other_app.py").write_text(text)
    command = Command("serve", "other_app:app", "--bind", "127.0.0.1:0", "--ping-interval", "7", cwd=tmp_path)
    opened = handshake(command)
    assert (opened["pingInterval"], opened["pingTimeout"]) == (7000, 8000)
    assert command.end(signal.SIGTERM) == (0, "")


def test_an_application_without_an_engine_is_served(run: Run):
    command = run("serve", "site_app:bare", "--bind", "127.0.0.1:0")
    assert command.get("/").text == "inner"
    assert command.end(signal.SIGTERM) == (0, "")


@pytest.mark.parametrize("patched", [True, False])
def test_the_standard_library_is_patched_before_the_application_is_imported(run: Run, tmp_path: Path, patched: bool):
    """A handler waits for a thing of the standard library's that another session's handler brings about."""
    (tmp_path / "blocking_app.py").write_text(BLOCKING)
    command = run("serve", "blocking_app:app", "--bind", "127.0.0.1:0", *(() if patched else ("--no-patch",)))
    served = command.served()
    first, second = open_session(served, "websocket"), open_session(served, "websocket")
    if patched:
        first.say("wait")
        second.say("go on")
        assert first.hear() == "waited"
    first.say("patched?")
    assert first.hear() == str(patched)
    first.close()
    second.close()
    assert command.end(signal.SIGTERM) == (0, "")


def test_refusals_and_requests_are_logged_where_it_is_asked_for(run: Run):
    command = run(*serve("--log-level", "info", "--access-log"))
    served = command.served()
    session = open_session(served, "polling")
    assert served.connect().get("/engine.io/?EIO=4&transport=carrier-pigeon").status == 400
    session.close()
    _, errors = command.end(signal.SIGTERM)
    assert "INFO engine: < 127.0.0.1: refused: 0 Transport unknown {'transport': 'carrier-pigeon'}" in errors
    assert '"GET /engine.io/?EIO=4&transport=carrier-pigeon HTTP/1.1" 400 ' in errors
    assert f"&sid={session.sid[:6]}... HTTP/1.1" in errors
    assert session.sid not in errors


@pytest.mark.parametrize("more", [(), ("--no-access-log", "--log-level", "warning")], ids=["default", "off"])
def test_a_terminal_gets_refusals_and_requests(run: Run, more: tuple[str, ...]):
    terminal, other_end = os.openpty()
    command = run(*serve(*more), stderr=other_end)
    os.close(other_end)
    assert command.get("/engine.io/?EIO=4&transport=carrier-pigeon").status == 400
    command.process.send_signal(signal.SIGTERM)
    command.process.wait(timeout=120)
    printed = b""
    with suppress(OSError):
        while chunk := os.read(terminal, 4096):
            printed += chunk
    os.close(terminal)
    assert (b"refused: 0 Transport unknown" in printed) == (not more)
    assert (b'"GET /engine.io/?EIO=4&transport=carrier-pigeon HTTP/1.1" 400 ' in printed) == (not more)


def test_an_application_with_logging_of_its_own_keeps_it(run: Run, tmp_path: Path):
    (tmp_path / "logging_app.py").write_text("import logging\nlogging.basicConfig(format='own %(message)s')\n"
                                             "from site_app import app")
    command = run("serve", "logging_app:app", "--bind", "127.0.0.1:0", "--log-level", "info")
    assert command.get("/engine.io/?EIO=4&transport=carrier-pigeon").status == 400
    _, errors = command.end(signal.SIGTERM)
    assert errors == "own < 127.0.0.1: refused: 0 Transport unknown {'transport': 'carrier-pigeon'}\n"


def test_the_attribute_is_app_unless_it_is_named(run: Run):
    command = run("serve", "site_app", "--bind", "127.0.0.1:0")
    assert command.get("/").text == "inner"


def test_tls(run: Run, certificate: dict[str, str]):
    command = run(*serve("--certfile", certificate["certfile"], "--keyfile", certificate["keyfile"]))
    address = command.address()
    with gevent.socket.create_connection(address) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        received = b""
        with suppress(ConnectionResetError):
            received = plain.recv(100)
        assert b"HTTP/1.1" not in received
    context = gevent.ssl.create_default_context(cafile=certificate["certfile"])
    assert HttpConnection(address, tls=context).get("/").text == "inner"
    assert command.end(signal.SIGTERM) == (0, "")


WRONG = [
    (("--nope",), "unrecognized arguments: --nope"),
    (("nope",), "argument command: invalid choice: 'nope'"),
    (("serve",), "the following arguments are required: application"),
    (("serve", "site_app.py"), "there is no module 'site_app.py'; did you mean 'site_app:app'?"),
    (("serve", "./site_app.py:server"), "'./site_app.py' is not the name of a module; did you mean 'site_app:server'?"),
    (("serve", "site_app.app"), "there is no module 'site_app.app'; did you mean 'site_app:app'?"),
    (("serve", "site_app:ap"), "the module 'site_app' has no 'ap'; did you mean 'site_app:app'?"),
    (("serve", "site_app:application"), "the module 'site_app' has no 'application'; did you mean 'site_app:app'?"),
    (("serve", "site_app:app", "--port", "8000"), "unrecognized arguments: --port 8000; did you mean --bind HOST:PORT?"),
    (("--host", "0.0.0.0"), "argument command: invalid choice: '0.0.0.0' (choose from 'serve'); did you mean --bind HOST:PORT?"),
    (("serve", "site_app:app", "-w", "4"), "unrecognized arguments: -w 4; did you mean --workers?"),
    (("--workers", "4"), "argument command: invalid choice: '4' (choose from 'serve'); it is a flag of serve: engineio-wsgi "
     "serve module:app --workers NUMBER"),
    (("--reload",), "unrecognized arguments: --reload; it is a flag of serve: engineio-wsgi serve module:app --reload"),
    (("serve", "site_app:app", "--ping-intervall", "5"), "unrecognized arguments: --ping-intervall 5; did you mean "
     "--ping-interval?"),
    (("site_app:app", "--bind", "127.0.0.1:0"), "argument command: invalid choice: 'site_app:app' (choose from 'serve'); did you "
     "mean serve site_app:app?"),
    (("serve", "site_app:app", "--log-level", "loud"), "argument --log-level: invalid choice: 'loud'"),
    (("serve", "site_app:app", "--bind", "nowhere"), "argument --bind: 'nowhere' is not HOST:PORT, unix:PATH or fd:NUMBER"),
    (("--bind", "127.0.0.1:65536"), "argument --bind: '127.0.0.1:65536' is not HOST:PORT, unix:PATH or fd:NUMBER"),
    (("--ping-interval",), "argument --ping-interval: expected one argument"),
    (("--ping-interval", "soon"), "ping_interval: expected a number of seconds; got 'soon'"),
    (("--ping-interval", "0"), "ping_interval: expected a number of seconds from 0.001 to 1000000; got 0.0"),
    (("serve", "site_app:app", "--jsonp", "maybe"), "jsonp: expected true or false; got 'maybe'"),
    (("serve", "no_such_module:app"), "there is no module 'no_such_module'"),
    (("serve", "site_app.inner:app"), "there is no module 'site_app.inner'"),
    (("serve", "site_app:nope"), "the module 'site_app' has no 'nope'"),
    (("serve", "site_app:number"), "'site_app:number' is not a WSGI application"),
    (("serve", "wrapped_app:create_app"), "'wrapped_app:create_app' is not a WSGI application, which takes environ and "
     "start_response; did you mean 'wrapped_app:create_app()'?"),
    (("serve", "wrapped_app:create_app(1, 2)"), "'wrapped_app:create_app(1, 2)': too many positional arguments"),
    (("serve", "wrapped_app:create_app(name=exit())"), "'wrapped_app:create_app(name=exit())': the arguments of a call"),
    (("serve", "wrapped_app:create_app(*'a')"), "\"wrapped_app:create_app(*'a')\": the arguments of a call have to be literals"),
    (("serve", "wrapped_app:create_app(**{})"), "'wrapped_app:create_app(**{})': the arguments of a call have to be literals"),
    (("serve", "wrapped_app:create_nothing()"), "'wrapped_app:create_nothing()' is not a WSGI application: it returned NoneType"),
    (("serve", "wrapped_app:create_ap()"), "the module 'wrapped_app' has no 'create_ap'"),
    (("serve", "wrapped_app:create_app("), "'create_app(' is neither a name, such as app, nor a call of one"),
    (("serve", "wrapped_app:app.run()"), "'app.run()' is neither a name, such as app, nor a call of one"),
    (("serve", "site_app:number()"), "'site_app:number()': 'number' cannot be called"),
    (("serve", ":app"), "'' is not the name of a module"),
    (("serve", "./site_app.py"), "'./site_app.py' is not the name of a module"),
    (("--keyfile", "key.pem"), "--keyfile is of no use without --certfile"),
    (("--certfile", "/nowhere.pem"), "cannot use the certificate /nowhere.pem: No such file or directory"),
    (("--certfile", "site_app.py"), "cannot use the certificate site_app.py: "),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG)
def test_a_wrong_argument_is_one_line_and_status_2(run: Run, arguments: tuple[str, ...], says: str):
    command = run(*arguments)
    status, errors = command.end()
    assert errors.startswith(f"engineio-wsgi: {says}")
    assert errors.count("\n") == 1
    assert status == 2


@pytest.mark.parametrize(
    ("settings", "environment", "says"),
    [
        ("", {"ENGINEIO_PING_INTERVALL": "5"}, "ENGINEIO_PING_INTERVALL is not an option that the environment can set"),
        ("", {"ENGINEIO_PING_INTERVAL": "soon"}, "ping_interval: expected a number of seconds; got 'soon'"),
        ("ping_intervall=5", {}, "ping_intervall is not an option; did you mean ping_interval?"),
    ],
)
def test_a_wrong_option_elsewhere_too(run: Run, settings: str, environment: dict[str, str], says: str):
    status, errors = run(*serve(), settings=settings, **environment).end()
    assert errors.startswith(f"engineio-wsgi: {says}")
    assert (status, errors.count("\n")) == (2, 1)


def test_an_error_inside_of_the_application_is_shown_with_its_place(run: Run):
    status, errors = run("serve", "broken_app:app").end()
    assert status == 1
    assert "Traceback" in errors
    assert "No module named 'not_installed_anywhere'" in errors


def test_an_error_inside_of_the_factory_is_shown_with_its_place(run: Run):
    status, errors = run("serve", "wrapped_app:create_for('nobody')").end()
    assert status == 1
    assert "Traceback" in errors
    assert errors.endswith("TypeError: no site is called nobody\n")


def test_a_port_in_use_is_one_line(run: Run):
    with gevent.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        assert run("--bind", bind).end() == (1, f"engineio-wsgi: cannot listen on {bind}: Address already in use\n")


def test_ipv6_has_an_address_that_a_browser_understands(run: Run):
    command = run("--bind", "[::1]:0")
    assert "://[::1]:" in command.process.stdout.readline()


def test_debug_prints_each_line_once(run: Run):
    command = run(*serve(), DEBUG="engine*")
    sid = handshake(command)["sid"]
    status, errors = command.end(signal.SIGTERM)
    assert status == 0
    opened = [line for line in errors.splitlines() if "open over websocket" in line]
    assert len(opened) == 1
    assert sid[:6] in opened[0]


def test_help_lists_every_option(run: Run):
    from engineio_wsgi.options.environment import simple_options

    for arguments in (("--help",), ("serve", "--help")):
        command = run(*arguments)
        text, errors = command.process.communicate(timeout=120)
        assert (command.process.returncode, errors) == (0, "")
        assert all("--" + name.replace("_", "-") in text for name in simple_options())
        assert "ENGINEIO_" in text


def test_version(run: Run):
    command = run("--version")
    text, _ = command.process.communicate(timeout=120)
    assert text == engineio_wsgi.__version__ + "\n"
