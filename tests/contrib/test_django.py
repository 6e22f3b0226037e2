"""`contrib.django`: a project under `runengineio`, used over the network as a browser would."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import gevent
import gevent.socket
import pytest
from gevent import subprocess
from support.clients import PollingSession, WebSocketSession, open_session
from support.rawhttp import ConnectionEnded, HttpConnection
from support.rawwebsocket import Closed, Refused, WebSocketClient
from support.serving import EventLog, Served

pytestmark = pytest.mark.ours

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).with_name("django_project")
FORM = ("Content-Type", "application/x-www-form-urlencoded")
RUN = ["manage.py", "runengineio", "--noreload", "--nostatic", "127.0.0.1:0"]
#: seconds that anything may take; only a failing test waits that long
PATIENCE = 60.0

#: makes the database and its one user, in one process
PREPARE = """
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
User.objects.create_user("tobi", password="secret")
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the user tobi."""
    path = tmp_path_factory.mktemp("django") / "db.sqlite3"
    command = [sys.executable, "-c", PREPARE]
    subprocess.run(command, cwd=PROJECT, env=environment(path, DJANGO_SETTINGS_MODULE="project.settings"), check=True)
    return path


def environment(database: Path, **more: str) -> dict[str, str]:
    """An environment in which this package is the one that is imported."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1",
            "DATABASE": str(database), **more}


class Site(Served):
    """The project in a process of its own."""

    def __init__(self, folder: Path, database: Path, output: Path, arguments: list[str], **more: str) -> None:
        self.output = output
        with output.open("wb") as out:
            command = [sys.executable, *arguments]
            self.process = subprocess.Popen(command, cwd=folder, env=environment(database, **more), stdout=out, stderr=out)
        super().__init__(("127.0.0.1", 0), EventLog(), handler="ours")

    def text(self) -> str:
        """All that the process has printed."""
        return self.output.read_text()

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is true; returns it."""
        deadline = monotonic() + PATIENCE
        while not (result := condition()):
            assert monotonic() < deadline, self.text()[-2000:]
            gevent.sleep(0.02)
        return result

    def listening(self) -> Site:
        """Wait until it says where it listens."""
        said = self.until(lambda: re.search(r"listen on http://127.0.0.1:(\d+)/", self.text()) or self.process.poll() is not None)
        assert said is not True, self.text()
        self.address = ("127.0.0.1", int(said[1]))
        return self

    def state(self) -> dict[str, int]:
        """What the project knows of its database connections, and how often its middleware has been asked."""
        connection = self.connect()
        state: dict[str, int] = connection.get("/state/").json()
        connection.close()
        return state

    def until_open(self, count: int) -> None:
        """Wait until so many database connections are open."""
        self.until(lambda: self.state()["open"] == count)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask the process to end; returns its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait until the process has ended; returns its exit status."""
        try:
            return int(self.process.wait(timeout=PATIENCE))
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


