"""A handshake as a request of Django: it passes the middlewares of the project, and ends in a view of ours.

Owns the translation of a middleware's response into a refusal. It must not know sessions.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from wsgiref.types import WSGIEnvironment

from django.core.exceptions import DisallowedHost
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIRequest, get_script_name
from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch, set_script_prefix

from engineio_wsgi.errors import Forbidden
from engineio_wsgi.session.environs import TRANSIENT

__all__ = ["Admission", "Site", "django_request"]

View = Callable[..., HttpResponse]


def django_request(environ: WSGIEnvironment) -> HttpRequest:
    """The request of an environ, without the body and the objects that belong to the connection, so that it may be kept."""
    kept = {key: value for key, value in environ.items() if key not in TRANSIENT}
    return WSGIRequest({**kept, "wsgi.input": io.BytesIO()})


class Admission(HttpResponse):  # type: ignore[misc]
    """The response to a handshake that no middleware has refused.

    ``request`` is the request as the middlewares have left it.
    """

    status_code = 204

    def __init__(self, request: HttpRequest) -> None:
        super().__init__()
        self.request = request

    def set_cookie_headers(self) -> list[tuple[str, str]]:
        """The cookies that middlewares have set, such as that of a session that each request renews."""
        return [("Set-Cookie", morsel.OutputString()) for morsel in self.cookies.values()]


class Site(BaseHandler):  # type: ignore[misc]
    """The project's middlewares around one view. It is made once Django is set up, and serves all handshakes."""

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware()

    def admit(self, environ: WSGIEnvironment) -> Admission:
        """Call the middlewares. Blocks as long as they do.

        The signals ``request_started`` and ``request_finished`` are not sent: they would close the connections of the whole
        thread, those in transactions of others and of tests included. The caller has to close its connections itself.

        Raises:
            Forbidden: the host is not one of ``ALLOWED_HOSTS``, or a middleware has sent a response of its own.
        """
        set_script_prefix(get_script_name(environ))
        request = django_request(environ)
        _check_host(request)
        response = self.get_response(request)
        if isinstance(response, Admission) and response.status_code == Admission.status_code:
            return response
        raise _refusal(response)

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        """Resolve every path to our view: the engine's path is in no urlconf."""
        request.resolver_match = ResolverMatch(_let_in, (), {}, url_name="engineio")
        return request.resolver_match

    def make_view_atomic(self, view: View) -> View:
        """Ignore ``ATOMIC_REQUESTS``: our view needs no transaction."""
        return view


def _let_in(request: HttpRequest) -> Admission:
    return Admission(request)


# the engine checks the Origin header instead
_let_in.csrf_exempt = True  # type: ignore[attr-defined]


def _check_host(request: HttpRequest) -> None:
    """Check the host, which the project's middlewares need not do."""
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
