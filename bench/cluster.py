"""What a cluster on one machine costs: ``python bench/cluster.py [ROUNDS]``. Needs what ``bench/run.py`` needs.

Three questions, and how each is answered:

- What do two workers serve, compared with one? The load generator needs a core of its own to keep one worker busy, and there
  is none left for it beside two. So what counts is the servers' CPU time for a message: two workers serve
  ``2 × (time with one) / (time with two)`` as much on two cores that are theirs alone. Each worker has as many connections as
  the one had: with fewer, it reads fewer messages in a turn of its loop, with and without a cluster. How two that know nothing
  of each other do is printed, too.
- What does it cost when a request comes to another worker than its session's? A POST on a new connection to the owner, to
  another worker (which hands the connection over), and to another worker as if through a proxy (which relays it), in turn;
  the differences of the medians.
- Does that grow with the number of workers? The same with 16: once with the requests coming to one of the others, as with two,
  and once to each of the others in turn, each of which then finds the processor's caches full of the others' memory. What that
  alone costs is seen from a POST to each of the others in turn that is for a session of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from run import compile_tools, cpu_seconds, free_port, generate, wait_for

#: requests of each kind in a round
REQUESTS = 300
SECONDS = 2.0
#: mode of the load generator, and connections for each worker
LOADS = {
    "WS echo, 50 × 1 × 32 B": ("ws-echo", 50),
    "WS echo, 200 × 1 × 32 B": ("ws-echo", 200),
    "polling echo, 50 sessions, keep-alive": ("poll-echo", 50),
}
PROXY = "X-Forwarded-For: 192.0.2.1\r\n"


def serve(cluster: str, shared: int, ports: list[int]) -> None:
    """As many workers as there are ports: each listens on its own, and all on the shared one."""
    children = [child for port in ports if (child := _fork_worker(cluster or None, shared, port))]
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGKILL) for child in children])
    print(*children, flush=True)
    for _ in children:
        os.wait()


def _fork_worker(cluster: str | None, shared: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    import engineio_wsgi
    from engineio_wsgi.server import HttpServer

    server = engineio_wsgi.Server(cluster=cluster)
    server.on("connection", lambda session: session.on("message", session.send))
    for number in (shared, port):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", number))
        listener.listen(1024)
        http = HttpServer(_as_gevent(listener), server.wrap(lambda environ, start: [b""]))
        http.start()
    http.serve_forever()
    return 0


def _as_gevent(listener: socket.socket) -> object:
    from gevent import socket as gevent_socket

    listener.setblocking(False)
    return gevent_socket.socket(fileno=listener.detach())


@contextmanager
def workers(number: int, cluster: str = "local:bench") -> Iterator[tuple[int, list[int], list[int]]]:
    """The shared port, the workers' own ports, and their processes."""
    shared, ports = free_port(), [free_port() for _ in range(number)]
    command = [sys.executable, __file__, "serve", cluster, str(shared), *map(str, ports)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        for port in ports:
            wait_for(port, process)
        yield shared, ports, pids
    finally:
        process.terminate()
        process.wait()


def cost(tools: dict[str, str], mode: str, connections: int, number: int, cluster: str = "") -> float:
    """Seconds of so many workers' CPU time for one message, with so many connections each."""
    with workers(number, cluster) as (shared, _, pids):
        before = sum(map(cpu_seconds, pids))
        load = [mode, f"connections={number * connections}", "size=32", f"seconds={SECONDS}"]
        output, _ = generate(tools, load, shared).communicate(timeout=60)
        return (sum(map(cpu_seconds, pids)) - before) / int(json.loads(output)["operations"])


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """One request and its response."""
    connection.sendall(request)
    response = connection.recv(65536)
    head, _, body = response.partition(b"\r\n\r\n")
    assert b" 200 OK" in head, response
    return body


def post(port: int, sid: str, headers: str = "") -> float:
    """Seconds that a POST takes on a new connection, without those of the connection."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = perf_counter()
        exchange(connection, f"POST /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n{headers}"
                             f"Content-Length: 2\r\n\r\n4x".encode())
        return perf_counter() - began


def open_session(port: int) -> str:
    """The id of a new session."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        opened = exchange(connection, b"GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n")
        return str(json.loads(opened[1:])["sid"])


def fetch(port: int, sid: str) -> None:
    """Take the echoes that wait."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        exchange(connection, f"GET /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def hops(number: int, others: int) -> tuple[float, ...]:
    """Median seconds of a POST among so many workers, of which so many others are asked.

    To the owner, handed over, relayed, and to one of the others for a session of its own.
    """
    with workers(number) as (_, ports, _pids):
        took: list[list[float]] = [[], [], [], []]
        sids = [open_session(port) for port in ports]
        for turn in range(REQUESTS):
            asked = 1 + turn % others
            other = ports[asked]
            took[0].append(post(ports[0], sids[0]))
            took[1].append(post(other, sids[0]))
            took[2].append(post(other, sids[0], PROXY))
            fetch(ports[0], sids[0])
            # after all of the others have had their turn, this one's caches are as cold as before
            own = 1 + (turn + others // 2) % others
            took[3].append(post(ports[own], sids[own]))
            fetch(ports[own], sids[own])
    return tuple(map(statistics.median, took))


def main(rounds: int) -> None:
    """Print the answers."""
    with tempfile.TemporaryDirectory() as folder:
        tools = compile_tools(Path(folder))
        for name, (mode, connections) in LOADS.items():
            together, apart = [], []
            for _ in range(rounds):
                one = cost(tools, mode, connections, 1)
                together.append(2 * one / cost(tools, mode, connections, 2, "local:bench"))
                apart.append(2 * one / cost(tools, mode, connections, 2))
            print(f"{name} for each worker: two serve {statistics.median(together):.2f} × what one does "
                  f"({min(together):.2f} to {max(together):.2f}); two without a cluster {statistics.median(apart):.2f} ×",
                  flush=True)
    for number, others in ((2, 1), (16, 1), (16, 15)):
        results = [hops(number, others) for _ in range(rounds)]
        owner, handed_over, relayed, own = (statistics.median(column) * 1e6 for column in zip(*results, strict=True))
        print(f"{number} workers, {others} asked: a POST to its owner {owner:.0f} µs, "
              f"handed over + {handed_over - owner:.0f} µs, relayed + {relayed - owner:.0f} µs; "
              f"to one of those asked, for its own session, + {own - owner:.0f} µs", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]), [int(port) for port in sys.argv[4:]])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
