"""An echo over WebTransport against one over our own WebSocket: a second, its round trip, and the server's CPU time for it.

``python bench/webtransport.py [--rounds N] [--seconds S]``. Needs the extra ``webtransport``, openssl, and two cores. One server
has both transports. They take turns, and who begins does as well: over time, a machine's figures differ by more than those of
two runs. The clients are in Python, aioquic's for WebTransport, and check every echo. They are the bottleneck: compare the CPU
times of the server, and not the echoes a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
from run import LOAD_CORE, SERVER_CORE, free_port, wait_for

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

TRANSPORTS = ("webtransport", "websocket")
#: connections, messages under way on each of them, bytes of a message
SCENARIOS = {"1 × 1 × 32 B": (1, 1, 32), "10 × 1 × 32 B": (10, 1, 32), "10 × 16 × 32 B": (10, 16, 32),
             "10 × 1 × 16 KiB": (10, 1, 16384)}
#: seconds in which the server listens, on a machine that has other work as well
PATIENCE = 60.0
FIGURES = ("a second", "round trip, ms", "CPU, µs")


def serve(port: int, certfile: str, keyfile: str) -> None:
    """A server with both transports, on one number."""
    import engineio_wsgi

    server = engineio_wsgi.listen(("127.0.0.1", port), transports=("polling", "websocket", "webtransport"), ping_interval=600)
    server.on("connection", lambda socket: socket.on("message", socket.send))
    engineio_wsgi.WebTransportServer(("127.0.0.1", port), server, certfile=certfile, keyfile=keyfile).start()
    server.serve_forever()


def connect(transport: str, port: int) -> tuple[Callable[[str], object], Callable[[], object]]:
    """A session: functions that send a packet, and that return the next one."""
    address = ("127.0.0.1", port)
    if transport == "webtransport":
        from support.webtransport import Client

        stream = Client(address).open()
        stream.handshake()
        return stream.send, stream.packet
    from support.clients import WebSocketSession
    from support.serving import EventLog, Served

    session: Any = WebSocketSession(Served(address, EventLog(), handler="ours")).open()
    return session.send, session.recv


def load(transport: str, port: int, clients: int, under_way: int, size: int, seconds: float) -> None:
    """Keep messages under way for a time, and print how many have come back, and the seconds that each took."""
    sessions = [connect(transport, port) for _ in range(clients)]
    print("ready", flush=True)
    sys.stdin.readline()
    taken: list[float] = []
    ends = monotonic() + seconds
    echoing = [gevent.spawn(echo, send, receive, under_way, size, ends, taken) for send, receive in sessions]
    gevent.joinall(echoing, raise_error=True)
    print(json.dumps({"echoes": len(taken), "round_trip": statistics.median(taken)}), flush=True)
    os._exit(0)  # the connections need no end


def echo(send: Callable[[str], object], receive: Callable[[], object], under_way: int, size: int, ends: float,
         taken: list[float]) -> None:
    """Send messages, each when an earlier one has come back."""
    number = 0
    waiting: deque[tuple[str, float]] = deque()
    while waiting or monotonic() < ends:
        while len(waiting) < under_way and monotonic() < ends:
            message = f"4{number} ".ljust(size, "x")
            waiting.append((message, monotonic()))
            send(message)
            number += 1
        sent, begin = waiting.popleft()
        received = receive()
        if received != sent:
            sys.exit(f"a wrong echo: {str(received)[:50]!r} instead of {sent[:50]!r}")
        taken.append(monotonic() - begin)


@contextmanager
def running() -> Iterator[tuple[int, int]]:
    """The server: its process, and its port."""
    from support.webtransport import make_certificate

    with tempfile.TemporaryDirectory() as folder:
        files = make_certificate(Path(folder))
        port = free_port()
        process = subprocess.Popen([sys.executable, __file__, "serve", str(port), files["certfile"], files["keyfile"]],
                                   preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}))
        try:
            wait_for(port, process, PATIENCE)
            yield process.pid, port
        finally:
            process.kill()
            process.wait()


def measure(pid: int, port: int, transport: str, scenario: tuple[int, int, int], seconds: float) -> dict[str, float]:
    """One round of one transport, without its handshakes."""
    command = [sys.executable, __file__, "load", transport, str(port), *map(str, scenario), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE})) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            sys.exit(f"the clients of {transport} cannot connect")
        before = main_thread_seconds(pid)
        process.stdin.write("go\n")
        process.stdin.close()
        figures = json.loads(process.stdout.readline())
        after = main_thread_seconds(pid)
    cost = 1e6 * (after - before) / figures["echoes"]
    return dict(zip(FIGURES, (figures["echoes"] / seconds, 1000 * figures["round_trip"], cost), strict=True))


def main_thread_seconds(pid: int) -> float:
    """CPU time of the thread of the event loop so far, which the kernel counts in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def compare(rounds: int, seconds: float) -> None:
    """Print the medians of all scenarios, with the lowest and the highest CPU time."""
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    with running() as (pid, port):
        for number in range(rounds):
            for name, scenario in SCENARIOS.items():
                for transport in TRANSPORTS[::(-1) ** number]:
                    found[name, transport].append(measure(pid, port, transport, scenario, seconds))
    print(f"{processor()}, CPython {platform.python_version()}, {rounds} rounds of {seconds:g} s; load {os.getloadavg()[1]:.1f}")
    for (name, transport), rows in found.items():
        medians = {figure: statistics.median(row[figure] for row in rows) for figure in FIGURES}
        costs = [row["CPU, µs"] for row in rows]
        print(f"{name:16} {transport:13} {medians['a second']:8,.0f}/s  {medians['round trip, ms']:7.2f} ms  "
              f"{medians['CPU, µs']:7.1f} µs ({min(costs):.0f} to {max(costs):.0f})")


def processor() -> str:
    """Its name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    """The command line; ``serve`` and ``load`` are for the script itself."""
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), *sys.argv[3:])
    elif sys.argv[1:2] == ["load"]:
        transport, port, clients, under_way, size, seconds = sys.argv[2:]
        load(transport, int(port), int(clients), int(under_way), int(size), float(seconds))
    else:
        parser = argparse.ArgumentParser(description="An echo over WebTransport against one over our own WebSocket.")
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--seconds", type=float, default=4.0, help="of one round")
        given = parser.parse_args()
        compare(given.rounds, given.seconds)


if __name__ == "__main__":
    main()
