"""The manual's JavaScript, run by Node with the official client."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent.pywsgi import WSGIServer
from support.manual import DOCS, ROOT, code_of, snippets
from support.node import Driver, node_modules

from engineio_wsgi import WebSocketHandler

pytestmark = pytest.mark.ours
PAGE = (DOCS / "guides" / "javascript-client.rst").read_text()
TOLD = '''
import readline from "node:readline";
const report = (event, fields = {}) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\\n");
'''
#: commands come in by lines, so that the script runs on until its client has ended and nobody writes any more
MAIN = TOLD + '''
import { connect } from "./reconnect.mjs";
const client = connect(process.argv[2], {
  onopen: (socket) => report("open", { sid: socket.id }),
  onmessage: (data) => report("message", { data }),
  onclose: (reason, last) => report("close", { reason, last }),
});
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { op, data } = JSON.parse(line);
  report("returned", { value: client[op](data) ?? null });
});
'''
Run = Callable[..., Driver]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs a module beside the page's own, with npm's packages; it has to end by itself when its input ends."""
    running: list[Driver] = []

    def start(text: str, url: str) -> Driver:
        (tmp_path / "node_modules").symlink_to(node_modules())
        (tmp_path / "reconnect.mjs").write_text(next(code.text for code in code_of(PAGE) if code.name == "reconnect.mjs"))
        (tmp_path / "main.mjs").write_text(text)
        running.append(Driver("node", str(tmp_path / "main.mjs"), url))
        return running[-1]

    yield start
    for driver in running:
        driver.stop()




@pytest.mark.parametrize("transports", ["", ', { transports: ["websocket"] }'], ids=["both", "websocket"])
@pytest.mark.parametrize("page", ["README.rst", "docs/guides/javascript-client.rst"])
def test_a_first_client(serve: Any, handler: str, run: Run, page: str, transports: str) -> None:
    """It gets the echo of what it sends."""
    served = serve()
    code = snippets((ROOT / page).read_text(), "javascript")[0]
    code, count = re.subn(r'"http://127\.0\.0\.1:8000"', f'"{served.origin}"{transports}', code)
    assert count == 1
    code = code.replace("console.log(data)", '{ report("message", { data }); socket.close(); }').replace("console.log", "void ")
    assert run(TOLD + code, served.origin).events.wait("message")["data"] == "hello"


def test_reconnecting(serve: Any, handler: str, run: Run) -> None:
    """Whoever ends the session, there is another one; until the page has had enough."""
    served = serve()
    client = run(MAIN, served.origin)
    sids = [client.events.wait("open")["sid"]]
    for number in (2, 3):
        served.server.clients[sids[-1]].close()
        assert client.events.wait("close", number - 1) == {"reason": "transport close", "last": False}
        sids.append(client.events.wait("open", number)["sid"])
    assert len(set(sids)) == 3
    client.tell("send", data="hello")
    assert client.events.wait("message")["data"] == "hello"
    client.tell("close")
    assert client.events.wait("close", 3)["last"] is True


def test_reconnecting_to_a_server_that_comes_later(serve: Any, handler: str, run: Run) -> None:
    served = serve()
    client = run(MAIN, served.origin)
    client.events.wait("open")
    refusing: list[int] = []

    @served.server.use
    def unavailable(engine: Any) -> Any:
        def answer(environ: Any, start_response: Any) -> Any:
            if len(refusing) == 2:
                return engine(environ, start_response)
            refusing.append(1)
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]

        return answer

    for socket in list(served.server.clients.values()):
        socket.close()
    client.events.wait("open", 2)
    assert len(refusing) == 2
    client.tell("close")
    client.events.wait("returned")


def test_a_client_that_is_refused_gives_up(serve: Any, handler: str, run: Run) -> None:
    served = serve(allow_request=lambda request: False)
    client = run(MAIN, served.origin)
    assert client.events.wait("close") == {"reason": "transport error", "last": True}
    client.tell("send", data="hello")
    assert client.events.wait("returned")["value"] is False


def test_events_of_our_own(run: Run) -> None:
    """The page for those who come from Flask-SocketIO: its server and its client understand each other."""
    page = (DOCS / "guides" / "from-flask-socketio.rst").read_text()
    names: dict[str, Any] = {"__name__": "events"}
    exec(compile(snippets(page)[0], "events", "exec"), names)
    http = WSGIServer(("127.0.0.1", 0), names["app"], handler_class=WebSocketHandler, log=None)
    http.start()
    try:
        url = f"http://127.0.0.1:{http.server_port}"
        code = snippets(page, "javascript")[0].replace("location.origin", f'"{url}"')
        code = code.replace("console.log(number)", '(report("sum", { number }), socket.close())')
        assert run(TOLD + code, url).events.wait("sum")["number"] == 6
    finally:
        names["engineio"].close(timeout=0)
        http.stop()
