"""The benchmark: this server against its peers, on one core, alternating, every echo checked.

``python bench/run.py --help`` says how; ``bench/README.rst`` says what is measured and why it is fair.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SERVER_CORE, LOAD_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

PEERS: dict[str, list[str]] = {
    "ours": [sys.executable, str(HERE / "peers/ours.py"), "{port}"],
    "node": ["node", str(HERE / "peers/node_engineio.js"), "{port}"],
    "bun": ["{bun}", str(HERE / "peers/bun_engine.js"), "{port}"],
    "python-engineio": [sys.executable, str(HERE / "peers/python_engineio_gevent.py"), "{port}", "nodelay"],
    "python-engineio, no NODELAY": [sys.executable, str(HERE / "peers/python_engineio_gevent.py"), "{port}"],
    "C echo": ["{echo}", "{port}"],
    "gevent-websocket, raw": [sys.executable, str(HERE / "peers/raw_geventwebsocket.py"), "{port}"],
    "flask ours": [sys.executable, str(HERE / "peers/flask_hello.py"), "{port}", "ours"],
    "flask pywsgi": [sys.executable, str(HERE / "peers/flask_hello.py"), "{port}", "pywsgi"],
    "flask pywsgi, NODELAY": [sys.executable, str(HERE / "peers/flask_hello.py"), "{port}", "nodelay"],
}
#: peers that echo WebSocket messages and know nothing of Engine.IO
RAW = ("C echo", "gevent-websocket, raw")
#: figures that are taken while nothing goes on
AT_REST = ("kilobytes", "core_percent")
#: seconds between two pings of every peer
HEARTBEAT = 25
#: what the load generator in Python can do
FALLBACK_MODES = ("ws-echo", "poll-echo", "http")
ALL = ("ours", "node", "bun", "python-engineio")
FLASK = ("flask ours", "flask pywsgi", "flask pywsgi, NODELAY")


@dataclass(frozen=True)
class Scenario:
    """One row of the table.

    ``goals`` are what the first peer's figure has to be in relation to the other's; ``figure`` is what is compared.
    """

    name: str
    load: list[str]
    peers: tuple[str, ...] = ALL
    goals: dict[str, float] = field(default_factory=dict)
    figure: str = "rate"
    less_is_better: bool = False
    seconds: float = 2.0


SCENARIOS = [
    Scenario("WS echo, 50 × 1 × 32 B", ["ws-echo", "connections=50", "size=32"], (*ALL, *RAW),
             {"node": 1.3, "bun": 1, "C echo": 0.75, "python-engineio": 3}),
    Scenario("WS echo, 50 × 1 × 1 KiB", ["ws-echo", "connections=50", "size=1024"], (*ALL, "C echo"),
             {"node": 1.3, "C echo": 0.55, "python-engineio": 3}),
    Scenario("WS echo, 50 × 16 × 32 B", ["ws-echo", "connections=50", "outstanding=16", "size=32"], (*ALL, "C echo"),
             {"node": 5, "bun": 1.1, "C echo": 0.4}),
    Scenario("WS echo, 50 × 16 × 1 KiB", ["ws-echo", "connections=50", "outstanding=16", "size=1024"], ALL, {"node": 5}),
    Scenario("WS echo, 50 × 16 × 16 KiB", ["ws-echo", "connections=50", "outstanding=16", "size=16384"],
             ("ours", "node", "C echo"), {"node": 4}),
    Scenario("WS echo, 1000 × 1 × 32 B", ["ws-echo", "connections=1000"], ALL, {"node": 1.3}),
    Scenario("polling echo, 50 sessions", ["poll-echo", "connections=50"], ALL,
             {"node": 1.8, "bun": 1.1, "python-engineio": 5}),
    Scenario("polling echo, 500 sessions", ["poll-echo", "connections=500"], ALL,
             {"node": 1.8, "bun": 1.1, "python-engineio": 5}),
    Scenario("polling echo, a GET always waiting", ["poll-wait", "connections=50"], ALL, {"node": 1.8, "bun": 1.1}),
    Scenario("broadcast, 100 at once to 1000", ["broadcast", "connections=1000", "count=100"], ALL, {"node": 2}),
    Scenario("broadcast of 100 B to 1000, one at a time", ["broadcast", "connections=1000", "size=100", "sequential=1"], ALL,
             {"node": 1.5, "bun": 1}),
    Scenario("handshake and close, WS", ["ws-churn"], ALL, {"node": 1.5}),
    Scenario("handshake and close, polling", ["poll-churn"], ALL, {"node": 1.8}),
    Scenario("full upgrade", ["upgrade-churn"], ("ours", "node"), {"node": 1}),
    Scenario("latency p50 at 10,000/s", ["latency", "rate=10000"], ("ours", "node", "bun", "C echo"),
             {"node": 0.9}, "p50", True),
    Scenario("latency p99 at 10,000/s", ["latency", "rate=10000"], ("ours", "node", "bun"), {"node": 0.4}, "p99", True),
    Scenario("memory of an idle WS session", ["idle", "connections=5000"], ALL, {"node": 0.35}, "kilobytes", True),
    Scenario("memory of a session with a GET waiting", ["idle", "connections=5000", "polling=1"], ALL, {"node": 0.35},
             "kilobytes", True),
    Scenario("CPU for heartbeats, 10,000 sessions", ["idle", "connections=10000"], ("ours", "node", "bun"), {},
             "core_percent", True),
    Scenario("Flask hello", ["http", "connections=32"], FLASK, {"flask pywsgi": 1.8, "flask pywsgi, NODELAY": 1.8}),
]


# -- processes


def compile_tools(folder: Path) -> dict[str, str]:
    """Compile the load generator and the yardstick; returns their paths."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("bench: no C compiler (cc): the load generator is the fallback in Python, which is itself the bottleneck",
              file=sys.stderr)
        return {"load": str(HERE / "load_fallback.py"), "echo": ""}
    for name in ("load", "echo"):
        subprocess.run([compiler, "-O2", "-o", str(folder / name), str(HERE / f"{name}.c")], check=True)
    return {name: str(folder / name) for name in ("load", "echo")}


