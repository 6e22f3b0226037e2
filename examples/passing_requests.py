"""Pass requests and WebSockets to the engine by hand, as a framework with its own routing does.

gevent and gevent-websocket serve everything; the engine is one route among others. Run it with
``python passing_requests.py [PORT]`` and connect a client to ws://127.0.0.1:8000 with the path ``/live``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler

import engineio_wsgi as engine

Environ = dict[str, Any]

server = engine.Server()


@server.on("connection")
def connected(socket: engine.Socket) -> None:
    """Send every message back in capitals."""
    socket.on("message", lambda data: socket.send(data.upper()))


def live(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The engine's route: for a WebSocket that the handler has accepted, and for ordinary requests."""
    websocket = environ.get("wsgi.websocket")
    if websocket is None:
        return server.handle_request(environ, start_response)
    server.handle_upgrade(environ, websocket)
    return []


def home(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Another route."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{server.clients_count} clients\n".encode()]


def missing(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """No route."""
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"not found\n"]


ROUTES = {"/": home, "/live": live, "/live/": live}


def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The framework."""
    return ROUTES.get(environ["PATH_INFO"], missing)(environ, start_response)


if __name__ == "__main__":
    address = ("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    WSGIServer(address, application, handler_class=WebSocketHandler).serve_forever()
