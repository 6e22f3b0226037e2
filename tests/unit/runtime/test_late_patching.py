"""Programs that call gevent's patches too late, run as they are: one warning says which module, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SERVE = """
import engineio_wsgi
server = engineio_wsgi.Server().listen(("127.0.0.1", 0))
"""
PATCH = "from gevent import monkey; monkey.patch_all()\n"
LATE = "gevent has patched the standard library too late for {}: what was imported before blocks every session; " \
       "call monkey.patch_all() before any other import"
LATER = "gevent has patched the standard library after the server had begun to serve: what was created before blocks every " \
        "session; call monkey.patch_all() before any other import"
#: the program, and what it says on stderr
PROGRAMS: dict[str, tuple[str, list[str]]] = {
    "in time": (PATCH + "from time import sleep\nimport shop\n" + SERVE, []),
    "not at all": ("from time import sleep\nimport shop\n" + SERVE, []),
    "after an import of the program": ("from time import sleep\nfrom socket import socket\n" + PATCH + SERVE, [
        LATE.format("__main__ (time.sleep, socket.socket)")]),
    "after an import of a module": ("import shop\n" + PATCH + SERVE, [LATE.format("shop (time.sleep)")]),
    "after a whole module": ("import time, socket, threading\n" + PATCH + SERVE, []),
    "after the server": (SERVE + "server = engineio_wsgi.Server().listen(('127.0.0.1', 0))\n" + PATCH, [LATER]),
    "after the package": ("import engineio_wsgi\n" + PATCH + SERVE, []),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_patches(name: str, tmp_path: Path) -> None:
    program, said = PROGRAMS[name]
    (tmp_path / "shop.py").write_text("from time import sleep\n")
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, "-W", "ignore", "program.py"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=300, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.returncode == 0
    assert done.stderr.splitlines() == said
