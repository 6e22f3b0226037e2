"""`engineio_wsgi.testing.Client`: what the tests of an application are written with."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import flask
import gevent
import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

from engineio_wsgi import Forbidden, Server, SocketClosed
from engineio_wsgi.contrib.flask import EngineIO
from engineio_wsgi.errors import ProtocolError
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.testing import Client, Refused

pytestmark = pytest.mark.ours
ROOT = Path(__file__).resolve().parents[2]


def echo(**options: Any) -> Server:
    """A server that sends every message back."""
    server = Server(**options)
    server.on("connection", lambda socket: socket.on("message", socket.send))
    return server


def wrapped(server: Server) -> Any:
    """An application behind it."""
    return server.wrap(Response("page"))


@pytest.mark.parametrize("message", ["text", "", "é\u2028😀", b"binary", b"", b"\x00" * 300_000, "x" * 70_000])
def test_messages(transport: str, message: str | bytes) -> None:
    with Client(wrapped(echo()), transport=transport) as client:
        client.send(message)
        assert client.receive() == message


def test_many_messages_at_a_time(transport: str) -> None:
    with Client(wrapped(echo()), transport=transport) as client:
        client.send("one", b"two", "three")
        assert [client.receive() for _ in range(3)] == ["one", b"two", "three"]


def test_what_is_known_of_the_session(transport: str) -> None:
    server = echo(ping_interval=7)
    with Client(wrapped(server), transport=transport, query={"token": "x"}, headers={"User-Agent": "test"},
                cookies={"a": "1", "b": "2"}, remote_address="203.0.113.9") as client:
        assert client.handshake["pingInterval"] == 7000
        assert (client.transport, client.connected, client.close_reason) == (transport, True, None)
        assert client.socket is server.clients[client.sid]
        request = client.socket.request
        assert (request.args["token"], request.user_agent.string, dict(request.cookies)) == ("x", "test", {"a": "1", "b": "2"})
        assert client.socket.remote_address == "203.0.113.9"
    assert client.close_reason == "transport close"
    assert not client.connected
    assert server.clients_count == 0


def test_through_the_middlewares_of_the_application() -> None:
    app = ProxyFix(wrapped(echo()))
    with Client(app, headers={"X-Forwarded-For": "198.51.100.7"}) as client:
        assert client.socket is not None
        assert client.socket.remote_address == "198.51.100.7"


def test_upgrade() -> None:
    server = echo()
    with Client(wrapped(server)) as client:
        client.send("before")
        client.upgrade()
        client.send(b"after")
        assert [client.receive(), client.receive()] == ["before", b"after"]
        assert client.transport == "websocket"
        assert client.socket is not None
        assert client.socket.transport.name == "websocket"


def test_an_upgrade_that_is_refused_leaves_the_session() -> None:
    with Client(wrapped(echo(allow_upgrades=False))) as client:
        with pytest.raises(Refused) as refused:
            client.upgrade()
        assert (refused.value.status, refused.value.code) == (400, 3)
        client.send("still here")
        assert client.receive() == "still here"


def test_a_handshake_that_is_refused(transport: str) -> None:
    def refuse(request: Any) -> bool:
        raise Forbidden("members only")

    with pytest.raises(Refused, match=r"403: members only \(code 4\)") as refused:
        Client(wrapped(echo(allow_request=refuse)), transport=transport)
    assert (refused.value.status, refused.value.code, refused.value.message) == (403, 4, "members only")


def test_an_application_without_an_engine(transport: str) -> None:
    with pytest.raises(Refused, match="404"):
        Client(Response("nothing here", status=404), transport=transport)
    with pytest.raises((ProtocolError, Refused)):
        Client(Response("a page"), transport=transport)


def test_no_message(transport: str) -> None:
    with Client(wrapped(echo()), transport=transport) as client, \
            pytest.raises(TimeoutError, match=f"no message within 0.01 s; the session is open, over {transport}"):
        client.receive(timeout=0.01)


def test_the_server_closes(transport: str) -> None:
    server = echo()
    with Client(wrapped(server), transport=transport) as client:
        assert client.socket is not None
        client.socket.send("last words")
        client.socket.close(reason="too late in the day")
        assert client.receive() == "last words"
        with pytest.raises(SocketClosed, match="too late in the day"):
            client.receive()
        assert client.wait_closed() == client.close_reason == "too late in the day"
        with pytest.raises(SocketClosed):
            client.send("x")


def test_a_client_that_vanishes(transport: str) -> None:
    server = echo()
    client = Client(wrapped(server), transport=transport)
    gevent.sleep(0.01)  # for the poll to be there
    client.vanish()
    assert client.wait_closed() == "transport close"


def test_pings(transport: str) -> None:
    server = echo(ping_interval=0.1, ping_timeout=0.5)
    with Client(wrapped(server), transport=transport) as client, \
            Client(wrapped(server), transport=transport, heartbeat=False) as silent:
        assert silent.wait_closed() == "ping timeout"
        client.send("still here")
        assert client.receive() == "still here"


def test_a_ping_that_comes_when_the_session_has_ended(transport: str) -> None:
    with Client(wrapped(echo()), transport=transport) as client:
        client.send("x")
        assert client.receive() == "x"
    client.take(Packet(PacketType.PING))
    assert client.close_reason is not None


def test_several_clients() -> None:
    server = Server()
    server.on("connection", lambda socket: socket.on("message", lambda data: server.broadcast(data, exclude=[socket])))
    app = wrapped(server)
    with Client(app) as first, Client(app, transport="websocket") as second, Client(app) as third:
        first.send("hello")
        assert second.receive() == third.receive() == "hello"
        second.send("hi")
        assert first.receive() == third.receive() == "hi"


def test_flask_with_its_own_test_client() -> None:
    app = flask.Flask("site")
    app.secret_key = "secret"
    engineio = EngineIO(app)
    engineio.on("connection", lambda socket: socket.send(f"hello {flask.session['user']}"))

    @app.get("/login/<user>")
    def login(user: str) -> str:
        flask.session["user"] = user
        return ""

    browser = app.test_client()
    browser.get("/login/tobi")
    with Client(app, cookies={"session": browser.get_cookie("session")}) as client:
        assert client.receive() == "hello tobi"


def test_nothing_is_left() -> None:
    app = wrapped(echo())

    def talk() -> None:
        for transport in ("polling", "websocket"):
            with Client(app, transport=transport) as client:
                client.send("x")
                assert client.receive() == "x"

    def files_and_greenlets() -> tuple[int, int]:
        gc.collect()
        alive = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and not each.dead]
        return len(os.listdir("/proc/self/fd")), len(alive)

    talk()
    before = files_and_greenlets()
    for _ in range(10):
        talk()
    assert files_and_greenlets() == before


UNITTEST = '''
import unittest
from werkzeug.wrappers import Response
from engineio_wsgi import Server
from engineio_wsgi.testing import Client

server = Server()
server.on("connection", lambda socket: socket.on("message", socket.send))
app = server.wrap(Response("page"))

class Test(unittest.TestCase):
    def test_echo(self):
        for transport in ("polling", "websocket"):
            with Client(app, transport=transport) as client:
                client.send("x")
                self.assertEqual(client.receive(), "x")

if __name__ == "__main__":
    {how}
'''


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"])
@pytest.mark.parametrize("how", [
    "unittest.main()",
    "import threading; t = threading.Thread(target=unittest.main, kwargs={'exit': False}); t.start(); t.join()",
])
def test_in_a_process_without_gevent_of_its_own(tmp_path: Path, patch: str, how: str) -> None:
    script = tmp_path / "test_it.py"
    script.write_text(patch + UNITTEST.format(how=how))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stderr.strip().endswith("OK"), done.stderr
