"""The guide to WebTransport: its server, its certificate and its client, in headless Chromium."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from support.deployment import free_port
from support.manual import DOCS, ROOT, snippets
from support.node import node_modules

pytestmark = pytest.mark.ours
PAGE = (DOCS / "guides" / "webtransport.rst").read_text()
CLIENT = snippets(PAGE, "javascript")[0]
#: the page's client, whose events become the test's
RUN = """(() => {
  %s
  socket.on("open", () => { report("open", { transport: socket.transport.name }); socket.send("hello"); });
  socket.on("upgrade", (transport) => report("upgrade", { transport: transport.name }));
  socket.on("message", (data) => report("message", { data }));
  socket.on("close", (reason) => report("close", { reason }));
})()"""


class Shown:
    """The guide's server, with the certificate that its commands make."""

    def __init__(self, folder: Path) -> None:
        make, digest = re.findall(r"^    (openssl .*)$", PAGE, re.MULTILINE)
        subprocess.run(["bash", "-c", make], check=True, capture_output=True, cwd=folder)
        self.hash = subprocess.run(["bash", "-c", digest], check=True, capture_output=True, cwd=folder, text=True).stdout.strip()
        self.port = free_port()
        (folder / "main.py").write_text(f"{snippets(PAGE)[0]}\nserve({self.port}, 'cert.pem', 'key.pem')\n")
        self.process = subprocess.Popen([sys.executable, "main.py"], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with gevent.Timeout(60):
            while not self._accepts():
                gevent.sleep(0.05)

    def _accepts(self) -> bool:
        assert self.process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def client(self, transports: list[str] | None = None) -> str:
        """The guide's client for it."""
        code = CLIENT.replace("what the second command printed", self.hash).replace(":8443", f":{self.port}")
        assert code != CLIENT
        if transports is not None:
            code = code.replace("{\n  transportOptions:", f"{{\n  transports: {json.dumps(transports)},\n  transportOptions:")
            assert "transports:" in code
        return RUN % code


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Shown]:
    running = Shown(tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


@pytest.mark.deadline(600)
@pytest.mark.parametrize("browser", [["trusting"]], indirect=True, ids=["trusting"])
@pytest.mark.parametrize("transports", [None, ["webtransport"]], ids=["as it is", "webtransport"])
def test_the_client(shown: Shown, browser: Any, transports: list[str] | None) -> None:
    browser.tell("goto", url=f"https://localhost:{shown.port}/")
    assert browser.events.wait("loaded")["status"] == 200
    browser.tell("run", script=(node_modules() / "engine.io-client" / "dist" / "engine.io.min.js").read_text())
    browser.tell("run", script=shown.client(transports))
    assert browser.events.wait("open")["transport"] == (transports or ["polling"])[0]
    assert browser.events.wait("message") == {"data": "hello"}
    if transports is None:
        # a slow machine may be too late for WebTransport
        assert browser.events.wait("upgrade")["transport"] in ("webtransport", "websocket")
    assert browser.events.of("close") == []


@pytest.mark.deadline(600)
@pytest.mark.parametrize("browser", [["trusting"]], indirect=True, ids=["trusting"])
def test_a_client_that_knows_another_certificate(shown: Shown, browser: Any) -> None:
    browser.tell("goto", url=f"https://localhost:{shown.port}/")
    browser.events.wait("loaded")
    browser.tell("run", script=(node_modules() / "engine.io-client" / "dist" / "engine.io.min.js").read_text())
    browser.tell("run", script=shown.client(["webtransport"]).replace(shown.hash, "A" * 43 + "="))
    assert browser.events.wait("close")["reason"] == "transport error"
    assert browser.events.of("open") == []
