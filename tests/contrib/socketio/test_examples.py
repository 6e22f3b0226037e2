"""The examples of Socket.IO, each with its deploy file: four workers of gunicorn, and the official client."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.deployment import Program, free_port, is_reachable
from support.node import Browser, node_modules

pytestmark = pytest.mark.ours

EXAMPLES = Path(__file__).parents[3] / "examples"
CLIENT = "https://cdn.socket.io/4.8.1/socket.io.min.js"


class Site:
    """An example under gunicorn, as its configuration says, but for the address."""

    def __init__(self, name: str, folder: Path) -> None:
        self.port = free_port()
        self.folder = EXAMPLES / name
        self.environment = {"CLUSTER": f"test.{os.getpid()}.{self.port}"}
        address = f"127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "gunicorn", "-b", address, "app:app"]
        self.program = Program(folder, command, lambda: is_reachable(address), cwd=self.folder, **self.environment)
        self.url = f"http://{address}"

    def cookie(self, method: str, path: str, body: str | None = None) -> str:
        """The cookie that a login sets."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path, body, {"Content-Type": "application/x-www-form-urlencoded"})
        response = connection.getresponse()
        response.read()
        cookie = response.getheader("Set-Cookie")
        connection.close()
        assert response.status == 302, response.status
        assert cookie is not None
        return cookie.split(";")[0]


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Starts an example."""
    running: list[Site] = []

    def start(name: str) -> Site:
        running.append(Site(name, tmp_path))
        return running[-1]

    yield start
    for each in running:
        each.program.stop()
        assert "Traceback" not in each.program.output.read_text()


def client(drive: Any, site: Site, cookie: str | None, transports: list[str]) -> Any:
    """The official client, logged in."""
    headers = {} if cookie is None else {"extraHeaders": {"Cookie": cookie}}
    driver = drive("socket.io-client", site.url, json.dumps({"transports": transports, **headers}))
    driver.tell("open", nsp="/")
    return driver


def said(driver: Any, count: int) -> dict[str, Any]:
    message: dict[str, Any] = driver.events.wait("said", count)["args"][0]
    return message


def test_the_chat_of_flask_socketio(example: Any, drive: Any) -> None:
    site = example("socketio_flask")
    assert client(drive, site, None, ["polling"]).events.wait("connect_error")["message"] == "log in first"
    tobi = client(drive, site, site.cookie("POST", "/login", "user=tobi"), ["polling", "websocket"])
    loki = client(drive, site, site.cookie("POST", "/login", "user=loki"), ["polling"])
    for driver in (tobi, loki):
        driver.events.wait("connect")
        driver.tell("ask", args=["join", "lobby"])
        assert driver.events.wait("ack")["args"] == [{"joined": "lobby"}]
    assert said(tobi, 2) == {"user": "loki", "room": "lobby", "text": "has come in"}
    tobi.tell("ask", args=["say", {"room": "lobby", "text": "hello"}])
    assert tobi.events.wait("ack", 2)["args"] == [{"delivered": True}]
    assert said(loki, 2) == {"user": "tobi", "room": "lobby", "text": "hello"}
    # another process, which serves no clients
    subprocess.run([sys.executable, "task.py", "lobby", "five minutes left"], cwd=site.folder, check=True,
                   env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **site.environment})
    for driver, count in ((tobi, 4), (loki, 3)):
        assert said(driver, count) == {"user": "the server", "room": "lobby", "text": "five minutes left"}


@pytest.mark.parametrize("name", ["socketio_flask", "socketio_django"])
def test_an_example_in_one_process(name: str, tmp_path: Path, drive: Any) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    program = Program(tmp_path, [sys.executable, "app.py", str(port)], lambda: is_reachable(address),
                      cwd=EXAMPLES / name, CLUSTER=f"test.{os.getpid()}.{port}")
    try:
        driver = drive("socket.io-client", f"http://{address}", json.dumps({"transports": ["websocket"]}))
        driver.tell("open", nsp="/")
        assert driver.events.wait("connect_error")["message"] == "log in first"
    finally:
        program.stop()


def test_the_chat_in_a_browser(example: Any, tmp_path: Path) -> None:
    site = example("socketio_flask")
    browser = Browser()
    try:
        bundle = node_modules() / "socket.io-client" / "dist" / "socket.io.min.js"
        browser.tell("route", url=CLIENT, path=str(bundle))
        name, _, value = site.cookie("POST", "/login", "user=tobi").partition("=")
        browser.tell("cookies", cookies=[{"name": name, "value": value, "url": site.url}])
        browser.goto(f"{site.url}/?room=kitchen")
        browser.until("document.querySelector('#state').textContent == 'in the room kitchen'")
        assert "You are tobi" in browser.text("body")
        browser.evaluate("document.querySelector('#text').value = 'hello'; document.querySelector('#say').requestSubmit()")
        browser.until("document.querySelectorAll('li').length == 2")
        assert "tobi: hello" in browser.text("body")
        assert browser.events.of("page_error") == []
    finally:
        browser.stop()


def test_the_counter_of_django(example: Any, drive: Any) -> None:
    site = example("socketio_django")
    assert client(drive, site, None, ["polling"]).events.wait("connect_error")["message"] == "log in first"
    cookie = site.cookie("GET", "/login?user=tobi")
    first = client(drive, site, cookie, ["polling", "websocket"])
    second = client(drive, site, cookie, ["websocket"])
    for driver in (first, second):
        driver.events.wait("connect")
    first.tell("ask", args=["add", 5])
    assert first.events.wait("ack")["args"] == [5]
    for driver in (first, second):
        assert driver.events.wait("sum")["args"] == [{"user": "tobi", "count": 5}]
