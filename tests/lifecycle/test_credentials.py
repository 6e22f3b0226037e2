"""What a client has sent, or was sent, is nowhere in the server's memory once the client has gone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.clients import PollingSession, WebSocketSession, upgrade
from support.processes import ServerProcess
from support.rawhttp import PLAIN_TEXT, ConnectionEnded, HttpConnection
from support.rawwebsocket import Closed, Refused, WebSocketClient
from support.serving import Served

#: begins every secret; the server is told of it backwards, so that the search does not find itself
SECRET = "5ecret-of-one-client-"

#: answers with Set-Cookie, fails, keeps what it should not on "/keep", and searches its own process on "/search"
APPLICATION = '''
import gc, io, json, logging, os, sys
from urllib.parse import clear_cache
import greenlet
import engineio_wsgi

logging.basicConfig(level=logging.DEBUG)
kept = []

def allow(request):
    if "forbidden" in request.args:
        raise engineio_wsgi.Forbidden(request.args["forbidden"])
    return True

server = engineio_wsgi.Server(allow_request=allow, per_message_deflate=True, allow_eio3=True, jsonp=True,
                              **json.loads(os.environ["OPTIONS"]))

@server.on("connection")
def connected(socket):
    @socket.on("message")
    def message(data):
        if "fail" in data:
            raise ValueError(data)
        socket.send(data)

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/search":
        if type(environ["wsgi.input"]).__module__.startswith("gunicorn"):
            clear_cache()  # of urlsplit, by which gunicorn's own parser takes request targets apart
        return answer(start_response, json.dumps(search(environ["QUERY_STRING"][::-1])).encode())
    if path == "/fail":
        raise ValueError(environ["HTTP_COOKIE"])
    if path == "/keep":
        kept.append((environ["HTTP_COOKIE"],))
    if path == "/websocket" and environ.get("wsgi.websocket"):
        websocket = environ["wsgi.websocket"]
        while (message := websocket.receive()) is not None:
            websocket.send(message)
        return []
    cookie = environ["HTTP_COOKIE"]
    body = cookie + environ["wsgi.input"].read().decode() * 100
    return answer(start_response, body.encode(), ("Set-Cookie", cookie), ("Location", "/" + cookie))

def answer(start_response, body, *headers):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *headers])
    return [body]

def search(text):
    """Where text is found: in all objects that the collector knows, what they refer to, and suspended greenlets."""
    gc.collect()
    data = text.encode()
    own = {id(text), id(data)}
    pending = [(each, None) for each in gc.get_objects()]
    for each, _ in list(pending):
        frame = each.gr_frame if isinstance(each, greenlet.greenlet) else None
        while frame is not None:
            pending += [(value, (frame.f_code.co_qualname, None)) for value in frame.f_locals.values()]
            frame = frame.f_back
    found, seen = [], set()
    while pending:
        each, origin = pending.pop()
        if id(each) in seen or id(each) in own or each is pending or each is seen:
            continue
        seen.add(id(each))
        if holds(each, text, data):
            found.append([repr(each)[:200], *chain(origin)])
        if not isinstance(each, (str, bytes)):
            name = type(each).__qualname__
            pending += [(other, (name, origin)) for other in gc.get_referents(each) if other is not pending]
    return found

def holds(each, text, data):
    if type(each) is str or isinstance(each, str):
        return text in each
    if isinstance(each, (bytes, bytearray)):
        return data in each
    if isinstance(each, (io.BytesIO, io.StringIO)) and not each.closed:
        value = each.getvalue()
        return (data if isinstance(value, bytes) else text) in value
    return False

def chain(origin):
    for _ in range(8):
        if origin is not None:
            yield origin[0]
            origin = origin[1]

app = server.wrap(application)
'''

MAINS = {
    "our handler": "from gevent.pywsgi import WSGIServer; import app, engineio_wsgi;"
                   "s = WSGIServer(('127.0.0.1', 0), app.app, handler_class=engineio_wsgi.WebSocketHandler); s.start();"
                   "print('Listening at: http://127.0.0.1:%d' % s.server_port, flush=True); s.serve_forever()",
}
KINDS = ["our handler", "plain", "gevent", "engineio_wsgi.gunicorn.Worker"]


def headers(place: str) -> list[tuple[str, str]]:
    """A client's credentials."""
    return [("Cookie", f"session={SECRET}cookie-{place}"), ("Authorization", f"Bearer {SECRET}bearer-{place}"),
            (f"X-{SECRET}name", f"{SECRET}custom-{place}"), ("User-Agent", f"{SECRET}agent-{place}"),
            ("Accept-Encoding", f"gzip, {SECRET}coding")]


# -- what clients do, before they close their connections


def ask_for_pages(served: Served) -> None:
    connection = served.connect()
    for _ in range(3):
        assert SECRET in (connection.get(f"/page?q={SECRET}query", headers("page")).header("Set-Cookie") or "")
        connection.post("/page", f"{SECRET}body".encode(), [PLAIN_TEXT, *headers("page")])
    connection.close()


