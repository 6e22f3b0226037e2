"""Runs the files of examples/deploy: the application under gunicorn or gevent, and a proxy in front of it.

The files are used unchanged, except for addresses and the names of files and folders.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gevent import socket, ssl

from support.processes import ROOT, ServerProcess
from support.rawhttp import PATIENCE, HttpConnection
from support.serving import EventLog, Served

DEPLOY = ROOT / "examples" / "deploy"
UNIX_SOCKET = "/run/engineio/gunicorn.sock"
#: where tests/prepare.sh puts Traefik
TRAEFIK = ROOT / "tests" / "upstream" / "traefik" / "bin"
#: seconds that a minute of a hurried proxy takes: a ping that is this late on a slow machine would be too late
HURRIED = 3
#: what nginx logs about clients that misbehave, as some tests' clients do on purpose
TOO_LARGE = "client intended to send too large body: 2000000 bytes"
#: an address of this machine that no proxy here has
CLIENT = "127.0.0.2"

GEVENT = """
import sys
from gevent import socket
from gevent.pywsgi import WSGIServer
from engineio_wsgi import WebSocketHandler
from app import app
address = sys.argv[1]
listener = socket.socket(socket.AF_UNIX if address.startswith("unix:") else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
host, _, port = address.removeprefix("unix:").partition(":")
listener.bind((host, int(port)) if port else host)
listener.listen(100)
WSGIServer(listener, app, handler_class=WebSocketHandler, log=None).serve_forever()
"""


def free_port() -> int:
    """A port of the loopback address on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def replaced(text: str, replacements: dict[str, str]) -> str:
    """A file's text with other addresses; each of those that are replaced has to be there once."""
    for old, new in replacements.items():
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the file"
        text = text.replace(old, new)
    return text


def is_reachable(address: str) -> bool:
    """Whether a process listens on ``unix:PATH`` or ``HOST:PORT``."""
    host, _, port = address.removeprefix("unix:").partition(":")
    with socket.socket(socket.AF_INET if port else socket.AF_UNIX) as probe:
        try:
            probe.connect((host, int(port)) if port else host)
        except OSError:
            return False
        return True


class Program(ServerProcess):
    """Any server, from its start until it listens.

    Args:
        folder: for its logs.
        command: the program and its arguments.
        ready: whether it listens.
        cwd: where it is started.
        environment: variables that it has beside those of this process.
    """

    def __init__(self, folder: Path, command: list[str], ready: Callable[[], bool], *, cwd: Path = DEPLOY,
                 **environment: str) -> None:
        folder.mkdir(exist_ok=True)
        self.error_log, self.output = folder / "error.log", folder / "output.log"
        self.error_log.touch()
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder),
                   **environment}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=cwd, env=environ, stdout=output, stderr=subprocess.STDOUT,
                                            start_new_session=True)
        try:
            self.until(ready, self.logs)
        except BaseException:
            self.stop()
            raise


class Backend(Program):
    """examples/deploy/app.py.

    Args:
        folder: for its logs.
        how: ``"worker"`` (gunicorn, as gunicorn.conf.py says), ``"gevent"`` (gunicorn's worker of this name) or ``"server"``
            (gevent's).
        address: ``unix:PATH`` or ``HOST:PORT``.
        workers: how many of gunicorn's.
        options: the engine's.
    """

    def __init__(self, folder: Path, how: str, address: str, *, workers: int = 1, **options: float | str) -> None:
        gunicorn = [sys.executable, "-m", "gunicorn", "-b", address, "-w", str(workers), "app:app"]
        commands = {
            "worker": gunicorn,
            "gevent": [*gunicorn, "-k", "gevent"],
            "server": [sys.executable, "-c", GEVENT, address],
        }
        self.kind = how
        super().__init__(folder, commands[how], lambda: is_reachable(address),
                         **{f"ENGINEIO_{name.upper()}": str(value) for name, value in options.items()})


