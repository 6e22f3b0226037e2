"""redis-py's connections over gevent's sockets. Imports redis.

Relies on: ``Connection._connect`` making the socket, ``Connection._sock`` holding it, the settings of ``SSLConnection``, and
``_RESP2Parser``, the parser in Python. redis-py's own pools, and its parser over hiredis, are not used, because they wait for a
socket in ways that stop every other greenlet.
"""

from __future__ import annotations

from gevent import socket as gevent_socket
from gevent import ssl as gevent_ssl
from redis._parsers import _RESP2Parser as Parser
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

__all__ = ["GeventConnection", "GeventSSLConnection", "GeventUnixConnection", "Parser", "detach_socket", "set_timeout"]


class GeventConnection(Connection):
    """redis-py's connection over a socket for which only the calling greenlet waits."""

    def on_socket(self, sock: gevent_socket.socket) -> None:
        """Called with each socket that the connection opens, the TLS one included. For subclasses."""

    def _connect(self) -> gevent_socket.socket:
        sock = _open(self)
        self.on_socket(sock)
        return sock


class GeventSSLConnection(SSLConnection):
    """The same with TLS. The settings are redis-py's."""

    def on_socket(self, sock: gevent_socket.socket) -> None:
        """Called with each socket that the connection opens, the TLS one included. For subclasses."""

    def _connect(self) -> gevent_socket.socket:
        sock = _open(self)
        self.on_socket(sock)
        try:
            secure = self._context().wrap_socket(sock, server_hostname=self.host)
        except OSError:
            sock.close()
            raise
        self.on_socket(secure)
        return secure

    def _context(self) -> gevent_ssl.SSLContext:
        context = gevent_ssl.SSLContext(gevent_ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.check_hostname
        context.verify_mode = self.cert_reqs
        context.load_default_certs()
        if self.ca_certs or self.ca_path or self.ca_data:
            context.load_verify_locations(self.ca_certs, self.ca_path, self.ca_data)
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile, self.certificate_password)
        return context


class GeventUnixConnection(UnixDomainSocketConnection):
    """The same over a Unix socket."""

    def on_socket(self, sock: gevent_socket.socket) -> None:
        """Called with each socket that the connection opens. For subclasses."""

    def _connect(self) -> gevent_socket.socket:
        sock = gevent_socket.socket(gevent_socket.AF_UNIX)
        try:
            sock.settimeout(self.socket_connect_timeout)
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        self.on_socket(sock)
        sock.settimeout(self.socket_timeout)
        return sock


def _open(connection: Connection) -> gevent_socket.socket:
    sock = gevent_socket.create_connection((connection.host, connection.port), connection.socket_connect_timeout)
    sock.setsockopt(gevent_socket.IPPROTO_TCP, gevent_socket.TCP_NODELAY, 1)
    sock.settimeout(connection.socket_timeout)
    return sock


def detach_socket(connection: Connection) -> gevent_socket.socket:
    """The socket of a connection, which the connection does not use any more. What it has read ahead is lost."""
    sock, connection._sock = connection._sock, None
    return sock


def set_timeout(connection: Connection, seconds: float) -> None:
    """Have the next read from a connection wait for ``seconds`` at most."""
    assert connection._sock is not None
    connection._sock.settimeout(seconds)
