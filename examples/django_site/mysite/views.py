"""Views."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The page with the client. It counts visits in the session, and the engine's handler reads them."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return render(request, "home.html")
