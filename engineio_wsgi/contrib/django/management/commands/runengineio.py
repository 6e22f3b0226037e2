"""``manage.py runengineio``: `runserver` with gevent's server, so that WebSocket works as well as polling.

Owns the process: gevent patches it before Django is imported; signals; the end. Addresses, checks and the reloader are those of
`runserver`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from argparse import ArgumentParser
from wsgiref.types import WSGIApplication

import gevent
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.core.management.commands import runserver
from django.db import connections
from django.utils import autoreload
from gevent import monkey
from gevent.event import Event

from engineio_wsgi.contrib.django.server import wrapped
from engineio_wsgi.errors import CannotListen, ConfigurationError
from engineio_wsgi.http.http_server import StoppableServer
from engineio_wsgi.log import DebugHandler
from engineio_wsgi.server import close_servers, join_clusters

__all__ = ["Command"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: seconds that sessions have to fetch what is left, and requests to be answered, when the server is asked to stop
GRACE = 3.0

requests = logging.getLogger("django.server")


class Command(runserver.Command):  # type: ignore[misc]
    """See the module."""

    help = "Serves the project and its engine with gevent's server, and restarts when the code changes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The arguments of `runserver`, without those about threads."""
        parser.add_argument("addrport", nargs="?", help="port, or address:port (127.0.0.1:8000)")
        parser.add_argument("--ipv6", "-6", action="store_true", dest="use_ipv6", help="listen on an IPv6 address")
        parser.add_argument("--noreload", action="store_false", dest="use_reloader", help="do not watch the project's code")
        parser.add_argument("--nostatic", action="store_false", dest="use_static_handler",
                            help="do not serve static files; with DEBUG they are, if django.contrib.staticfiles is installed")

    def run_from_argv(self, argv: list[str]) -> None:
        """Called from the command line: the process belongs to the command, which may replace it by a patched one."""
        self._owns_process = True
        super().run_from_argv(argv)

    _owns_process = False

    def run(self, **options: object) -> None:
        """Called by `runserver` with checked arguments. The first process of the reloader only starts the others."""
        serves = not options["use_reloader"] or autoreload.DJANGO_AUTORELOAD_ENV in os.environ
        if serves and self._owns_process and not monkey.is_module_patched("threading"):
            _start_patched()
        super().run(**options)

    def inner_run(self, *args: object, **options: object) -> None:
        """Check the project, and serve it. Blocks until SIGINT or SIGTERM."""
        autoreload.raise_last_exception()
        if not options.get("skip_checks"):  # Django 4.2 has no such option here
            self.check(display_num_errors=True)
        self.check_migrations()
        connections.close_all()
        _set_up_logging()
        handler = self.get_handler(*args, **options)
        try:
            _join_clusters()
            http = self._listen(handler)
        except CommandError as error:
            if not options["use_reloader"]:
                raise
            # this is a thread of the reloader's, which would print a traceback, and wait for the code to change
            self.stderr.write(f"CommandError: {error}")
            self.stderr.flush()
            os._exit(1)
        asked_to_stop = Event()
        watchers = [gevent.signal_handler(number, asked_to_stop.set) for number in SIGNALS]
        self.on_bind(http.server_port)
        asked_to_stop.wait()
        http.stop_gracefully(GRACE, close_servers)
        for watcher in watchers:
            watcher.cancel()
        if options["use_reloader"]:
            # this is a thread of the reloader; only the main thread can end the process
            gevent.get_hub().handle_system_error(SystemExit, SystemExit(0))

    def get_handler(self, *args: object, **options: object) -> WSGIApplication:
        """The application ``settings.WSGI_APPLICATION``; with ``DEBUG``, static files are served in front of it."""
        try:
            handler: WSGIApplication = super().get_handler(*args, **options)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        if not wrapped:
            raise CommandError(f"there is no engine in {settings.WSGI_APPLICATION} (settings.WSGI_APPLICATION): make it with "
                               "engineio_wsgi.contrib.django.get_wsgi_application('package.module.engineio')")
        if settings.DEBUG and options["use_static_handler"] and apps.is_installed("django.contrib.staticfiles"):
            return StaticFilesHandler(handler)  # type: ignore[no-any-return]
        return handler

    def _listen(self, application: WSGIApplication) -> StoppableServer:
        http = StoppableServer((self.addr, int(self.port)), application, log=_RequestLog())
        try:
            http.listen()
        except CannotListen as error:
            raise CommandError(error.strerror) from None
        return http

    def on_bind(self, server_port: int) -> None:
        """Print the address. Called by `runserver`, too."""
        host = f"[{self.addr}]" if ":" in self.addr else self.addr
        self.stdout.write(f"Django {self.get_version()} with settings {settings.SETTINGS_MODULE!r} and its engine listen on "
                          f"http://{host}:{server_port}/\nQuit with Control-C.")
        self.stdout.flush()


def _join_clusters() -> None:
    try:
        join_clusters()
    except ConfigurationError as error:
        raise CommandError(str(error)) from None


class _RequestLog:
    """Logs requests as `runserver` does, except those of the engine: their lines would contain session ids."""

    def __init__(self) -> None:
        self._resources = tuple(f'"{method} {server.options.resource}' for server in wrapped for method in ("GET", "POST"))

    def write(self, line: str) -> None:
        """Called by gevent with a line for its log, which begins with the client's address and the time."""
        request = line.partition("] ")[2].rstrip()
        if not request.startswith(self._resources):
            requests.info("%s", request)


def _start_patched() -> None:
    """Replace this process by one that gevent patches before Django is imported. Does not return.

    When Django is imported, it makes the thread-local objects that hold connections; patched later, greenlets would share them.
    """
    flags = [f"-W{option}" for option in sys.warnoptions]
    path = os.pathsep.join(filter(None, [sys.path[0], os.environ.get("PYTHONPATH")]))
    os.execve(sys.executable, [sys.executable, *flags, "-m", "gevent.monkey", *sys.argv], {**os.environ, "PYTHONPATH": path})


def _set_up_logging() -> None:
    """Print errors of handlers as `runserver` prints errors of views, unless the project has set up logging."""
    engine = logging.getLogger("engine")
    printers = [handler for handler in engine.handlers if isinstance(handler, DebugHandler)]
    silent = (logging.NullHandler, DebugHandler)
    if not all(isinstance(handler, silent) for handler in [*engine.handlers, *logging.getLogger().handlers]):
        return
    shown = logging.StreamHandler()
    shown.setLevel(logging.WARNING)
    shown.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    for printer in printers:
        shown.addFilter(printer.leaves)
    engine.addHandler(shown)
