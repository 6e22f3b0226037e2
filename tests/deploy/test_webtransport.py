"""WebTransport beside servers with several workers: gunicorn's, from a hook, and those of the command ``serve``."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
from support.clients import open_session
from support.deployment import free_port
from support.processes import ROOT, ServerProcess
from support.webtransport import Client, make_certificate

WORKERS = 3
OPTIONS = {"transports": ["polling", "websocket", "webtransport"]}
CONFIGURATION = """
from engineio_wsgi import WebTransportServer

def post_worker_init(worker):
    WebTransportServer({address}, worker.wsgi, certfile={certfile!r}, keyfile={keyfile!r}, shared=True).start()
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_certificate(tmp_path_factory.mktemp("webtransport"))


@pytest.fixture(params=["gunicorn", "serve"])
def server(request: pytest.FixtureRequest, tmp_path: Path, certificate: dict[str, str]) -> Iterator[ServerProcess]:
    """A server with three workers, TLS, and WebTransport on the UDP port with the same number."""
    context = ssl.create_default_context(cafile=certificate["certfile"])
    tls = ("--certfile", certificate["certfile"], "--keyfile", certificate["keyfile"])
    if request.param == "serve":
        running = ServerProcess(tmp_path, "serve", *tls, "--workers", str(WORKERS), "--webtransport", tls=context)
    else:
        port = free_port()
        configuration = tmp_path / "hooks.py"
        configuration.write_text(CONFIGURATION.format(address=("127.0.0.1", port), **certificate))
        running = ServerProcess(tmp_path, "engineio_wsgi.gunicorn.Worker", *tls, "-w", str(WORKERS), "-c", str(configuration),
                                bind=f"127.0.0.1:{port}", options=OPTIONS, tls=context)  # fmt: skip
    yield running
    running.stop()
    assert not running.complaints(), running.logs()


@pytest.mark.deadline(600)
def test_clients_of_several_workers(server: ServerProcess) -> None:
    clients, streams, workers = [], [], set()
    # the kernel may give one worker many clients in a row
    while len(workers) < 2:
        clients.append(Client(server.served.address))
        streams.append(clients[-1].open())
        # a session id begins with its worker's
        workers.add(streams[-1].handshake()["sid"][:4])
    for _ in range(3):
        for client, stream in zip(clients, streams, strict=True):
            client.move()
            assert stream.send("4from elsewhere").packet() == "4from elsewhere"
    for client in clients:
        client.close()


@pytest.mark.deadline(600)
def test_upgrades_whichever_worker_has_the_session(server: ServerProcess) -> None:
    clients = []
    for number in range(6):
        session = open_session(server.served, "polling")
        assert session.info["upgrades"] == ["websocket", "webtransport"]
        clients.append(Client(server.served.address))
        stream = clients[-1].open().send(f'0{{"sid":"{session.sid}"}}', "2probe")
        assert stream.packet() == "3probe"
        stream.send("5", f"4{number}", bytes(100_000))
        assert [stream.packet(), stream.packet()] == [f"4{number}", bytes(100_000)]
        session.getting.close()
    for client in clients:
        client.close()


@pytest.mark.deadline(600)
def test_sessions_are_closed_when_the_server_stops(server: ServerProcess) -> None:
    streams = [Client(server.served.address).open() for _ in range(4)]
    for stream in streams:
        stream.handshake()
    server.signal(SIGTERM)
    for stream in streams:
        assert stream.wait_closed() == (1001, "server shutting down")
        stream.client.stop()
    assert server.wait() == 0


@pytest.mark.parametrize(("arguments", "said"), [
    (("--webtransport",), "--webtransport needs --certfile: HTTP/3 is always encrypted"),
    (("--webtransport", "--certfile", "cert.pem", "--keyfile", "key.pem", "--transports", "polling"),
     "a WebTransportServer needs a server with transports=('polling', 'websocket', 'webtransport'); there is none"),
])  # fmt: skip
def test_what_the_flag_needs(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    make_certificate(tmp_path)
    (tmp_path / "app.py").write_text("import engineio_wsgi\napp = engineio_wsgi.Server().wrap(lambda environ, start: [])\n")
    done = _run(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (2, f"engineio-wsgi: {said}\n")


def test_without_aioquic(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    (tmp_path / "app.py").write_text("import sys\nsys.modules['aioquic'] = None\nimport engineio_wsgi\n"
                                     "app = engineio_wsgi.Server().wrap(lambda environ, start: [])\n")
    done = _run(tmp_path, "--webtransport", "--certfile", "cert.pem", "--keyfile", "key.pem")
    assert (done.returncode, done.stderr) == (
        2, "engineio-wsgi: a WebTransportServer needs aioquic: pip install 'engineio-wsgi[webtransport]'\n")


def _run(folder: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "engineio_wsgi", "serve", "app:app", "--bind", "127.0.0.1:0", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, timeout=60)
