"""The engine and its handlers, which have Django's user and session."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest

from engineio_wsgi import Forbidden
from engineio_wsgi.contrib.django import DjangoSocket, EngineIO


def logged_in(request: HttpRequest) -> bool:
    """Whether a handshake may open a session."""
    if not request.user.is_authenticated:
        raise Forbidden("log in first")
    return True


engineio = EngineIO(allow_request=logged_in)


@engineio.on("connection")
def connected(socket: DjangoSocket) -> None:
    """Greet the user, send what the user says to everybody, and count users in the database on request."""
    name = socket.request.user.get_username()
    socket.send(f"hello {name}, this is visit {socket.request.session.get('visits', 0)}")
    for message in socket:
        if message == "/users":
            socket.send(f"there are {User.objects.count()} users")
        else:
            engineio.broadcast(f"{name}: {message}")
