"""The demo as a visitor meets it: started by its command, looked at in headless Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

import engineio_wsgi

pytestmark = [pytest.mark.ours, pytest.mark.deadline(600)]


@pytest.fixture
def demo() -> Iterator[str]:
    """The address of a running demo, which must end without a complaint."""
    package = str(Path(engineio_wsgi.__file__).parents[1])
    inherited = {name: value for name, value in os.environ.items() if name != "DEBUG" and not name.startswith("ENGINEIO_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "engineio_wsgi", "--bind", "127.0.0.1:0"],
        env={**inherited, "PYTHONPATH": package},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    yield re.search(r"http://\S+", line).group()  # type: ignore[union-attr]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")


#: A poll that is still on its way when the goodbye of its session arrives asks for a session that is gone.
OVERTAKEN_POLL = r"Failed to load resource: .* status of 400 \(Bad Request\) \S+&transport=polling&sid="


class Window:
    """A browser window that shows the demo."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        #: the complaints that the test brings about, as patterns of the text and the address
        self.tolerated = [OVERTAKEN_POLL]
        self._results = 0
        browser.tell("goto", url=url)
        browser.events.wait("loaded")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        self._results += 1
        self.browser.tell("run", script=script)
        return self.browser.events.wait("result", self._results)["value"]

    def until(self, condition: str) -> None:
        """Return when the expression has become true."""
        look = f"const look = () => ({condition}) ? done(true) : setTimeout(look, 10); look();"
        assert self.evaluate(f"new Promise((done) => {{ {look} }})")

    def text(self, element: str) -> str:
        """What an element shows."""
        return str(self.evaluate(f"document.getElementById({json.dumps(element)}).textContent"))

    def timeline(self) -> list[str]:
        """The steps that are shown, without their times."""
        steps = "[...document.querySelectorAll('#timeline li')].map((item) => item.firstChild.textContent)"
        return list(self.evaluate(steps))

    def click(self, selector: str) -> None:
        """Press a button."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def say(self, text: str) -> None:
        """Send a line of chat."""
        self.evaluate(f"document.getElementById('text').value = {json.dumps(text)}")
        self.click("#chat button")

    def complaints(self) -> list[Any]:
        """What went wrong in the page, the browser's refusals by the page's policy included."""
        errors = [f"{entry['text']} {entry['url']}" for entry in self.browser.events.of("console") if entry["level"] == "error"]
        untold = [error for error in errors if not any(re.match(pattern, error) for pattern in self.tolerated)]
        return self.browser.events.of("page_error") + untold


@pytest.fixture
def window(drive: Any, demo: str) -> Iterator[Callable[[], Window]]:
    """A factory of windows; none of them may have complained at the end."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    windows: list[Window] = []

    def opened() -> Window:
        browser = drive("browser.js", chromium)
        browser.events.wait("ready")
        windows.append(Window(browser, demo))
        return windows[-1]

    yield opened
    assert [complaint for each in windows for complaint in each.complaints()] == []


SAMPLED = "document.getElementById('latency').textContent.startsWith('now')"
UPGRADED = [
    "handshake over polling",
    "WebSocket opens",
    "probe \u2192 pong",
    "polling pauses, upgrade",
    "session goes on over WebSocket",
]


def showing(element: str, value: str) -> str:
    return f"document.getElementById({json.dumps(element)}).textContent === {json.dumps(value)}"


def drawn(colour: str) -> str:
    """Whether the chart has a pixel of a transport's colour."""
    return f"""(() => {{
      const canvas = document.getElementById("chart");
      const style = getComputedStyle(document.documentElement).getPropertyValue("--{colour}").trim();
      const wanted = [1, 3, 5].map((at) => parseInt(style.slice(at, at + 2), 16));
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      for (let at = 0; at < pixels.length; at += 4)
        if (wanted.every((part, index) => Math.abs(pixels[at + index] - part) < 3) && pixels[at + 3] > 250) return true;
      return false;
    }})()"""


def test_the_session_and_its_upgrade_are_shown(window: Callable[[], Window]):
    page = window()
    page.until(showing("transport", "websocket"))
    assert page.timeline() == UPGRADED
    assert page.text("state") == "open"
    assert re.fullmatch(r"[\w-]{6}…", page.text("sid"))
    page.until(SAMPLED)
    page.until(drawn("websocket"))


@pytest.mark.parametrize(("transport", "shown"), [("polling", "polling"), ("websocket", "WebSocket")])
def test_a_button_forces_a_transport(window: Callable[[], Window], transport: str, shown: str):
    page = window()
    page.until(showing("transport", "websocket"))
    first = page.text("sid")
    page.click(f"[data-transports='{transport}']")
    page.until(showing("state", "open"))
    assert page.text("transport") == transport
    assert page.timeline() == [f"handshake over {shown}", "session open, and stays on it"]
    assert page.text("sid") != first
    page.until(drawn(transport))
    page.until(showing("count", "1"))
    page.click("[data-transports='polling,websocket']")
    page.until(showing("transport", "websocket"))
    assert page.timeline() == UPGRADED


