"""What the metrics and the inspector cost: the server's CPU time for one message, observed and not.

``python bench/metrics_cost.py [ROUNDS]``. Needs ``prometheus_client`` and what ``bench/run.py`` needs. All servers live in one
process and are loaded in turn, each for half a second: between processes, and over time, the figures differ by more than
what is looked for. Printed is the median of the rounds' ratios, with the range in which it lies by 19 in 20 chances.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from run import SERVER_CORE, compile_tools, cpu_seconds, free_port, generate, wait_for

SLICE = 0.5  #: seconds that one server is loaded
OBSERVERS = ("metrics", "inspector")
LOADS = {
    "WS echo, 50 × 1 × 32 B": ["ws-echo", "connections=50", "size=32"],
    "WS echo, 50 × 16 × 32 B": ["ws-echo", "connections=50", "outstanding=16", "size=32"],
    "polling echo, 50 sessions": ["poll-echo", "connections=50"],
}


def serve(*ports: int) -> None:
    """Servers that echo: one that is not observed, and one for each of `OBSERVERS`."""
    import engineio_wsgi
    from engineio_wsgi.inspector import Inspector
    from engineio_wsgi.metrics import observe

    servers = [engineio_wsgi.listen(("127.0.0.1", port)) for port in ports]
    observe(servers[1])
    Inspector(servers[2], allow=lambda request: False)
    for server in servers:
        server.on("connection", lambda socket: socket.on("message", socket.send))
    servers[0].serve_forever()


def cost(load: list[str], tools: dict[str, str], pid: int, port: int) -> float:
    """Seconds of CPU for one message."""
    before = cpu_seconds(pid)
    output, _ = generate(tools, [*load, f"seconds={SLICE}"], port).communicate(timeout=60)
    return (cpu_seconds(pid) - before) / int(json.loads(output)["operations"])


def range_of_median(values: list[float]) -> tuple[float, float]:
    """Where the median of many such lists would lie: by drawing new lists out of this one."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[-50]


def main(rounds: int) -> None:
    """Print a line for each load and observer."""
    ports = [free_port() for _ in range(1 + len(OBSERVERS))]
    command = [sys.executable, __file__, "serve", *map(str, ports)]
    with tempfile.TemporaryDirectory() as folder:
        tools = compile_tools(Path(folder))
        process = subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}))
        try:
            wait_for(ports[-1], process)
            for name, load in LOADS.items():
                measured: list[dict[int, float]] = []
                for number in range(rounds + 1):
                    order = ports if number % 2 else ports[::-1]
                    measured.append({port: cost(load, tools, process.pid, port) for port in order})
                report(name, ports, measured[1:])  # the first one is for warming up
        finally:
            process.kill()
            process.wait()


def report(name: str, ports: list[int], measured: list[dict[int, float]]) -> None:
    """Print what one load has cost."""
    each = statistics.median(costs[ports[0]] for costs in measured) * 1e6
    for observer, port in zip(OBSERVERS, ports[1:], strict=True):
        ratios = [costs[port] / costs[ports[0]] for costs in measured]
        low, high = range_of_median(ratios)
        print(f"{name}: {each:.2f} µs, with {observer} × {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*map(int, sys.argv[2:]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
