"""A server whose clients cross from one worker to another: the conformance suite runs over it as over any other.

Two engines in one process, as two workers of a machine, or of two machines with a Redis. The one that the test has in its
hands owns all sessions; whatever connection begins with a request that names a session is accepted by the other.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Any

import gevent
import gevent.pywsgi
from gevent import socket

from engineio_wsgi.cluster import routing
from engineio_wsgi.cluster.addresses import AbstractNames
from support.serving import ErrorText, LocalServer, fallback, handler_class, server_context

#: bytes of a connection that are looked at
ENOUGH = 4096
#: seconds for which a connection may be silent before it goes to the owner
SILENCE = 0.05


class CrossingServer(LocalServer):
    """`LocalServer`, and another worker before it."""

    def __init__(self, app: str | None, *, cluster: str = "local", tls: dict[str, str] | None = None, **options: Any) -> None:
        import engineio_wsgi

        if options.get("server") is None:
            options["cluster"] = cluster
        self._choose_names = routing.choose_names
        if cluster != "local":
            # as on two machines: neither finds the other's socket
            machines = count(1)
            routing.choose_names = lambda group: AbstractNames(f"{group} of {os.getpid()} {next(machines)}")
        super().__init__(app, "ours", tls=tls, **options)
        given = {name: value for name, value in options.items() if name not in ("wsgi", "server")}
        self.other_errors = ErrorText()
        self.other = engineio_wsgi.Server(**given)
        self.other_http = gevent.pywsgi.WSGIServer(
            ("127.0.0.1", 0), self.other.wrap(fallback), handler_class=handler_class("ours"), log=None,
            error_log=self.other_errors, **({} if tls is None else {"ssl_context": server_context(**tls)}))
        self.other_http.start()
        handle = self.http._handle if tls is None else self.http.wrap_socket_and_handle
        self.http._handle = self.http.wrap_socket_and_handle = lambda sock, address: self._accept(handle, sock, address)

    def _accept(self, handle: Any, sock: Any, address: Any) -> Any:
        if self.engine.cluster is None or not _names_session(sock):
            return handle(sock, address)
        http = self.other_http
        return (http.wrap_socket_and_handle if http.ssl_enabled else http._handle)(sock, address)

    def stop(self) -> None:
        """Stop both; the other worker has never had a session."""
        routing.choose_names = self._choose_names
        assert self.other.clients_count == 0
        super().stop()
        self.other.close(timeout=0)
        self.other_http.stop(timeout=1)
        assert "Traceback" not in self.other_errors.text, self.other_errors.text


def _names_session(sock: Any) -> bool:
    """Whether the first request on a connection has a session id; the bytes stay where they are."""
    with gevent.Timeout(SILENCE, False):
        try:
            head = sock.recv(ENOUGH, socket.MSG_PEEK)
        except OSError:
            return False
        return b"sid=" in head.split(b"\r\n")[0]
    return False
