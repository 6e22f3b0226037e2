"""What the tests ask of a session; each message is the name of something to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gevent
from django.contrib.auth.models import User
from django.db import connection, transaction

from engineio_wsgi.contrib.django import EngineIO

engineio = EngineIO()


def users() -> str:
    """Something that needs the database."""
    return f"{User.objects.count()} users"


def who(socket: Any) -> str:
    """What the middlewares have put on the request, looked at now."""
    request = socket.request
    name = request.resolver_match.url_name
    return json.dumps([request.user.username, request.session.get("visits"), request.tenant, request.GET["transport"], name])


def fail(socket: Any) -> None:
    """Use the database, and do not come back."""
    users()
    raise RuntimeError("asked for")


def spawned(socket: Any) -> None:
    """Use the database in a greenlet that is killed when the session closes."""
    socket.send(users())
    gevent.sleep(3600)


def in_transaction(socket: Any) -> None:
    """Wait for a message in a transaction."""
    with transaction.atomic():
        socket.send(users())
        socket.send(f"{socket.receive()} after {users()}")


def nested(socket: Any) -> None:
    """Send rows as they are read, with a listener that uses the database whenever something is sent."""
    socket.on("packet_create", lambda packet: users())
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 UNION ALL SELECT 2")
        while row := cursor.fetchone():
            socket.send(str(row[0]))


def ask(socket: Any) -> None:
    """Have a subscriber use the database, and send its reply."""
    assert engineio.cluster is not None
    end = engineio.cluster.subscribe("users", lambda data: users())
    socket.send(json.dumps(list(engineio.cluster.ask("users", "?", timeout=60.0).values())))
    end()


HANDLERS: dict[str, Callable[[Any], Any]] = {
    "users": lambda socket: socket.send(users()),
    "who": lambda socket: socket.send(who(socket)),
    "ask": ask,
    "fail": fail,
    "nested": nested,
    "callback": lambda socket: socket.send("sent", callback=lambda: socket.send(users())),
    "spawn": lambda socket: socket.spawn(spawned, socket) and None,
}


@engineio.on("connection")
def connected(socket: Any) -> None:
    """The two styles of handler, by what the query says."""
    style = socket.request.GET.get("style")
    if style == "callbacks":
        socket.on("message", lambda name: HANDLERS[name](socket))
        return
    socket.send(users())
    if style == "transaction":
        in_transaction(socket)
    if style == "wait_closed":
        socket.wait_closed()
    if style == "flush":
        socket.flush()
    for name in socket:
        HANDLERS[name](socket)
