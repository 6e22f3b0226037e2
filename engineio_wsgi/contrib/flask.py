"""Flask: an extension whose handlers have the application context, and the handshake's ``request`` and ``session``.

In the application factory::

    import flask
    from engineio_wsgi.contrib.flask import EngineIO

    engineio = EngineIO()

    @engineio.on("connection")
    def connected(socket):
        socket.send(f"hello {flask.session['user']}")

    def create_app():
        app = flask.Flask(__name__)
        app.config["ENGINEIO_PING_INTERVAL"] = 25
        engineio.init_app(app)
        return app

Needs Flask: the extra ``[flask]``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication
from wsgiref.types import WSGIEnvironment as Environ

try:
    import flask
except ModuleNotFoundError as missing:
    if missing.name != "flask":
        raise
    raise ModuleNotFoundError("engineio_wsgi.contrib.flask needs Flask: pip install 'engineio-wsgi[flask]'",
                              name=missing.name) from None

from werkzeug.wrappers import Request

from engineio_wsgi.cluster.topics import Subscriber
from engineio_wsgi.contrib.flask_context import HandlerContext, outside_context
from engineio_wsgi.engine.middleware import Middleware
from engineio_wsgi.errors import ConfigurationError, RequestRefused, UsageError
from engineio_wsgi.log import Throttle
from engineio_wsgi.options.options import Options
from engineio_wsgi.runtime.clock import monotonic
from engineio_wsgi.server import Server
from engineio_wsgi.session.environs import TRANSIENT
from engineio_wsgi.session.events import Listener, StandIn
from engineio_wsgi.session.socket import Socket

__all__ = ["EngineIO", "FlaskSocket"]

logger = logging.getLogger("engine")

#: the prefix of the options in ``app.config``, and the name of the extension in ``app.extensions``
PREFIX, NAME = "ENGINEIO_", "engineio"
#: key of an environ: the application that the request was sent to
APPLICATION = "engineio.flask.app"


class FlaskSocket(Socket):
    """A session of :class:`EngineIO`. While a handler waits in one of the methods, it has no context.

    The exception is :meth:`send <engineio_wsgi.Socket.send>`. It waits only if the client is slow; the handler then keeps its
    context, and with it an open transaction.
    """

    __slots__ = ()

    @property
    def environ(self) -> Environ:
        """The environ of the handshake, without the objects that belong to its connection."""
        return self._environ

    @property
    def request(self) -> Request:
        """Flask's request of the handshake."""
        if self._request is None:
            self._request = self.server._request_of(self._environ)
        return self._request

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message. Blocks until there is one; the handler's context ends, and another one begins.

        Raises:
            SocketClosed: the session has ended (or is closing) and nothing is left to receive.
            TimeoutError: ``timeout`` seconds passed.
            UsageError: another greenlet is receiving already.
        """
        with outside_context():
            return super().receive(timeout)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was sent has been written out; the handler's context ends, and another one begins.

        Returns:
            ``False`` when ``timeout`` seconds passed first.

        Raises:
            SocketClosed: the session ended with something unsent.
        """
        with outside_context():
            return super().flush(timeout)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Block until the session has ended; the handler's context ends, and another one begins.

        Returns:
            ``False`` when ``timeout`` seconds passed first.
        """
        with outside_context():
            return super().wait_closed(timeout)

    def _stand_in(self, function: Listener) -> Listener:
        return _ContextListener(function, self.server, self._environ)


class EngineIO(Server):
    """The engine of a Flask application. It wraps ``app.wsgi_app``.

    Every handler runs in a request context of its own: that of the handshake. ``flask.current_app``, ``flask.request``,
    ``flask.session`` and ``flask.g`` are available, and functions of ``teardown_appcontext`` run when the context ends. This
    holds for ``allow_request``, listeners, functions that ``socket.spawn`` runs, and the callbacks of ``send``.
    Subscribers of a topic have an application context. ``before_request`` functions do not run. The session is read-only:
    there is no response that could carry its cookie.

    The context also ends at each ``receive()``, each step of ``for message in socket``, ``flush()`` and ``wait_closed()``, and
    another one begins afterwards, with the same ``request`` and ``session``, and a new ``g``. So a handler that waits for its
    client does not hold what teardown functions free, such as Flask-SQLAlchemy's database connection.

    Args:
        app: the application; or call :meth:`init_app` later.
        options: override ``app.config["ENGINEIO_…"]``; see the option table of the documentation.

    Raises:
        ConfigurationError: an option that does not exist, or has an impossible value.

    Example::

        app = flask.Flask(__name__)
        engineio = EngineIO(app, allow_request=lambda request: "user" in flask.session)
    """

    _socket_class = FlaskSocket

    def __init__(self, app: flask.Flask | None = None, **options: object) -> None:
        super().__init__(**options)
        self._given = options
        self._app: flask.Flask | None = None
        self._throttle = Throttle()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Read the options from ``app.config``, and put the engine in front of ``app.wsgi_app``.

        Wrap ``app.wsgi_app`` after this in middlewares that have to run before the engine, such as werkzeug's ``ProxyFix``.
        Further applications, such as those that a factory makes for each test, share the engine and its sessions.

        Raises:
            ConfigurationError: ``app.config`` has an ``ENGINEIO_…`` that does not exist, is an impossible value, or differs
                from what the first application has.
            UsageError: the application has an engine already.
        """
        if NAME in app.extensions:
            raise UsageError(f"the application {app.name!r} has an EngineIO already; for a second one under another path, wrap "
                             "app.wsgi_app in a Server of its own")
        options = Options.create(**{**options_from_config(app.config), **self._given})
        if self._app is None:
            self._configure(options)
            self._app = app
        elif options != self.options:
            raise ConfigurationError(f"the options of the application {app.name!r} are not those of the first that this EngineIO "
                                     "was given: make an EngineIO for each")
        app.extensions[NAME] = self
        app.wsgi_app = _AppMiddleware(app, self)  # type: ignore[method-assign]

    def context(self, environ: Mapping[str, object]) -> AbstractContextManager[None]:
        """The context of a request, such as that of a handshake."""
        return HandlerContext(self._app_of(environ).request_context(_without_connection(environ)), self._on_session_changed)

    def outside_context(self) -> AbstractContextManager[None]:
        """Run a block of a handler without a context, because it waits for something and needs nothing of Flask.

        The handler's context ends before the block, with its teardown functions, and another one begins after it, as with
        ``receive()``. Inside of a context that the handler itself has pushed, no context ends.

        Example::

            with engineio.outside_context():
                gevent.sleep(60)
        """
        return outside_context()

    def _on_session_changed(self) -> None:
        if self._throttle.passes("session", monotonic()):
            logger.warning("a handler changed flask.session, and nothing saves it: change it in a view; for what belongs to one "
                           "connection there is socket.data")

    def _app_of(self, environ: Mapping[str, Any]) -> flask.Flask:  # as `WSGIEnvironment`
        app: flask.Flask | None = environ.get(APPLICATION, self._app)
        if app is None:
            raise UsageError("this EngineIO has no application yet: call init_app(app)")
        return app

    # -- hooks of Server

    def _stand_in(self, listener: Listener) -> Listener:
        return _ContextListener(listener, self)

    def _subscriber(self, callback: Subscriber) -> Listener:
        return _ContextListener(callback, self)

    def _request_of(self, environ: Environ) -> Request:
        return self._app_of(environ).request_class(_without_connection(environ))

    def _admit(self, environ: Environ) -> str:
        with self.context(environ):
            return super()._admit(environ)

    def _unwrap(self, application: WSGIApplication) -> WSGIApplication:
        # Flask.__call__ does nothing but call wsgi_app
        if isinstance(application, flask.Flask) and type(application).__call__ is flask.Flask.__call__:
            return application.wsgi_app
        return application

