"""The files of examples/deploy: that they agree with each other and with the engine, and that what they start does start."""

from __future__ import annotations

import configparser
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from gevent import socket
from support.deployment import DEPLOY, UNIX_SOCKET, Program, is_reachable, replaced
from support.manual import Shell
from support.processes import ROOT

import engineio_wsgi

OPTIONS = engineio_wsgi.Server().options
#: seconds after which the engine itself gives a silent client up
PATIENCE = OPTIONS.ping_interval + OPTIONS.ping_timeout
GUNICORN: dict[str, Any] = runpy.run_path(str(DEPLOY / "gunicorn.conf.py"))
NGINX = (DEPLOY / "nginx.conf").read_text()
HAPROXY = (DEPLOY / "haproxy.cfg").read_text()
CADDY = (DEPLOY / "Caddyfile").read_text()
TRAEFIK = (DEPLOY / "traefik-engineio.yaml").read_text()
#: the home of a user who has none, where nobody can make one
NOWHERE = "/proc/nowhere"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def read_unit(name: str = "engineio.service") -> configparser.ConfigParser:
    """A unit, whose keys are case-sensitive."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / name)
    return unit


def read_dockerfile() -> list[tuple[str, str]]:
    """Instructions and what follows them; none goes over several lines."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    split = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(instruction, rest) for instruction, _, rest in split]


UNIT = read_unit()
SOCKET_UNIT = read_unit("engineio.socket")
DOCKERFILE = read_dockerfile()


def of_dockerfile(instruction: str) -> str:
    """What follows an instruction that is there once."""
    found = [rest for name, rest in DOCKERFILE if name == instruction]
    assert len(found) == 1
    return found[0]


def seconds(pattern: str, text: str) -> float:
    """A time of a configuration file."""
    match = re.search(rf"^\s*{pattern}\s+(\d+)s;?$", text, re.MULTILINE)
    assert match, pattern
    return float(match[1])


# -- what has to fit

@pytest.mark.parametrize("name", ["proxy_read_timeout", "proxy_send_timeout"])
def test_nginx_waits_longer_than_the_engine(name: str) -> None:
    assert seconds(name, NGINX) > PATIENCE


@pytest.mark.parametrize("name", ["client", "server", "tunnel", "http-keep-alive"])
def test_haproxy_waits_longer_than_the_engine(name: str) -> None:
    assert seconds(f"timeout {name}", HAPROXY) > PATIENCE


def test_idle_connections_end_at_the_proxy_first() -> None:
    assert seconds("keepalive_timeout", NGINX) < GUNICORN["keepalive"]
    assert seconds("keepalive", CADDY) < GUNICORN["keepalive"]
    assert seconds("idleConnTimeout:", TRAEFIK) < GUNICORN["keepalive"]


def test_nginx_lets_the_engine_refuse_what_is_too_large() -> None:
    sizes = {size for _, size in re.findall(r"client_(max_body|body_buffer)_size (\w+);", NGINX)}
    assert sizes == {"1m"}
    assert OPTIONS.max_http_buffer_size <= 1024 * 1024


def test_whoever_stops_it_waits_longer_than_gunicorn() -> None:
    assert int(UNIT["Service"]["TimeoutStopSec"]) > GUNICORN["graceful_timeout"]
    assert int(COMPOSE["services"]["app"]["stop_grace_period"].removesuffix("s")) > GUNICORN["graceful_timeout"]


def test_there_are_files_enough_for_the_clients() -> None:
    clients = GUNICORN["worker_connections"]
    assert int(UNIT["Service"]["LimitNOFILE"]) > clients
    assert COMPOSE["services"]["app"]["ulimits"]["nofile"] > clients
    files = re.search(r"worker_rlimit_nofile (\d+);", NGINX)
    connections = re.search(r"worker_connections (\d+);", NGINX)
    assert files and connections
    assert int(files[1]) > int(connections[1]) > 2 * clients, "two for each client"
    assert COMPOSE["services"]["nginx"]["ulimits"]["nofile"] >= int(files[1])


def test_all_mean_the_same_socket() -> None:
    folder = str(Path(UNIX_SOCKET).parent)
    assert f" --bind unix:{UNIX_SOCKET} " in UNIT["Service"]["ExecStart"]
    assert f'"--bind", "unix:{UNIX_SOCKET}",' in of_dockerfile("CMD")
    assert f"server unix:{UNIX_SOCKET} " in NGINX
    assert f"unix@{UNIX_SOCKET} " in HAPROXY
    assert f"reverse_proxy unix/{UNIX_SOCKET} " in CADDY
    assert SOCKET_UNIT["Socket"]["ListenStream"] == UNIX_SOCKET
    # systemd makes the folder for the socket before the service has one
    assert UNIT["Service"]["RuntimeDirectoryPreserve"] == "yes"
    assert UNIT["Service"]["RuntimeDirectory"] == folder.removeprefix("/run/")
    assert any(name == "RUN" and f" {folder} " in f"{rest} " for name, rest in DOCKERFILE)
    for service in COMPOSE["services"].values():
        assert f"socket:{folder}" in service["volumes"]


