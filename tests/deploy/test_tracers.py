"""What a tracer that is wrapped around the engine sees of WebSockets under servers that are not ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.clients import PollingSession, WebSocketSession, upgrade
from support.processes import ServerProcess

#: Sentry around everything; its events go to stdout
APPLICATION = '''
import json, os
import sentry_sdk
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from sentry_sdk.transport import Transport
import engineio_wsgi
from engineio_wsgi.errors import ConnectionDetached

class Stdout(Transport):
    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event is not None:
            values = event["exception"]["values"]
            os.write(1, f"event: {values[-1]['type']}\\n".encode())

sentry_sdk.init("http://key@localhost/1", transport=Stdout, ignore_errors=eval(os.environ["IGNORED"]))
server = engineio_wsgi.Server()

@server.on("connection")
def connected(socket):
    socket.on("message", socket.send)

def application(environ, start_response):
    raise ValueError("a failure of the application's")

app = SentryWsgiMiddleware(server.wrap(application))
'''


@pytest.mark.parametrize("ignored", ["[ConnectionDetached]", "['engineio_wsgi.errors.ConnectionDetached']", "[]"],
                         ids=["class", "name", "nothing"])
@pytest.mark.parametrize("kind", ["gevent", "gevent_pywsgi", "plain"])
def test_sentry(tmp_path: Path, kind: str, ignored: str) -> None:
    server = ServerProcess(tmp_path, kind, application=APPLICATION, environment={"IGNORED": ignored})
    try:
        sessions = [WebSocketSession(server.served).open(), upgrade(PollingSession(server.served).open())]
        for session in sessions:
            session.say("hello")
            assert session.hear() == "hello"
            session.vanish()
        server.served.connect().get("/")
        server.wait_for("event: ValueError")
        detached = [] if ignored != "[]" else ["ConnectionDetached"] * 2
        assert re.findall("event: (.*)", server.output.read_text()) == [*detached, "ValueError"]
        assert "ConnectionDetached" not in server.error_log.read_text()
    finally:
        server.stop()
