"""The soak test: mixed traffic for a long time, and whether the server is the same afterwards.

``tox -e soak`` runs ten minutes of it, ``python tests/soak/run.py --minutes 60`` an hour; with ``--clients webtransport`` all
clients use WebTransport. Clients poll, use WebSockets and WebTransport, upgrade, come and go, go without a word, break off
polls, send garbage, and do not read what they asked for; the server broadcasts all the while. Every ``PERIOD`` the server's
memory, files, greenlets and timers are noted, and the latency of one well-behaved session. The notes become ``soak.csv`` and
``soak.svg``. The exit status is 1 if anything has grown.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import gevent

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from support.clients import PollingSession, WebSocketSession, open_session, upgrade
from support.rawhttp import ConnectionEnded, HttpConnection
from support.rawwebsocket import Closed, Refused, frame_bytes
from support.serving import EventLog, Served
from support.webtransport import Client, Stream, make_certificate

#: seconds between two notes
PERIOD = 5.0
#: clients at a time
CLIENTS = 60
FIELDS = ("minutes", "resident_kb", "files", "greenlets", "timers", "objects", "sessions", "quic_connections", "p50_ms", "p99_ms",
          "behaviours")
#: by how much the last quarter may be above the second one, and what is there without clients above what was before the first one
MAX_GROWTH = 1.05
#: files and timers that the server may have more without clients than before the first one: the event loop's own
MORE = 5
#: seconds in which all that clients have left behind ends: a heartbeat, and the time after which QUIC takes a connection for
#: lost, on a machine that has other work as well
AFTERWARDS = 120.0
CHARTS = {"resident_kb": "resident memory (KB)", "files": "open files", "quic_connections": "QUIC connections",
          "greenlets": "greenlets", "objects": "objects", "p50_ms": "latency, median (ms)"}


class Lines(Served):
    """A server, and the connections to it, to be hung up together."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), EventLog(), handler="ours")
        self._connections: list[HttpConnection] = []
        self._clients: list[Client] = []

    def connect(self, **options: Any) -> HttpConnection:
        """A new connection."""
        self._connections.append(super().connect(**options))
        return self._connections[-1]

    def connect_quic(self, **options: Any) -> Client:
        """A new QUIC connection."""
        self._clients.append(Client(self.address, **options))
        return self._clients[-1]

    def hang_up(self) -> None:
        """Close them all."""
        for client in self._clients:
            client.stop()
        self._clients.clear()
        for connection in self._connections:
            connection.close()
        self._connections.clear()