# -- Docker, without its engine

def test_compose_file() -> None:
    """That it says what Compose would understand: there is no Docker here to ask."""
    services = COMPOSE["services"]
    assert set(services) == {"app", "nginx"}
    assert (DEPLOY / services["app"]["build"] / "Dockerfile").is_file()
    for service in services.values():
        for source, *_ in (volume.split(":") for volume in service["volumes"]):
            assert (DEPLOY / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]
    assert services["nginx"]["depends_on"] == {"app": {"condition": "service_healthy"}}
    assert of_dockerfile("HEALTHCHECK"), "what makes a container healthy"
    assert [port.partition(":")[2] for port in services["nginx"]["ports"]] == ["80"]
    assert "listen 80;" in NGINX
    assert "ports" not in services["app"], "whoever reaches it may claim any address"


def test_dockerfile_installs_what_there_is() -> None:
    [install] = [rest for name, rest in DOCKERFILE if name == "RUN" and "pip install" in rest]
    [requirement] = [word for word in shlex.split(install) if "[" in word]
    match = re.fullmatch(r"(\S+)\[(\S+)\]", requirement)
    assert match
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert match[1] == setup["metadata"]["name"]
    assert {"flask", "gunicorn"} == set(match[2].split(",")) <= set(setup["options.extras_require"])


class Image:
    """A folder in which the Dockerfile's instructions are carried out, one after the other, in a virtual environment.

    Of what Docker would do, it lacks another root, so paths and the user are replaced; and ``pip install`` takes what this Python
    has.
    """

    def __init__(self, folder: Path, run: Path) -> None:
        self._root = folder / "image"
        self._run = run
        self.shell = Shell(folder)
        self.shell.type("python -m venv .venv")
        self.shell.type(". .venv/bin/activate")
        self.user = "root"
        self.command: list[str] = []
        for instruction, rest in DOCKERFILE:
            _INSTRUCTIONS[instruction](self, rest)

    def from_(self, rest: str) -> None:
        """The base image: of a Python that is supported. This Python takes its place."""
        match = re.fullmatch(r"python:(3\.\d+)-slim", rest)
        assert match
        assert f"Programming Language :: Python :: {match[1]}\n" in (ROOT / "setup.cfg").read_text()

    def run(self, rest: str) -> None:
        """A command."""
        if "pip install" in rest:
            *_, requirement = shlex.split(rest)
            self.shell.type(f"pip install '{requirement}'")
            return
        accounts = self._root / "accounts"
        (accounts / "etc").mkdir(parents=True)
        for name in ("passwd", "group", "shadow", "gshadow"):
            (accounts / "etc" / name).touch()
        # only root may add users, even to a folder
        add = f"useradd --prefix {accounts} " if os.geteuid() == 0 else ": "
        self.shell.type(replaced(rest, {"useradd ": add, "-o engineio -g engineio": f"-o {os.geteuid()} -g {os.getegid()}",
                                        "/run/engineio": str(self._run)}))
        if os.geteuid() == 0:
            assert (accounts / "etc" / "passwd").read_text().startswith("engineio:")

    def workdir(self, rest: str) -> None:
        """The folder of what follows."""
        self.shell.type(f"mkdir -p {self._root}{rest}")
        self.shell.type(f"cd {self._root}{rest}")

    def copy(self, rest: str) -> None:
        """Files of the example."""
        *sources, target = rest.split()
        for source in sources:
            shutil.copy(DEPLOY / source, self.shell.folder / target)

    def user_(self, rest: str) -> None:
        """Who runs it: one that was added."""
        assert any(name == "RUN" and f"useradd --system {rest} " in text for name, text in DOCKERFILE)
        self.user = rest

    def cmd(self, rest: str) -> None:
        """What a container runs."""
        self.command = json.loads(replaced(rest, {"/run/engineio": str(self._run)}))

    def said_elsewhere(self, rest: str) -> None:
        """What the tests below look at."""


_INSTRUCTIONS: dict[str, Callable[[Image, str], None]] = {
    "FROM": Image.from_, "RUN": Image.run, "WORKDIR": Image.workdir, "COPY": Image.copy, "USER": Image.user_, "CMD": Image.cmd,
    "STOPSIGNAL": Image.said_elsewhere, "HEALTHCHECK": Image.said_elsewhere,
}  # fmt: skip


