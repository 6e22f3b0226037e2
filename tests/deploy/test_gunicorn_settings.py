"""Each of gunicorn's settings under our worker: honoured as gunicorn's own gevent worker does it, or refused by name.

The same bytes go to both workers; the statuses are the same, and what the application sees.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple

import pytest
from gevent import socket as gevent_socket
from gevent import ssl
from gunicorn.config import KNOWN_SETTINGS, Config
from support.clients import open_session
from support.processes import ROOT, ServerProcess
from support.rawhttp import HttpConnection, Response
from support.serving import EventLog, Served

from engineio_wsgi.gunicorn.settings import REFUSED, refusal

OURS, STOCK = "engineio_wsgi.gunicorn.Worker", "gevent"

#: answers with what it sees of a request; what differs with the server's own name or with the connection is left out
APPLICATION = '''
import json
import engineio_wsgi

server = engineio_wsgi.Server()

@server.on("connection")
def connected(socket):
    socket.on("message", socket.send)

def application(environ, start_response):
    seen = {key: value for key, value in environ.items() if type(value) is str}
    seen["body"] = environ["wsgi.input"].read().decode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]

app = server.wrap(application)
'''
#: of an environ, what is the connection's and the server's
PRIVATE = {"REMOTE_PORT", "SERVER_PORT", "SERVER_NAME", "HTTP_HOST", "SERVER_SOFTWARE", "GATEWAY_INTERFACE", "REMOTE_HOST"}
#: keys of the package's own
OWN = "engineio."


class Seen(NamedTuple):
    """What became of a request: the status, and what the application saw of it."""

    status: int
    environ: dict[str, str] | None


class Pair(NamedTuple):
    """The same application and settings under our worker and under gunicorn's."""

    ours: ServerProcess
    stock: ServerProcess

    def ask(self, request: bytes) -> Seen:
        """What both say to the same bytes on a connection of its own."""
        ours, stock = (ask(server, request) for server in self)
        assert ours == stock, f"{request!r}: ours {ours}, gunicorn's {stock}"
        return ours

    def statuses(self, request: bytes) -> tuple[int, int]:
        """The same where what they say may differ."""
        ours, stock = (ask(server, request).status for server in self)
        return ours, stock


def ask(server: ServerProcess, *requests: bytes) -> Seen:
    """The answer to the last of some requests on one connection."""
    connection = server.served.connect()
    found = [ask_on(connection, request) for request in requests]
    connection.close()
    return found[-1]


def ask_on(connection: HttpConnection, request: bytes) -> Seen:
    """The answer to one more request on a connection."""
    connection.send(request)
    return seen(connection.response())


def seen(response: Response) -> Seen:
    if response.status != 200:
        return Seen(response.status, None)
    content: dict[str, str] = response.json()
    return Seen(200, {key: value for key, value in content.items() if key not in PRIVATE and not key.startswith(OWN)})


def get(*fields: str, target: str = "/", line: str = "") -> bytes:
    """A request with these header fields."""
    return "\r\n".join([line or f"GET {target} HTTP/1.1", "Host: a", *fields, "", ""]).encode("latin-1")


def start_pair(folder: Path, settings: str) -> Iterator[Pair]:
    servers = []
    for kind in (OURS, STOCK):
        place = folder / kind
        place.mkdir()
        (place / "settings.py").write_text(settings)
        servers.append(ServerProcess(place, kind, "-c", "settings.py", application=APPLICATION))
    yield Pair(*servers)
    for server in servers:
        server.stop()


