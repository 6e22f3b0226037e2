"""The official client in headless Chromium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpus import corpus, described, shortened, undescribed
from support.node import node_modules
from support.serving import fallback

pytestmark = pytest.mark.ours

PAGE = Path(__file__).parent / "drivers" / "page.html"


def with_page(engine: Any) -> Any:
    """The engine round an application that serves the page and the client's script."""
    files = {
        "/page.html": (PAGE, "text/html"),
        "/engine.io.min.js": (node_modules() / "engine.io-client" / "dist" / "engine.io.min.js", "text/javascript"),
        "/favicon.ico": (PAGE, "image/x-icon"),
    }

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] not in files:
            return fallback(environ, start_response)
        path, kind = files[environ["PATH_INFO"]]
        body = path.read_bytes()
        start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    return engine.wrap(application)


def send_all(browser: Any, messages: list[str | bytes]) -> None:
    browser.tell("run", script=f"send({json.dumps([described(message) for message in messages])})")


@pytest.mark.deadline(600)
@pytest.mark.parametrize(
    "options", [{}, {"transports": ["polling"]}, {"transports": ["websocket"]}], ids=["upgrade", "polling", "websocket"]
)
def test_chromium(serve: Any, browser: Any, options: dict[str, Any]) -> None:
    served = serve(app="echo", wsgi=with_page, max_http_buffer_size=10_000_000)
    messages = corpus(separator="transports" in options and options["transports"] == ["websocket"])
    browser.tell("goto", url=f"{served.origin}/page.html")
    browser.events.wait("loaded")
    browser.tell("run", script=f"connect({json.dumps(options)})")
    browser.events.wait("open")
    send_all(browser, messages)
    if not options:
        assert served.events.wait("upgrade")["transport"] == "websocket"
        browser.events.wait("upgrade")
    send_all(browser, messages)
    browser.events.wait("message", 2 * len(messages))
    received = [undescribed(fields) for fields in browser.events.of("message")]
    assert shortened(received) == shortened(messages * 2)
    assert received == messages * 2
    browser.tell("run", script="void socket.close()")
    browser.events.wait("close")
    assert served.events.wait("close")["reason"] == "transport close"
    assert browser.events.of("page_error") == []
    assert [entry for entry in browser.events.of("console") if entry["level"] == "error"] == []


def test_leaving_the_page_ends_the_session(serve: Any, browser: Any) -> None:
    served = serve(app="echo", wsgi=with_page)
    for count, options in enumerate(({}, {"transports": ["polling"]}), 1):
        browser.tell("goto", url=f"{served.origin}/page.html")
        browser.events.wait("loaded", 2 * count - 1)
        browser.tell("run", script=f"connect({json.dumps(options)})")
        browser.events.wait("open", count)
        if not options:
            served.events.wait("upgrade")
        browser.tell("goto", url="about:blank")
        assert served.events.wait("close", count)["reason"] == "transport close"
