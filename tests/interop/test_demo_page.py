"""The demo as a visitor meets it: started by its command, looked at in headless Chromium."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gevent import subprocess
from support.node import Browser

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


class Window(Browser):
    """A browser window that shows the demo."""

    def __init__(self, url: str) -> None:
        super().__init__()
        #: the complaints that the test brings about, as patterns of the text and the address
        self.tolerated = [OVERTAKEN_POLL]
        self.goto(url)

    def timeline(self) -> list[str]:
        """The steps that are shown, without their times."""
        steps = "[...document.querySelectorAll('#timeline li')].map((item) => item.firstChild.textContent)"
        return list(self.evaluate(steps))

    def say(self, text: str) -> None:
        """Send a line of chat."""
        self.evaluate(f"document.getElementById('text').value = {json.dumps(text)}")
        self.click("#chat button")


@pytest.fixture
def window(demo: str) -> Iterator[Callable[[], Window]]:
    """A factory of windows; none of them may have complained at the end."""
    windows: list[Window] = []

    def opened() -> Window:
        windows.append(Window(demo))
        return windows[-1]

    yield opened
    complaints = [complaint for each in windows for complaint in each.complaints(*each.tolerated)]
    for each in windows:
        each.stop()
    assert complaints == []


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
    assert page.text("#state") == "open"
    assert re.fullmatch(r"[\w-]{6}…", page.text("#sid"))
    page.until(SAMPLED)
    page.until(drawn("websocket"))


@pytest.mark.parametrize(("transport", "shown"), [("polling", "polling"), ("websocket", "WebSocket")])
def test_a_button_forces_a_transport(window: Callable[[], Window], transport: str, shown: str):
    page = window()
    page.until(showing("transport", "websocket"))
    first = page.text("#sid")
    page.click(f"[data-transports='{transport}']")
    page.until(showing("state", "open"))
    assert page.text("#transport") == transport
    assert page.timeline() == [f"handshake over {shown}", "session open, and stays on it"]
    assert page.text("#sid") != first
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
    total = float(re.fullmatch(r"(\d+) ms in all", page.text("#total")).group(1))  # type: ignore[union-attr]
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
    assert (page.text("#state"), page.text("#transport")) == ("open", "polling")