#: pairs by name. Each setting that a worker has to honour itself is in one of them, beside those in test_gunicorn_life
SETTINGS = {
    "default": "",
    "loose": """
raw_env = ["SCRIPT_NAME=/base"]
permit_obsolete_folding = True
strip_header_spaces = True
permit_unconventional_http_method = True
permit_unconventional_http_version = True
casefold_http_method = True
header_map = "dangerous"
limit_request_fields = 0
limit_request_field_size = 20000
limit_request_line = 0
forwarded_allow_ips = "127.0.0.0/8"
secure_scheme_headers = {"X-TLS": "yes"}
""",
    "strict": """
header_map = "refuse"
forwarder_headers = "X_ONE,SCRIPT_NAME"
limit_request_fields = 4
limit_request_field_size = 50
limit_request_line = 60
proxy_protocol = "auto"
""",
    "hooked": """
import os
from gunicorn.glogging import Logger

def pre_request(worker, request):
    os.write(1, f"before {request.method} {request.path} {dict(request.headers).get('X-A')}\\n".encode())
    assert request.path != "/fails"

def post_request(worker, request, environ, response):
    os.write(1, f"after {request.method} {environ.get('PATH_INFO')} {getattr(response, 'status', None)}\\n".encode())

class Own(Logger):
    def access(self, response, request, environ, request_time):
        os.write(1, f"own {environ.get('PATH_INFO')} {response.status}\\n".encode())

logger_class = Own
http_parser = "python"
proxy_protocol = "v2"
proxy_allow_ips = "192.0.2.1"
forwarded_allow_ips = "192.0.2.0/24"
limit_request_field_size = 0
""",
}


def pair_fixture(name: str) -> Any:
    @pytest.fixture(scope="module")
    def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
        yield from start_pair(tmp_path_factory.mktemp(name), SETTINGS[name])

    return pair


default, loose, strict, hooked = map(pair_fixture, SETTINGS)

TARGET = "/x%20y?q=1"
VERSION_2 = b"\r\n\r\n\0\r\nQUIT\n"
#: a PROXY header in bytes: from 203.0.113.9:5000 to 192.0.2.1:80
IN_BYTES = VERSION_2 + b"\x21\x11" + pack(">H4B4BHH", 12, 203, 0, 113, 9, 192, 0, 2, 1, 5000, 80)
OWN_CHECK = VERSION_2 + b"\x20\x00" + pack(">H", 0)


# -- what nobody has set

@pytest.mark.parametrize(("request_bytes", "status"), [
    (get(target=TARGET), 200),
    (get("X-A: b", "X-A: c", target=TARGET), 200),
    (get("SCRIPT_NAME: /x", target="/x/y"), 200),
    (get("SCRIPT_NAME: /x", target="/elsewhere"), 500),
    (get("Script-Name: /x", target="/x/y"), 200),
    (get("PATH_INFO: /other"), 200),
    (get("X_Unknown: dropped"), 200),
    (get("X-Forwarded-Proto: https"), 200),
    (get("X-Forwarded-Proto: https", "X-Forwarded-Proto: https"), 200),
    (get("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"), 400),
    (get(line="FOO / HTTP/1.1"), 200),
    (get(line="get / HTTP/1.1"), 400),
    (get(line="GO / HTTP/1.1"), 400),
    (get(line="GET / HTTP/1.2"), 200),
    (get(line="GET / HTTP/2.0"), 400),
    (get("X-A: 1\r\n 2"), 400),
    (get("X-A : 1"), 400),
    (get(*["X-A: 1"] * 99), 200),
    (get(*["X-A: 1"] * 100), 431),
    (get("X-A: " + "a" * 8183), 200),
    (get("X-A: " + "a" * 8184), 431),
    (get(*["X-A: " + "a" * 8000] * 60), 200),
    (get(target="/" + "a" * 4080), 200),
    (get(target="/" + "a" * 4081), 414),
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 5000 80\r\n" + get(), 400),
    (IN_BYTES + get(), 400),
])
def test_defaults(default: Pair, request_bytes: bytes, status: int) -> None:
    assert default.ask(request_bytes).status == status


def test_script_name_of_a_trusted_proxy(default: Pair) -> None:
    environ = default.ask(get("SCRIPT_NAME: /x", target="/x/y%20z")).environ
    assert environ is not None
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/x", "/y z")


