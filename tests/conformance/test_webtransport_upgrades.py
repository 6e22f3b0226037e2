"""No message is lost, doubled or reordered in either direction, whatever the timing of an upgrade to WebTransport.

``TEST_WEBTRANSPORT_UPGRADES=1000`` has so many conversations, each with a seed of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gevent.pool
import pytest
from support.rawhttp import ConnectionEnded
from support.wanderer import Books, Wanderer
from support.webtransport import Client, make_certificate

from engineio_wsgi import WebTransportServer

pytestmark = [pytest.mark.ours, pytest.mark.alone("the UDP port is this worker's")]

COUNT = int(os.environ.get("TEST_WEBTRANSPORT_UPGRADES", "60"))
#: conversations at a time: enough to have the greenlets of one disturb the timing of the others
AT_ONCE = 20


class Candidate:
    """A WebTransport stream with the methods of the tests' WebSocket clients."""

    def __init__(self, address: tuple[str, int], sid: str) -> None:
        self._client = Client(address)
        self._stream = self._client.open().send(f'0{{"sid":"{sid}"}}')

    def send(self, *packets: str | bytes) -> None:
        """Send packets, in one piece."""
        self._stream.send(*packets)

    def recv(self) -> str | bytes:
        """The next packet."""
        packet = self._stream.packet_or_end()
        if packet is None:
            self._client.stop()
            raise ConnectionEnded
        return packet

    def vanish(self) -> None:
        """End the connection, with an error."""
        self._stream.wait_delivered()
        self._client.quic.close(0x101)
        self._client.send()
        self._client.stop()

    def close(self) -> None:
        """Close the session. What was not acknowledged before that might be lost: the end is on another stream."""
        self._stream.wait_delivered()
        self._stream.close()
        self._client.wait(lambda: self._stream.session in self._client.ended)
        self._client.stop()


class Roamer(Wanderer):
    """The same with WebTransport in the place of WebSocket."""

    def __init__(self, served: Any, seed: int, address: tuple[str, int]) -> None:
        super().__init__(served, seed, 4)
        self._address = address

    def _connect(self) -> Any:
        return Candidate(self._address, self.polling.sid)

    def _switch(self, candidate: Any) -> None:
        self.candidate = candidate
        if self.rng.random() < 0.5 and self.outgoing:
            candidate.send("5", self.outgoing.popleft())
        else:
            candidate.send("5")


def converse(served: Any, books: Books, seed: int, address: tuple[str, int]) -> str | None:
    """One conversation; returns what was wrong with it."""
    roamer = Roamer(served, seed, address)
    books.totals[seed] = roamer.total
    try:
        roamer.run()
        if not roamer.vanishes:
            books.heard[seed].complete.wait(60)
    except Exception as error:
        return f"seed {seed}: {error!r}"
    ledgers = {"server": books.heard[seed], "client": roamer.received}
    faults = [f"the {name} was sent {ledger.total} and heard {ledger.numbers}" for name, ledger in ledgers.items()
              if not (ledger.in_order and (roamer.vanishes or len(ledger.numbers) == ledger.total))]
    return f"seed {seed}: {'; '.join(faults)}" if faults else None


@pytest.mark.deadline(3600)
def test_no_message_is_lost_doubled_or_reordered(serve: Any, tmp_path: Path) -> None:
    served = serve(app=None, transports=("polling", "websocket", "webtransport"))
    books = Books(served.server)
    webtransport = WebTransportServer(("127.0.0.1", 0), served.server, **make_certificate(tmp_path))
    webtransport.start()
    pool = gevent.pool.Pool(AT_ONCE)
    outcomes = pool.map(lambda seed: converse(served, books, seed, webtransport.address), range(COUNT))
    assert [outcome for outcome in outcomes if outcome] == []
    served.events.wait("close", COUNT)
    assert len(served.events.of("upgrade")) == COUNT
    assert {event["transport"] for event in served.events.of("upgrade")} == {"webtransport"}
    webtransport.stop(timeout=0)
