"""The migration page: its application under Flask-SocketIO's own engine, the diff applied, and four workers afterwards."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import ServerProcess

pytestmark = pytest.mark.ours

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "socketio.rst"
FILE = re.compile(r"\.\. code-block:: python\n   :caption: (\S+)\n\n((?:   .*\n|\n)+)")
DIFF = re.compile(r"\.\. code-block:: diff\n\n((?:   .*\n|\n)+)")


def files() -> dict[str, str]:
    """The files on the page."""
    return {name: textwrap.dedent(text).strip() + "\n" for name, text in FILE.findall(PAGE.read_text())}


def apply(folder: Path) -> None:
    """Apply the page's diff."""
    (diff,) = DIFF.findall(PAGE.read_text())
    # an empty line of the page is one of the diff's context
    lines = [line[3:] if line.strip() else " " for line in diff.rstrip().splitlines()]
    (folder / "move.diff").write_text("\n".join(lines) + "\n")
    subprocess.run(["patch", "-p1", "-i", "move.diff"], cwd=folder, check=True, capture_output=True, text=True)


def test_the_page(tmp_path: Path, drive: Callable[..., Any]) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    compile((tmp_path / "app.py").read_text(), "app.py", "exec")
    apply(tmp_path)
    application = (tmp_path / "app.py").read_text()
    assert "engineio_wsgi" in application
    configuration: dict[str, Any] = {}
    exec((tmp_path / "gunicorn.conf.py").read_text(), configuration)
    server = ServerProcess(tmp_path, configuration["worker_class"], "-w", str(configuration["workers"]), application=application)
    try:
        url = "http://{}:{}".format(*server.served.address)
        drivers = [drive("socket.io-client", url, json.dumps({"transports": ["polling", "websocket"]})) for _ in range(4)]
        for count, driver in enumerate(drivers, 1):
            driver.tell("open", nsp="/")
            driver.events.wait("connect")
            driver.tell("ask", args=["join", "room"])
            assert driver.events.wait("ack")["args"] == ["room"]
            for member in drivers[:count]:
                member.events.wait("said", count - drivers.index(member))
        drivers[0].tell("emit", args=["say", "room", "hello"])
        for number, driver in enumerate(drivers):
            assert driver.events.wait("said", len(drivers) - number + 1)["args"] == ["hello"]
        assert server.complaints() == []
    finally:
        server.stop()