def bring_node_packages(*needed: str) -> str:
    """Install the npm peers next to this file if one that is needed is not there; returns the folder."""
    folder = Path(os.environ.get("TEST_NODE_MODULES", HERE / "node_modules"))
    present = all((folder / name).exists() for name in needed)
    if not present and shutil.which("npm"):
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"], cwd=HERE, check=True)
    return str(folder)


def find_bun(folder: str) -> str:
    """The path of Bun's binary for this machine's processor; empty if npm has none."""
    found = next(Path(folder).glob("@oven/bun-linux-*/bin/bun"), None)
    if found is None:
        print("bench: no Bun for this machine: it is left out", file=sys.stderr)
    return str(found or "")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(peer: str, tools: dict[str, str]) -> Iterator[tuple[int, int]]:
    """A peer's server on the server's core; yields its process id and port."""
    port = free_port()
    command = [part.format(port=port, **tools) for part in PEERS[peer]]
    environment = {**os.environ, "NODE_PATH": tools["node_modules"], "NODE_ENV": "production"}
    process = subprocess.Popen(command, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}))
    try:
        wait_for(port, process)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 15) -> None:
    """Return when the server listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args} does not listen")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


# -- measurements


def generate(tools: dict[str, str], arguments: list[str], port: int) -> subprocess.Popen[str]:
    """The load generator, on its own core."""
    program = [sys.executable] if tools["load"].endswith(".py") else []
    return subprocess.Popen([*program, tools["load"], arguments[0], str(port), *arguments[1:]], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True,
                            preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}))


def measure(scenario: Scenario, peer: str, tools: dict[str, str], seconds: float) -> dict[str, float]:
    """One round of one peer."""
    with running(peer, tools) as (pid, port):
        if scenario.figure in AT_REST:
            return measure_at_rest(scenario, tools, pid, port)
        raw = ["raw=1"] if peer in RAW else []
        warm_up(scenario, tools, port, raw)
        before = cpu_seconds(pid)
        output, _ = generate(tools, [*scenario.load, f"seconds={seconds}", *raw], port).communicate(timeout=120)
        result: dict[str, float] = json.loads(output)
        if not result["operations"]:
            print(f"bench: {peer} has done nothing within {seconds:g} s of {scenario.name}", file=sys.stderr)
        result["cpu_us"] = (cpu_seconds(pid) - before) / max(result["operations"], 1) * 1e6
        if "seconds" in result:
            result["rate"] = result["operations"] / result["seconds"]
        return result


def warm_up(scenario: Scenario, tools: dict[str, str], port: int, raw: list[str]) -> None:
    """Let just-in-time compilers and caches settle, for every peer alike."""
    arguments = ["connections=10", "seconds=0.5", "count=10", *raw]
    kept = [argument for argument in scenario.load if not argument.startswith(("connections=", "count="))]
    generate(tools, [*kept, *arguments], port).communicate(timeout=60)


def measure_at_rest(scenario: Scenario, tools: dict[str, str], pid: int, port: int) -> dict[str, float]:
    """What sessions cost that do nothing: resident kilobytes each, or the CPU of all their heartbeats in per cent of a core."""
    time.sleep(0.5)
    before = resident(pid)
    load = generate(tools, scenario.load, port)
    assert load.stdout is not None
    result: dict[str, float] = json.loads(load.stdout.readline())
    time.sleep(1.0)
    result["kilobytes"] = (resident(pid) - before) / result["operations"] / 1024
    if scenario.figure == "core_percent":
        cpu = cpu_seconds(pid)
        time.sleep(HEARTBEAT)
        result["core_percent"] = 100 * (cpu_seconds(pid) - cpu) / HEARTBEAT
    load.communicate("")
    return result


def run_scenario(scenario: Scenario, peers: tuple[str, ...], tools: dict[str, str], rounds: int,
                 seconds: float) -> dict[str, Any]:
    """All rounds: in each, every peer has its turn, and the next round starts with another one."""
    rounds = 1 if scenario.figure == "core_percent" else rounds
    results: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    for number in range(rounds):
        for peer in peers[number % len(peers):] + peers[: number % len(peers)]:
            results[peer].append(measure(scenario, peer, tools, seconds))
    return {peer: summarise([result[scenario.figure] for result in of_peer], of_peer) for peer, of_peer in results.items()}


def summarise(figures: list[float], results: list[dict[str, float]]) -> dict[str, float]:
    """The median, how far the rounds were apart (in per cent of it), and the server's CPU for one operation."""
    median = statistics.median(figures)
    spread = 100 * (max(figures) - min(figures)) / median if median else 0.0
    cpu = statistics.median([result.get("cpu_us", 0.0) for result in results])
    return {"median": median, "spread": spread, "cpu_us": cpu}


