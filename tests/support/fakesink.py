"""A sink that records what a transport reports, and a connection that a test controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engineio_wsgi.packet import Packet
from engineio_wsgi.session.write_buffer import WriteBuffer
from engineio_wsgi.transports.base import Entry, Transport


class FakeSink:
    """A session as its transport sees it: what was reported is in ``log``."""

    remote_address = "192.0.2.7"

    def __init__(self) -> None:
        self.outbox = WriteBuffer(1000)
        self.inbox = self
        self.log: list[Any] = []
        self.closed = False
        self.closing = False
        self.close_reason: str | None = None
        self.reading_paused = False
        self.receiver: Any = None
        self.room: Callable[[], object] = int

    def serve(self, transport: Transport) -> None:
        """Use ``transport``."""
        transport.bind(self)
        self.outbox.connect(transport)

    def send(self, *entries: Entry) -> None:
        """Queue something, of one byte as far as the bounds are concerned."""
        for entry in entries:
            self.outbox.put(entry, 1)

    def take_receiver(self) -> Any:
        """The greenlet that waits."""
        receiver, self.receiver = self.receiver, None
        return receiver

    def wait_for_room(self) -> None:
        """Returns what the test has set."""
        self.log.append("room")
        self.room()

    def hear(self) -> None:
        """Something was received."""
        self.log.append("heard")

    def count_control(self, number: int) -> bool:
        """There is no limit."""
        return True

    def deliver(self, data: str | bytes, now: float) -> None:
        """A message."""
        self.log.append(("deliver", data))

    def enqueue(self, messages: Sequence[str | bytes]) -> None:
        """Messages."""
        if messages:
            self.log.append(("enqueue", *messages))

    def run_turn(self) -> None:
        """Listeners may run here."""
        self.log.append("run")

    def submit_turn(self) -> None:
        """Listeners may run soon."""
        self.log.append("submit")

    def on_packet(self, packet: Packet) -> None:
        """Another packet."""
        self.log.append(packet)

    def on_written(self, entries: Sequence[Entry]) -> None:
        """Entries have left."""
        self.outbox.recount()
        self.log.append(("written", *entries))

    def on_stalled(self, under_way: list[Entry] | None = None) -> None:
        """The client takes nothing."""
        self.log.append(("stalled", *(under_way or ())))

    def end(self, reason: str, description: object = None) -> None:
        """The session ends."""
        self.closed = True
        self.close_reason = reason
        self.log.append(("end", str(reason)))


class FakeConnection:
    """A `Connection`: what arrives, and how much the kernel takes, is what a test says."""

    def __init__(self) -> None:
        self.arriving: list[bytes | OSError] = []
        self.written: list[bytes] = []
        self.takes = 1 << 30
        self.unsent = 0
        #: there is no descriptor
        self.recv_fd = self.send_fd = -1
        self.lost: OSError | None = None
        self.closed = False
        self.calls: list[str] = []
        self.drained: Callable[[], object] = int
        self.readable: Callable[[], object] = int

    def recv(self, size: int) -> bytes:
        """The next bytes that the test has queued, or the error in their place."""
        data = self.arriving.pop(0)
        if isinstance(data, OSError):
            raise data
        return data

    def write(self, data: bytes) -> None:
        """Take as many bytes as the test allows."""
        if self.lost is not None:
            raise self.lost
        self.written.append(data)
        self.unsent = max(0, len(data) - self.takes)

    def lose(self, error: OSError) -> None:
        """Let writing fail."""
        self.lost = error

    def drain(self) -> None:
        """Let the kernel take the rest."""
        self.takes, self.unsent = 1 << 30, 0
        self.drained()

    def watch(self, on_readable: Callable[[], object]) -> None:
        """Call back when something is readable."""
        self.readable = on_readable
        self.calls.append("watch")

    def unwatch(self) -> None:
        """Stop calling back."""
        self.calls.append("unwatch")

    def call_when_drained(self, callback: Callable[[], object]) -> None:
        """Call back in `drain`."""
        self.drained = callback

    def linger(self) -> None:
        """Close after everything was sent."""
        self.closed = True
        self.calls.append("linger")

    def close(self) -> None:
        """Close at once."""
        self.closed = True
        self.calls.append("close")
