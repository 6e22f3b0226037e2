"""The official client in headless Chromium over WebTransport, directly and by upgrade."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from corpus import corpus, shortened, undescribed
from support.webtransport import digest, make_certificate
from test_browser import send_all, with_page

from engineio_wsgi import WebTransportServer

pytestmark = pytest.mark.ours

TRANSPORTS = ("polling", "websocket", "webtransport")

#: sessions that are upgraded, and by one call of the page's function; ``TEST_WEBTRANSPORT_UPGRADES=1000`` has so many
COUNT, AT_ONCE = int(os.environ.get("TEST_WEBTRANSPORT_UPGRADES", "60")), 20
#: upgrades many sessions, four at a time, each with numbered messages before, during and after it, and pauses of random
#: length. The value is what went wrong, and how many were upgraded
UPGRADES = """(async () => {
  const wrong = [];
  let upgraded = 0;
  const pause = () => new Promise((done) => setTimeout(done, Math.random() < 0.5 ? 0 : Math.random() * 20));
  const talk = async (number) => {
    const socket = eio(location.origin.replace("http", "ws"), OPTIONS);
    const sent = [], heard = [], before = Math.floor(Math.random() * 12), after = Math.floor(Math.random() * 8);
    const ended = new Promise((done) => socket.on("close", done));
    const hasUpgraded = new Promise((done) => socket.on("upgrade", () => done(upgraded++)));
    socket.on("message", (data) => heard.push(data));
    const say = async (count) => {
      for (let i = 0; i < count; i++) {
        sent.push(`${number}: ${sent.length}`.padEnd(Math.random() < 0.1 ? 70000 : 20));
        socket.send(sent.at(-1));
        if (Math.random() < 0.7) await pause();
      }
    };
    await new Promise((done) => socket.on("open", done));
    await say(before);
    await Promise.race([hasUpgraded, ended]);
    await say(after + 1);
    while (heard.length < sent.length && socket.readyState === "open") await pause();
    if (heard.join() !== sent.join()) wrong.push(`${number}: ${heard.length} of ${sent.length}, ${socket.readyState}`);
    socket.close();
    await ended;
  };
  let next = 0;
  const talkOn = async () => { while (next < COUNT) await talk(next++); };
  await Promise.all([1, 2, 3, 4].map(talkOn));
  return { wrong, upgraded };
})()"""


@pytest.fixture(scope="module")
def short_lived(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate that a browser accepts by its hash."""
    return make_certificate(tmp_path_factory.mktemp("webtransport"))


@pytest.fixture
def serve_both(serve: Any, short_lived: dict[str, str]) -> Iterator[Any]:
    """A factory of servers over HTTP, and over WebTransport on the UDP port with the same number."""
    running: list[WebTransportServer] = []

    def start(**options: Any) -> Any:
        served = serve(wsgi=with_page, transports=TRANSPORTS, allow_eio3=False, **{"cors": "*", **options})
        running.append(WebTransportServer(served.address, served.server, **short_lived))
        running[-1].start()
        return served

    yield start
    for server in running:
        server.stop(timeout=0)


def options_of(certificate: dict[str, str], *transports: str) -> str:
    """The options of the official client, which accepts the certificate: JavaScript."""
    known = f"Uint8Array.from({list(bytes.fromhex(digest(certificate['certfile'])))}).buffer"
    return (f"{{transports: {json.dumps(transports)}, transportOptions: {{webtransport: {{serverCertificateHashes: "
            f"[{{algorithm: 'sha-256', value: {known}}}]}}}}}}")  # fmt: skip


def connect(browser: Any, served: Any, certificate: dict[str, str], *transports: str) -> None:
    """Load the page, and connect with the official client."""
    browser.tell("goto", url=f"{served.origin}/page.html")
    browser.events.wait("loaded")
    browser.tell("run", script=f"connect({options_of(certificate, *transports)})")


def check_echo(browser: Any, messages: list[str | bytes]) -> None:
    """Every message has come back."""
    browser.events.wait("message", len(messages))
    received = [undescribed(fields) for fields in browser.events.of("message")]
    assert shortened(received) == shortened(messages)
    assert received == messages


@pytest.mark.deadline(600)
@pytest.mark.parametrize("transports", [("webtransport",), ("polling", "webtransport"), TRANSPORTS], ids="-".join)
def test_chromium(serve_both: Any, browser: Any, short_lived: dict[str, str], transports: tuple[str, ...]) -> None:
    served = serve_both(max_http_buffer_size=10_000_000)
    messages = corpus(separator=True)
    connect(browser, served, short_lived, *transports)
    assert browser.events.wait("open")["transport"] == transports[0]
    send_all(browser, messages)
    if len(transports) > 1:
        # the client gives WebTransport 200 ms more than WebSocket, which a slow machine may need
        won = served.events.wait("upgrade")["transport"]
        assert won in transports[1:]
        assert browser.events.wait("upgrade")["transport"] == won
    send_all(browser, messages)
    check_echo(browser, messages * 2)
    browser.tell("run", script="void socket.close()")
    browser.events.wait("close")
    assert served.events.wait("close")["reason"] == "transport close"
    # the client does not catch what its own streams say when it closes the session
    assert [error for error in browser.events.of("page_error") if "The session is closed" not in error["message"]] == []


def test_leaving_the_page_ends_the_session(serve_both: Any, browser: Any, short_lived: dict[str, str]) -> None:
    served = serve_both()
    connect(browser, served, short_lived, "webtransport")
    browser.events.wait("open")
    browser.tell("goto", url="about:blank")
    assert served.events.wait("close")["reason"] == "transport close"


@pytest.mark.deadline(1800)
def test_many_upgrades(serve_both: Any, browser: Any, short_lived: dict[str, str]) -> None:
    served = serve_both()
    assert browser.goto(f"{served.origin}/page.html") == 200
    script = UPGRADES.replace("OPTIONS", options_of(short_lived, "polling", "webtransport")).replace("COUNT", str(AT_ONCE))
    for _ in range(COUNT // AT_ONCE):
        assert browser.evaluate(script) == {"wrong": [], "upgraded": AT_ONCE}
