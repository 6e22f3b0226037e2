"""The tests of python-socketio and Flask-SocketIO, of the installed versions, with our classes in the place of theirs.

``tests/prepare.sh`` brings them. Each that fails on purpose is listed with its reason, and has to fail.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = pytest.mark.ours

UPSTREAM = Path(__file__).parents[2] / "upstream"
SOCKETIO = "python_socketio", "tests/common/"
FLASK_SOCKETIO = "flask_socketio", ""

#: their managers have a mock for a server, and look at what it is asked to send
REPLACED_SENDING = ("mock_server.eio.generate_id = generate_id\n",
                    "mock_server.eio.generate_id = generate_id\n        mock_server.sends_directly = False\n")
MIXED = ("from engineio_wsgi.contrib.socketio.manager import EmitOnce, LocalManager\nimport socketio.pubsub_manager\n"
         "class Mixed(socketio.pubsub_manager.PubSubManager, EmitOnce):\n    pass\n\n")
#: by the module: where it is, and what is replaced in its text
MODULES = {
    "test_server": (SOCKETIO, [
        ("mock.patch('socketio.server.engineio.Server'", "mock.patch('engineio_wsgi.contrib.socketio.server.EngineAdapter'"),
        ("from socketio import server\n", "from engineio_wsgi.contrib.socketio import server\n")]),
    "test_manager": (SOCKETIO, [
        ("import pytest\n", f"import pytest\n{MIXED}"), ("= manager.Manager()", "= LocalManager()"), REPLACED_SENDING]),
    "test_pubsub_manager": (SOCKETIO, [
        ("import pytest\n", f"import pytest\n{MIXED}"), ("pubsub_manager.PubSubManager(", "Mixed("), REPLACED_SENDING,
        ("mock.patch.object(manager.Manager, 'emit')", "mock.patch.object(EmitOnce, 'emit')")]),
    "test_namespace": (SOCKETIO, [("from socketio import namespace\n", "from socketio import namespace\n"
                                   "import engineio_wsgi.contrib.socketio\n")]),
    "test_packet": (SOCKETIO, [
        ("from socketio import packet\n", "from socketio import packet as theirs\nimport types\n"
         "from engineio_wsgi.contrib.socketio.packets import SocketIOPacket\n"
         "packet = types.SimpleNamespace(**{**vars(theirs), 'Packet': SocketIOPacket})\n")]),
    "test_socketio": (FLASK_SOCKETIO, [
        ("from flask_socketio import SocketIO, ",
         "from engineio_wsgi.contrib.socketio import SocketIO\nfrom flask_socketio import ")]),
}
#: the tests that differ on purpose, with the reason
DIFFERENCES = {
    "test_server::TestServer::test_create": "the packets are of a subclass, which refuses what the protocol does not have",
    "test_server::TestServer::test_handle_connect_namespace_twice": "an error that a client is told is an object with a message",
    "test_server::TestServer::test_custom_json": "json= is that of one server; nothing of python-socketio's is changed",
    "test_server::TestServer::test_async_handlers": "a handler runs in the greenlet that has read the event, not in a task",
    **{f"test_packet::TestPacket::test_decode_{name}": "its event or acknowledgement is no list that the protocol allows"
       for name in ("default_packet", "empty_event_packet", "binary_event_packet", "text_ack_packet", "binary_ack_packet",
                    "namespace_no_data", "id_no_data", "many_binary", "many_binary_ack", "too_many_binary_packets",
                    "dash_in_payload")},
}
SUMMARY = re.compile(r"^(PASSED|FAILED|ERROR) (test_\w+)\.py::(\S+)", re.MULTILINE)


def outcomes(folder: Path, module: str) -> dict[str, str]:
    """The outcome of each test of a module."""
    (project, where), replacements = MODULES[module]
    source = UPSTREAM / f"{project}-{version(project.replace('_', '-'))}" / where / f"{module}.py"
    assert source.exists(), f"{source} is missing: run tests/prepare.sh"
    text = source.read_text()
    for old, new in replacements:
        assert old in text, f"{old!r} is not in {source}"
        text = text.replace(old, new)
    (folder / f"{module}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(folder),
               f"{module}.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = {f"{name}::{test}": outcome for outcome, name, test in SUMMARY.findall(done.stdout)}
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.parametrize("module", MODULES)
def test_upstream(tmp_path: Path, module: str) -> None:
    found = outcomes(tmp_path, module)
    failed = {name for name, outcome in found.items() if outcome != "PASSED"}
    assert failed == {name for name in DIFFERENCES if name.startswith(f"{module}::")}
