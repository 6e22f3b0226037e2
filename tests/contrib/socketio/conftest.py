"""Fixtures of the tests of Socket.IO: a server in this process, and clients in processes of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import socketio
from gevent.pywsgi import WSGIServer
from support.factories import stopped_afterwards
from support.node import Browser, Driver, node_modules
from support.serving import EventLog

import engineio_wsgi
from engineio_wsgi.contrib.socketio import Server

HERE = Path(__file__).parent
#: what a browser loads, from each site
FILES = {"/page.html": str(HERE / "page.html"), "/client_core.js": str(HERE / "client_core.js"),
         "/socket.io.min.js": str(node_modules() / "socket.io-client" / "dist" / "socket.io.min.js")}


class Site:
    """python-socketio's application around one of our servers, under gevent's server.

    Attributes:
        sio: the server.
        url: where clients connect to.
        events: what happened in its handlers.
    """

    def __init__(self, server_class: type[Server] = Server, **options: Any) -> None:
        self.events = EventLog()
        self.sio = server_class(**options)
        add_handlers(self.sio, self.events)
        app = socketio.WSGIApp(self.sio, socketio_path=options.get("path", "socket.io").strip("/"), static_files=FILES)
        self.http = WSGIServer(("127.0.0.1", 0), app, handler_class=engineio_wsgi.WebSocketHandler, log=None)
        self.http.start()
        self.address: tuple[str, int] = self.http.address
        self.url = "http://{}:{}".format(*self.address)

    def stop(self) -> None:
        """Close all sessions and the server."""
        self.sio.eio.engine.close(timeout=0)
        self.http.stop(timeout=1)


def add_handlers(sio: Server, events: EventLog) -> None:
    """What the tests' clients ask for, in two namespaces."""
    for nsp in ("/", "/chat"):
        _add_lifecycle(sio, events, nsp)
        _add_events(sio, nsp)


def _adder(sio: Server, nsp: str) -> Callable[[Callable[..., Any]], None]:
    """A decorator that adds a handler under its function's name."""
    def on(function: Callable[..., Any]) -> None:
        sio.on(function.__name__, function, namespace=nsp)
    return on


def _add_lifecycle(sio: Server, events: EventLog, nsp: str) -> None:
    on = _adder(sio, nsp)

    @on
    def connect(sid: str, environ: dict[str, Any], auth: Any) -> bool:
        events.add("connect", nsp=nsp, sid=sid)
        if auth == {"token": "wrong"}:
            raise socketio.exceptions.ConnectionRefusedError("wrong token")
        sio.emit("welcome", auth, to=sid, namespace=nsp)
        return True

    @on
    def disconnect(sid: str, reason: str) -> None:
        events.add("disconnect", nsp=nsp, sid=sid, reason=reason)


def _add_events(sio: Server, nsp: str) -> None:
    on = _adder(sio, nsp)

    @on
    def echo(sid: str, *args: Any) -> None:
        sio.emit("echo", args, to=sid, namespace=nsp)

    @on
    def back(sid: str, *args: Any) -> Any:
        return args

    @on
    def ask(sid: str, data: Any) -> None:
        sio.emit("asked", sio.call("question", data, to=sid, namespace=nsp), to=sid, namespace=nsp)

    @on
    def join(sid: str, room: str) -> str:
        sio.enter_room(sid, room, namespace=nsp)
        return room

    @on
    def shout(sid: str, room: str, data: Any) -> None:
        sio.emit("shouted", data, to=room, skip_sid=sid, namespace=nsp)

    @on
    def kick(sid: str) -> None:
        sio.disconnect(sid, namespace=nsp)


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    """A factory of sites, which are stopped when the test ends."""
    yield from stopped_afterwards(Site)


class Page:
    """The official client in a page of Chromium, driven as `node_client.js`.

    Args:
        url: of a site.
        options: the client's, in JSON.
    """

    def __init__(self, url: str, options: str) -> None:
        self._browser = Browser()
        self.events = self._browser.events
        self._browser.goto(f"{url}/page.html")
        self._browser.tell("run", script=f"start({options})")

    def tell(self, op: str, **fields: Any) -> None:
        """Send one command."""
        self._browser.tell("run", script=f"client.{op}({json.dumps(fields)})")

    def stop(self) -> None:
        """End the browser; the page must have nothing to complain about."""
        self._browser.stop()
        assert self.events.of("page_error") == []


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver | Page]]:
    """A factory of clients in processes of their own: ``drive("socket.io-client", url, options)``.

    In place of the package of npm: ``"python"``, ``"chromium"``.
    """
    running: list[Driver | Page] = []

    def start(client: str, *arguments: str) -> Driver | Page:
        if client == "chromium":
            running.append(Page(*arguments))
            return running[-1]
        command = ([sys.executable, str(HERE / "python_client.py")] if client == "python"
                   else [str(HERE / "node_client.js"), client])
        running.append(Driver(*command, *arguments))
        return running[-1]

    yield start
    for driver in running:
        driver.stop()