def verdicts(scenario: Scenario, peers: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """Peer, ratio of the first peer's figure to its, the goal for that, and whether it was reached."""
    first = next(iter(peers))
    rows = []
    for peer, goal in scenario.goals.items():
        if peer in peers and peers[peer]["median"]:
            ratio = peers[first]["median"] / peers[peer]["median"]
            rows.append((peer, ratio, goal, ratio <= goal if scenario.less_is_better else ratio >= goal))
    return rows


# -- what comes out

SVG_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" font-family="sans-serif" font-size="13">
<style>text {{ fill: #333 }} @media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} }}</style>
<text x="10" y="20" font-weight="bold">engineio-wsgi, as a multiple of Node engine.io (more is better)</text>"""


def show(scenario: Scenario, value: float) -> str:
    """A figure with its unit."""
    if scenario.figure == "rate":
        return f"{value:,.0f}/s"
    if scenario.figure == "core_percent":
        return f"{value:.2f} % of a core"
    return f"{value:.1f} KB" if scenario.figure == "kilobytes" else f"{value * 1000:.2f} ms"


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as a reStructuredText table."""
    lines = [".. list-table::", "   :header-rows: 1", "", "   * - scenario", "     - figures (spread)", "     - ratio, goal"]
    for scenario in SCENARIOS:
        peers = results.get(scenario.name)
        if peers is None:
            continue
        figures = "; ".join(f"{peer} {show(scenario, row['median'])} (±{row['spread'] / 2:.0f} %)"
                            for peer, row in peers.items())
        sign = "≤" if scenario.less_is_better else "≥"
        ratios = "; ".join(f"{ratio:.2f} × {peer}, goal {sign} {goal:g}: {'reached' if good else '**missed**'}"
                           for peer, ratio, goal, good in verdicts(scenario, peers))
        lines += [f"   * - {scenario.name}", f"     - {figures}", f"     - {ratios or '–'}"]
    return "\n".join(lines) + "\n"


def chart(results: dict[str, dict[str, Any]]) -> str:
    """The ratios to Node as an SVG of bars; more is better throughout."""
    rows = []
    for scenario in SCENARIOS:
        peers = results.get(scenario.name, {})
        if "ours" in peers and peers.get("node", {}).get("median"):
            ratio = peers["ours"]["median"] / peers["node"]["median"]
            rows.append((scenario.name, 1 / ratio if scenario.less_is_better else ratio))
    scale = 420 / max([ratio for _, ratio in rows] + [1])
    height = 30 * len(rows) + 50
    parts = [SVG_HEAD.format(height=height)]
    for number, (name, ratio) in enumerate(rows):
        y, width, colour = 40 + 30 * number, ratio * scale, "#2f9e6e" if ratio >= 1 else "#cc3d4a"
        parts.append(f'<text x="10" y="{y + 14}">{name}</text>')
        parts.append(f'<rect x="250" y="{y}" width="{width:.0f}" height="18" rx="3" fill="{colour}"/>')
        parts.append(f'<text x="{256 + width:.0f}" y="{y + 14}">{ratio:.2f} ×</text>')
    parts.append(f'<path d="M {250 + scale:.0f} 34 V {height - 10}" stroke="#888" stroke-dasharray="4"/></svg>')
    return "\n".join(parts) + "\n"


def machine() -> str:
    """What the figures were taken on."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown processor")
    node = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip() if shutil.which("node") else ""
    versions = f"CPython {platform.python_version()}, Node {node or 'none'}, Linux {platform.release()}"
    return f"{date.today()}, {os.cpu_count()} cores of {model}, {versions}"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round of the main scenarios, under a minute")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--scenario", action="append", help="only scenarios whose name contains this; may be repeated")
    parser.add_argument("--peer", action="append", help="only these peers beside ours; may be repeated")
    parser.add_argument("--output", type=Path, default=Path("bench-results"), help="folder for results.json, .rst and .svg")
    return parser.parse_args()


def chosen(given: argparse.Namespace, tools: dict[str, str]) -> Iterator[tuple[Scenario, tuple[str, ...]]]:
    """The scenarios to run, with their peers."""
    for scenario in SCENARIOS:
        if given.scenario and not any(part.lower() in scenario.name.lower() for part in given.scenario):
            continue
        if given.quick and scenario.figure != "rate":
            continue
        peers = scenario.peers
        if given.quick:
            peers = tuple(peer for peer in peers if not peer.startswith("python-engineio") or "32 B" in scenario.name)
        if not tools["echo"]:
            if scenario.load[0] not in FALLBACK_MODES:
                continue
            peers = tuple(peer for peer in peers if peer != "C echo")
        if not tools["bun"]:
            peers = tuple(peer for peer in peers if peer != "bun")
        if given.peer:
            peers = (peers[0], *(peer for peer in peers[1:] if peer in given.peer))
        yield scenario, peers


def main() -> int:
    """Run, print the table as it grows, write the files."""
    given = arguments()
    if (os.cpu_count() or 1) < 2:
        print("bench: one core only: server and load will share it, and the figures mean little", file=sys.stderr)
    rounds, seconds = (1, 0.5) if given.quick else (given.rounds, given.seconds)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tools = compile_tools(Path(folder))
        tools["node_modules"] = bring_node_packages("engine.io", "@socket.io/bun-engine")
        tools["bun"] = find_bun(tools["node_modules"])
        for scenario, peers in chosen(given, tools):
            results[scenario.name] = run_scenario(scenario, peers, tools, rounds, seconds)
            figures = ", ".join(f"{peer} {show(scenario, row['median'])} ({row['cpu_us']:.1f} µs)"
                                for peer, row in results[scenario.name].items())
            ratios = ", ".join(f"{ratio:.2f} × {peer} (goal {goal:g}: {'reached' if good else 'MISSED'})"
                               for peer, ratio, goal, good in verdicts(scenario, results[scenario.name]))
            print(f"{scenario.name}: {figures}\n    {ratios}", flush=True)
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "results.json").write_text(json.dumps({"machine": machine(), "rounds": rounds, "results": results}, indent=1))
    (given.output / "results.rst").write_text(f"{machine()}; medians of {rounds} rounds.\n\n{table(results)}")
    (given.output / "results.svg").write_text(chart(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