class Stranger:
    """One client after the other, each with a behaviour drawn by lot."""

    def __init__(self, port: int, seed: int, behaviours: list[Callable[..., None]]) -> None:
        self.served = Lines(port)
        self._behaviours = behaviours
        self.rng = random.Random(seed)
        self.behaved = 0

    def run(self) -> None:
        """Until the test ends."""
        while True:
            behave: Callable[[], None] = self.rng.choice(self._behaviours).__get__(self)
            try:
                with gevent.Timeout(30):
                    behave()
            except (ConnectionEnded, Closed, Refused, OSError, AssertionError, gevent.Timeout):
                # the server has closed what misbehaved, or a slow client was given up: that is what is tested
                pass
            self.served.hang_up()
            self.behaved += 1
            gevent.sleep(self.rng.random() * 0.2)

    def hang_up(self) -> None:
        """Close its connections."""
        self.served.hang_up()

    def _talk(self, session: Any) -> None:
        for number in range(self.rng.randint(1, 30)):
            session.say(f"{number} " + "é" * self.rng.randint(0, 2000))
            gevent.sleep(self.rng.random() * 0.1)
            heard = session.hear()
            while heard == "to everybody":
                heard = session.hear()
            assert heard.startswith(f"{number} ")

    def polls(self) -> None:
        """A session over polling, that ends politely."""
        session = open_session(self.served, "polling")
        self._talk(session)
        session.close()

    def uses_a_websocket(self) -> None:
        """The same over WebSocket."""
        session = open_session(self.served, "websocket")
        self._talk(session)
        session.close()

    def upgrades(self) -> None:
        """From one to the other."""
        session = upgrade(PollingSession(self.served).open())
        self._talk(session)
        session.close()

    def vanishes(self) -> None:
        """Without a word."""
        session = open_session(self.served, self.rng.choice(["polling", "websocket"]))
        session.say("x")
        session.vanish()

    def breaks_off_a_frame(self) -> None:
        """In the midst of a frame."""
        session = WebSocketSession(self.served).open()
        session.ws.http.send(frame_bytes(1, b"4" + b"x" * 100)[:50])
        session.vanish()

    def sends_garbage(self) -> None:
        """What is no packet."""
        open_session(self.served, self.rng.choice(["polling", "websocket"])).send("garbage")

    def does_not_read(self) -> None:
        """A slow client: it asks for two megabytes, and takes its time."""
        session = WebSocketSession(self.served).open()
        session.say("flood")
        gevent.sleep(3.0)
        for _ in range(200):
            session.recv()
        session.close()

    def stalls(self) -> None:
        """Asks for much, reads nothing, and is given up by the server, or goes."""
        session = WebSocketSession(self.served).open()
        session.say("flood")
        gevent.sleep(self.rng.choice([2.0, 12.0]))
        session.vanish()

    def half_a_handshake(self) -> None:
        """Headers that never end."""
        connection = self.served.connect()
        connection.send(b"GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n")
        gevent.sleep(1.0)
        connection.close()


    # -- over WebTransport

    def _echo(self, stream: Stream) -> None:
        for number in range(self.rng.randint(1, 30)):
            message = f"4{number} " + "é" * self.rng.randint(0, 2000)
            stream.send(message)
            gevent.sleep(self.rng.random() * 0.1)
            while (packet := stream.packet()) != message:
                if packet == "2":
                    stream.send("3")
                else:
                    assert packet == "4to everybody", packet

    def uses_webtransport(self) -> None:
        """A session over WebTransport, that ends politely; some change their address meanwhile."""
        client = self.served.connect_quic()
        stream = client.open()
        stream.handshake()
        self._echo(stream)
        if self.rng.random() < 0.3:
            client.move()
            self._echo(stream)
        stream.close()
        client.close()

    def upgrades_to_webtransport(self) -> None:
        """From polling."""
        polling = PollingSession(self.served).open()
        client = self.served.connect_quic()
        stream = client.open().send(f'0{{"sid":"{polling.sid}"}}', "2probe")
        assert stream.packet() == "3probe"
        stream.send("5")
        self._echo(stream)
        stream.close()
        client.close()

    def vanishes_from_webtransport(self) -> None:
        """Without a word: in the handshake, before the first packet, or with a session."""
        how = self.rng.randrange(4)
        client = self.served.connect_quic(connect=how > 0)
        if how > 1:
            stream = client.open()
            if how > 2:
                stream.handshake()

    def sends_garbage_over_webtransport(self) -> None:
        """Bytes that are no packets, or packets that are none here."""
        stream = self.served.connect_quic().open()
        if self.rng.random() < 0.5:
            stream.handshake()
        stream.write(self.rng.choice([b"\x00", b"\xff" * 9, b"\x019", self.rng.randbytes(200), b"\x06" + b"4hel"]))
        stream.client.wait(lambda: stream.has_ended or stream.client.terminated)

    def does_not_read_webtransport(self) -> None:
        """Asks for two megabytes, and takes its time, or never takes it."""
        client = self.served.connect_quic(window=10_000)
        stream = client.open()
        stream.handshake()
        client.pause_reading(stream)
        stream.send("4flood")
        gevent.sleep(3.0)
        if self.rng.random() < 0.5:
            client.resume_reading(stream)
            for _ in range(200):
                stream.packet()

    def refuses_streams(self) -> None:
        """Resets its stream, or ends its connection with an error."""
        client = self.served.connect_quic()
        stream = client.open()
        stream.handshake()
        if self.rng.random() < 0.5:
            client.quic.reset_stream(stream.number, 1)
            client.send()
            client.wait(lambda: stream.has_ended or client.terminated)
        else:
            client.quic.close(0x101)
            client.send()


HTTP = [Stranger.polls, Stranger.polls, Stranger.uses_a_websocket, Stranger.uses_a_websocket, Stranger.upgrades,
        Stranger.upgrades, Stranger.vanishes, Stranger.breaks_off_a_frame, Stranger.sends_garbage, Stranger.does_not_read,
        Stranger.stalls, Stranger.half_a_handshake]
WEBTRANSPORT = [Stranger.uses_webtransport, Stranger.uses_webtransport, Stranger.upgrades_to_webtransport,
                Stranger.upgrades_to_webtransport, Stranger.vanishes_from_webtransport, Stranger.sends_garbage_over_webtransport,
                Stranger.does_not_read_webtransport, Stranger.refuses_streams]
BEHAVIOURS = {"http": HTTP, "webtransport": WEBTRANSPORT, "all": HTTP + WEBTRANSPORT}