class Proxy(Program):
    """nginx, HAProxy, Caddy or Traefik with the configuration of examples/deploy.

    Args:
        folder: for its configuration and logs.
        kind: ``"nginx"``, ``"haproxy"``, ``"caddy"`` or ``"traefik"``.
        backend: ``unix:PATH`` or ``HOST:PORT``.
        certificate: ``certfile`` and ``keyfile``; with them the lines about TLS count, too.
        hurried: whether a minute of the file takes :data:`HURRIED` seconds.

    Attributes:
        served: what listens for HTTP.
        secured: what listens for HTTPS.
    """

    def __init__(self, folder: Path, kind: str, backend: str, certificate: dict[str, str], *, hurried: bool = False) -> None:
        program = shutil.which(kind) or shutil.which(kind, path=f"/usr/sbin:/usr/local/sbin:{TRAEFIK}")
        assert program, f"{kind} is not installed: tests/prepare.sh does it, mostly as root"
        folder.mkdir(exist_ok=True)
        self.kind = kind
        plain, secure = free_port(), free_port()
        write, self.configuration = {"nginx": (nginx_configuration, folder / "nginx.conf"),
                                     "haproxy": (haproxy_configuration, folder / "haproxy.cfg"),
                                     "caddy": (caddy_configuration, folder / "Caddyfile"),
                                     "traefik": (traefik_configuration, folder / "traefik.yaml")}[kind]
        text = write(folder, backend, plain, secure, certificate)
        self.configuration.write_text(re.sub(r"\b60s\b", f"{HURRIED}s", text) if hurried else text)
        self.served = Site(("127.0.0.1", plain))
        super().__init__(folder, [program, *self._arguments(folder)], self._is_ready, cwd=folder)
        self.secured = Site(("127.0.0.1", secure), ssl.create_default_context(cafile=certificate["certfile"]))

    def _is_ready(self) -> bool:
        # Traefik listens before it has read its other file, and answers 404 meanwhile
        return is_reachable("{}:{}".format(*self.served.address)) and (
            self.kind != "traefik" or self.served.connect().get("/health").status != 404)

    def _arguments(self, folder: Path) -> list[str]:
        if self.kind == "haproxy":
            return ["-db", "-f", str(self.configuration)]
        if self.kind == "caddy":
            return ["run", "--config", str(self.configuration), "--adapter", "caddyfile"]
        if self.kind == "traefik":
            return [f"--configfile={self.configuration}"]
        # under another user, its processes could not enter the test's folders
        user = " user root;" if os.geteuid() == 0 else ""
        return ["-e", str(folder / "error.log"), "-c", str(self.configuration), "-g", f"daemon off;{user}"]

    def complaints(self) -> list[str]:
        """The lines of the logs that report a failure."""
        return [line for line in self.logs().splitlines()
                if re.search(r'\[(warn|warning|error|crit|alert|emerg)\]|\bDOWN\b|"level":"(error|fatal|panic)"', line,
                             re.IGNORECASE)
                and TOO_LARGE not in line]


def nginx_configuration(folder: Path, backend: str, plain: int, secure: int, certificate: dict[str, str]) -> str:
    """nginx.conf with the addresses of a test."""
    kept = "".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = (DEPLOY / "nginx.conf").read_text()
    return replaced(text, {
        "pid /run/": f"pid {folder}/",
        "error_log /var/log/nginx/": f"error_log {folder}/",
        "access_log /var/log/nginx/": f"access_log {folder}/",
        "http {\n": f"http {{\n{kept}\n",
        f"server unix:{UNIX_SOCKET}": f"server {backend}",
        # a small buffer in the kernel: what a slow client has not taken is in nginx
        "listen 80;": f"listen 127.0.0.1:{plain} sndbuf=16k;",
        "#listen 443 ssl;": f"listen 127.0.0.1:{secure} ssl;",
        "#ssl_certificate /etc/ssl/certs/site.pem;": f"ssl_certificate {certificate['certfile']};",
        "#ssl_certificate_key /etc/ssl/private/site.key;": f"ssl_certificate_key {certificate['keyfile']};",
    })


def haproxy_configuration(folder: Path, backend: str, plain: int, secure: int, certificate: dict[str, str]) -> str:
    """haproxy.cfg with the addresses of a test."""
    both = folder / "site.pem"
    both.write_text(Path(certificate["certfile"]).read_text() + Path(certificate["keyfile"]).read_text())
    return replaced((DEPLOY / "haproxy.cfg").read_text(), {
        f"server gunicorn unix@{UNIX_SOCKET}": f"server gunicorn {backend.replace('unix:', 'unix@')}",
        "bind :80\n": f"bind 127.0.0.1:{plain}\n",
        "#bind :443 ssl crt /etc/haproxy/site.pem": f"bind 127.0.0.1:{secure} ssl crt {both}",
    })


