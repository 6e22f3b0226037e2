"""A server whose clients' requests all arrive at another worker than their session's. The conformance suite runs over it.

The engine in the test's process has all sessions; whatever connection begins with a request that names a session is
accepted by one of two other workers, in processes of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import gevent
from gevent import socket

from engineio_wsgi.cluster import router as routing
from engineio_wsgi.cluster.local.names import AbstractNames
from engineio_wsgi.vendors.gevent_sockets import forget_descriptor
from support.outposts import Outposts
from support.serving import LocalServer, Served

#: bytes of a connection that are looked at
ENOUGH = 4096
#: seconds for which a connection may be silent before it goes to the owner
SILENCE = 0.5


class CrossingServer(LocalServer):
    """`LocalServer`, and other workers before it.

    Args:
        outposts: these workers.
        cluster: how they reach each other.
    """

    def __init__(self, app: str | None, outposts: Outposts, *, cluster: str, tls: dict[str, str] | None = None,
                 **options: Any) -> None:
        self._outposts = outposts
        if options.get("server") is None:
            options["cluster"] = cluster
        with _on_a_machine_of_its_own() if outposts.apart else nullcontext():
            # connections are passed on by what handles them in greenlets
            super().__init__(app, "ours", tls=tls, takes_first=False, **options)
            self.engine._worker.join_cluster()
        outposts.begin({"cluster": cluster, **options})
        self.served = _Crossed(self.served, outposts)
        handle = self.http._handle if tls is None else self.http.wrap_socket_and_handle
        self.http._handle = self.http.wrap_socket_and_handle = lambda sock, address: self._accept(handle, sock, address)

    def _accept(self, handle: Any, sock: Any, address: Any) -> Any:
        if self.engine.cluster is None or not _names_session(sock):
            return handle(sock, address)
        self._outposts.serve(sock, address)
        forget_descriptor(sock.fileno())
        return None

    def stop(self) -> None:
        """Stop it, and check that the other workers have never had a session."""
        super().stop()
        self._outposts.end()


class _Crossed(Served):
    """A server for which :meth:`settle` waits for all workers."""

    def __init__(self, served: Served, outposts: Outposts) -> None:
        super().__init__(served.address, served.events, handler=served.handler, server=served.server, path=served.path)
        self._outposts = outposts

    def settle(self) -> None:
        """Return when all workers have seen what was sent before."""
        super().settle()
        if self.server.cluster is not None:
            self._outposts.settle(self.server.cluster.worker_id)
            super().settle()


@contextmanager
def _on_a_machine_of_its_own() -> Iterator[None]:
    """Workers that join meanwhile get socket names that no other worker finds, as on another machine."""
    choose_names = routing.choose_names
    routing.choose_names = lambda group: AbstractNames(f"{group} of {os.getpid()}")
    try:
        yield
    finally:
        routing.choose_names = choose_names


def _names_session(sock: Any) -> bool:
    """Whether the first request on a connection has a session id; the bytes stay where they are."""
    with gevent.Timeout(SILENCE, False):
        try:
            head = sock.recv(ENOUGH, socket.MSG_PEEK)
        except OSError:
            return False
        return b"sid=" in head.split(b"\r\n")[0]
    return False
