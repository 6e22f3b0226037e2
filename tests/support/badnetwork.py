"""A network that fails in the ways in which real ones do: a proxy between clients and the server under test.

What loss and reordering do to TCP is that bytes come late, in odd pieces and many at once; that, and what a proxy can do itself,
is here: delay, stalls, connections that vanish without a word, halves that are closed, resets, and a NAT that gives everybody a
new address.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

from support.serving import Served

RECV_SIZE = 65_536


class BadNetwork:
    """The way to a server. It is a good one until it is told otherwise.

    Args:
        served: the server at its end.
        delay: seconds that each byte takes, one way.
        bumpy: whether bytes come in odd pieces, and stall now and then for up to 0.2 seconds.
        seed: of what is random.

    Attributes:
        served: the server, as clients see it from this side.
    """

    def __init__(self, served: Served, *, delay: float = 0.0, bumpy: bool = False, seed: int = 0) -> None:
        self._address = served.address
        self.delay = delay
        self.bumpy = bumpy
        self.random = random.Random(seed)
        #: where the server sees clients come from
        self.source = "127.0.0.1"
        #: set while anything gets through
        self.flowing = Event()
        self.flowing.set()
        self._links: list[_Link] = []
        self._server = StreamServer(("127.0.0.1", 0), self._accept)
        self._server.start()
        self.served = Served(self._server.address, served.events, handler=served.handler, server=served.server)

    def _accept(self, sock: Any, address: Any) -> None:
        far = socket.create_connection(self._address, source_address=(self.source, 0))
        # the server would close it when this returns
        near = socket.socket(fileno=sock.detach())
        self._links.append(_Link(self, near, far))

    def stall(self) -> None:
        """Nothing gets through any more, either way."""
        self.flowing.clear()

    def recover(self) -> None:
        """All that has been held up comes at once."""
        self.flowing.set()

    def vanish(self) -> None:
        """Nothing that is connected gets anything through ever again, and nobody is told."""
        for link in self._links:
            link.vanish()

    def rebind(self, source: str) -> None:
        """The NAT has forgotten everybody: new connections come from another address, and the old ones are dead."""
        self.vanish()
        self.source = source

    def reset(self) -> None:
        """Both ends of every connection are told that it never was."""
        for link in self._links:
            link.reset()

    def stop(self) -> None:
        """End everything."""
        self._server.stop()
        for link in self._links:
            link.vanish()
            link.close()


class _Link:
    """One connection through the network."""

    def __init__(self, network: BadNetwork, near: Any, far: Any) -> None:
        self._sockets = (near, far)
        self._greenlets = [gevent.spawn(_Way().carry, network, *ends) for ends in ((near, far), (far, near))]

    def vanish(self) -> None:
        gevent.killall(self._greenlets)

    def reset(self) -> None:
        self.vanish()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


class _Way:
    """One direction of a link."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._something = Event()

    def carry(self, network: BadNetwork, source: Any, target: Any) -> None:
        """Until the end, which is passed on: one direction can be closed without the other."""
        reader = gevent.spawn(self._read, network, source)
        try:
            while self._deliver(network, target):
                pass
        except OSError:
            return
        finally:
            reader.kill()

    def _read(self, network: BadNetwork, source: Any) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(RECV_SIZE)
            except OSError:
                data = b""
            self._waiting.append((monotonic() + network.delay, data))
            self._something.set()

    def _deliver(self, network: BadNetwork, target: Any) -> bool:
        self._something.wait()
        if not self._waiting:
            self._something.clear()
            return True
        due, data = self._waiting.popleft()
        gevent.sleep(max(0.0, due - monotonic()))
        network.flowing.wait()
        if not data:
            target.shutdown(socket.SHUT_WR)
            return False
        for piece in _pieces(data, network.random) if network.bumpy else [data]:
            target.sendall(piece)
            if network.bumpy and network.random.random() < 0.05:
                gevent.sleep(network.random.uniform(0.05, 0.2))
        return True


def _pieces(data: bytes, chance: random.Random) -> list[bytes]:
    pieces = []
    while data:
        size = chance.choice((1, 2, 7, 50, 500, 1400))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


Join = Callable[..., BadNetwork]
