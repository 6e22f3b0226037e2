"""Engine.IO for Python's synchronous world: gevent, gevent-websocket and werkzeug."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from engineio_wsgi.emitter import Emitter
from engineio_wsgi.engine.lane import handshake_only
from engineio_wsgi.engine.middleware import Middleware
from engineio_wsgi.errors import (
    ConfigurationError,
    EngineError,
    Forbidden,
    PayloadTooLarge,
    ProtocolError,
    SocketClosed,
    WriteTimeout,
)
from engineio_wsgi.http.handler import WebSocketHandler
from engineio_wsgi.log import set_up_debug
from engineio_wsgi.options.values import Cookie, Cors, Deflate, HttpCompression
from engineio_wsgi.protocol.websocket.batches import accelerated
from engineio_wsgi.server import Server, attach, listen
from engineio_wsgi.session.outgoing import Bundle
from engineio_wsgi.session.socket import Socket
from engineio_wsgi.transports import Transport, transports
from engineio_wsgi.transports.base import GOODBYE, ClientClose
from engineio_wsgi.version import __version__
from engineio_wsgi.webtransport import WebTransportServer

__all__ = [
    "GOODBYE",
    "Bundle",
    "ClientClose",
    "ConfigurationError",
    "Cookie",
    "Cors",
    "Deflate",
    "Emitter",
    "EngineError",
    "Forbidden",
    "HttpCompression",
    "Middleware",
    "PayloadTooLarge",
    "ProtocolError",
    "Server",
    "Socket",
    "SocketClosed",
    "Transport",
    "WebSocketHandler",
    "WebTransportServer",
    "WriteTimeout",
    "__version__",
    "accelerated",
    "attach",
    "handshake_only",
    "listen",
    "protocol",
    "transports",
]

set_up_debug()

#: the protocol revision that the engine speaks first of all
protocol = 4


def __getattr__(name: str) -> ModuleType:
    """``gunicorn -k engineio_wsgi.gunicorn`` looks for the worker class here: it gets the module, which says what was meant."""
    if name == "gunicorn":
        try:
            return import_module("engineio_wsgi.gunicorn")
        except ModuleNotFoundError as error:
            raise AttributeError(str(error)) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