# -- settings that let more through

@pytest.mark.parametrize(("request_bytes", "status"), [
    (get("X-A: 1\r\n 2", "X-B: 3", target="/base/"), 200),
    (get("X-A : 1", target="/base/"), 200),
    (get(line="get /base/ HTTP/1.1"), 200),
    (get(line="F#O /base/ HTTP/1.1"), 200),
    (get(line="A /base/ HTTP/1.1"), 200),
    (get(line="GET /base/ HTTP/2.0"), 200),
    (get(line="GET /base/ HTTP/0.9"), 200),
    (get(line="GET /base/ HTTP/1.11"), 400),
    (get("X_A: 1", "X-A: 2", target="/base/"), 200),
    (get(*["X-A: 1"] * 1000, target="/base/"), 200),
    (get("X-A: " + "a" * 19000, target="/base/"), 200),
    (get("X-A: " + "a" * 21000, target="/base/"), 431),
    (get(target="/base/" + "a" * 40000), 200),
    (get("X-TLS: yes", target="/base/"), 200),
    (get("X-Forwarded-Proto: https", target="/base/"), 200),
    (get(target="/elsewhere"), 500),
    (get("SCRIPT_NAME: /base/more", target="/base/more/page"), 200),
])
def test_loose_settings(loose: Pair, request_bytes: bytes, status: int) -> None:
    assert loose.ask(request_bytes).status == status


def test_folding_joins_the_lines(loose: Pair) -> None:
    environ = loose.ask(get("X-A: 1\r\n  2", target="/base/page")).environ
    assert environ is not None
    assert (environ["HTTP_X_A"], environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("1 2", "/base", "/page")


def test_engine_below_script_name(loose: Pair) -> None:
    served = Served(loose.ours.served.address, EventLog(), handler=OURS, path="/base/engine.io/")
    for way in ("polling", "websocket", "upgraded"):
        session = open_session(served, way)
        session.say("hello")
        assert session.hear() == "hello"
        session.close()


# -- settings that let less through

@pytest.mark.parametrize(("request_bytes", "status"), [
    (get("X_ONE: 1"), 200),
    (get("X_TWO: 1"), 400),
    (get("PATH_INFO: /other"), 400),
    (get("A: 1", "B: 1", "C: 1"), 200),
    (get("A: 1", "B: 1", "C: 1", "D: 1"), 431),
    (get("X: " + "a" * 45), 200),
    (get("X: " + "a" * 46), 431),
    (get(target="/" + "a" * 46), 200),
    (get(target="/" + "a" * 47), 414),
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 5000 80\r\n" + get("X_ONE: 1"), 200),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 80\r\n" + get(), 200),
    (b"PROXY UDP4 203.0.113.9 192.0.2.1 5000 80\r\n" + get(), 400),
    (b"PROXY TCP4 203.0.113.9\r\n" + get(), 400),
    (IN_BYTES + get(), 200),
    (IN_BYTES + get(line="get / HTTP/1.1"), 400),
])
def test_strict_settings(strict: Pair, request_bytes: bytes, status: int) -> None:
    assert strict.ask(request_bytes).status == status


def test_proxy_protocol_holds_for_the_connection(strict: Pair) -> None:
    """The header comes once; each request is the client's, in the access log, too."""
    for server in strict:
        found = ask(server, IN_BYTES + get(), get(), get()).environ
        assert found is not None
        assert (found["REMOTE_ADDR"], found["PROXY_PROTOCOL"], found["PROXY_ADDR"], found["PROXY_PORT"]) == (
            "203.0.113.9", "TCP4", "192.0.2.1", "80")
    strict.ours.until(lambda: strict.ours.access_log.read_text().count("203.0.113.9 - - ") >= 3)


def test_proxy_header_in_pieces(strict: Pair) -> None:
    for header in (IN_BYTES, b"PROXY TCP4 203.0.113.9 192.0.2.1 5000 80\r\n"):
        connection = strict.ours.served.connect()
        for number in range(len(header)):
            connection.send(header[number:number + 1])
        connection.send(get())
        assert connection.response().json()["REMOTE_ADDR"] == "203.0.113.9"


