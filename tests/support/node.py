"""Scripts in Node, driven over JSON lines."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import gevent
from gevent import subprocess

from support.serving import EventLog

TESTS = Path(__file__).resolve().parent.parent


def node_modules() -> Path:
    """The folder with the packages of npm: ``$TEST_NODE_MODULES``, or what ``tests/prepare.sh`` made."""
    return Path(os.environ.get("TEST_NODE_MODULES") or TESTS / "node_modules")


def find_chromium() -> str:
    """The program that runs pages: ``$CHROMIUM``, or the one on ``PATH``."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"


def node_environment() -> dict[str, str]:
    """The environment in which scripts find their packages."""
    return {**os.environ, "NODE_PATH": str(node_modules())}


class Driver:
    """A client in another process: commands go in and events come out, one JSON object a line.

    Args:
        command: the program and its arguments; a first argument that ends with ``.js`` is run by Node.
    """

    def __init__(self, *command: str) -> None:
        arguments = ["node", *command] if command[0].endswith(".js") else list(command)
        self.events = EventLog()
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=node_environment()
        )
        self._complaints: list[bytes] = []
        self._readers = [gevent.spawn(self._read), gevent.spawn(self._read_errors)]

    def _read(self) -> None:
        for line in self.process.stdout:
            fields: dict[str, Any] = json.loads(line)
            self.events.add(fields.pop("event"), **fields)

    def _read_errors(self) -> None:
        self._complaints.extend(self.process.stderr)

    def tell(self, op: str, **fields: Any) -> None:
        """Send one command."""
        self.process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        """Let the script end, and check that it has printed no errors."""
        self.process.stdin.close()
        self.process.wait(60)
        gevent.joinall(self._readers, timeout=60)
        self.process.stdout.close()
        self.process.stderr.close()
        complaints = b"".join(self._complaints).decode()
        assert not complaints, complaints
        assert self.process.returncode == 0


class Browser(Driver):
    """Headless Chromium with an empty page; see ``interop/drivers/browser.js`` for what it can be told.

    Args:
        arguments: of the driver: ``"trusting"`` accepts any certificate.
    """

    def __init__(self, *arguments: str) -> None:
        super().__init__(str(TESTS / "interop" / "drivers" / "browser.js"), find_chromium(), *arguments)
        self.events.wait("ready")

    def goto(self, url: str) -> Any:
        """Load a page. Returns the status of the response."""
        loaded = len(self.events.of("loaded"))
        self.tell("goto", url=url)
        return self.events.wait("loaded", loaded + 1)["status"]

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; if it is a promise, when that is kept."""
        results = len(self.events.of("result"))
        self.tell("run", script=script)
        return self.events.wait("result", results + 1)["value"]

    def until(self, condition: str) -> None:
        """Return when the expression has become true."""
        look = f"const look = () => ({condition}) ? done(true) : setTimeout(look, 10); look();"
        assert self.evaluate(f"new Promise((done) => {{ {look} }})")

    def text(self, selector: str) -> str:
        """What an element shows."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.textContent ?? 'nothing'"))

    def click(self, selector: str) -> None:
        """Press a button."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def complaints(self, *tolerated: str) -> list[Any]:
        """What went wrong in the page, the browser's refusals by the page's policy included.

        Args:
            tolerated: patterns of texts and addresses, one after the other.
        """
        errors = [f"{entry['text']} {entry['url']}" for entry in self.events.of("console") if entry["level"] == "error"]
        untold = [error for error in errors if not any(re.match(pattern, error) for pattern in tolerated)]
        return self.events.of("page_error") + untold
