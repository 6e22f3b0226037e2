"""`WebTransportServer`: serves the WebTransport sessions of an application on a UDP port.

Owns the requests for sessions, which it passes to the application, and the way the server starts and ends. `http3` has the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import gevent
from gevent.event import Event
from gevent.socket import socket as GeventSocket

from engineio_wsgi.engine.middleware import not_implemented
from engineio_wsgi.engine.webtransports import add_query
from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.http.wsgi_call import call
from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.server import Server, servers

if TYPE_CHECKING:
    from engineio_wsgi.http3.certificates import CertificateFiles
    from engineio_wsgi.http3.listener import Http3Listener
    from engineio_wsgi.http3.session import Session

__all__ = ["WebTransportServer"]

logger = logging.getLogger("engine.webtransport")

#: a port, ``(host, port)``, ``"host:port"`` or a bound UDP socket
UdpAddress: TypeAlias = int | str | tuple[str, int] | GeventSocket

MISSING = "a WebTransportServer needs aioquic: pip install 'engineio-wsgi[webtransport]'"
UNUSABLE = "the certificate of a WebTransportServer cannot be used: {}"
NO_SERVER = "a WebTransportServer needs a server with transports=('polling', 'websocket', 'webtransport'); there is none"
#: the name of the transport
NAME = "webtransport"
#: seconds between two looks whether the connections have ended
LOOK_PERIOD = 0.01


class WebTransportServer:
    """Serves WebTransport (HTTP/3, over UDP) for a server or an application, beside the HTTP server that serves the rest.

    While it runs, handshakes offer the transport to sessions that poll. The servers need the option
    ``transports=("polling", "websocket", "webtransport")``.

    Args:
        address: a port, ``(host, port)``, ``"host:port"`` or a bound UDP socket. The official client takes the port of its URL,
            which is that of the HTTP server.
        application: the :class:`Server`, or the WSGI application that it is in. With an application, all servers of the process
            offer the transport.
        certfile: the file of the certificate and its chain, in PEM. It is read again when it has changed.
        keyfile: the file of its key; ``None`` if ``certfile`` has the key, too.
        max_connections: clients that may be connected at a time.
        shared: whether other processes of this user serve the same port, as gunicorn's workers do. Each client keeps its process,
            also when its address changes.

    Raises:
        ConfigurationError: aioquic is not installed, a file cannot be used, or no server has the transport.

    Example::

        server = Server(transports=("polling", "websocket", "webtransport"))
        app = server.wrap(flask_app)
        WebTransportServer(8443, app, certfile="cert.pem", keyfile="key.pem").start()
        WSGIServer(("", 8443), app, handler_class=WebSocketHandler, certfile="cert.pem", keyfile="key.pem").serve_forever()
    """

    def __init__(self, address: UdpAddress, application: Server | WSGIApplication, *, certfile: str, keyfile: str | None = None,
                 max_connections: int = 10_000, shared: bool = False) -> None:
        self._servers = [application] if isinstance(application, Server) else list(servers)
        self._servers = [server for server in self._servers if NAME in server.options.transports]
        if not self._servers:
            raise ConfigurationError(NO_SERVER)
        self._application = _under_path(application) if isinstance(application, Server) else application
        self._ended = Event()
        self._certificate = _certificate_in(certfile, keyfile)
        self._listener = _make_listener(address, self._certificate, max_connections, self._on_request, shared)

    @property
    def address(self) -> Any:  # its form depends on the family of the socket
        """The address, with the port that was chosen if it was 0, once the server has started."""
        return self._listener.address

    def start(self) -> None:
        """Begin to serve. Does not block.

        Raises:
            CannotListen: the address cannot be used; an ``OSError``.
            ConfigurationError: with ``shared``, the directory in which the processes find each other cannot be used.
        """
        self._listener.listen()
        for server in self._servers:
            server._worker.enter_hub()
            server._registry.offer(NAME)

    def serve_forever(self) -> None:
        """Start, unless that was done, and block until :meth:`stop` has been called and is done."""
        if not self._listener.started:
            self.start()
        self._ended.wait()

    def stop(self, timeout: float = 10.0) -> None:
        """Take no more clients, wait until those that there are have left, and end.

        It closes no session: :meth:`Server.close` does. Blocks for ``timeout`` seconds at most.
        """
        for server in self._servers:
            server._registry.withdraw(NAME)
        self._listener.stop_opening()
        deadline = Deadline(timeout)
        while self._listener.connections and not deadline.has_passed():
            gevent.sleep(LOOK_PERIOD)
        self._listener.close_connections()
        self._ended.set()

    def reload_certificate(self) -> None:
        """Read the files of the certificate and its key now: clients that connect from now on get it, and all others stay.

        Need not be called: files that have changed are noticed within 10 seconds when a client connects. Does not wait for
        clients. Any thread, and a signal handler, may call it.

        Raises:
            ConfigurationError: a file cannot be used, or the key is not the certificate's. The former certificate is kept.
        """
        try:
            self._certificate.reload()
        except (OSError, ValueError) as error:
            raise ConfigurationError(UNUSABLE.format(error)) from error

    def _on_request(self, session: Session) -> None:
        gevent.spawn(self._answer, session)

    def _answer(self, session: Session) -> None:
        add_query(session.environ)
        try:
            session.answer(call(self._application, session.environ))
        except BaseException as error:
            session.fail()
            if not isinstance(error, Exception):
                raise
            logger.exception("the application failed; the WebTransport session is refused")


def _under_path(server: Server) -> WSGIApplication:
    """The application that serves the path of a server, and nothing else."""
    resource = server.options.resource

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        serve = server.handle_request if environ["PATH_INFO"].startswith(resource) else not_implemented
        return serve(environ, start_response)

    return application


def _certificate_in(certfile: str, keyfile: str | None) -> CertificateFiles:
    try:
        from engineio_wsgi.http3.certificates import CertificateFiles
    except ModuleNotFoundError as error:
        raise ConfigurationError(MISSING) from error
    try:
        return CertificateFiles(certfile, keyfile)
    except (OSError, ValueError) as error:
        raise ConfigurationError(UNUSABLE.format(error)) from error


def _make_listener(address: object, certificate: CertificateFiles, connections: int, on_request: Callable[[Session], object],
                   shared: bool) -> Http3Listener:
    # it needs aioquic
    from engineio_wsgi.http3.listener import Http3Listener, Limits

    return Http3Listener(address, certificate, Limits(connections), on_request, shared)
