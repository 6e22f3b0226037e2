"""What clients notice of a deploy: their server is restarted while they send and receive, and the clients count what they see.

``python bench/reload.py`` restarts each peer in its usual way, under 60 real engine.io-clients that reconnect as socket.io-client
does. It prints a line for each peer and writes ``reload.json``, ``reload.rst`` (the table) and ``reload.svg`` (the chart). Needs
Node.js and gunicorn; ``bench/README.rst`` says what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run import HERE, bring_node_packages, free_port, machine, wait_for

PYTHON = sys.executable
#: seconds that every server has to stop
GRACEFUL = 10
#: seconds after which all processes of a server have started, and not only the first
SETTLING = 8
#: seconds that a restart may take
PATIENCE = 300
GUNICORN = [PYTHON, "-m", "gunicorn", "-b", "127.0.0.1:{port}", "--graceful-timeout", str(GRACEFUL), "--no-control-socket",
            "--log-level", "critical", "--worker-connections", "20000"]
OURS = [*GUNICORN, "-k", "engineio_wsgi.gunicorn.Worker", "-w", "{workers}", "reload_ours:app"]


@dataclass(frozen=True)
class Peer:
    """A server, and how it is restarted: with SIGHUP, or by another process that takes its place."""

    command: list[str]
    transports: str = "polling,websocket"
    is_one_process: bool = False
    handover: bool = False


SERVE = [PYTHON, "-m", "engineio_wsgi", "serve", "reload_ours:app", "--bind", "127.0.0.1:{port}", "--workers", "{workers}",
         "--graceful-timeout", str(GRACEFUL)]
PEERS = {
    "gunicorn, our worker": Peer(OURS, handover=True),
    "engineio-wsgi serve": Peer(SERVE, handover=True),
    "gunicorn, our worker, no hand-over": Peer(OURS),
    "python-engineio, gunicorn -k gevent -w 1": Peer([*GUNICORN, "-k", "gevent", "-w", "1", "reload_python_engineio:app"]),
    "Node engine.io, one process": Peer(["node", str(HERE / "peers/node_engineio.js"), "{port}"], is_one_process=True),
    "Node engine.io, rolling restart": Peer(["node", str(HERE / "peers/node_cluster.js"), "{port}", "{workers}"], "websocket"),
}

SVG_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" font-family="sans-serif" font-size="13">
<style>text {{ fill: #333 }} @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} }}</style>
<text x="10" y="20" font-weight="bold">A deploy under {clients} clients: the longest silence (less is better)</text>"""


class RunningPeer:
    """A peer's server.

    Args:
        peer: which one.
        port: where it listens.
        workers: how many processes it has, if it can have several.
        modules: the folder of Node's packages.
    """

    def __init__(self, peer: Peer, port: int, workers: int, modules: str) -> None:
        self._peer = peer
        self._port = port
        self._command = [part.format(port=port, workers=workers) for part in peer.command]
        path = os.pathsep.join(filter(None, [str(HERE / "peers"), os.environ.get("PYTHONPATH")]))
        self._environment = {**os.environ, "NODE_PATH": modules, "NODE_ENV": "production", "PYTHONPATH": path,
                             **({"HANDOVER": "1"} if peer.handover else {})}
        self._process = self._start()

    def wait(self) -> None:
        """Return when it listens."""
        wait_for(self._port, self._process, PATIENCE)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env=self._environment, start_new_session=True)

    def restart(self) -> None:
        """Deploy. Returns when all processes of before have ended."""
        if self._peer.is_one_process:
            self._process.terminate()
            self._process.wait()
            self._process = self._start()
            return
        old = children(self._process.pid)
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while old & children(self._process.pid):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._command} keeps old processes")
            time.sleep(0.1)

    def stop(self) -> None:
        """End all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def children(pid: int) -> set[str]:
    """The processes that a process has started."""
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@contextmanager
def running(peer: Peer, workers: int, modules: str) -> Iterator[tuple[RunningPeer, int]]:
    """A peer's server; yields it and its port."""
    port = free_port()
    server = RunningPeer(peer, port, workers, modules)
    try:
        server.wait()
        yield server, port
    finally:
        server.stop()