@pytest.fixture
def container(tmp_path: Path, short_folder: Path) -> Iterator[Program]:
    """The image's command, among what the instructions before it have made."""
    image = Image(tmp_path, short_folder / "run")
    assert image.user != "root"
    assert {path.name for path in image.shell.folder.iterdir()} == {"app.py", "gunicorn.conf.py"}
    program, *arguments = image.command
    path = image.shell.type(f"command -v {program}").output.strip()
    assert Path(path).parent.parent.name == ".venv", "it was installed"
    running = Program(tmp_path / "logs", [path, *arguments], lambda: is_reachable(f"unix:{short_folder}/run/gunicorn.sock"),
                      cwd=image.shell.folder, HOME=NOWHERE)
    yield running
    running.stop()


def is_healthy(address: str) -> bool:
    """What the image's health check says."""
    _, _, text = of_dockerfile("HEALTHCHECK").partition("CMD ")
    command = json.loads(replaced(text, {UNIX_SOCKET: address.removeprefix("unix:")}))
    assert command[0] == "python"
    return subprocess.run([sys.executable, *command[1:]], stderr=subprocess.DEVNULL, timeout=120).returncode == 0


def test_container(container: Program, short_folder: Path) -> None:
    address = f"unix:{short_folder}/run/gunicorn.sock"
    container.wait_for("Using worker: engineio_wsgi.gunicorn.Worker")
    assert is_healthy(address)
    mode = Path(address.removeprefix("unix:")).stat().st_mode
    assert mode & stat.S_IWOTH, "nginx is another user"
    container.signal(signal.Signals[of_dockerfile("STOPSIGNAL")])
    assert container.wait() == 0
    assert not is_healthy(address)
    assert not container.complaints()


# -- systemd

def test_unit_is_one(tmp_path: Path) -> None:
    """systemd's own check, where there is one, has nothing to say."""
    copy = tmp_path / "engineio.service"
    copy.write_text(replaced((DEPLOY / "engineio.service").read_text(), {"/srv/engineio/venv/bin/gunicorn": sys.executable}))
    listening = shutil.copy(DEPLOY / "engineio.socket", tmp_path)
    if checker := shutil.which("systemd-analyze"):
        checked = subprocess.run([checker, "verify", str(copy), str(listening)], capture_output=True, text=True, timeout=300)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert set(UNIT.sections()) == {"Unit", "Service", "Install"}
    assert set(SOCKET_UNIT.sections()) == {"Unit", "Socket", "Install"}


def test_unit_is_told_when_it_is_up(tmp_path: Path, short_folder: Path) -> None:
    """``Type=notify``: what systemd waits for is said. Reload and stop are what gunicorn understands them to be."""
    service = UNIT["Service"]
    assert (service["Type"], service["WorkingDirectory"]) == ("notify", "/srv/engineio")
    address = f"unix:{short_folder}/unit"
    program, *arguments = shlex.split(replaced(service["ExecStart"], {f"unix:{UNIX_SOCKET}": address}))
    assert program.endswith("/gunicorn")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(f"{short_folder}/notify")
        notified.settimeout(60)
        running = Program(tmp_path / "logs", [sys.executable, "-m", "gunicorn", *arguments], lambda: is_reachable(address),
                          NOTIFY_SOCKET=f"{short_folder}/notify", HOME=NOWHERE)
        try:
            assert b"READY=1" in notified.recv(1000)
            assert is_healthy(address), "gunicorn's workers miss a signal that comes while they start"
            *_, name, process = shlex.split(service["ExecReload"])
            assert process == "$MAINPID"
            running.signal(signal.Signals[f"SIG{name}"])
            running.wait_for("Hang up: Master")
            running.until(lambda: running.logs().count("Booting worker") == 2)
            running.wait_for(r"Worker exiting \(pid")
            assert is_healthy(address)
            running.signal(signal.SIGTERM)
            assert running.wait() == 0
            assert not running.complaints()
        finally:
            running.stop()


@pytest.mark.parametrize("server", ["gunicorn", "serve"])
def test_socket_activation(tmp_path: Path, short_folder: Path, server: str) -> None:
    """gunicorn serves systemd's socket, whatever ``--bind`` says, and leaves its file where it is. So does the command."""
    activate = shutil.which("systemd-socket-activate")
    assert activate, "systemd is not installed: tests/prepare.sh does it as root"
    path = short_folder / f"activated-{server}"
    _, *arguments = shlex.split(UNIT["Service"]["ExecStart"])
    modules = {"gunicorn": ["gunicorn", *arguments], "serve": ["engineio_wsgi", "serve", "app:app"]}
    # it gives the program only the variables that it is told to
    command = [activate, f"--listen={path}", "--setenv=PYTHONPATH", "--setenv=HOME", sys.executable, "-m", *modules[server]]
    running = Program(tmp_path / "logs", command, path.exists, HOME=NOWHERE)
    try:
        # the program is started for it, and it waits meanwhile
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(path))
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert b" 200 " in client.recv(64)
        running.wait_for(f"(Listening at:|listens on) unix:{path}")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        assert path.exists()
        assert not running.complaints()
    finally:
        running.stop()