@pytest.fixture
def start(database: Path, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Starts the project's processes."""
    sites: list[Site] = []

    def run(*arguments: str, folder: Path = PROJECT, **more: str) -> Site:
        sites.append(Site(folder, database, tmp_path / f"output{len(sites)}", list(arguments or RUN), **more))
        return sites[-1]

    yield run
    for site in sites:
        if site.process.poll() is None:
            site.end()


@pytest.fixture(scope="module")
def shared(database: Path) -> Iterator[Site]:
    """The project, running; for the tests that leave it as it was. Nothing may have been said but what a test asked for."""
    site = Site(PROJECT, database, database.with_name("output"), RUN).listening()
    yield site
    assert site.end() == 0
    assert not re.findall(r"(?s)(?:Traceback|ResourceWarning).{,3000}", site.text())


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    """The shared process; a test leaves no database connection open."""
    yield shared
    HttpConnection.close_all()
    shared.until_open(0)


def cookies(*responses: Any) -> tuple[str, str]:
    """The cookies that responses have set, to be sent back."""
    return "Cookie", "; ".join(value.split(";")[0] for response in responses for value in response.headers("Set-Cookie"))


def log_in(site: Site) -> tuple[str, str]:
    """What a browser does; returns the header with its cookies."""
    connection = site.connect()
    page = connection.get("/login/")
    match = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert match
    form = urlencode({"username": "tobi", "password": "secret", "csrfmiddlewaretoken": match[1]})
    response = connection.post("/login/", form.encode(), [FORM, cookies(page)])
    assert (response.status, response.header("Location")) == (302, "/")
    session = cookies(response)
    assert connection.get("/", [session]).text == "home"
    return session


def refusal(site: Site, transport: str, *headers: tuple[str, str]) -> tuple[int, int, str]:
    """Status, code and message of a handshake that is refused."""
    target = f"{site.path}?EIO=4&transport={transport}"
    if transport == "polling":
        response = site.connect().get(target, headers)
    else:
        with pytest.raises(Refused) as refused:
            WebSocketClient.open(site.connect(), target, headers)
        response = refused.value.response
    content = response.json()
    return response.status, content["code"], content["message"]


# -- the request


def test_the_handlers_know_what_the_middlewares_found_out(site: Site, transport: str) -> None:
    session = open_session(site, transport, headers=[log_in(site), ("X-Tenant", "acme")], style="callbacks")
    session.say("who")
    assert json.loads(session.hear()) == ["tobi", 1, "acme", transport, "engineio"]
    session.close()


def test_a_handshake_without_a_login_is_anonymous(site: Site, transport: str) -> None:
    session = open_session(site, transport, style="callbacks")
    session.say("who")
    assert json.loads(session.hear())[:3] == ["", None, "nobody"]
    session.close()


def test_the_middlewares_are_asked_once_for_a_session(site: Site) -> None:
    before = site.state()["asked"]
    session = open_session(site, "upgraded", style="callbacks")
    session.say("who")
    session.hear()
    assert site.state()["asked"] == before + 2  # the handshake, and the question
    session.close()


def test_a_cookie_of_a_middleware_is_set_by_the_handshake(start: Callable[..., Site]) -> None:
    site = start(PROJECT_SAVES_SESSIONS="1").listening()
    session = log_in(site)
    polling = open_session(site, "polling", headers=[session], style="callbacks")
    websocket = open_session(site, "websocket", headers=[session], style="callbacks")
    for response in (polling.last, websocket.ws.response):
        assert [value.split("=")[0] for value in response.headers("Set-Cookie")] == ["sessionid"]
    polling.say("who")
    assert json.loads(polling.hear())[0] == "tobi"
    assert polling.last.headers("Set-Cookie") == []
    site.until_open(0)  # saving the session took one in the handshake
    polling.close()


@pytest.mark.parametrize(("how", "message"), [
    ("403", "Forbidden: the site answered 403 Forbidden"),
    ("view", "Forbidden: the site answered 403 Forbidden"),
    ("redirect", "Forbidden: the site redirects to /login/"),
    ("late", "Forbidden: the site answered 200 OK"),
    ("silently", "Forbidden: the site answered 204 No Content"),
])
def test_a_middleware_refuses_a_handshake(site: Site, transport: str, how: str, message: str) -> None:
    assert refusal(site, transport, ("X-Refuse", how)) == (403, 4, message)


def test_a_host_that_is_not_allowed_is_refused(site: Site, transport: str) -> None:
    message = "Forbidden: the host is not one of the site's ALLOWED_HOSTS"
    assert refusal(site, transport, ("Host", "evil.example")) == (403, 4, message)


def test_the_setting_is_used(site: Site) -> None:
    session = open_session(site)
    assert (session.info["pingInterval"], session.hear()) == (7000, "1 users")
    session.close()


# -- database connections


@pytest.mark.parametrize("name", ["users", "callback"])
def test_no_connection_is_left_by_a_listener(site: Site, transport: str, name: str) -> None:
    session = open_session(site, transport, style="callbacks")
    before = site.state()["created"]
    session.say(name)
    assert "1 users" in {session.hear() for _ in range(2 if name == "callback" else 1)}
    site.until_open(0)
    session.say("users")
    assert session.hear() == "1 users"
    site.until_open(0)
    assert site.state()["created"] == before + 2
    session.close()


def test_no_connection_is_held_while_a_handler_waits_for_messages(site: Site, transport: str) -> None:
    sessions = [open_session(site, transport) for _ in range(3)]
    for session in sessions:
        assert session.hear() == "1 users"
    site.until_open(0)
    for session in sessions:
        session.say("users")
        assert session.hear() == "1 users"
    site.until_open(0)
    for session in sessions:
        session.close()


@pytest.mark.parametrize("style", ["wait_closed", "flush"])
def test_no_connection_is_held_in_other_waits(site: Site, style: str) -> None:
    """The greeting of a polling session is there to be flushed until it is polled for."""
    before = site.state()["created"]
    session = PollingSession(site, style=style).open()
    site.until(lambda: site.state()["created"] > before)
    site.until_open(0)
    session.close()


def test_a_transaction_keeps_its_connection_while_it_waits(site: Site, transport: str) -> None:
    session = open_session(site, transport, style="transaction")
    assert session.hear_many(2) == ["1 users", "1 users"]
    other = open_session(site, transport)
    assert other.hear() == "1 users"
    other.close()
    site.until_open(1)
    session.say("a message")
    assert session.hear() == "a message after 1 users"
    site.until_open(0)
    session.close()


def test_a_spawned_greenlet_leaves_no_connection_when_it_is_killed(site: Site, transport: str) -> None:
    session = open_session(site, transport, style="callbacks")
    session.say("spawn")
    assert session.hear() == "1 users"
    site.until_open(1)
    session.close()
    site.until_open(0)


def test_a_listener_that_is_called_inside_of_another_leaves_its_connection_alone(site: Site, transport: str) -> None:
    session = open_session(site, transport, style="callbacks")
    session.say("nested")
    assert session.hear_many(2) == ["1", "2"]
    session.close()


def test_a_listener_that_fails_leaves_no_connection_and_is_logged(start: Callable[..., Site]) -> None:
    site = start(PROJECT_MAX_AGE="60").listening()
    session = open_session(site, "websocket", style="callbacks")
    before = site.state()["created"]
    session.say("fail", "users")
    assert session.hear() == "1 users"
    site.until_open(0)
    assert site.state()["created"] == before + 2
    site.until(lambda: "RuntimeError: asked for" in site.text())
    assert "ERROR engine.socket: a listener (message) failed" in site.text()
    session.close()


def test_a_subscriber_of_a_topic_leaves_no_connection(start: Callable[..., Site]) -> None:
    site = start(PROJECT_ENGINEIO=json.dumps({"CLUSTER": f"local:{uuid4()}"})).listening()
    session = open_session(site, "websocket", style="callbacks")
    session.say("ask")
    assert session.hear() == '["1 users"]'
    site.until_open(0)
    session.close()


def test_without_patching_the_connections_are_shared_and_a_line_says_so(start: Callable[..., Site]) -> None:
    with gevent.socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    site = start("unpatched.py", str(port))
    site.address = ("127.0.0.1", port)
    site.until(lambda: _answers(site))
    in_transaction = open_session(site, "websocket", style="transaction")
    assert in_transaction.hear_many(2) == ["1 users", "1 users"]
    straight = open_session(site, "polling")
    assert straight.hear() == "1 users"
    straight.close()
    in_transaction.say("a message")
    assert in_transaction.hear() == "a message after 1 users"
    in_transaction.close()
    site.until_open(0)
    assert site.state()["created"] == 1
    assert len(re.findall("WARNING:engine:gevent has not patched", site.text())) == 1


def _answers(site: Site) -> bool:
    assert site.process.poll() is None, site.text()
    try:
        site.state()
    except ConnectionRefusedError:
        return False
    return True


# -- settings


WRONG_SETTINGS = [
    ({"PING_INTERVAL": "often"},
     "settings.ENGINEIO['PING_INTERVAL']: expected a number of seconds from 0.001 to 1000000; got 'often'"),
    ({"PING_INTERVALL": 1}, "settings.ENGINEIO['PING_INTERVALL']: ping_intervall is not an option; did you mean ping_interval?"),
    ({"ping_interval": 1}, "settings.ENGINEIO['ping_interval']: settings are in capitals, such as 'PING_INTERVAL'"),
    (25, "settings.ENGINEIO: expected a dict such as {'PING_INTERVAL': 25}; got 25"),
]

#: tries settings one after the other; prints a line for each
TRY_SETTINGS = """
import sys
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from engineio_wsgi.contrib.django import EngineIO
for setting in eval(sys.argv[1]):
    try:
        with override_settings(ENGINEIO=setting):
            print(EngineIO().options.ping_interval, EngineIO(ping_interval=3).options.ping_interval)
    except ImproperlyConfigured as error:
        print(error)
"""


def test_a_wrong_setting_is_named(start: Callable[..., Site]) -> None:
    tried = [setting for setting, _ in WRONG_SETTINGS] + [{"PING_INTERVAL": 5}, {}]
    process = start("-c", TRY_SETTINGS, repr(tried), DJANGO_SETTINGS_MODULE="project.settings")
    assert process.wait() == 0
    assert process.text().splitlines() == [text for _, text in WRONG_SETTINGS] + ["5.0 3.0", "25.0 3.0"]


def test_a_wrong_setting_is_one_line_at_the_start(start: Callable[..., Site]) -> None:
    setting, text = WRONG_SETTINGS[0]
    checking = start("manage.py", "check", PROJECT_ENGINEIO=json.dumps(setting))
    importing = start("-c", "import project.wsgi", PROJECT_ENGINEIO=json.dumps(setting))
    assert checking.wait() == 1
    assert f"(engineio.E001) {text}\n" in checking.text()
    assert importing.wait() == 1
    assert importing.text().splitlines()[-1] == f"django.core.exceptions.ImproperlyConfigured: {text}"


def test_a_name_that_is_no_engine_is_one_line(start: Callable[..., Site]) -> None:
    code = "from engineio_wsgi.contrib.django import get_wsgi_application; get_wsgi_application('project.views.state')"
    importing = start("-c", code, DJANGO_SETTINGS_MODULE="project.settings")
    assert importing.wait() == 1
    assert importing.text().splitlines()[-1] == (
        "django.core.exceptions.ImproperlyConfigured: get_wsgi_application('project.views.state'): "
        "expected the name of an EngineIO; it is of the type function")


# -- the command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly(start: Callable[..., Site], number: int) -> None:
    site = start().listening()
    websocket, polling = (open_session(site, transport, style="callbacks") for transport in ("websocket", "polling"))
    assert isinstance(websocket, WebSocketSession)
    polling.start_poll()
    site.settle()
    site.process.send_signal(number)
    assert websocket.ws.wait_closed() == Closed(1001, "server shutting down")
    assert polling.end_poll() == ["1"]
    assert site.wait() == 0
    assert "Traceback" not in site.text()


def test_requests_are_shown_and_the_engines_are_not(site: Site) -> None:
    session = open_session(site, style="callbacks")
    session.say("users")
    session.hear()
    session.close()
    site.connect().get("/shown/")
    site.until(lambda: '"GET /shown/ HTTP/1.1" 404' in site.text())
    assert session.sid not in site.text()


@pytest.mark.parametrize(("arguments", "debug", "status"), [([], "1", 200), (["--nostatic"], "1", 404), ([], "0", 404)])
def test_static_files_are_served_during_development(start: Callable[..., Site], arguments: list[str], debug: str,
                                                    status: int) -> None:
    site = start("manage.py", "runengineio", "--noreload", "0", *arguments, PROJECT_DEBUG=debug).listening()
    response = site.connect().get("/static/hello.txt")
    assert response.status == status
    assert (response.text == "a static file\n") == (status == 200)


def test_an_address_in_use_is_one_line(start: Callable[..., Site], site: Site) -> None:
    second = start("manage.py", "runengineio", "--noreload", str(site.address[1]))
    assert second.wait() == 1
    assert second.text().splitlines()[-1] == f"CommandError: cannot listen on 127.0.0.1:{site.address[1]}: Address already in use"


def test_an_application_without_engine_is_one_line(start: Callable[..., Site]) -> None:
    plain = start(PROJECT_APPLICATION="project.plain.application")
    assert plain.wait() == 1
    assert plain.text().splitlines()[-1].startswith("CommandError: there is no engine in project.plain.application ")


def test_the_command_starts_anew_when_code_changes(start: Callable[..., Site], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(PROJECT, folder)
    site = start("manage.py", "runengineio", str(_free_port()), folder=folder).listening()
    session = open_session(site, "websocket")
    assert session.hear() == "1 users"
    realtime = folder / "project" / "realtime.py"
    realtime.write_text(realtime.read_text().replace(" users\"", " people\""))
    session.ws.wait_closed()
    site.until(lambda: site.text().count("listen on") == 2)
    assert open_session(site, "websocket").hear() == "1 people"
    HttpConnection.close_all()
    assert site.end() == 0


def _free_port() -> int:
    with gevent.socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("transport", ["polling", "websocket", "upgraded"])
def test_runserver_serves_every_transport(start: Callable[..., Site], transport: str) -> None:
    port = _free_port()
    site = start("manage.py", "runserver", "--noreload", str(port))
    site.address = ("127.0.0.1", port)
    site.until(lambda: _answers(site))
    session = open_session(site, transport, headers=[log_in(site)], style="callbacks")
    session.say("who")
    assert json.loads(session.hear())[0] == "tobi"
    session.close()
    assert "Traceback" not in site.text()


def test_runserver_starts_anew_when_code_changes(start: Callable[..., Site], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(PROJECT, folder)
    port = _free_port()
    site = start("manage.py", "runserver", str(port), folder=folder)
    site.address = ("127.0.0.1", port)
    site.until(lambda: _answers(site))
    session = open_session(site, "websocket")
    assert session.hear() == "1 users"
    realtime = folder / "project" / "realtime.py"
    realtime.write_text(realtime.read_text().replace(" users\"", " people\""))

    def has_restarted() -> bool:
        heard = _first_message(site)
        if heard == "1 users":
            # Django misses changes of a file that it has not looked at before
            os.utime(realtime)
        return heard == "1 people"

    site.until(has_restarted)
    session.ws.wait_closed()
    assert "Traceback" not in site.text()


def _first_message(site: Site) -> str | bytes | None:
    """What a new session is told; ``None`` while no process is there that goes on."""
    try:
        session = open_session(site, "websocket")
        heard = session.hear()
        session.close()
        return heard
    except (OSError, ConnectionEnded, Closed, Refused):
        return None


# -- without a project

SETTINGS = """
SECRET_KEY = "x"
DATABASES = {}
ROOT_URLCONF = "small_tests"
INSTALLED_APPS = ["engineio_wsgi.contrib.django"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
"""
TESTS = """
from django.test import SimpleTestCase
from engineio_wsgi.contrib.django import EngineIO, get_wsgi_application
from engineio_wsgi.testing import Client

urlpatterns = []
engineio = EngineIO()

@engineio.on("connection")
def connected(socket):
    socket.send(socket.request.get_host())

class Tests(SimpleTestCase):
    def test_handshake(self):
        app = get_wsgi_application("small_tests.engineio")
        for transport in ("polling", "websocket"):
            with Client(app, transport=transport) as client:
                self.assertEqual(client.receive(), "testserver")
"""


def python(*arguments: str, cwd: Path, **more: str) -> Any:
    """A process of Python, when it has ended."""
    environ = {**os.environ, "PYTHONPATH": f"{cwd}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1", **more}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environ, capture_output=True, text=True)


def test_the_client_for_tests_under_djangos_test_runner(tmp_path: Path) -> None:
    (tmp_path / "small_settings.py").write_text(SETTINGS)
    (tmp_path / "small_tests.py").write_text(TESTS)
    done = python("-m", "django", "test", "small_tests", cwd=tmp_path, DJANGO_SETTINGS_MODULE="small_settings")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "OK"), done.stderr


@pytest.mark.parametrize("module", ["engineio_wsgi.contrib.django", "engineio_wsgi.contrib.django.server"])
def test_without_django(tmp_path: Path, module: str) -> None:
    done = python("-c", f"import sys; sys.modules['django'] = None; import {module}", cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: engineio_wsgi.contrib.django needs Django: pip install 'engineio-wsgi[django]'")


@pytest.mark.parametrize("more", [(), ("--noreload",)], ids=["reloader", "noreload"])
def test_an_address_that_is_taken(database: Path, more: tuple[str, ...]) -> None:
    with gevent.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "manage.py", "runengineio", *more, f"127.0.0.1:{port}"]
        done = subprocess.run(command, cwd=PROJECT, env=environment(database), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"CommandError: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert "Traceback" not in done.stderr


# -- reloads

HAND_OVER = """
import django
django.setup()
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from engineio_wsgi.contrib.django import EngineIO
from engineio_wsgi.testing import Client, hand_over

def create():
    engineio = EngineIO(handover=True)
    for event in ("connection", "resume"):
        engineio.on(event, lambda socket, event=event: socket.send(f"{event}: {socket.request.user.username}"))
    return engineio

session = SessionStore()
user = User.objects.get(username="tobi")
session.update({"_auth_user_id": str(user.pk), "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
                "_auth_user_hash": user.get_session_auth_hash()})
session.save()
old, new = create(), create()
new_app = new.wrap(lambda environ, start_response: [])
with Client(old.wrap(lambda environ, start_response: []), cookies={"sessionid": session.session_key},
            headers={"Host": "127.0.0.1"}) as client:
    print(client.receive())
    print(hand_over(old, new))
    print(client.receive())
"""


def test_handlers_of_a_session_that_has_moved_know_who_has_logged_in(database: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", HAND_OVER], cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE,
                         env=environment(database, DJANGO_SETTINGS_MODULE="project.settings"))
    assert ran.stdout.splitlines() == ["connection: tobi", "{}", "resume: tobi"], ran.stderr
