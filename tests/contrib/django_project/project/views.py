"""Views, and the books that are kept on database connections."""

from __future__ import annotations

from typing import Any

from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponse, JsonResponse

from project.middleware import Tenant

created = 0
#: Django's wrappers of all connections there have been; held, so that none is closed by the garbage collector
wrappers: list[Any] = []


def on_connection(connection: Any, **kwargs: Any) -> None:
    """Some thread or greenlet has opened one."""
    global created
    created += 1
    if not any(wrapper is connection for wrapper in wrappers):
        wrappers.append(connection)


connection_created.connect(on_connection)


def home(request: HttpRequest) -> HttpResponse:
    """Counts its visits in the session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse("home")


def state(request: HttpRequest) -> HttpResponse:
    """How many connections were opened and are open, and how often the middlewares were asked."""
    still_open = sum(wrapper.connection is not None for wrapper in wrappers)
    return JsonResponse({"created": created, "open": still_open, "asked": Tenant.asked})
