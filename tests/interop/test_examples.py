"""Each example, run as a user would run it: started from the command line, used over the network, stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gevent
import gevent.socket
import pytest
from gevent import subprocess
from support.clients import PollingSession, open_session
from support.node import Browser, node_modules
from support.rawhttp import HttpConnection
from support.serving import EventLog, Served

pytestmark = pytest.mark.ours

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FORM = ("Content-Type", "application/x-www-form-urlencoded")

Run = Callable[..., Served]


def environment_with(more: dict[str, str]) -> dict[str, str]:
    """An environment in which the package that is tested is the one that is imported."""
    package = importlib.util.find_spec("engineio_wsgi")
    assert package is not None
    assert package.origin is not None
    return {**os.environ, "PYTHONPATH": str(Path(package.origin).parents[1]), **more}


def free_address() -> tuple[str, int]:
    with gevent.socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address: tuple[str, int] = probe.getsockname()
        return address


def wait_until_it_listens(address: tuple[str, int], process: Any) -> None:
    while True:
        assert process.poll() is None, process.stderr.read().decode()
        try:
            gevent.socket.create_connection(address).close()
        except ConnectionRefusedError:
            gevent.sleep(0.02)
        else:
            return


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts an example: ``run("folder/script.py")``. It must not complain, and stop when it is interrupted."""
    processes: list[Any] = []

    def start(script: str, *arguments: str, path: str = "/engine.io/", patched: bool = False, **environment: str) -> Served:
        address = free_address()
        monkey = ["-m", "gevent.monkey"] if patched else []
        command = [sys.executable, *monkey, Path(script).name, *arguments, str(address[1])]
        processes.append(
            subprocess.Popen(
                command,
                cwd=(EXAMPLES / script).parent,
                env=environment_with(environment),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        wait_until_it_listens(address, processes[-1])
        return Served(address, EventLog(), handler="ours", path=path)

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
        assert b"Traceback" not in errors, errors


def cookie(response: Any) -> tuple[str, str]:
    """The cookies that a response sets, to be sent back."""
    return "Cookie", "; ".join(value.split(";")[0] for value in response.headers("Set-Cookie"))


@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
def test_echo(run: Run, transport: str, patched: bool) -> None:
    session = open_session(run("echo.py", patched=patched), transport)
    assert session.hear() == "utf 8 string"
    session.say("é", b"\x00")
    assert session.hear_many(2) == ["é", b"\x00"]
    assert session.served.connect().get("/").status == 501


def test_passing_requests(run: Run) -> None:
    served = run("passing_requests.py", path="/live")
    sessions = [open_session(served, transport) for transport in ("polling", "websocket")]
    for session in sessions:
        session.say("hello")
        assert session.hear() == "HELLO"
    assert served.connect().get("/").text == "2 clients\n"
    assert served.connect().get("/nowhere").status == 404
    moved = open_session(served, "polling")
    assert isinstance(moved, PollingSession)


def flask_login(served: Served, user: str) -> tuple[str, str]:
    connection = served.connect()
    response = connection.post("/login", urlencode({"user": user}).encode(), [FORM])
    assert (response.status, response.header("Location")) == (302, "/")
    return cookie(response)


def heard(session: Any) -> tuple[str, str]:
    message = json.loads(session.hear())
    return message["user"], message["text"]


def test_chat_flask(run: Run, transport: str) -> None:
    served = run("chat_flask/app.py")
    assert served.connect().get("/").header("Location") == "/login"
    refused = served.connect().get(f"{served.path}?EIO=4&transport=polling")
    assert (refused.status, refused.json()["message"]) == (403, "log in first")
    tobi, loki = flask_login(served, "tobi"), flask_login(served, "löki")
    assert "You are tobi." in served.connect().get("/", [tobi]).text
    first = open_session(served, transport, headers=[tobi])
    assert heard(first) == ("tobi", "has come in")
    second = open_session(served, transport, headers=[loki])
    assert heard(first) == heard(second) == ("löki", "has come in")
    first.say("hello <b>")
    assert heard(first) == heard(second) == ("tobi", "hello <b>")
    second.close()
    assert heard(first) == ("löki", "has left")


def manage(arguments: list[str], environment: dict[str, str]) -> None:
    """Django's command line."""
    subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=EXAMPLES / "django_site",
        env=environment_with(environment),
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def django_login(served: Served, user: str, password: str) -> tuple[str, str]:
    connection = HttpConnection(served.address)
    page = connection.get("/login/")
    match = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert match
    form = urlencode({"username": user, "password": password, "csrfmiddlewaretoken": match[1]}).encode()
    response = connection.post("/login/", form, [FORM, cookie(page)])
    assert (response.status, response.header("Location")) == (302, "/")
    connection.close()
    return cookie(response)


@pytest.mark.deadline(600)
def test_django_login(run: Run, tmp_path: Path) -> None:
    environment = {"DATABASE": str(tmp_path / "db.sqlite3"), "DJANGO_SUPERUSER_PASSWORD": "secret"}
    manage(["migrate", "--verbosity=0"], environment)
    manage(["createsuperuser", "--noinput", "--username=tobi", "--email=tobi@example.com"], environment)
    served = run("django_site/manage.py", "runengineio", "--noreload", **environment)
    refused = served.connect().get(f"{served.path}?EIO=4&transport=polling")
    assert (refused.status, refused.json()["message"]) == (403, "log in first")
    tobi = django_login(served, "tobi", "secret")
    assert "Log out tobi" in served.connect().get("/", [tobi]).text
    sessions = [open_session(served, transport, headers=[tobi]) for transport in ("polling", "websocket")]
    for session in sessions:
        assert session.hear() == "hello tobi, this is visit 1"
    sessions[0].say("hi")
    assert [session.hear() for session in sessions] == ["tobi: hi", "tobi: hi"]
    sessions[1].say("/users")
    assert sessions[1].hear() == "there are 1 users"
    for session in sessions:
        session.close()


def test_official_client(run: Run, browser: Browser) -> None:
    served = run("official_client/app.py", NODE_MODULES=str(node_modules()))
    browser.goto(served.origin)
    lines = "[...document.querySelectorAll('li')].map((line) => line.textContent)"
    browser.until(f"{lines}.length > 3")
    assert browser.evaluate(lines) == [
        "open, over polling",
        "the server sees polling",
        "upgraded to websocket",
        "the server sees websocket",
    ]
    browser.evaluate("document.getElementById('text').value = 'h\u00e9llo'")
    browser.click("button")
    browser.until(f"{lines}.length > 4")
    assert browser.evaluate(lines)[-1] == "h\u00e9llo"
    assert browser.events.of("page_error") == []
