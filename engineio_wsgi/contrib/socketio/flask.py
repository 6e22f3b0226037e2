"""`SocketIO`: Flask-SocketIO's, with this engine below it.

Nothing of Flask-SocketIO or python-socketio is changed for anybody else: their own classes go on working in the same process.
"""

from __future__ import annotations

from types import FunctionType, SimpleNamespace

from engineio_wsgi.contrib.socketio.requirements import require_flask_socketio
from engineio_wsgi.contrib.socketio.untyped import Value

require_flask_socketio()

import flask  # noqa: E402  only if what it needs is there
import flask_socketio  # noqa: E402
import socketio  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from werkzeug.debug import DebuggedApplication  # noqa: E402

from engineio_wsgi.contrib.socketio.flask_events import EventApp  # noqa: E402
from engineio_wsgi.contrib.socketio.manager import emitting_once  # noqa: E402
from engineio_wsgi.contrib.socketio.server import Server  # noqa: E402
from engineio_wsgi.http.handler import WebSocketHandler  # noqa: E402

__all__ = ["SocketIO"]

#: the port of `SocketIO.run`, and of Flask
PORT = 5000
#: python-socketio's managers of message queues, which Flask-SocketIO makes
MANAGERS = ("RedisManager", "KafkaManager", "ZmqManager", "KombuManager")
#: Flask-SocketIO's own options, which it leaves among those of its server
FOREIGN = ("message_queue", "channel", "manage_session")


class SocketIO(flask_socketio.SocketIO):  # type: ignore[misc]  # no types
    """``flask_socketio.SocketIO`` on this engine: every documented argument, method and decorator of Flask-SocketIO.

    The options of this engine (``allow_eio3``, ``max_buffered``, ``cluster``, ``trust_forwarded``, …) may be given as well.

    Args:
        app: the application; or call ``init_app`` later.
        kwargs: options of Flask-SocketIO, python-socketio and this engine.

    Example::

        socketio = SocketIO(app)

        @socketio.on("message")
        def message(data):
            send(data, broadcast=True)
    """

    server: Server

    def init_app(self, app: flask.Flask | None, **kwargs: Value) -> None:
        """Make the server, and put it in front of ``app.wsgi_app``. Without an application, only ``emit`` can be used."""
        given = {**self.server_options, **kwargs}
        path = "/" + (given.get("path") or given.get("resource") or "socket.io").strip("/")

        def make_server(**options: Value) -> Server:
            return Server(path=path, **{name: value for name, value in options.items() if name not in FOREIGN})

        # Flask-SocketIO looks its server's class up when it is called: the same code runs here with another class by that name
        managers = {name: emitting_once(getattr(socketio, name)) for name in MANAGERS}
        names = {**vars(flask_socketio), "socketio": SimpleNamespace(**{**vars(socketio), **managers, "Server": make_server})}
        original = flask_socketio.SocketIO.init_app
        run = FunctionType(original.__code__, names, original.__name__, original.__defaults__)
        run(self, app, **kwargs)

    def run(self, app: flask.Flask, host: str | None = None, port: int | None = None, **kwargs: Value) -> None:
        """Serve the application with gevent's server, until it is stopped. ``debug`` and ``use_reloader`` are those of Flask.

        Args:
            host: the address to listen on; 127.0.0.1 by default.
            port: the port; that of ``SERVER_NAME`` by default, or 5000.
            kwargs: as Flask-SocketIO's; what is left is for ``gevent.pywsgi.WSGIServer``.
        """
        debug = kwargs.pop("debug", app.debug)
        use_reloader = kwargs.pop("use_reloader", debug)
        log = "default" if kwargs.pop("log_output", debug) else None
        reloader = dict(kwargs.pop("reloader_options", {}))
        extra_files = kwargs.pop("extra_files", None)
        if extra_files:
            reloader["extra_files"] = extra_files
        # Werkzeug's server is never used
        kwargs.pop("allow_unsafe_werkzeug", None)
        app.debug = debug
        if debug:
            self.sockio_mw.wsgi_app = DebuggedApplication(self.sockio_mw.wsgi_app, evalex=True)
        self.wsgi_server = WSGIServer((host or "127.0.0.1", port or _port_of(app)), app, handler_class=WebSocketHandler, log=log,
                                      **kwargs)
        if use_reloader:
            _serve_with_reloader(self.wsgi_server, reloader)
        else:
            self.wsgi_server.serve_forever()

    def _handle_event(self, handler: Value, message: str, namespace: str, sid: str, *args: Value) -> Value:
        environ = self.server.get_environ(sid, namespace)
        app = environ.get("flask.app") if environ else None
        if type(app) is EventApp and self.manage_session and message != "connect":
            context = app.event_context(environ, sid=sid, namespace=namespace, event={"message": message, "args": args})
            if context is not None:
                with context:
                    return self._call(handler, namespace, args)
        elif isinstance(app, flask.Flask):
            environ["flask.app"] = EventApp(app)
        return super()._handle_event(handler, message, namespace, sid, *args)

    def _call(self, handler: Value, namespace: str, args: tuple[Value, ...]) -> Value:
        """Call the handler of an event in its context; if it raises, the error handler of the namespace."""
        try:
            return handler(*args)
        except socketio.exceptions.ConnectionRefusedError:
            raise
        except Exception as error:
            on_error = self.exception_handlers.get(namespace, self.default_exception_handler)
            if on_error is None:
                raise
            return on_error(error)


def _port_of(app: flask.Flask) -> int:
    port = (app.config["SERVER_NAME"] or "").rpartition(":")[2]
    return int(port) if port.isdecimal() else PORT


def _serve_with_reloader(server: WSGIServer, options: dict[str, Value]) -> None:
    """Serve, and start anew when a file changes. The reloader uses threads, so it needs gevent's patches, as Flask-SocketIO's."""
    from gevent import monkey
    from werkzeug._reloader import run_with_reloader

    monkey.patch_thread()
    monkey.patch_time()
    run_with_reloader(server.serve_forever, **options)