def poll(served: Served) -> None:
    session = PollingSession(served, headers=headers("poll"), custom=f"{SECRET}query").open()
    session.send(f"4{SECRET}message", f"4{SECRET * 100}")
    # compressed, as the secret Accept-Encoding asks for
    assert served.connect().get(session.target(), headers("poll")).status == 200
    session.close()
    session.disconnect()


def poll_again_and_again(served: Served) -> None:
    session = PollingSession(served, headers=headers("lane"), custom=f"{SECRET}query").open()
    for _ in range(3):
        # known requests, which our handler compares with the ones before them
        session.say(f"{SECRET}message")
        assert session.hear() == f"{SECRET}message"
    session.park()
    session.say(f"{SECRET}late")
    assert session.hear() == f"{SECRET}late"
    session.vanish()


def talk_over_a_websocket(served: Served) -> None:
    session = WebSocketSession(served, 4, headers("websocket"), custom=f"{SECRET}query").open()
    for _ in range(3):
        session.say(f"{SECRET}message")
        assert session.hear() == f"{SECRET}message"
    session.vanish()


def move_to_a_websocket(served: Served) -> None:
    polling = PollingSession(served, headers=headers("upgrade")).open()
    session = upgrade(polling)
    session.say(f"{SECRET}message")
    session.hear()
    session.close()
    polling.disconnect()


def use_the_applications_websocket(served: Served) -> None:
    if served.handler not in ("our handler", "engineio_wsgi.gunicorn.Worker"):
        return
    websocket = WebSocketClient.open(served.connect(), f"/websocket?{SECRET}", headers("application"))
    websocket.send(f"{SECRET}message")
    assert SECRET in str(websocket.recv())
    websocket.http.close()


def be_refused(served: Served) -> None:
    engine = f"{served.path}?EIO=4&transport="
    for target in (f"{engine}polling&sid={SECRET}sid", f"{engine}{SECRET}", f"{engine}polling&forbidden={SECRET}why"):
        assert served.connect().get(target, headers("refused")).status in (400, 403)
    origin = ("Origin", f"http://{SECRET}.example")
    assert served.connect().get(f"{engine}polling", [origin, *headers("refused")]).status == 403
    with pytest.raises(Refused):
        WebSocketClient.open(served.connect(), f"{engine}websocket&sid={SECRET}sid", headers("refused"))
    for text in (f"GET /{SECRET}\x01 HTTP/1.1\r\nHost: h\r\n\r\n", f"{SECRET}\r\n\r\n",
                 f"GET / HTTP/1.1\r\nHost: h\r\nX: {SECRET * 3000}\r\n\r\n", f"GET / HTTP/1.1\r\nHost: {SECRET}\r\nX"):
        connection = served.connect()
        with contextlib.suppress(OSError):
            connection.send(text.encode())
        connection.close()


def fail(served: Served) -> None:
    assert served.connect().get("/fail", headers("fail")).status == 500
    session = WebSocketSession(served, 4, headers("fail")).open()
    session.say(f"{SECRET}fail")
    session.vanish()


def leave_in_the_midst(served: Served) -> None:
    session = PollingSession(served, headers=headers("left")).open()
    session.vanish()  # while a poll waits
    for target in ("/page", f"{served.path}?EIO=4&transport=polling"):
        connection = served.connect()
        connection.start("POST", target, [("Content-Length", "1000"), *headers("left")])
        connection.send(f"{SECRET}body".encode())
        connection.close()
    with contextlib.suppress(ConnectionEnded, Closed):
        WebSocketSession(served, 4, headers("left")).open().ws.http.reset()


EVERYTHING = [ask_for_pages, poll, poll_again_and_again, talk_over_a_websocket, move_to_a_websocket,
              use_the_applications_websocket, be_refused, fail, leave_in_the_midst]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("server"), request.param, application=APPLICATION, mains=MAINS)
    yield process
    process.stop()


def found(server: ServerProcess, text: str = SECRET) -> list[list[str]]:
    """Where the server's process has it: the object, and what refers to it."""
    connection = server.served.connect()
    places: list[list[str]] = json.loads(connection.get(f"/search?{text[::-1]}").body)
    connection.close()
    return places


@pytest.mark.parametrize("do", EVERYTHING, ids=lambda do: do.__name__)
def test_nothing_of_a_client_is_left(server: ServerProcess, do: Callable[[Served], Any]) -> None:
    do(server.served)
    HttpConnection.close_all()
    left: list[list[str]] = []

    def is_clean() -> bool:
        left[:] = found(server)
        return not left

    server.until(is_clean, lambda: f"left in memory: {json.dumps(left, indent=1)}")


def test_what_is_kept_is_found(server: ServerProcess) -> None:
    """The search works."""
    server.served.connect().get("/keep", [("Cookie", "kept-on-purpose")])
    assert any(place[0] == "'kept-on-purpose'" for place in found(server, "kept-on-purpose"))
