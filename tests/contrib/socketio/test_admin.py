"""python-socketio's admin UI over our servers: what its page is told of clients, events, rooms and the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.clients import open_session
from support.serving import EventLog, Served

from engineio_wsgi.contrib.socketio import Server

pytestmark = pytest.mark.ours

ADMIN = "/admin"
LOGIN = {"username": "tobi", "password": "secret"}


class Administered:
    """A site with the admin UI, and one admin.

    Attributes:
        site: the site.
        admin: a raw client that is connected to the admin's namespace.
    """

    def __init__(self, site: Any, mode: str) -> None:
        self.site = site
        self.admin_ui = site.sio.instrument(auth=LOGIN, mode=mode, server_stats_interval=0.01)
        self.admin = self.open()
        self.admin.say(f"0{ADMIN},{json.dumps(LOGIN)}")

    def open(self, transport: str = "websocket") -> Any:
        """A raw client, connected to no namespace yet."""
        return open_session(Served(self.site.address, EventLog(), handler="ours", path="/socket.io/"), transport)

    def connect(self, transport: str = "websocket") -> tuple[Any, str]:
        """A raw client that is connected to the default namespace, and its id."""
        client = self.open(transport)
        client.say("0")
        assert client.hear().startswith('2["welcome"')
        return client, json.loads(client.hear()[1:])["sid"]

    def told(self, event: str, fits: Callable[[list[Any]], bool] = lambda args: True) -> list[Any]:
        """The arguments of the next event that the admin is told of."""
        while True:
            kind, _, data = self.admin.hear().partition(f"{ADMIN},")
            name, *args = json.loads(data) if kind == "2" else [""]
            if name == event and fits(args):
                return args

    def stop(self) -> None:
        """End the admin UI's own tasks."""
        self.admin_ui.shutdown()
        self.admin_ui.uninstrument()


@pytest.fixture
def administered(site: Any) -> Iterator[Callable[..., Administered]]:
    """A factory."""
    made: list[Administered] = []

    def start(mode: str = "development", **options: Any) -> Administered:
        made.append(Administered(site(namespaces="*", **options), mode))
        return made[-1]

    yield start
    for each in made:
        each.stop()


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_the_admin_is_told_what_clients_do(administered: Any, transport: str) -> None:
    made = administered()
    assert "supportedFeatures" in made.told("config")[0]
    client, sid = made.connect(transport)
    connected = made.told("socket_connected", lambda args: args[0]["nsp"] == "/")[0]
    assert (connected["id"], connected["transport"], connected["rooms"]) == (sid, transport, [sid])
    client.say('2["echo","hello"]')
    assert made.told("event_received")[:3] == ["/", sid, ["echo", "hello"]]
    assert made.told("event_sent")[:3] == ["/", sid, ["echo", "hello"]]
    client.say('21["join","kitchen"]')
    assert made.told("room_joined")[:3] == ["/", "kitchen", sid]
    client.say("1")
    assert made.told("socket_disconnected")[:3] == ["/", sid, "client disconnect"]


def test_the_admin_is_told_how_many_there_are(administered: Any) -> None:
    made = administered("production")
    made.connect()
    made.connect("polling")
    made.told("server_stats", lambda args: (args[0]["clientsCount"], args[0]["pollingClientsCount"]) == (3, 1)
              and {"name": "/", "socketsCount": 2} in args[0]["namespaces"])


def test_the_admin_may_emit_and_disconnect(administered: Any) -> None:
    made = administered()
    client, sid = made.connect()
    made.admin.say(f"2{ADMIN}," + json.dumps(["emit", "/", sid, "news", 1]))
    assert client.hear() == '2["news",1]'
    made.admin.say(f"2{ADMIN}," + json.dumps(["_disconnect", "/", False, sid]))
    assert client.hear() == "1"


def test_without_the_password_there_is_no_admin(administered: Any) -> None:
    stranger = administered().open()
    stranger.say(f'0{ADMIN},{{"username":"tobi","password":"wrong"}}')
    answer = stranger.hear()
    while answer.startswith("2"):
        # python-socketio counts a client in while its handler decides
        answer = stranger.hear()
    assert answer == f'4{ADMIN},{{"message":"authentication failed"}}'


def test_an_instrumented_server_can_be_restored() -> None:
    sio = Server()
    sio.instrument(auth=False, mode="development").uninstrument()
    assert sio.sends_directly
