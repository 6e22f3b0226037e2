"""Socket.IO on this engine against python-socketio's own engine and Node's socket.io: the server's CPU time for each operation.

``python bench/run_socketio.py [ROUNDS]`` alternates the peers, each on one core with the load generator on another, and prints
the medians. Needs gcc, python-socketio, Flask-SocketIO and gevent-websocket; for Node, the packages of tests/package.json.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER_CORE, LOAD_CORE = "0", "1"
SECONDS = os.environ.get("SECONDS", "2")
PYTHON = [sys.executable, str(HERE / "peers/socketio_python.py"), "{port}"]
PEERS = {
    "ours": [*PYTHON, "ours"],
    "python-socketio": [*PYTHON, "theirs"],
    "node": ["node", str(HERE / "peers/node_socketio.js"), "{port}"],
    "flask ours": [*PYTHON, "flask-ours"],
    "Flask-SocketIO": [*PYTHON, "flask-theirs"],
}
#: mode, clients, bytes
LOADS = {"echo": ("echo", "50", "32"), "ack": ("ack", "50", "32"), "room of 1000": ("room", "1000", "1000")}


def compile_load(folder: Path) -> str:
    """The load generator."""
    program = folder / "socketio"
    subprocess.run(["gcc", "-O2", "-o", str(program), str(HERE / "socketio.c")], check=True)
    return str(program)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(peer: str) -> Iterator[tuple[int, int]]:
    """A server on a core of its own; gives its port and process id."""
    port = free_port()
    command = ["taskset", "-c", SERVER_CORE, *(part.format(port=port) for part in PEERS[peer])]
    environment = {"NODE_PATH": str(HERE.parent / "tests/node_modules"), **os.environ}
    process = subprocess.Popen(command, env=environment)
    try:
        wait_for(port, process)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server listens."""
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            raise SystemExit("a peer does not start")
        time.sleep(0.1)


def measure(program: str, peer: str, load: str) -> float:
    """Microseconds of the server's CPU time for one operation."""
    mode, clients, size = LOADS[load]
    with running(peer) as (port, pid):
        command = ["taskset", "-c", LOAD_CORE, program, mode, str(port), clients, SECONDS, size, str(pid)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["cpu_us"])


def main() -> None:
    """Measure, and print a line for each load."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    chosen = os.environ.get("PEERS", ",".join(PEERS)).split(",")
    loads = os.environ.get("LOADS", ",".join(LOADS)).split(",")
    with tempfile.TemporaryDirectory() as folder:
        program = compile_load(Path(folder))
        for load in loads:
            figures: dict[str, list[float]] = defaultdict(list)
            for _ in range(rounds):
                for peer in chosen:
                    figures[peer].append(measure(program, peer, load))
            shown = ", ".join(f"{peer} {statistics.median(values):.1f}" for peer, values in figures.items())
            print(f"{load}: {shown} µs", flush=True)


if __name__ == "__main__":
    main()
