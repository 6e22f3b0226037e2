"""The engine: who connects is the user that Django knows, with the session that Django keeps."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections

import engineio_wsgi as engine

SessionStore = import_module(settings.SESSION_ENGINE).SessionStore


def django_request(request: Any) -> WSGIRequest:
    """A handshake as Django's middlewares would hand it to a view: with ``session`` and ``user``."""
    close_old_connections()
    django = WSGIRequest(request.environ)
    django.session = SessionStore(django.COOKIES.get(settings.SESSION_COOKIE_NAME))
    django.user = get_user(django)
    return django


def logged_in(request: Any) -> bool:
    """Whether a handshake may open a session."""
    if not django_request(request).user.is_authenticated:
        raise engine.Forbidden("log in first")
    return True


server = engine.Server(allow_request=logged_in)


@server.on("connection")
def connected(socket: engine.Socket) -> None:
    """Greets the user by name, knows the session, and sends every message back."""
    request = django_request(socket.request)
    socket.send(f"hello {request.user.get_username()}, visit {request.session.get('visits', 0)}")
    for message in socket:
        socket.send(f"{request.user.get_username()}: {message}")
