"""The flag ``--webtransport``: WebTransport on the UDP ports with the numbers of the TCP ports that are served."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from socket import AF_INET, AF_INET6
from wsgiref.types import WSGIApplication

from gevent.socket import socket as GeventSocket

from engineio_wsgi.errors import CannotListen, CommandFailed
from engineio_wsgi.webtransport import WebTransportServer

__all__ = ["TRANSPORTS", "check_webtransport", "webtransport_served"]

#: the option ``transports`` as text, if it is not given beside the flag
TRANSPORTS = "polling,websocket,webtransport"
#: seconds in which clients may take note of the end
STOP_TIMEOUT = 1.0


def check_webtransport(chosen: argparse.Namespace) -> None:
    """Check what the flag needs.

    Raises:
        CommandFailed: there is no certificate.
    """
    if chosen.webtransport and not chosen.certfile:
        raise CommandFailed("--webtransport needs --certfile: HTTP/3 is always encrypted", 2)


@contextmanager
def webtransport_served(application: WSGIApplication, listeners: Sequence[GeventSocket], chosen: argparse.Namespace,
                        shared: bool) -> Iterator[None]:
    """A context in which WebTransport is served, if the flag was given.

    Args:
        listeners: the TCP sockets.
        shared: whether other processes serve the same ports.

    Raises:
        ConfigurationError: see `WebTransportServer`.
        CommandFailed: a UDP port cannot be used.
    """
    running: list[WebTransportServer] = []
    addresses = [listener.getsockname()[:2] for listener in listeners if listener.family in (AF_INET, AF_INET6)]
    try:
        for address in addresses if chosen.webtransport else []:
            server = WebTransportServer(address, application, certfile=chosen.certfile, keyfile=chosen.keyfile, shared=shared)
            running.append(server)
            server.start()
        yield
    except CannotListen as error:
        raise CommandFailed(f"{error.strerror} (UDP)", 1) from None
    finally:
        for server in running:
            server.stop(STOP_TIMEOUT)
