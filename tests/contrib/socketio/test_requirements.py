"""What is missing, or is made otherwise than expected, is refused at the import, with one line."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import flask_socketio
import pytest
import socketio

from engineio_wsgi.contrib.socketio.requirements import require_flask_socketio, require_socketio

pytestmark = pytest.mark.ours

IMPORT = "from engineio_wsgi.contrib.socketio import {}"


def error_of(script: str) -> str:
    """The last line of a script's traceback."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(("module", "name", "extra"), [("socketio", "Server", "socketio"),
                                                       ("flask_socketio", "SocketIO", "flask-socketio")])
def test_a_missing_extra(module: str, name: str, extra: str) -> None:
    line = error_of(f"import sys; sys.modules[{module!r}] = None\n" + IMPORT.format(name))
    assert line.startswith("ModuleNotFoundError: engineio_wsgi.contrib.socketio needs")
    assert line.endswith(f"pip install 'engineio-wsgi[{extra}]'")


def test_python_socketio_alone_is_enough_for_its_server() -> None:
    script = "import sys; sys.modules['flask_socketio'] = sys.modules['flask'] = None\n" + IMPORT.format("Server")
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_changed_hook(monkeypatch: Any) -> None:
    require_socketio()
    require_flask_socketio()
    monkeypatch.delattr(socketio.Server, "_engineio_server_class")
    monkeypatch.delattr(socketio.server.base_server.BaseServer, "_engineio_server_class")
    monkeypatch.delattr(flask_socketio.SocketIO, "init_app")
    with pytest.raises(ImportError, match=r"does not know python-socketio \d.*it has no Server\._engineio_server_class"):
        require_socketio()
    with pytest.raises(ImportError, match=r"does not know Flask-SocketIO \d.*it has no SocketIO\.init_app"):
        require_flask_socketio()