WATCHED = """void (() => {
    const native = window.fetch;
    window.happened = [];
    window.fetch = async (url, options) => {
        options.signal?.addEventListener("abort", () => happened.push("poll aborted"));
        const response = await native(url, options);
        if (options.method === "POST" && options.body.endsWith("1")) happened.push(`goodbye answered with ${response.status}`);
        return response;
    };
})()"""


def test_a_session_says_goodbye_before_its_poll_breaks_off(window: Callable[[], Window]):
    page = window()
    page.until(showing("transport", "websocket"))
    page.evaluate(WATCHED)
    page.click("[data-transports='polling']")
    page.until(showing("state", "open"))
    page.until(SAMPLED)
    page.click("[data-transports='websocket']")
    page.until("happened.some((what) => what.startsWith('goodbye')) && happened.includes('poll aborted')")
    assert page.evaluate("happened") == ["goodbye answered with 200", "poll aborted"]
    page.until(showing("count", "1"))


def test_a_session_that_is_not_open_yet_says_goodbye_too(window: Callable[[], Window]):
    page = window()
    page.until(showing("transport", "websocket"))
    page.evaluate(WATCHED)
    page.evaluate("for (const one of ['polling', 'websocket']) document.querySelector(`[data-transports='${one}']`).click()")
    page.until("happened.includes('poll aborted')")
    assert page.evaluate("happened") == ["goodbye answered with 200", "poll aborted"]
    page.until(showing("count", "1"))


def test_every_step_of_the_upgrade_has_its_time(window: Callable[[], Window]):
    page = window()
    page.until(showing("transport", "websocket"))
    steps = "document.querySelectorAll('#timeline li:not(.end) time')"
    times = page.evaluate(f"[...{steps}].map((time) => parseFloat(time.textContent))")
    assert len(times) == len(UPGRADED) - 1
    total = float(re.fullmatch(r"(\d+) ms in all", page.text("total")).group(1))  # type: ignore[union-attr]
    assert sum(times) == pytest.approx(total, abs=1)


def test_windows_chat(window: Callable[[], Window]):
    first, second = window(), window()
    second.click("[data-transports='polling']")
    for page in (first, second):
        page.until(showing("count", "2"))
    first.say("h\u00e9llo <b>there</b> \U0001f600")
    for page, who in ((first, "you"), (second, "guest-")):
        page.until("document.querySelector('#lines li')")
        assert page.evaluate("document.querySelector('#lines b').textContent").startswith(who)
        assert page.evaluate("document.querySelector('#lines li').lastChild.data") == "h\u00e9llo <b>there</b> \U0001f600"
    second.say("and back")
    first.until("document.querySelectorAll('#lines li').length === 2")
    window().until("document.querySelectorAll('#lines li').length === 2")


GONE_AFTER_THE_PROBE = """window.WebSocket = function (url) {
        const socket = new Native(url);
        socket.addEventListener("message", () => socket.close());
        return socket;
    };"""
UNANSWERED_POLL = """const fetched = window.fetch;
    window.fetch = async (url, options) => {
        for (;;) {
            const response = await fetched(url, options);
            if (options.method === "POST" || await response.clone().text() !== "6") return response;
        }
    };"""
BROKEN_WEBSOCKET = {
    "refused": "window.WebSocket = function () { return new Native('ws://127.0.0.1:1/'); };",
    "gone after the probe": GONE_AFTER_THE_PROBE,
    "gone while the poll is open": GONE_AFTER_THE_PROBE + UNANSWERED_POLL,
}


@pytest.mark.parametrize("fault", BROKEN_WEBSOCKET)
def test_polling_goes_on_when_the_upgrade_fails(window: Callable[[], Window], fault: str):
    page = window()
    page.tolerated.append("WebSocket connection to 'ws://127.0.0.1:1/' failed")
    page.until(showing("transport", "websocket"))
    page.evaluate("void (() => { const Native = window.WebSocket; "
                  f"{BROKEN_WEBSOCKET[fault]} Object.assign(window.WebSocket, {{ OPEN: 1 }}); }})()")
    page.click("[data-transports='polling,websocket']")
    page.until("document.getElementById('timeline').textContent.includes('failed; polling goes on')")
    page.say("still here")
    page.until("document.querySelector('#lines li')")
    assert (page.text("state"), page.text("transport")) == ("open", "polling")
