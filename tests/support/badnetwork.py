"""A network that fails as real ones do: a proxy between clients and the server under test.

Loss and reordering make the bytes of a TCP connection arrive late, in odd pieces and many at once. The proxy does this, and also
delays, stalls one direction or both, drops connections without a FIN, closes one half (a FIN is passed on, and the other
direction continues), resets, and gives all clients new addresses, as a NAT does. It runs in the event loop in which it was made:
made in another thread, it continues while the server's loop is blocked. For connections with different faults, use two networks.
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

from support.serving import PATIENCE, Served

RECV_SIZE = 65_536
#: bytes of the pieces into which a bumpy network cuts: single ones, odd ones, and what fits into a packet
PIECES = (1, 2, 7, 50, 500, 1400)
#: how many of the pieces are held up, and for how many seconds: what it takes to send a lost packet again
STALLED = 0.05
STALL = (0.05, 0.2)
#: seconds between two pieces, so that the receiver gets them one by one: a sleep of 0 would not let the loop look at its sockets
APART = 0.0002


class BadNetwork:
    """The network in front of a server. Without arguments and until a method is called, it has no faults.

    Args:
        served: the server at its end.
        delay: seconds that each byte takes, one way.
        bumpy: whether bytes come in odd pieces, and stall now and then for up to 0.2 seconds.
        seed: of what is random.

    Attributes:
        served: the server, as clients see it from this side.
        stalls: how often a bumpy network has held something up.
    """

    def __init__(self, served: Served, *, delay: float = 0.0, bumpy: bool = False, seed: int = 0) -> None:
        self._address = served.address
        self.delay = delay
        self.bumpy = bumpy
        self.random = random.Random(seed)
        self.stalls = 0
        #: where the server sees clients come from
        self.source = "127.0.0.1"
        #: set while anything gets to the server, and back from it
        self.up, self.down = Event(), Event()
        self.recover()
        self._links: list[_Link] = []
        self._server = StreamServer(("127.0.0.1", 0), self._accept)
        self._server.start()
        self.served = Served(self._server.address, served.events, handler=served.handler, server=served.server)

    def _accept(self, sock: Any, address: Any) -> None:
        far = socket.create_connection(self._address, source_address=(self.source, 0))
        # the server would close it when this returns
        near = socket.socket(fileno=sock.detach())
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.append(_Link(self, near, far))

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Hold up all bytes to the server (``up``), or from it (``down``)."""
        if up:
            self.up.clear()
        if down:
            self.down.clear()

    def recover(self) -> None:
        """Pass on at once what has been held up."""
        self.up.set()
        self.down.set()

    def vanish(self) -> None:
        """Drop everything on the connections that are open now, without closing them."""
        for link in self._links:
            link.vanish()

    def rebind(self, source: str) -> None:
        """Do as a NAT that has lost its table: drop everything on the open connections; new ones come from another address."""
        self.vanish()
        self.source = source

    def reset(self) -> None:
        """Reset every connection at both ends."""
        for link in self._links:
            link.reset()

    def wait_left(self) -> None:
        """Return when the server has closed its end of every connection that has vanished."""
        with gevent.Timeout(PATIENCE, AssertionError("the server has kept a dead connection")):
            for link in self._links:
                link.wait_left()

    def stop(self) -> None:
        """Close all connections and the listener."""
        self._server.stop()
        for link in self._links:
            link.vanish()
            link.close()


#: makes a network that is stopped when the test ends: ``join(served, delay=…)``
Join = Callable[..., BadNetwork]


class _Link:
    """One connection through the network."""

    def __init__(self, network: BadNetwork, near: Any, far: Any) -> None:
        self._near, self._far = near, far
        ways = (_Way(network, network.up, near, far), _Way(network, network.down, far, near))
        self._greenlets = [gevent.spawn(way.carry) for way in ways]

    def vanish(self) -> None:
        gevent.killall(self._greenlets)

    def reset(self) -> None:
        self.vanish()
        for sock in (self._near, self._far):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def wait_left(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self._far.recv(RECV_SIZE):
                pass

    def close(self) -> None:
        self._near.close()
        self._far.close()


class _Way:
    """One direction of a link."""

    def __init__(self, network: BadNetwork, flowing: Event, source: Any, target: Any) -> None:
        self._network = network
        self._flowing = flowing
        self._source = source
        self._target = target
        #: when it may arrive, and what; nothing (``b""``) is the end
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._something = Event()

    def carry(self) -> None:
        """Copy until the end, and pass the end on: one direction can be closed without the other."""
        reader = gevent.spawn(self._read)
        try:
            with contextlib.suppress(OSError):
                while data := self._next():
                    self._deliver(data)
                self._flowing.wait()
                self._target.shutdown(socket.SHUT_WR)
        finally:
            reader.kill()

    def _read(self) -> None:
        data = b"x"
        while data:
            try:
                data = self._source.recv(RECV_SIZE)
            except OSError:
                data = b""
            self._waiting.append((monotonic() + self._network.delay, data))
            self._something.set()

    def _next(self) -> bytes:
        while not self._waiting:
            self._something.clear()
            self._something.wait()
        due, data = self._waiting.popleft()
        gevent.sleep(max(0.0, due - monotonic()))
        return data

    def _deliver(self, data: bytes) -> None:
        chance = self._network.random
        while data:
            size = len(data)
            if self._network.bumpy and chance.random() >= STALLED:
                size = chance.choice(PIECES)
            elif self._network.bumpy:
                data += self._held_up()
                size = len(data)
            self._flowing.wait()
            self._target.sendall(data[:size])
            data = data[size:]
            if data:
                gevent.sleep(APART)

    def _held_up(self) -> bytes:
        """Stall, and return all that has arrived meanwhile."""
        self._network.stalls += 1
        gevent.sleep(self._network.random.uniform(*STALL))
        held = []
        while self._waiting and self._waiting[0][1] and self._waiting[0][0] <= monotonic():
            held.append(self._waiting.popleft()[1])
        return b"".join(held)
