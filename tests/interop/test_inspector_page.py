"""The inspector as an operator meets it: sessions of real clients, looked at in headless Chromium."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue
from support.clients import PollingSession
from support.node import Browser
from support.serving import LocalServer
from werkzeug.wrappers import Response

import engineio_wsgi
from engineio_wsgi.inspector import Inspector, Password, watches
from engineio_wsgi.testing import Client

pytestmark = [pytest.mark.ours, pytest.mark.deadline(600)]


class Site:
    """A served engine with an inspector, and a browser that shows it."""

    def __init__(self, browser: Browser, allow: Any, payloads: bool, **options: Any) -> None:
        self.browser = browser
        self.server = engineio_wsgi.Server(**options)
        self.inspector = Inspector(self.server, allow=allow, payloads=payloads)
        self.app = self.inspector.mount(self.server.wrap(Response("a page")))
        self.local = LocalServer("echo", "ours", server=self.server, wsgi=lambda engine: self.app)
        self.served = self.local.served

    def show(self) -> None:
        """Open the page, and wait for its first answer."""
        assert self.browser.goto(f"{self.served.origin}/inspector") == 200
        self.browser.until("document.getElementById('status').dataset.value === 'open'")

    def until_text(self, selector: str, text: str) -> None:
        """Return when an element shows a text."""
        self.browser.until(f"document.querySelector({json.dumps(selector)})?.textContent.includes({json.dumps(text)})")

    def hide(self, hidden: bool) -> None:
        """What the browser does when the visitor turns to another tab, or comes back."""
        self.browser.evaluate(f"""(() => {{
            Object.defineProperty(document, "hidden", {{ get: () => {json.dumps(hidden)}, configurable: true }});
            document.dispatchEvent(new Event("visibilitychange"));
        }})()""")

    def stop(self) -> None:
        """Close everything."""
        self.browser.goto("about:blank")
        self.local.stop()


@pytest.fixture
def make_site(browser: Browser) -> Iterator[Callable[..., Site]]:
    """A factory of sites; none of their pages may have complained at the end."""
    sites: list[Site] = []

    def make(allow: Any = lambda request: True, payloads: bool = False, **options: Any) -> Site:
        sites.append(Site(browser, allow, payloads, **options))
        return sites[-1]

    yield make
    for site in sites:
        site.stop()
        assert site.browser.complaints() == []


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """One whose inspector lets everybody in."""
    return make_site()


ROW = "#sessions tbody tr"


def test_sessions_come_and_go(site: Site) -> None:
    site.show()
    site.until_text("#status", "live over WebSocket")
    site.until_text("#sessions-hint", "No session is open.")
    with Client(site.app, transport="websocket", remote_address="10.9.8.7") as client:
        client.socket.data["user"] = "tobi"  # type: ignore[union-attr]
        site.until_text(ROW, "tobi")
        cells = site.browser.evaluate(f"[...document.querySelectorAll('{ROW} td')].map((cell) => cell.textContent)")
        assert cells[0] == f"{client.sid[:6]}… #1"
        assert cells[1:4] == ["tobi", "10.9.8.7", "websocket"]
        client.send("hello")
        site.browser.until(f"document.querySelector('{ROW} td:last-child').textContent === '1'")
        assert site.browser.text("#now-transports") == "1 websocket"
    site.until_text("#sessions-hint", "No session is open.")
    site.until_text("#closes", "transport close")
    assert client.sid not in str(site.browser.evaluate("document.documentElement.outerHTML"))


def test_the_search_and_the_order(site: Site) -> None:
    site.show()
    with Client(site.app, remote_address="10.0.0.1"), Client(site.app, transport="websocket", remote_address="10.0.0.2"):
        site.browser.until(f"document.querySelectorAll('{ROW}').length === 2")
        site.browser.evaluate("(() => { search.value = '0.0.1'; search.dispatchEvent(new Event('input')); })()")
        site.browser.until(f"document.querySelectorAll('{ROW}').length === 1")
        assert "10.0.0.1" in site.browser.text(ROW)
        site.browser.evaluate(
            "(() => { search.value = ''; order.value = 'oldest'; order.dispatchEvent(new Event('change')); })()")
        site.browser.until(f"document.querySelectorAll('{ROW}').length === 2")
        site.until_text(ROW, "10.0.0.1")


DRAWN = """(() => {
    const canvas = document.getElementById("chart-sessions");
    const style = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
    const wanted = [1, 3, 5].map((at) => parseInt(style.slice(at, at + 2), 16));
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    for (let at = 0; at < pixels.length; at += 4)
        if (wanted.every((part, index) => Math.abs(pixels[at + index] - part) < 3) && pixels[at + 3] > 250) return true;
    return false;
})()"""


def test_the_charts_are_drawn(site: Site) -> None:
    site.show()
    with Client(site.app, transport="websocket"):
        site.browser.until(DRAWN)
        site.browser.until("document.querySelector('section.chart output b').textContent === '1'")


def test_a_session_is_watched_and_closed(site: Site) -> None:
    site.show()
    with Client(site.app, transport="websocket") as client:
        site.browser.until(f"document.querySelector('{ROW}')")
        site.browser.click(f"{ROW} button")
        site.until_text("#facts", "websocket")
        client.send("hello")
        client.receive()
        site.browser.until("document.querySelectorAll('#packets li').length === 2")
        lines = site.browser.evaluate(
            "[...document.querySelectorAll('#packets li')].map((line) => line.className + line.textContent)")
        assert sorted(line[:2] for line in lines) == ["in", "ou"]
        assert all("message" in line and "5 B" in line and "hello" not in line for line in lines)
        site.browser.click("#close")
        assert client.connected
        site.until_text("#close", "Really close it?")
        site.browser.click("#close")
        assert client.wait_closed(60)
        site.until_text("#packets-hint", "The session is closed: closed by the inspector.")
        assert site.browser.evaluate("document.getElementById('close').disabled")
    site.browser.click("#unwatch")
    assert site.browser.evaluate("document.getElementById('watched').hidden")


def test_payloads_are_shown_if_they_are_switched_on(make_site: Callable[..., Site]) -> None:
    site = make_site(payloads=True)
    site.show()
    with Client(site.app, transport="websocket") as client:
        site.browser.until(f"document.querySelector('{ROW}')")
        site.browser.click(f"{ROW} button")
        site.until_text("#facts", "websocket")
        client.send("<b>hello</b>")
        site.until_text("#packets code", "<b>hello</b>")


EVIL = "<img src=x onerror=\"report('hacked')\"><script>report('hacked')</script>"


def test_what_clients_send_is_never_html(make_site: Callable[..., Site]) -> None:
    site = make_site(payloads=True)
    site.show()
    clean = "document.querySelectorAll('img, script:not([src$=\".js\"]), [onerror]').length === 0"
    with Client(site.app, transport="websocket", remote_address=EVIL, headers={"User-Agent": EVIL}) as client:
        client.socket.data["user"] = EVIL  # type: ignore[union-attr]
        connection = site.served.connect()
        connection.get("/engine.io/?EIO=4&transport=polling", [("Origin", f"https://{EVIL.replace(' ', '')}")])
        connection.get("/engine.io/?EIO=4&transport=" + quote(EVIL))
        site.until_text(ROW, EVIL)
        site.until_text("#refusals", "Transport unknown")
        site.browser.click(f"{ROW} button")
        site.until_text("#facts", EVIL)
        client.send(EVIL)
        site.until_text("#packets code", EVIL)
        client.socket.close(reason=EVIL)  # type: ignore[union-attr]
        assert client.wait_closed(60)
        site.until_text("#closes", EVIL)
        site.until_text("#packets-hint", EVIL)
    assert site.browser.evaluate(clean)
    assert site.browser.events.of("hacked") == []


def test_a_refusal_says_what_to_do(site: Site) -> None:
    site.show()
    site.served.connect().get("/engine.io/?EIO=3&transport=polling")
    site.until_text("#refusals", "1 ×")
    assert "allow_eio3=True" in site.browser.text("#refusals .advice")


def test_an_upgrade_is_counted(site: Site) -> None:
    site.show()
    with Client(site.app) as client:
        client.upgrade()
        site.until_text("#upgrade-count", "1 done, 0 abandoned")
        site.until_text("#upgrade-hint", "median")


def test_a_page_that_nobody_sees_asks_nothing(site: Site) -> None:
    site.show()
    site.hide(True)
    site.until_text("#status", "paused")
    site.hide(False)
    site.until_text("#status", "live")


def is_watched(client: Client) -> bool:
    return client.socket._session.inbox.has("flush")  # type: ignore[union-attr]


def test_a_watched_session_goes_on_after_the_page_was_hidden(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "PATIENCE", 2.0)
    site.show()
    with Client(site.app, transport="websocket") as client:
        site.browser.until(f"document.querySelector('{ROW}')")
        site.browser.click(f"{ROW} button")
        site.until_text("#facts", "websocket")
        client.send("hello")
        site.browser.until("document.querySelectorAll('#packets li').length === 2")
        site.hide(True)
        while is_watched(client):
            gevent.sleep(0.01)
        site.hide(False)
        while not is_watched(client):
            gevent.sleep(0.01)
        client.send("hello")
        site.browser.until("document.querySelectorAll('#packets li').length === 4")
        assert site.browser.text("#missed") == ""


def test_an_answer_about_another_session_is_not_shown(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The visitor chooses a second session while the answer about the first one is under way."""
    held: Queue[tuple[str, Event]] = Queue()
    ask = site.inspector._workers.ask

    def ask_when_released(question: str) -> Any:
        released = Event()
        held.put((json.loads(question)["watched"], released))
        assert released.wait(60)
        return ask(question)

    def question_about(number: int) -> Event:
        """The next question about the session with a number, which waits until the event is set. Those before it are answered."""
        while True:
            watched, released = held.get(timeout=60)
            if watched.endswith(f".{number}"):
                return released
            released.set()

    site.show()
    with Client(site.app, remote_address="10.0.0.1") as first, Client(site.app, remote_address="10.0.0.2"):
        site.browser.until(f"document.querySelectorAll('{ROW}').length === 2")
        with monkeypatch.context() as patch:
            patch.setattr(site.inspector._workers, "ask", ask_when_released)
            site.browser.click(f"{ROW}:nth-child(2) button")
            question_about(1).set()
            site.until_text("#facts", "10.0.0.1")
            released = question_about(1)
            first.send("hello")
            first.receive()
            site.browser.click(f"{ROW}:nth-child(1) button")
            released.set()
            # the page asks this when it has the answer to the question before
            released = question_about(2)
            assert (site.browser.text("#facts"), site.browser.text("#packets")) == ("", "")
        released.set()
        site.until_text("#facts", "10.0.0.2")


def test_the_page_connects_anew(site: Site) -> None:
    site.show()
    for socket in list(site.inspector._live.clients.values()):
        socket.close()
    site.until_text("#status", "not connected")
    # a visitor who types meanwhile does not put it off
    site.browser.evaluate("search.dispatchEvent(new Event('input'))")
    site.until_text("#status", "live")


def test_the_browser_asks_for_the_password(make_site: Callable[..., Site]) -> None:
    site = make_site(allow=Password("sesam"))
    site.browser.tell("login", username="anybody", password="sesam")
    site.show()
    PollingSession(site.served).open()
    site.until_text(ROW, "polling")
