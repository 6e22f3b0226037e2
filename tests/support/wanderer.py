"""A polling client that upgrades at a random moment while both sides send, and checks what arrives.

Every choice is drawn from a generator with a known seed. Messages are numbered in the order in which they were handed
to ``send``; what arrives has to be 0, 1, 2, … whatever the timing.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import gevent
import gevent.event

from support.clients import PollingSession, WebSocketSession, data_of, packet_of
from support.codec import Packet
from support.rawhttp import ConnectionEnded
from support.rawwebsocket import Closed, Refused, frame_bytes

#: seconds; zero lets the others run, the longest is of the order of a noop's period
PAUSES = (0, 0, 0, 0, 0.0005, 0.001, 0.003, 0.01, 0.03)
SIZES = (0, 0, 1, 10, 200, 3000)


def number_of(data: str | bytes) -> int:
    """The number that a message carries."""
    return int(data.split("|")[0] if isinstance(data, str) else data.split(b"|")[0])


class Talker:
    """One direction of a conversation: several greenlets that number messages and send them.

    Args:
        rng: where its choices come from.
        total: how many messages there are to send.
        send: takes one message. It must not let other greenlets run before it has queued the message.
    """

    def __init__(self, rng: random.Random, total: int, send: Any) -> None:
        self.rng = rng
        self.total = total
        self.sent = 0
        self._send = send

    def start(self) -> None:
        """Send all messages from several greenlets."""
        for _ in range(self.rng.randint(1, 4)):
            gevent.spawn(self._talk)

    def _talk(self) -> None:
        while self.sent < self.total:
            for _ in range(min(self.rng.choice((1, 1, 1, 2, 5)), self.total - self.sent)):
                number, self.sent = self.sent, self.sent + 1
                if not self._send(self._message(number)):
                    return
            gevent.sleep(self.rng.choice(PAUSES))

    def _message(self, number: int) -> str | bytes:
        padding = self.rng.choice(SIZES)
        if self.rng.random() < 0.25:
            return b"%d|" % number + b"\xff" * padding
        return f"{number}|" + "é" * padding


class Ledger:
    """What one side has received: it must be 0, 1, 2, … and nothing else."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.numbers: list[int] = []
        self.complete = gevent.event.Event()
        if not total:
            self.complete.set()

    def take(self, data: str | bytes) -> None:
        """Add a message."""
        self.numbers.append(number_of(data))
        if len(self.numbers) >= self.total:
            self.complete.set()

    @property
    def in_order(self) -> bool:
        """Whether the messages until now are the first ones that were sent: none lost, doubled or reordered."""
        return self.numbers == list(range(len(self.numbers)))


class Wanderer:
    """The client for one seed. ``run`` returns when both sides have sent everything; ``received`` is what it got."""

    def __init__(self, served: Any, seed: int, eio: int) -> None:
        self.rng = random.Random(seed)
        self.served = served
        self.total = self.rng.randint(0, 60)
        self.received = Ledger(self.rng.randint(0, 60))
        self.vanishes = self.rng.random() < 0.1
        self.polling = PollingSession(served, eio, seed=str(seed), count=str(self.received.total))
        self.candidate: Any = None
        self.outgoing: deque[Packet] = deque()
        self.something = gevent.event.Event()
        self.pausing = False
        self.talker = Talker(self.rng, self.total, self._queue)

    def _queue(self, data: str | bytes) -> bool:
        self.outgoing.append(packet_of(data))
        self.something.set()
        return True

    def _pause(self) -> None:
        gevent.sleep(self.rng.choice(PAUSES))

    def _take(self, packet: Packet) -> None:
        if packet not in ("6", "2"):
            self.received.take(data_of(packet))

    # -- the life of the client

    def run(self) -> None:
        """Open a session, exchange messages, upgrade, exchange messages, and end it."""
        self.polling.open()
        for packet in self.polling.inbox:
            self._take(packet)
        self.talker.start()
        cycles = [gevent.spawn(self._poll), gevent.spawn(self._post)]
        self._pause()
        while not self._upgrade(cycles):
            self._pause()
        self.polling.disconnect()
        moved = [gevent.spawn(self._read), gevent.spawn(self._write)]
        if self.vanishes:
            self._pause()
        else:
            assert self.received.complete.wait(60), "messages are missing"
            while self.talker.sent < self.total or self.outgoing:
                gevent.sleep(0.001)
        assert self.candidate is not None
        gevent.killall(moved)
        if self.vanishes or self.rng.random() < 0.5:
            self.candidate.vanish()
        else:
            self.candidate.close()

    def _poll(self) -> None:
        while not self.pausing:
            for packet in self.polling.poll():
                self._take(packet)
            self._pause()

    def _post(self) -> None:
        while not self.pausing:
            if not self.outgoing:
                self.something.clear()
                self.something.wait()
                continue
            count = self.rng.randint(1, len(self.outgoing))
            self.polling.send(*(self.outgoing.popleft() for _ in range(count)))
            self._pause()

    def _read(self) -> None:
        assert self.candidate is not None
        while True:
            self._take(self.candidate.recv())

    def _write(self) -> None:
        assert self.candidate is not None
        while True:
            while self.outgoing:
                self.candidate.send(self.outgoing[0])
                self.outgoing.popleft()
            self.something.clear()
            self.something.wait()

    # -- the upgrade

    def _connect(self) -> Any:
        """Open the connection to which the session is to be upgraded."""
        return WebSocketSession(self.served, self.polling.eio, sid=self.polling.sid)

    def _upgrade(self, cycles: list[Any]) -> bool:
        """Try to upgrade once; some attempts fail on purpose."""
        fails = self.rng.random() < 0.2
        try:
            candidate = self._connect()
            self._pause()
            if fails and self.rng.random() < 0.5:
                candidate.vanish()
                return False
            candidate.send("2probe")
            assert candidate.recv() == "3probe"
            self._pause()
        except (Refused, Closed, ConnectionEnded):
            return False  # the one before is still being taken down
        if fails:
            candidate.vanish()
            return False
        self.pausing = True
        self.something.set()
        gevent.joinall(cycles, raise_error=True)
        self._pause()
        self._switch(candidate)
        return True

    def _switch(self, candidate: Any) -> None:
        """The upgrade packet; some clients send what has waited in the same segment."""
        self.candidate = candidate
        if self.rng.random() < 0.5 and self.outgoing and isinstance(self.outgoing[0], str):
            following = str(self.outgoing.popleft())
            candidate.ws.http.send(frame_bytes(1, b"5") + frame_bytes(1, following.encode()))
        else:
            candidate.send("5")


class Books:
    """The server's side: it talks with each client as its seed says, and writes down what it hears."""

    def __init__(self, server: Any) -> None:
        self.heard: dict[int, Ledger] = {}
        self.talkers: dict[int, Talker] = {}
        self.totals: dict[int, int] = {}
        server.on("connection", self.connection)

    def connection(self, socket: Any) -> None:
        """A client has come."""
        from engineio_wsgi import SocketClosed

        seed = int(socket.request.args["seed"])
        heard = self.heard[seed] = Ledger(self.totals[seed])
        socket.on("message", heard.take)

        def send(data: str | bytes) -> bool:
            try:
                socket.send(data)
            except SocketClosed:
                return False
            return True

        talker = self.talkers[seed] = Talker(random.Random(-seed - 1), int(socket.request.args["count"]), send)
        talker.start()