def measure(peer: Peer, clients: int, workers: int, modules: str, period: int) -> dict[str, Any]:
    """One restart of one peer: what its clients have seen."""
    with running(peer, workers, modules) as (server, port):
        load = subprocess.Popen(
            ["node", str(HERE / "reload_client.js"), *map(str, (port, clients, period)), peer.transports],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "NODE_PATH": modules})
        assert load.stdin is not None
        assert load.stdout is not None
        try:
            if load.stdout.readline() != "ready\n":
                raise RuntimeError(f"the clients of {peer.command} have not got through")
            time.sleep(SETTLING)
            load.stdin.write("it begins\n")
            load.stdin.flush()
            server.restart()
            load.stdin.write("it is over\n")
            load.stdin.flush()
            result: dict[str, Any] = json.loads(load.stdout.readline())
            return result
        finally:
            load.kill()
            load.communicate()


def worst(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several rounds: the largest of each figure."""
    return {name: max(result[name] for result in results) for name in results[0]}


def sentence(result: dict[str, Any]) -> str:
    """What the clients have seen."""
    back = f"all back after {result['back']:.1f} s" if result["closes"] else "nobody had to come back"
    return (f"{result['closed']} of {result['clients']} closed, {result['requests']} requests, {back}; longest gap p50 "
            f"{result['p50']:.2f} s, p99 {result['p99']:.2f} s, max {result['max']:.2f} s; {result['lost']} messages lost")


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as a reStructuredText table."""
    rows = [["server", "closed", "requests", "all back after", "longest gap of a client: p50, p99, max", "messages lost"]]
    for name, result in results.items():
        back = f"{result['back']:.1f} s" if result["closes"] else "–"
        gaps = ", ".join(f"{result[share]:.2f} s" for share in ("p50", "p99", "max"))
        closed = f"{result['closed']} of {result['clients']}"
        rows.append([name, closed, str(result["requests"]), back, gaps, str(result["lost"])])
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'  ' if number else '* '}- {cell}" for number, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def chart(results: dict[str, dict[str, Any]]) -> str:
    """The longest gaps as an SVG of bars, with what else the clients saw."""
    scale = 180 / max([result["max"] for result in results.values()] + [0.1])
    parts = [SVG_HEAD.format(height=30 * len(results) + 45, clients=next(iter(results.values()))["clients"])]
    for number, (name, result) in enumerate(results.items()):
        y, width, colour = 36 + 30 * number, max(2.0, result["max"] * scale), "#cc3d4a" if result["closed"] else "#2f9e6e"
        text = f"{result['max']:.2f} s; {result['closed']} closed, {result['requests']} requests"
        parts.append(f'<text x="10" y="{y + 14}">{name}</text>')
        parts.append(f'<rect x="300" y="{y}" width="{width:.0f}" height="18" rx="3" fill="{colour}"/>')
        parts.append(f'<text x="{306 + width:.0f}" y="{y + 14}">{text}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--workers", type=int, default=4, help="of each peer that can have several")
    parser.add_argument("--period", type=int, default=50, help="milliseconds between two messages of a client")
    parser.add_argument("--rounds", type=int, default=1, help="the worst of them counts")
    parser.add_argument("--peer", action="append", help="only peers whose name contains this; may be repeated")
    parser.add_argument("--output", type=Path, default=Path("bench-results"), help="folder for reload.json, .rst and .svg")
    return parser.parse_args()


def main() -> int:
    """Run, print, write the files."""
    given = arguments()
    modules = bring_node_packages("engine.io", "engine.io-client")
    results: dict[str, dict[str, Any]] = {}
    for name, peer in PEERS.items():
        if given.peer and not any(part.lower() in name.lower() for part in given.peer):
            continue
        results[name] = worst([measure(peer, given.clients, given.workers, modules, given.period) for _ in range(given.rounds)])
        print(f"{name}: {sentence(results[name])}", flush=True)
    given.output.mkdir(parents=True, exist_ok=True)
    how = f"{given.clients} clients, {given.workers} workers, a message each {given.period} ms"
    (given.output / "reload.json").write_text(json.dumps({"machine": machine(), "how": how, "results": results}, indent=1))
    (given.output / "reload.rst").write_text(f"{machine()}; {how}; the worst of {given.rounds} rounds.\n\n{table(results)}")
    (given.output / "reload.svg").write_text(chart(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