class Witness:
    """A well-behaved session that measures round trips."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.session = WebSocketSession(served).open()
        self.seconds: list[float] = []

    def run(self) -> None:
        """Ten round trips a second, until the test ends."""
        while True:
            begin = monotonic()
            self.session.say("witness")
            while (heard := self.session.recv()) != "4witness":
                if heard == "2":
                    self.session.send("3")
            self.seconds.append(monotonic() - begin)
            gevent.sleep(0.1)

    def hang_up(self) -> None:
        """Close its connection."""
        self._served.hang_up()

    def take(self) -> tuple[float, float]:
        """Median and 99th percentile of what was measured since the last time, in milliseconds."""
        seconds, self.seconds = sorted(self.seconds), []
        if not seconds:
            return 0.0, 0.0
        return 1000 * median(seconds), 1000 * seconds[int(len(seconds) * 0.99)]


def note(port: int, begin: float, witness: Witness, strangers: list[Stranger]) -> dict[str, float]:
    """What the server says of itself, and what was measured from outside."""
    answer = gevent.get_hub().threadpool.apply(
        lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=30).read())
    p50, p99 = witness.take()
    return {**json.loads(answer), "minutes": round((monotonic() - begin) / 60, 2), "p50_ms": round(p50, 2),
            "p99_ms": round(p99, 2), "behaviours": sum(stranger.behaved for stranger in strangers)}


def note_at_rest(port: int, begin: float, witness: Witness, strangers: list[Stranger]) -> dict[str, float]:
    """The same when all clients have gone and nothing is left of them, or after some time."""
    ends = monotonic() + AFTERWARDS
    while True:
        gevent.sleep(PERIOD)
        last = note(port, begin, witness, strangers)
        if not (last["sessions"] or last["quic_connections"]) or monotonic() > ends:
            return last


def grown(notes: list[dict[str, float]]) -> list[str]:
    """Whether the memory has become more from the second quarter to the last; the first is for warming up.

    The other figures depend on how many clients there are in a moment, which a slow machine serves for longer: see `left`.
    """
    quarter = max(1, len(notes) // 4)
    before = median(row["resident_kb"] for row in notes[quarter:2 * quarter] or notes[:1])
    after = median(row["resident_kb"] for row in notes[-quarter:])
    return [f"resident_kb: {before:,.0f} became {after:,.0f}"] if after > before * MAX_GROWTH else []


def chart(notes: list[dict[str, float]]) -> str:
    """The notes as an SVG of lines, one above the other."""
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {120 * len(CHARTS) + 20}" font-family="sans-serif" '
             'font-size="12"><style>text { fill: #333 } @media (prefers-color-scheme: dark) { text { fill: #ddd } }</style>']
    for number, (name, title) in enumerate(CHARTS.items()):
        top = max(row[name] for row in notes) or 1.0
        base = 120 * number + 110
        points = " ".join(f"{10 + 740 * index / max(1, len(notes) - 1):.0f},{base - 80 * row[name] / top:.1f}"
                          for index, row in enumerate(notes))
        parts.append(f'<text x="10" y="{base - 92}">{title}: {notes[0][name]:,.0f} at first, {notes[-1][name]:,.0f} at last, '
                     f'{top:,.0f} at most</text>')
        parts.append(f'<polyline points="{points}" fill="none" stroke="#2f9e6e" stroke-width="2"/>')
    return "\n".join(parts) + "</svg>\n"


def start_server(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A server, and its port."""
    files = make_certificate(folder)
    options = {"transports": ["polling", "websocket", "webtransport"]}
    command = [sys.executable, str(HERE / "server.py"), json.dumps(options), files["certfile"], files["keyfile"]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def left(before: dict[str, float], last: dict[str, float]) -> list[str]:
    """What clients have left behind, although all have gone."""
    limits = {"sessions": 0.0, "quic_connections": 0.0, "files": before["files"] + MORE, "timers": before["timers"] + MORE,
              "objects": before["objects"] * MAX_GROWTH}
    return [f"{name}: {before[name]:,.0f} before the first client, {last[name]:,.0f} after the last one"
            for name, limit in limits.items() if last[name] > limit]


def soak(minutes: float, output: Path, kind: str, clients: int) -> int:
    """Run, write the notes down, and judge."""
    with tempfile.TemporaryDirectory() as folder:
        process, port = start_server(Path(folder))
        try:
            return judge(port, minutes, output, kind, clients)
        finally:
            process.kill()
            process.wait()


def judge(port: int, minutes: float, output: Path, kind: str, clients: int) -> int:
    """Let clients come and go, write the notes down, and tell what has grown."""
    strangers = [Stranger(port, seed, BEHAVIOURS[kind]) for seed in range(clients)]
    witness = Witness(Lines(port))
    before = note(port, monotonic(), witness, strangers)
    greenlets = [gevent.spawn(client.run) for client in (*strangers, witness)]
    begin = monotonic()
    notes = [note(port, begin, witness, strangers)]
    while monotonic() - begin < minutes * 60:
        gevent.sleep(PERIOD)
        notes.append(note(port, begin, witness, strangers))
    gevent.killall(greenlets)
    HttpConnection.close_all()
    for client in (*strangers, witness):
        client.hang_up()
    last = note_at_rest(port, begin, witness, strangers)
    with (output / "soak.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(notes)
    (output / "soak.svg").write_text(chart(notes))
    found = grown(notes) + left(before, last)
    print(f"{minutes:g} minutes, {notes[-1]['behaviours']:,.0f} clients; before {before}; at first {notes[0]}; "
          f"at last {notes[-1]}; without clients {last}")
    print("\n".join(f"soak: grown: {line}" for line in found) or "soak: flat")
    return 1 if found else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Mixed traffic for a long time, and whether the server is the same afterwards.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", choices=BEHAVIOURS, default="all", help="what they use")
    parser.add_argument("--number", type=int, default=CLIENTS, help="clients at a time")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for soak.csv and soak.svg")
    given = parser.parse_args()
    return soak(given.minutes, given.output, given.clients, given.number)


if __name__ == "__main__":
    sys.exit(main())