def caddy_configuration(folder: Path, backend: str, plain: int, secure: int, certificate: dict[str, str]) -> str:
    """Caddyfile with the addresses of a test. Each Caddy keeps its own files, and its administration is off: it has one port."""
    text = (DEPLOY / "Caddyfile").read_text()
    text = replaced(text, {
        "# Caddy in front": f"{{\nadmin off\nstorage file_system {folder}/storage\n# Caddy in front",
        f"reverse_proxy unix/{UNIX_SOCKET}": f"reverse_proxy {backend.replace('unix:', 'unix/')}",
        "/var/log/caddy/": f"{folder}/",
        ":80 {\n": f"http://:{plain} {{\nbind 127.0.0.1\n",
        "#:443 {\n#\ttls /etc/ssl/certs/site.pem /etc/ssl/private/site.key\n#\timport engineio\n#}":
            f":{secure} {{\nbind 127.0.0.1\n"
            f"tls {certificate['certfile']} {certificate['keyfile']}\nimport engineio\n}}",
    })
    # the global options are one block
    return re.sub(r"(# Caddy in front.*\n)\{\n", r"\1", text, count=1)


def traefik_configuration(folder: Path, backend: str, plain: int, secure: int, certificate: dict[str, str]) -> str:
    """traefik.yaml with the addresses of a test. The other file is written beside it."""
    other = replaced((DEPLOY / "traefik-engineio.yaml").read_text(), {
        'url: "http://127.0.0.1:8000"': f'url: "http://{backend}"',
        "#tls:\n#  certificates:\n#    - certFile: /etc/ssl/certs/site.pem\n#      keyFile: /etc/ssl/private/site.key\n":
            f"tls: {{certificates: [{{certFile: {certificate['certfile']}, keyFile: {certificate['keyfile']}}}]}}\n",
    })
    (folder / "traefik-engineio.yaml").write_text(other)
    return replaced((DEPLOY / "traefik.yaml").read_text(), {
        'address: ":80"': f'address: "127.0.0.1:{plain}"',
        "  #websecure:\n  #  address: \":443\"\n  #  http:\n  #    tls: {}\n":
            f'  websecure:\n    address: "127.0.0.1:{secure}"\n    http:\n      tls: {{}}\n',
        "filename: /etc/traefik/": f"filename: {folder}/",
    })


class Site(Served):
    """The deployed site, as a client sees it: its proxy. Clients connect from the address `CLIENT`."""

    def __init__(self, address: tuple[str, int], tls: Any = None) -> None:
        super().__init__(address, EventLog(), handler="proxied")
        self._tls = tls

    @property
    def origin(self) -> str:
        """The origin of the site's pages."""
        return "{}://{}:{}".format("https" if self._tls else "http", *self.address)

    def connect(self, **options: Any) -> HttpConnection:
        """A new connection."""
        return _ConnectionFrom(CLIENT, self.address, **({"tls": self._tls} if self._tls is not None else {}), **options)

    def is_up(self) -> bool:
        """Whether a request is answered."""
        try:
            connection = self.connect()
            connection.get("/")
            connection.close()
        except OSError:
            return False
        return True

    def settle(self) -> None:
        """Return when the server has seen what was sent before, over whichever way it took: after a few round trips."""
        for _ in range(3):
            assert self.is_up()

    def ask(self) -> dict[str, Any]:
        """The state of the application, and what it sees of the request: ``url``, ``address``, ``sessions``."""
        connection = self.connect()
        content: dict[str, Any] = json.loads(connection.get("/").body)
        connection.close()
        return content


class _ConnectionFrom(HttpConnection):
    """A connection from an address of the test's choice."""

    def __init__(self, source: str, address: tuple[str, int], *, tls: Any = None, receive_buffer: int | None = None) -> None:
        # the base class connects and sends nothing, which some servers log
        self.address, self.buffer, self.method = address, b"", "GET"
        self.sock = socket.socket()
        self.opened.append(self)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        self.sock.bind((source, 0))
        self.sock.connect(address)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname=address[0])
