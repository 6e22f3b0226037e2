"""The demo: one page that shows a session, and the chat behind it. Serves files of this folder and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from engineio_wsgi.server import Server
from engineio_wsgi.session.socket import Socket

__all__ = ["demo_application"]

#: what is served, and as what
FILES = {
    "/": ("index.html", "text/html; charset=UTF-8"),
    "/style.css": ("style.css", "text/css; charset=UTF-8"),
    "/demo.js": ("demo.js", "text/javascript; charset=UTF-8"),
    "/client.js": ("client.js", "text/javascript; charset=UTF-8"),
}
#: the page loads nothing from elsewhere, and no page may frame it; ws: and wss: because not every browser takes 'self' for them
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' ws: wss:; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
#: characters of a chat line, and how many lines a newcomer sees
MAX_LINE = 500
HISTORY = 20


def demo_application(server: Server) -> WSGIApplication:
    """The demo's WSGI application, with its listeners on ``server``."""
    _Chat(server)
    return server.wrap(_serve_file)


def _serve_file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    name, content_type = FILES.get(environ.get("PATH_INFO", ""), (None, ""))
    if name is None or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "10")])
        return [b"Not Found\n"]
    body = files(__name__).joinpath(name).read_bytes()
    start_response("200 OK", [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-cache"),
    ])
    return [body]


class _Chat:
    """What the page's windows say to one another. Messages are JSON objects; ``echo`` comes back to its sender alone."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lines: list[str] = []
        server.on("connection", self._connected)

    def _connected(self, socket: Socket) -> None:
        socket.on("message", lambda data: self._on_message(socket, data))
        socket.on("close", lambda reason, description: self._tell_count())
        for line in self._lines:
            socket.send(line)
        self._tell_count()

    def _tell_count(self) -> None:
        self._server.broadcast(json.dumps({"type": "count", "count": self._server.clients_count}))

    def _on_message(self, socket: Socket, data: str | bytes) -> None:
        try:
            message = json.loads(data)
            kind = message["type"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if kind == "echo":
            socket.send(data)
        elif kind == "chat":
            line = {"type": "chat", "from": str(message.get("from", ""))[:20], "text": str(message.get("text", ""))[:MAX_LINE]}
            self._lines = [*self._lines, json.dumps(line)][-HISTORY:]
            self._server.broadcast(self._lines[-1])
