"""Fixtures of the suites that talk to a running server; see support/ for what they are made of."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.crossing import CrossingServer
from support.rawhttp import HttpConnection
from support.redis import RedisServer
from support.reference import ENABLED as REFERENCE
from support.reference import ReferenceServer
from support.serving import LocalServer, Served

from engineio_wsgi.log import TOLD_PERIOD
from engineio_wsgi.throttle import Throttle

#: seconds after which a test that hangs is failed
DEADLINE = 60.0
#: TEST_HANDLERS=crossing: every request for a session comes to another worker than the session's; crossing-machines: on another
#: machine than the session's
HANDLERS = ["reference"] if REFERENCE else os.environ.get("TEST_HANDLERS", "ours,stock").split(",")
_LEFT_OUT = {"crossing": ("alone",), "crossing-machines": ("alone", "near")}
MARKERS = (
    "ours: uses the Python API of our server, so there is nothing to compare with the reference server",
    "differs(why): our server behaves otherwise than the reference server, on purpose",
    "alone(why): a second worker would see something else",
    "near(why): another machine would see something else",
    "complains: errors are logged, and the test says so",
    "deadline(seconds): the test may take longer than others",
)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Against the reference server and in a cluster, only what is meant to be the same there is run."""
    markers = ("ours", "differs") if REFERENCE else _LEFT_OUT.get(HANDLERS[0], ())
    crossing = HANDLERS[0] in _LEFT_OUT
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in markers) or
                # nothing crosses where no engine is served
                (crossing and "handler" not in getattr(item, "fixturenames", ()))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(params=HANDLERS)
def handler(request: pytest.FixtureRequest) -> str:
    """What carries the engine: our own handler, gevent-websocket's, or a cluster of two workers."""
    return str(request.param)


@pytest.fixture(params=["polling", "websocket"])
def transport(request: pytest.FixtureRequest) -> str:
    """The transport of a test that is run over each."""
    return str(request.param)


@pytest.fixture(params=[4, 3], ids=["eio4", "eio3"])
def eio(request: pytest.FixtureRequest) -> int:
    """The protocol revision of a test that is run over each."""
    return int(request.param)


class _Complaints(logging.Handler):
    """Keeps the log records that no test should cause."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.records.append(record)


@pytest.fixture(autouse=True)
def no_complaints(request: pytest.FixtureRequest) -> Iterator[None]:
    """A bad client is no reason for a traceback: no error is logged and no greenlet dies of one."""
    hub: Any = gevent.get_hub()
    failures: list[str] = []
    complaints = _Complaints()
    original = hub.handle_error

    def handle_error(context: object, kind: Any, value: Any, traceback: Any) -> None:
        if not issubclass(kind, hub.NOT_ERROR):
            failures.append(f"{context!r} failed with {value!r}")
        original(context, kind, value, traceback)

    hub.handle_error = handle_error
    logging.getLogger().addHandler(complaints)
    try:
        yield
    finally:
        del hub.handle_error
        logging.getLogger().removeHandler(complaints)
    failures += [f"{record.name}: {record.getMessage()} {record.exc_info}" for record in complaints.records]
    if request.node.get_closest_marker("complains"):
        assert failures, "nothing was logged"
    else:
        assert not failures, failures


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test's clients have done is news again in the next one."""
    monkeypatch.setattr("engineio_wsgi.log._told", Throttle(TOLD_PERIOD))


@pytest.fixture(autouse=True)
def hang_up() -> Iterator[None]:
    """No connection of a test's client outlives the test."""
    yield
    HttpConnection.close_all()


@pytest.fixture(autouse=True)
def deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whoever hangs fails."""
    marker = request.node.get_closest_marker("deadline")
    with gevent.Timeout(marker.args[0] if marker else DEADLINE):
        yield


Serve = Callable[..., Served]


@pytest.fixture
def serve(handler: str, request: pytest.FixtureRequest) -> Iterator[Serve]:
    """A factory of running servers: ``serve(app="echo", **options)``; see `support.serving.LocalServer`."""
    running: list[Any] = []

    def start(app: str | None = "echo", **options: Any) -> Served:
        if options.get("server") is None:
            options.setdefault("allow_eio3", True)
        if handler == "reference":
            running.append(ReferenceServer(app, **options))
        elif handler == "crossing":
            running.append(CrossingServer(app, **options))
        elif handler == "crossing-machines":
            running.append(CrossingServer(app, cluster=request.getfixturevalue("shared_redis").url, **options))
        else:
            running.append(LocalServer(app, handler, **options))
        served: Served = running[-1].served
        return served

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests that do it no harm."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate for 127.0.0.1 and its key: the names of their files."""
    folder = tmp_path_factory.mktemp("tls")
    certfile, keyfile = str(folder / "cert.pem"), str(folder / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        keyfile,
        "-out",
        certfile,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return {"certfile": certfile, "keyfile": keyfile}
