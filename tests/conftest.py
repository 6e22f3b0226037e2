"""Fixtures of the suites that talk to a running server. Their parts are in support/."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from support.crossing import CrossingServer
from support.outposts import KINDS, Outposts
from support.rawhttp import HttpConnection
from support.redis import RedisServer
from support.reference import ENABLED as REFERENCE
from support.reference import ReferenceServer
from support.serving import LocalServer, Served

from engineio_wsgi.log import Throttle

#: seconds after which a test that hangs is failed
DEADLINE = 300.0
#: with TEST_CROSSING=yes, every request for a session comes to another worker than the session's: each kind of server, and one
#: that is on another machine
CROSSING = bool(os.environ.get("TEST_CROSSING"))
HANDLERS = ["reference"] if REFERENCE else [*KINDS, "machines"] if CROSSING else ["ours", "stock", "laneless"]
#: the suites with polling, which run a second time without the lane of our handler
ON_THE_LANE = ("backpressure", "broadcast", "closing", "cors", "eio3", "groups", "handlers", "heartbeat", "hostile_sessions",
               "http_limits", "jsonp", "late_loop", "liveness", "logging", "metrics", "polling", "polling_compression", "quotas",
               "refusals", "upgrade", "upgrade_invariant")  # fmt: skip
MARKERS = (
    "ours: uses the Python API of our server, so there is nothing to compare with the reference server",
    "differs(why): our server behaves otherwise than the reference server, on purpose",
    "own_handler: gevent-websocket's handler leaves no room for it",
    "own_loop(why): a loop of gunicorn's that reads HTTP itself does it otherwise",
    "alone(why): a second worker would see something else",
    "near(why): a request that is relayed would see something else",
    "complains: errors are logged, and the test says so",
    "deadline(seconds): the test may take longer than others",
)


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # a shell's background job has it ignored, and so would every program that a test starts and interrupts
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # no test fails because the machine is slow; and in a fresh clone the first example takes seconds, for tables that are kept
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that do not apply to the server under test: the reference server, or a worker of a cluster."""
    left_out = [item for item in items if not _is_meant(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


#: by the server under test: the markers of the tests that do not apply to it
_NOT_FOR = {
    "reference": ("ours", "differs", "own_handler"),
    "stock": ("own_handler",),
    # their listeners are not the owner's, so requests for the owner are relayed
    "gunicorn": ("alone", "near"),
    "gevent": ("alone", "own_loop", "near"),
    "gevent_pywsgi": ("alone", "own_loop", "near"),
    "plain": ("alone",),
    "machines": ("alone", "near"),
}


def _is_meant(item: Any) -> bool:
    """Whether a test applies to its server. With ``TEST_CROSSING``, tests without a server do not run."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    handler = parameters.get("handler", "reference" if REFERENCE else "nothing")
    if CROSSING and handler == "nothing":
        return False
    if handler == "laneless" and item.module.__name__.rpartition("test_")[2] not in ON_THE_LANE:
        return False
    return not any(map(item.get_closest_marker, _NOT_FOR.get(handler, ())))


@pytest.fixture(params=HANDLERS)
def handler(request: pytest.FixtureRequest) -> str:
    """The server under test: our own handler with its lane and without it, gevent-websocket's, or a cluster's."""
    return str(request.param)


@pytest.fixture(params=["polling", "websocket"])
def transport(request: pytest.FixtureRequest) -> str:
    """The transport, for tests that run over both."""
    return str(request.param)


@pytest.fixture(params=[4, 3], ids=["eio4", "eio3"])
def eio(request: pytest.FixtureRequest) -> int:
    """The protocol revision, for tests that run with both."""
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
    """Check that no error was logged and no greenlet failed: a bad client must not cause a traceback."""
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
    """Forget the violations that were logged, so that each test's are logged again."""
    monkeypatch.setattr("engineio_wsgi.log._violations", Throttle())


@pytest.fixture(autouse=True)
def hang_up() -> Iterator[None]:
    """Close the connections of a test's clients after the test."""
    yield
    HttpConnection.close_all()


@pytest.fixture(autouse=True)
def deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that hangs."""
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
        elif CROSSING:
            cluster = request.getfixturevalue("shared_redis").url if handler == "machines" else f"local:{os.getpid()}"
            running.append(CrossingServer(app, request.getfixturevalue("outposts")(handler), cluster=cluster, **options))
        else:
            running.append(LocalServer(app, handler, **options))
        served: Served = running[-1].served
        return served

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def outposts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Outposts]]:
    """A factory of workers under a kind of server, which are started once."""
    started: dict[str, Outposts] = {}

    def start(kind: str) -> Outposts:
        if kind not in started:
            far = kind == "machines"
            started[kind] = Outposts(tmp_path_factory.mktemp(kind), "plain" if far else kind, apart=far)
        return started[kind]

    yield start
    for running in started.values():
        running.stop()


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for a Unix socket's, which has 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="engineio"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for all tests that neither stop nor reconfigure it."""
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
