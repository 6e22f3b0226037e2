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
#: the message queue of the application before
REDIS = "redis://127.0.0.1:6379"
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


def run(folder: Path) -> ServerProcess:
    """The application of a folder, as its configuration says."""
    configuration: dict[str, Any] = {}
    exec((folder / "gunicorn.conf.py").read_text(), configuration)
    return ServerProcess(folder, configuration["worker_class"], "-w", str(configuration["workers"]),
                         application=(folder / "app.py").read_text())


def chat(server: ServerProcess, drive: Callable[..., Any]) -> None:
    """Four clients come in, and one says something."""
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


@pytest.mark.parametrize("is_moved", [False, True], ids=["before", "after"])
def test_the_page(tmp_path: Path, drive: Callable[..., Any], shared_redis: Any, is_moved: bool) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    if is_moved:
        apply(tmp_path)
    application = (tmp_path / "app.py").read_text()
    assert ("engineio_wsgi" in application) is is_moved
    assert (REDIS in application) is not is_moved
    (tmp_path / "app.py").write_text(application.replace(REDIS, shared_redis.url))
    server = run(tmp_path)
    try:
        chat(server, drive)
        assert server.complaints() == []
    finally:
        server.stop()
