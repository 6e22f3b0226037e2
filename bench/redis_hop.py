"""What Redis between two machines costs: ``python bench/redis_hop.py [ROUNDS]``. Needs ``redis-server`` and ``redis``.

Two workers that cannot find each other's sockets, as on two machines, and one Redis, all on this one. The same session is
spoken to through its own worker and through the other one, in turn, on connections that stay: a POST, then the GET that fetches
its echo; and an echo over a WebSocket. Printed are the medians and the difference for each request. Then what 64 polling clients
at a time get, at their own worker and through the other one, with Redis, both workers and the load generator sharing the
machine's cores.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep

from cluster import exchange
from run import compile_tools, free_port

REQUESTS = 1000
CLIENTS, SECONDS = 64, 3.0
#: seconds after which something is wrong
PATIENCE = 10.0


def serve(url: str, ports: list[int]) -> None:
    """A worker for each port, each on a machine of its own as far as it can see."""
    import engineio_wsgi
    from engineio_wsgi.cluster import router as routing
    from engineio_wsgi.cluster.local.names import AbstractNames

    children = []
    for port in ports:
        child = os.fork()
        if child:
            children.append(child)
            continue
        routing.choose_names = lambda group: AbstractNames(f"{group} of {os.getpid()}")
        server = engineio_wsgi.Server(cluster=url)
        server.on("connection", lambda session: session.on("message", session.send))
        server.listen(("127.0.0.1", port)).serve_forever()
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGKILL) for child in children])
    for _ in children:
        os.wait()


@contextmanager
def machines() -> Iterator[list[int]]:
    """The ports of two workers."""
    ports = [free_port(), free_port()]
    redis_port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        program = shutil.which("redis-server") or "/usr/bin/redis-server"
        redis = subprocess.Popen([program, "--port", str(redis_port), "--save", "", "--dir", folder], stdout=subprocess.DEVNULL)
        _wait_for(redis_port)
        url = f"redis://127.0.0.1:{redis_port}"
        workers = subprocess.Popen([sys.executable, __file__, "serve", url, *map(str, ports)])
        try:
            for port in ports:
                _wait_for(port)
            yield ports
        finally:
            workers.terminate()
            workers.wait()
            redis.kill()
            redis.wait()


def _wait_for(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            sleep(0.01)
        else:
            return


def connect(port: int) -> socket.socket:
    """A connection that sends at once."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(PATIENCE)
    return connection


def target(sid: str = "", transport: str = "polling") -> str:
    """A request's path."""
    return f"/engine.io/?EIO=4&transport={transport}" + (f"&sid={sid}" if sid else "")


def open_session(port: int) -> str:
    """A session's id."""
    with connect(port) as connection:
        body = exchange(connection, f"GET {target()} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return str(json.loads(body[1:])["sid"])


def post_and_get(connection: socket.socket, sid: str) -> float:
    """Seconds until an echo is there."""
    began = perf_counter()
    exchange(connection, f"POST {target(sid)} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n4x".encode())
    assert exchange(connection, f"GET {target(sid)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) == b"4x"
    return perf_counter() - began


def upgraded(port: int, sid: str) -> socket.socket:
    """A session's WebSocket."""
    connection = connect(port)
    connection.sendall(f"GET {target(sid, 'websocket')} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    assert b" 101 " in connection.recv(65536)
    frame(connection, b"2probe")
    frame(connection, b"5", answer=False)
    return connection


def frame(connection: socket.socket, data: bytes, answer: bool = True) -> float:
    """Seconds until a message has come back."""
    began = perf_counter()
    # a mask of zeros changes nothing
    connection.sendall(bytes([0x81, 0x80 | len(data)]) + bytes(4) + data)
    if answer:
        assert connection.recv(65536)
    return perf_counter() - began


def latencies(ports: list[int]) -> dict[str, list[float]]:
    """Median seconds by what was done: at the session's own worker, and through the other."""
    results: dict[str, list[float]] = {}
    sid = open_session(ports[0])
    connections = [connect(port) for port in ports]
    took: list[list[float]] = [[], []]
    for _ in range(REQUESTS):
        for connection, times in zip(connections, took, strict=True):
            times.append(post_and_get(connection, sid))
    results["POST, and GET of its echo"] = [statistics.median(times) for times in took]
    websockets = [upgraded(port, open_session(ports[0])) for port in ports]
    took = [[], []]
    for _ in range(REQUESTS):
        for connection, times in zip(websockets, took, strict=True):
            times.append(frame(connection, b"4x"))
    results["echo over a WebSocket"] = [statistics.median(times) for times in took]
    return results


def throughput(load: str, home: int, port: int) -> float:
    """Echoes a second of many clients, whose sessions are one worker's, through a worker."""
    command = [load, "poll-echo", str(port), f"home={home}", f"connections={CLIENTS}", f"seconds={SECONDS}"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return float(result["operations"] / result["seconds"])


def main(rounds: int) -> None:
    """Print the answers."""
    with machines() as ports, tempfile.TemporaryDirectory() as folder:
        rows = [latencies(ports) for _ in range(rounds)]
        for name, requests in (("POST, and GET of its echo", 2), ("echo over a WebSocket", 1)):
            near, far = (statistics.median(row[name][side] for row in rows) * 1e6 for side in (0, 1))
            print(f"{name}: {near:.0f} µs at its own worker, {far:.0f} µs through Redis: "
                  f"+ {(far - near) / requests:.0f} µs for each request", flush=True)
        load = compile_tools(Path(folder))["load"]
        near, far = (statistics.median(throughput(load, ports[0], port) for _ in range(rounds)) for port in ports)
        print(f"{CLIENTS} polling clients: {near:,.0f} echoes a second at their own worker, {far:,.0f} through Redis", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], [int(port) for port in sys.argv[3:]])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
