"""A handshake as a request of Django's: through the middleware of the project, to a view of ours that lets it in.

Owns what a middleware's answer means for the client. Knows nothing of sessions.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import DisallowedHost
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIRequest, get_script_name
from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch, set_script_prefix

from engineio_wsgi.errors import Forbidden
from engineio_wsgi.session.socket import TRANSIENT

__all__ = ["Admission", "Site", "django_request"]

View = Callable[..., HttpResponse]


def django_request(environ: Mapping[str, Any]) -> HttpRequest:
    """The request of an environ, without its body and what belongs to its connection: it may be kept."""
    kept = {key: value for key, value in environ.items() if key not in TRANSIENT}
    return WSGIRequest({**kept, "wsgi.input": io.BytesIO()})


class Admission(HttpResponse):  # type: ignore[misc]
    """The answer to a handshake that all middlewares have let through.

    ``request`` is the one that they have handed on, with all that they have put on it.
    """

    status_code = 204

    def __init__(self, request: HttpRequest) -> None:
        super().__init__()
        self.request = request

    def set_cookie_headers(self) -> list[tuple[str, str]]:
        """The cookies that middlewares want set: that of a session which is renewed by each request, for example."""
        return [("Set-Cookie", morsel.OutputString()) for morsel in self.cookies.values()]


class Site(BaseHandler):  # type: ignore[misc]
    """The project's middlewares, round one view. Made when Django has been set up; used by all handshakes."""

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware()

    def admit(self, environ: Mapping[str, Any]) -> Admission:
        """Ask the middlewares. Blocks as long as they do.

        ``request_started`` and ``request_finished`` are not sent: they close the connections of the whole thread, transactions
        of others and of tests included. Whoever calls this sees to the connections.

        Raises:
            Forbidden: the host is none of ``ALLOWED_HOSTS``, or a middleware has answered something of its own.
        """
        set_script_prefix(get_script_name(environ))
        request = django_request(environ)
        _check_host(request)
        response = self.get_response(request)
        if isinstance(response, Admission) and response.status_code == Admission.status_code:
            return response
        raise _refusal(response)

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        """Whatever its path is: the engine's is in no urlconf."""
        request.resolver_match = ResolverMatch(_let_in, (), {}, url_name="engineio")
        return request.resolver_match

    def make_view_atomic(self, view: View) -> View:
        """``ATOMIC_REQUESTS`` is for views that do something; this one needs no transaction."""
        return view


def _let_in(request: HttpRequest) -> Admission:
    return Admission(request)


# the engine's own check is of the Origin header
_let_in.csrf_exempt = True  # type: ignore[attr-defined]


def _check_host(request: HttpRequest) -> None:
    """No middleware has to ask for the host, so perhaps none does."""
    try:
        request.get_host()
    except DisallowedHost as error:
        context = {"name": "ALLOWED_HOSTS", "error": str(error)}
        raise Forbidden("Forbidden: the host is not one of the site's ALLOWED_HOSTS", context) from None


def _refusal(response: HttpResponse) -> Forbidden:
    status = f"{response.status_code} {response.reason_phrase}"
    location = response.headers.get("Location", "").partition("?")[0]
    what = f"redirects to {location}" if location else f"answered {status}"
    return Forbidden(f"Forbidden: the site {what}", {"name": "DJANGO_MIDDLEWARE", "status": status})