def test_proxys_own_check(strict: Pair) -> None:
    """It names no client, so the client is the proxy; gunicorn would have no address at all."""
    found = ask(strict.ours, OWN_CHECK + get()).environ
    assert found is not None
    assert (found["PROXY_PROTOCOL"], found["REMOTE_ADDR"]) == ("LOCAL", "127.0.0.1")


@pytest.mark.parametrize("header", [b"PROXY " + b"x" * 200, VERSION_2 + b"\x31\x11\x00\x0c" + bytes(12)])
def test_invalid_proxy_headers_are_refused(strict: Pair, header: bytes) -> None:
    connection = strict.ours.served.connect()
    connection.send(header + get())
    assert connection.response().status == 400


def test_session_behind_the_proxy_protocol(strict: Pair) -> None:
    connection = strict.ours.served.connect()
    connection.send(IN_BYTES + get(target="/engine.io/?EIO=4&transport=polling"))
    assert connection.response().text.startswith("0{")


def test_connection_that_changes_its_worker(tmp_path: Path) -> None:
    """What the proxy has said of its client, and the prefix, hold where the connection is served from then on."""
    server = ServerProcess(tmp_path, OURS, "-w", "3", "--proxy-protocol", "--env", "SCRIPT_NAME=/base", application=APPLICATION)
    try:
        connection = server.served.connect()
        connection.send(IN_BYTES + get(target="/base/engine.io/?EIO=4&transport=polling"))
        sid = json.loads(connection.response().text[1:])["sid"]
        for _ in range(10):
            other = server.served.connect()
            body = b"4hello"
            head = get(f"Content-Length: {len(body)}", line=f"POST /base/engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1")
            other.send(IN_BYTES + head + body)
            assert other.response().text == "ok"
            found = ask_on(other, get(target="/base/page")).environ
            assert found is not None
            assert (found["REMOTE_ADDR"], found["PROXY_PROTOCOL"], found["SCRIPT_NAME"], found["PATH_INFO"]) == (
                "203.0.113.9", "TCP4", "/base", "/page")
        assert connection.get(f"/base/engine.io/?EIO=4&transport=polling&sid={sid}").text.startswith("4hello")
        assert not server.complaints()
    finally:
        server.stop()


# -- hooks, loggers, and whom a proxy header is taken from

def test_request_hooks_and_logger(hooked: Pair) -> None:
    """gunicorn's own object comes to the hooks, for each request once, and the application's failures are no exception."""
    assert hooked.ask(get("X-A: b", target="/page")).status == 200
    assert hooked.ask(get(target="/fails")).status == 500
    for server in hooked:
        server.wait_for("before GET /page b\n(.*\n)*?after GET /page 200 OK")
        server.wait_for("own /page 200 OK")
        server.wait_for("before GET /fails None")
        server.until(lambda server=server: server.logs().count("\nafter ") == 2)  # type: ignore[misc]


def test_proxy_protocol_is_for_proxies(hooked: Pair) -> None:
    assert hooked.ask(IN_BYTES + get()).status == 403
    assert hooked.ask(get(target="/plain")).status == 200
    assert hooked.ask(b"PROXY TCP4 203.0.113.9 192.0.2.1 5000 80\r\n" + get()).status == 400


def test_other_addresses_are_not_trusted(hooked: Pair) -> None:
    environ = hooked.ask(get("X-Forwarded-Proto: https", "SCRIPT_NAME: /plain", target="/plain")).environ
    assert environ is not None
    assert (environ["wsgi.url_scheme"], environ["SCRIPT_NAME"]) == ("http", "")


def test_unlimited_header(hooked: Pair) -> None:
    """As gunicorn's documentation says; its gevent worker takes 0 for 8190."""
    assert hooked.statuses(get("X-A: " + "a" * 30000, target="/plain")) == (200, 431)


