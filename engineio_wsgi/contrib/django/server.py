"""`EngineIO`: the server of a Django project, and the WSGI application of a project with an engine."""

from __future__ import annotations

import logging
from functools import cached_property
from weakref import WeakSet
from wsgiref.types import WSGIApplication
from wsgiref.types import WSGIEnvironment as Environ

from django.core import wsgi
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils.module_loading import import_string
from gevent import monkey

from engineio_wsgi.cluster.topics import Subscriber
from engineio_wsgi.contrib.django.conf import options_from_settings
from engineio_wsgi.contrib.django.database import call_handler
from engineio_wsgi.contrib.django.handshake import Site, django_request
from engineio_wsgi.contrib.django.socket import DJANGO_REQUEST, DjangoListener, DjangoSocket
from engineio_wsgi.engine.hooks import ADDED_HEADERS
from engineio_wsgi.engine.middleware import Middleware
from engineio_wsgi.server import Server
from engineio_wsgi.session.events import Listener

__all__ = ["EngineIO", "get_wsgi_application", "wrapped"]

logger = logging.getLogger("engine")

#: the engines that wrap an application in this process
wrapped: WeakSet[EngineIO] = WeakSet()


class EngineIO(Server):
    """The engine of a Django project.

    A handshake passes the project's middlewares, once, like any request: ``socket.request`` in the handlers is Django's, with
    ``session`` and ``user``. A middleware that sends a response of its own (403, a redirect to the login page) refuses the
    handshake with code 4. The host has to be one of ``ALLOWED_HOSTS``. ``allow_request``, ``generate_id`` and the listeners that
    get a request get Django's, too. The later requests of a session pass no middleware.

    Args:
        options: override those of the setting ``ENGINEIO``; see the option table of the documentation.

    Raises:
        ImproperlyConfigured: a setting that does not exist, or has an impossible value.
        ConfigurationError: the same of an argument.

    Example::

        engineio = EngineIO(allow_request=lambda request: request.user.is_authenticated)

        @engineio.on("connection")
        def connected(socket):
            socket.send(f"hello {socket.request.user.username}")
    """

    _socket_class = DjangoSocket

    def __init__(self, **options: object) -> None:
        super().__init__(**{**options_from_settings(), **options})

    def wrap(self, application: WSGIApplication) -> Middleware:
        """Django's ``application`` with the engine in front of it. Django has to be set up."""
        assert self._site is not None  # loads the middlewares now, so that an error in one shows before the first client comes
        wrapped.add(self)
        return super().wrap(application)

    @cached_property
    def _site(self) -> Site:
        return Site()

    # -- hooks of Server

    def _stand_in(self, listener: Listener) -> Listener:
        return DjangoListener(listener)

    def _subscriber(self, callback: Subscriber) -> Listener:
        return DjangoListener(callback)

    def _request_of(self, environ: Environ) -> HttpRequest:
        """Django's request. Only the request of an admitted handshake has gone through the middlewares."""
        return environ.get(DJANGO_REQUEST) or django_request(environ)

    def _on_start(self) -> None:
        if not monkey.is_module_patched("threading"):
            logger.warning("gevent has not patched the standard library: all handlers share one database connection, and each "
                           "query blocks every session; start with manage.py runengineio or gunicorn -k gevent, or call "
                           "gevent.monkey.patch_all() before Django is imported")

    def _admit(self, environ: Environ) -> str:
        sid: str = call_handler(self._admit_by_site, environ)
        return sid

    def _admit_by_site(self, environ: Environ) -> str:
        admission = self._site.admit(environ)
        environ[DJANGO_REQUEST] = admission.request
        environ[ADDED_HEADERS] = admission.set_cookie_headers()
        return super()._admit(environ)


def get_wsgi_application(engineio: str) -> Middleware:
    """Django's WSGI application with the engine in front of it; sets Django up first.

    Args:
        engineio: the :class:`EngineIO`, as ``"package.module.name"``. It is imported when Django has been set up, so that its
            module may import models.

    Raises:
        ImportError: there is no such thing.
        ImproperlyConfigured: it is something else, or a setting is wrong.
    """
    application = wsgi.get_wsgi_application()
    server = import_string(engineio)
    if not isinstance(server, EngineIO):
        raise ImproperlyConfigured(f"get_wsgi_application({engineio!r}): expected the name of an EngineIO; "
                                   f"it is of the type {type(server).__name__}")
    return server.wrap(application)
