"""The lane under the servers that have it: gevent's with our handler, ``engineio-wsgi serve`` and our gunicorn worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGTERM

import pytest
from support.clients import PollingSession
from support.processes import APPLICATION, ServerProcess

#: also tells how many requests of sessions have not gone over the lane
WITNESSED = APPLICATION + '''
seen = []

def witness(app):
    def wrapped(environ, start_response):
        if "sid=" in environ["QUERY_STRING"]:
            seen.append(environ["REQUEST_METHOD"])
        if environ["PATH_INFO"] == "/seen":
            body = json.dumps(seen).encode()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        return app(environ, start_response)
    return wrapped

app = engineio_wsgi.handshake_only(witness)(server.wrap(application))
'''
MAINS = {
    "our handler": "from gevent.pywsgi import WSGIServer; import app, engineio_wsgi;"
                   "s = WSGIServer(('127.0.0.1', 0), app.app, handler_class=engineio_wsgi.WebSocketHandler, log=None); s.start();"
                   "print('Listening at: http://127.0.0.1:%d' % s.server_port, flush=True); s.serve_forever()",
    "serve": "from engineio_wsgi.cli.command import main; main(['serve', '--bind', '127.0.0.1:0', 'app:app'])",
}
GUNICORN = "engineio_wsgi.gunicorn.Worker"
STAY = ("--keep-alive", "60")
Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[ServerProcess] = []

    def begin(kind: str, *arguments: str, has_access_log: bool = False) -> ServerProcess:
        running.append(ServerProcess(tmp_path, kind, *arguments, application=WITNESSED, mains=MAINS,
                                     has_access_log=has_access_log))
        return running[-1]

    yield begin
    for server in running:
        server.stop()


@pytest.mark.parametrize(("kind", "arguments"), [("our handler", ()), ("serve", ()), (GUNICORN, STAY)],
                         ids=["our handler", "serve", "gunicorn"])
def test_known_requests_go_over_the_lane(start: Start, kind: str, arguments: tuple[str, ...]) -> None:
    server = start(kind, *arguments)
    session = PollingSession(server.served).open()
    for number in range(5):
        session.say(f"{number}")
        assert session.hear() == f"{number}"
    session.park()
    session.say("late")
    assert session.hear() == "late"
    assert server.served.connect().get("/seen").json() == ["POST"]


def test_gunicorn_s_access_log_sees_every_request(start: Start) -> None:
    server = start(GUNICORN, *STAY, has_access_log=True)
    session = PollingSession(server.served).open()
    for number in range(3):
        session.say(f"{number}")
        assert session.hear() == f"{number}"
    assert server.served.connect().get("/seen").json() == ["POST", "GET"] * 3
    server.until(lambda: server.access_log.read_text().count("sid=") == 6)


def test_gunicorn_counts_requests(start: Start) -> None:
    server = start(GUNICORN, *STAY, "--max-requests", "10")
    session = PollingSession(server.served).open()
    for number in range(4):
        session.say(f"{number}")
        assert session.hear() == f"{number}"
    # a handshake, four POSTs and four polls
    assert "Autorestarting" not in server.logs()
    session.say("the tenth")
    server.wait_for("Autorestarting worker after current request")


@pytest.mark.parametrize(("kind", "arguments"), [("serve", ()), (GUNICORN, STAY)], ids=["serve", "gunicorn"])
def test_a_graceful_stop(start: Start, kind: str, arguments: tuple[str, ...]) -> None:
    server = start(kind, *arguments)
    session, idle = PollingSession(server.served).open(), PollingSession(server.served).open()
    for each in (session, idle):
        each.say("a")
        assert each.hear() == "a"
        each.park()
    server.signal(SIGTERM)
    assert [each.end_poll() for each in (session, idle)] == [["1"], ["1"]]
    for each in (session, idle):
        assert each.getting.read_to_end() == each.posting.read_to_end() == b""
    assert server.wait() == 0
    assert server.logs().count("closed: server shutting down") == 2
    assert not server.complaints()
