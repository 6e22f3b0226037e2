"""Flash policy requests on raw connections: recognises and answers them before an HTTP server reads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from gevent.socket import MSG_PEEK
from gevent.socket import socket as GeventSocket

from engineio_wsgi.runtime.deadline import Deadline
from engineio_wsgi.transports.flashsocket import POLICY_FILE, POLICY_REQUEST

__all__ = ["PolicyGate", "answer_policy_request"]

logger = logging.getLogger("engine")

#: seconds in which the rest of a policy request has to follow its first byte
POLICY_TIMEOUT = 5.0


def answer_policy_request(sock: GeventSocket) -> bool:
    """Answer a policy request on a connection whose first byte says that it is one. Blocks until the bytes have arrived.

    Returns whether it was one; else nothing was taken from the connection.
    """
    # no HTTP method starts with this byte
    if sock.recv(1, MSG_PEEK) != POLICY_REQUEST[:1]:
        return False
    if _receive(sock, len(POLICY_REQUEST)) == POLICY_REQUEST:
        with suppress(TimeoutError):
            sock.sendall(POLICY_FILE)
    return True


class PolicyGate:
    """A server's connection handler that answers policy requests, and leaves all other connections to the handler before.

    Args:
        answer: returns whether a connection was a policy request, and answered.
        handle: the handler of all other connections.
    """

    def __init__(self, answer: Callable[[GeventSocket], bool], handle: Callable[[GeventSocket, object], object]) -> None:
        self._answer = answer
        self._handle = handle

    def __call__(self, sock: GeventSocket, address: object) -> object:
        try:
            if self._answer(sock):
                return None
        except OSError as error:
            logger.debug("= %s left: %s", address, error)
            return None
        return self._handle(sock, address)


def _receive(sock: GeventSocket, size: int) -> bytes:
    """The next ``size`` bytes, or those that come in time. The socket keeps the timeout."""
    received = b""
    deadline = Deadline(POLICY_TIMEOUT)
    while len(received) < size and not deadline.has_passed():
        sock.settimeout(deadline.left or POLICY_TIMEOUT)
        with suppress(TimeoutError):
            chunk = sock.recv(size - len(received))
            if not chunk:
                break
            received += chunk
    return received
