"""The engine: who connects is the user that Django knows, with the session that Django keeps."""

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
    """Greets the user by name, tells everybody what the user says, and asks the database when it is asked."""
    name = socket.request.user.get_username()
    socket.send(f"hello {name}, this is visit {socket.request.session.get('visits', 0)}")
    for message in socket:
        if message == "/users":
            socket.send(f"there are {User.objects.count()} users")
        else:
            engineio.broadcast(f"{name}: {message}")