def test_statsd(tmp_path: Path) -> None:
    with gevent_socket.socket(gevent_socket.AF_INET, gevent_socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        server = ServerProcess(tmp_path, OURS, "--statsd-host", f"127.0.0.1:{listener.getsockname()[1]}",
                               application=APPLICATION)
        try:
            assert ask(server, get()).status == 200
            while b"gunicorn.request.status.200:1|c" not in listener.recv(4096):
                pass
        finally:
            server.stop()


def test_tls_settings(tmp_path: Path, certificate: dict[str, str]) -> None:
    """Clients need a certificate; the ciphers and the context are those of the settings."""
    (tmp_path / "settings.py").write_text(f"""
import ssl
certfile, keyfile = {certificate["certfile"]!r}, {certificate["keyfile"]!r}
cert_reqs, ca_certs = ssl.CERT_REQUIRED, {certificate["certfile"]!r}
ciphers = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384"

def ssl_context(settings, default):
    context = default()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
""")
    context = ssl.create_default_context(cafile=certificate["certfile"])
    server = ServerProcess(tmp_path, OURS, "-c", "settings.py", application=APPLICATION, tls=context)
    try:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            server.served.connect().get("/")
        context.load_cert_chain(certificate["certfile"], certificate["keyfile"])
        connection = server.served.connect()
        assert connection.get("/").json()["wsgi.url_scheme"] == "https"
        assert connection.sock.version() == "TLSv1.2"
        assert connection.sock.cipher()[0].endswith("AES256-GCM-SHA384")
    finally:
        server.stop()


# -- all of them

#: done before a worker is asked, by gunicorn's own code that our worker leaves as it is, or in the arbiter
GUNICORNS = {
    "backlog", "bind", "capture_output", "chdir", "check_config", "child_exit", "config", "control_socket",
    "control_socket_disable", "control_socket_mode", "daemon", "default_proc_name", "dirty_apps", "dirty_graceful_timeout",
    "dirty_post_fork", "dirty_threads", "dirty_timeout", "dirty_worker_exit", "dirty_worker_init", "dirty_workers",
    "disable_redirect_access_to_syslog", "enable_backlog_metric", "enable_stdio_inheritance", "errorlog", "group", "initgroups",
    "logconfig", "logconfig_dict", "logconfig_json", "loglevel", "max_requests_jitter", "nworkers_changed", "on_dirty_starting",
    "on_exit", "on_reload", "on_starting", "paste", "pidfile", "post_fork", "post_worker_init", "pre_exec", "pre_fork",
    "preload_app", "print_config", "proc_name", "pythonpath", "raw_paste_global_conf", "reload", "reload_engine",
    "reload_extra_files", "reuse_port", "spew", "syslog", "syslog_addr", "syslog_facility", "syslog_prefix", "timeout",
    "tmp_upload_dir", "umask", "user", "when_ready", "worker_abort", "worker_class", "worker_exit", "worker_int",
    "worker_tmp_dir", "workers", "wsgi_app",
}  # fmt: skip
LIFE = "test_gunicorn_life.py::"
HERE = "test_gunicorn_settings.py::"
#: honoured by our worker -> the test that shows it
WORKERS = {
    "access_log_format": LIFE + "test_access_log", "accesslog": LIFE + "test_access_log",
    "ca_certs": HERE + "test_tls_settings",
    "casefold_http_method": HERE + "test_loose_settings", "cert_reqs": HERE + "test_tls_settings",
    "certfile": HERE + "test_tls_settings",
    "ciphers": HERE + "test_tls_settings", "do_handshake_on_connect": LIFE + "test_tls", "dogstatsd_tags": HERE + "test_statsd",
    "forwarded_allow_ips": HERE + "test_other_addresses_are_not_trusted", "forwarder_headers": HERE + "test_strict_settings",
    "graceful_timeout": LIFE + "test_stop_gives_up_clients_that_do_not_come", "header_map": HERE + "test_strict_settings",
    "http_parser": HERE + "test_request_hooks_and_logger", "keepalive": LIFE + "test_keepalive",
    "keyfile": HERE + "test_tls_settings",
    "limit_request_field_size": HERE + "test_strict_settings", "limit_request_fields": HERE + "test_strict_settings",
    "limit_request_line": HERE + "test_strict_settings", "logger_class": HERE + "test_request_hooks_and_logger",
    "max_requests": LIFE + "test_max_requests",
    "permit_obsolete_folding": HERE + "test_folding_joins_the_lines",
    "permit_unconventional_http_method": HERE + "test_loose_settings",
    "permit_unconventional_http_version": HERE + "test_loose_settings",
    "post_request": HERE + "test_request_hooks_and_logger", "pre_request": HERE + "test_request_hooks_and_logger",
    "proxy_allow_ips": HERE + "test_proxy_protocol_is_for_proxies", "proxy_protocol": HERE + "test_strict_settings",
    "raw_env": HERE + "test_engine_below_script_name", "secure_scheme_headers": HERE + "test_loose_settings",
    "ssl_context": HERE + "test_tls_settings", "ssl_version": HERE + "test_tls_settings", "statsd_host": HERE + "test_statsd",
    "statsd_prefix": HERE + "test_statsd", "strip_header_spaces": HERE + "test_loose_settings",
    "worker_connections": LIFE + "test_worker_connections",
}  # fmt: skip


def test_every_setting_is_known() -> None:
    """A gunicorn with a new setting has to be looked at: is it honoured, by whom, or refused?"""
    known = {setting.name for setting in KNOWN_SETTINGS}
    assigned = [*GUNICORNS, *WORKERS, *REFUSED]
    assert sorted(assigned) == sorted(set(assigned)), "a setting is honoured in one way, or refused"
    unknown = sorted(known - set(assigned))
    assert not unknown, f"gunicorn has settings of which nobody knows whether our worker honours them: {', '.join(unknown)}"
    gone = sorted(set(assigned) - known)
    assert not gone, f"gunicorn has no such settings any more: {', '.join(gone)}"


@pytest.mark.parametrize("test", sorted(set(WORKERS.values())))
def test_every_setting_of_the_worker_is_tested(test: str) -> None:
    name, _, function = test.partition("::")
    assert f"\ndef {function}(" in (Path(__file__).parent / name).read_text()


#: another value than the default of each setting that is refused
OTHERS: dict[str, Any] = {
    "asgi_disconnect_grace_period": 9, "asgi_lifespan": "on", "asgi_loop": "asyncio", "http2_cleartext": "upgrade",
    "http2_initial_window_size": 70000, "http2_max_concurrent_streams": 9, "http2_max_frame_size": 20000,
    "http2_max_header_list_size": 9000, "http_protocols": "h2,h1", "protocol": "uwsgi", "root_path": "/base", "sendfile": True,
    "suppress_ragged_eofs": False, "threads": 4, "uwsgi_allow_ips": "192.0.2.1", "websocket_max_message_size": 9,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_settings(name: str) -> None:
    cfg = Config()
    assert refusal(cfg) is None
    cfg.set(name, OTHERS[name])
    assert re.fullmatch(rf"{name}: engineio_wsgi\.gunicorn\.Worker cannot honour it: [^\n]+", refusal(cfg) or "")
    assert f"``{name}``" in (ROOT / "docs" / "guides" / "deploying.rst").read_text()


def test_a_refused_setting_ends_gunicorn(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gunicorn", "-k", OURS, "-b", "127.0.0.1:0", "--threads", "4", "app:app"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60,
                           env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)})
    assert ended.returncode == 1
    assert "Reason: threads: engineio_wsgi.gunicorn.Worker cannot honour it: " in ended.stderr
    assert "Traceback" not in ended.stderr