class _AppMiddleware(Middleware):
    """The engine in front of one application. It notes the application in the environ of each request."""

    #: sessions have the application from their handshake
    lane = True

    def __init__(self, app: flask.Flask, engineio: EngineIO) -> None:
        super().__init__(app.wsgi_app, engineio)
        self._app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        environ[APPLICATION] = self._app
        return super().__call__(environ, start_response)


class _ContextListener(StandIn):
    """A listener in the context of the request that it is about; in an application context if it is about none."""

    __slots__ = ("engineio", "environ")

    def __init__(self, listener: Listener, engineio: EngineIO, environ: Environ | None = None) -> None:
        super().__init__(listener)
        self.engineio = engineio
        #: ``None`` if the request, if there is one, is one of the arguments
        self.environ = environ

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call the listener."""
        environ = _environ_in(args) if self.environ is None else self.environ
        with self.engineio._app_of({}).app_context() if environ is None else self.engineio.context(environ):
            return self.listener(*args, **kwargs)


def _environ_in(args: tuple[object, ...]) -> Environ | None:
    """The environ in the arguments of a server's listener: of a session, a request, or a refusal; ``None`` if there is none."""
    for each in args:
        if isinstance(each, RequestRefused):
            return _environ_in((each.request,))
        if isinstance(each, (FlaskSocket, Request)):
            return each.environ
    return None


def _without_connection(environ: Mapping[str, object]) -> Environ:
    """A copy of an environ without the objects that belong to its connection, so that it may be kept."""
    return {key: value for key, value in environ.items() if key not in TRANSIENT}


def options_from_config(config: Mapping[str, object]) -> dict[str, object]:
    """The options in ``app.config``: every key that begins with ``ENGINEIO_``.

    Raises:
        ConfigurationError: an option that does not exist, or has an impossible value; the text names it.
    """
    options = {}
    for key, value in config.items():
        if key.startswith(PREFIX):
            name = key.removeprefix(PREFIX).lower()
            try:
                Options.create(**{name: value})
            except ConfigurationError as error:
                raise ConfigurationError(f"app.config[{key!r}]: {str(error).removeprefix(name + ': ')}") from None
            options[name] = value
    return options
