"""Middlewares of the project's own."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseForbidden, HttpResponseRedirect

Respond = Callable[[HttpRequest], HttpResponse]


class Tenant:
    """Puts something on the request, and counts how often it was asked."""

    asked = 0

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: HttpRequest) -> HttpResponse:
        Tenant.asked += 1
        request.tenant = request.headers.get("X-Tenant", "nobody")
        return self.respond(request)


class Doorkeeper:
    """Refuses what it is told to refuse, in the way in which it is told to."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: HttpRequest) -> HttpResponse:
        refuse = request.headers.get("X-Refuse")
        if refuse == "403":
            return HttpResponseForbidden("go away")
        if refuse == "redirect":
            return HttpResponseRedirect("/login/?next=/secret")
        if refuse == "silently":
            return HttpResponse(status=204)
        response = self.respond(request)
        if refuse == "late":
            return HttpResponse("something else")
        return response

    def process_view(self, request: HttpRequest, *view: object) -> HttpResponse | None:
        """Called when the view is known."""
        return HttpResponseForbidden("go away") if request.headers.get("X-Refuse") == "view" else None
