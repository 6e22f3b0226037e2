"""The pages for beginners, typed as they are written: from an empty folder to a deployment with four workers."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gevent
import pytest
from support.clients import open_session
from support.manual import DOCS, SERVERS, Shell, code_of, commands_of, lines_of, snippets
from support.node import Browser, node_modules
from support.rawhttp import HttpConnection
from support.serving import Served

pytestmark = [pytest.mark.ours, pytest.mark.deadline(600)]

Cookie = tuple[str, str]
Login = Callable[[Served, str], Cookie]
#: what the pages load the client from, which tests do not reach
CDN = "https://cdn.jsdelivr.net/npm/engine.io-client@6/dist/engine.io.min.js"
#: the first characters of a session's id: its worker
WORKER = 4


def cookie_of(*responses: Any) -> Cookie:
    """All cookies that the responses have set, to be sent back."""
    return "Cookie", "; ".join(value.split(";")[0] for response in responses for value in response.headers("Set-Cookie"))


def log_in_to_flask(site: Served, user: str) -> Cookie:
    return cookie_of(site.connect().get(f"/login/{user}"))


def log_in_to_django(site: Served, user: str) -> Cookie:
    connection = HttpConnection(site.address)
    page = connection.get("/admin/login/")
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert token
    form = urlencode({"username": user, "password": "secret", "csrfmiddlewaretoken": token[1], "next": "/"}).encode()
    answer = connection.post("/admin/login/", form, [("Content-Type", "application/x-www-form-urlencoded"), cookie_of(page)])
    assert answer.status == 302, answer.text
    return cookie_of(page, answer)


def follow(page: str, shell: Shell, served: Callable[[str, Served], None]) -> None:
    """Write the page's files and type its commands, in their order; call ``served`` for each server that is running."""
    for code in code_of((DOCS / page).read_text()):
        if code.language == "python" and code.name:
            shell.write(code.name, code.text)
        if code.language != "console":
            continue
        for line in lines_of(code.text):
            command = line.replace("createsuperuser", "createsuperuser --noinput")
            start = next((start for start in SERVERS if command.startswith(start)), None)
            if start is None:
                shell.type(command)
                continue
            assert f"http://127.0.0.1:{SERVERS[start][1]}" in code.after, "the page says another port than the command's"
            server = shell.serve(command)
            try:
                served(command, server.site)
            finally:
                server.stop()


def sessions_at(site: Served, workers: int, headers: list[Cookie]) -> list[Any]:
    """Sessions at so many workers, over both transports."""
    sessions: list[Any] = []
    while len({session.sid[:WORKER] for session in sessions}) < workers:
        # together: the kernel gives one after the other to whichever worker is awake
        opening = [gevent.spawn(open_session, site, transport, headers=headers) for transport in ("polling", "websocket") * 3]
        gevent.joinall(opening, raise_error=True)
        sessions += [greenlet.value for greenlet in opening]
    return sessions


def everybody_hears(site: Served, login: Login, workers: int) -> None:
    """Each session hears what one of them says."""
    sessions = sessions_at(site, workers, [login(site, "tobi")])
    for session in sessions:
        assert session.hear() == "hello tobi"
    sessions[0].say("hi")
    assert [session.hear() for session in sessions] == ["tobi: hi"] * len(sessions)
    for session in sessions:
        session.close()


def one_hears_itself(site: Served, login: Login) -> None:
    """A session on a WebSocket, under a server that ends each other connection with its response."""
    session = open_session(site, "websocket", headers=[login(site, "tobi")])
    assert session.hear() == "hello tobi"
    session.say("hi")
    assert session.hear() == "tobi: hi"
    session.close()


def stranger_is_refused(site: Served) -> None:
    refused = site.connect().get("/engine.io/?EIO=4&transport=polling")
    assert (refused.status, refused.json()["message"]) == (403, "log in first")


def use_the_page(browser: Browser, site: Served, address: str, cookie: Cookie | None = None) -> None:
    """Type something into the page's field, and see it come back."""
    browser.tell("route", url=CDN, path=str(node_modules() / "engine.io-client" / "dist" / "engine.io.min.js"))
    if cookie is not None:
        pairs = [pair.split("=", 1) for pair in cookie[1].split("; ")]
        browser.tell("cookies", cookies=[{"name": name, "value": value, "url": site.origin} for name, value in pairs])
    browser.goto(f"{site.origin}{address}")
    browser.until("document.body.textContent.includes('hello tobi')")
    browser.evaluate("document.getElementById('text').value = 'h\u00e9llo'")
    browser.click("#form button")
    browser.until("document.body.textContent.includes('tobi: h\u00e9llo')")
    assert browser.events.of("page_error") == []


def test_flask(tmp_path: Path, browser: Browser) -> None:
    seen: list[str] = []

    def served(command: str, site: Served) -> None:
        seen.append(command.split()[0])
        stranger_is_refused(site)
        if command == "flask run":
            one_hears_itself(site, log_in_to_flask)
        elif command.startswith("engineio-wsgi"):
            everybody_hears(site, log_in_to_flask, 1)
            use_the_page(browser, site, "/login/tobi")
        else:
            everybody_hears(site, log_in_to_flask, 2)

    follow("start/flask.rst", Shell(tmp_path), served)
    assert seen == ["flask", "engineio-wsgi", "gunicorn"]


def test_django(tmp_path: Path, browser: Browser) -> None:
    user = {"DJANGO_SUPERUSER_USERNAME": "tobi", "DJANGO_SUPERUSER_PASSWORD": "secret", "DJANGO_SUPERUSER_EMAIL": "t@example.org"}
    seen: list[str] = []

    def served(command: str, site: Served) -> None:
        seen.append(command.split()[0])
        stranger_is_refused(site)
        if command.startswith("gunicorn"):
            everybody_hears(site, log_in_to_django, 2)
        else:
            everybody_hears(site, log_in_to_django, 1)
            use_the_page(browser, site, "/", log_in_to_django(site, "tobi"))

    follow("start/django.rst", Shell(tmp_path, **user), served)
    assert seen == ["python", "gunicorn"]


def test_front_page(tmp_path: Path) -> None:
    """Its application with its command."""
    page = (DOCS / "index.rst").read_text()
    command = next(command for command in commands_of(page) if command.startswith("gunicorn"))
    shell = Shell(tmp_path)
    shell.write("app.py", snippets(page)[0])
    server = shell.serve(command.replace("gunicorn", str(Path(sys.executable).parent / "gunicorn"), 1))
    try:
        sessions = sessions_at(server.site, 2, [])
        sessions[0].say("hi")
        assert [session.hear() for session in sessions] == ["somebody: hi"] * len(sessions)
    finally:
        server.stop()
