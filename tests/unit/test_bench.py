"""The benchmark's own honesty: a wrong echo is found, by either load generator, and the figures are what they say."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.node import node_modules

BENCH = Path(__file__).parents[2] / "bench"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"bench_{name}"] = module
    spec.loader.exec_module(module)
    return module


runner = load("run")

SERVER = """
import sys
import engineio_wsgi
server = engineio_wsgi.listen(("127.0.0.1", 0))
@server.on("connection")
def connected(socket):
    socket.on("message", lambda data: socket.send(data if sys.argv[1] == "right" else data.replace("xxx", "yyy", 1)))
print(server.address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    tools = runner.compile_tools(tmp_path_factory.mktemp("tools"))
    return {"C": [tools["load"]], "Python": [sys.executable, str(BENCH / "load_fallback.py")]}


@pytest.fixture(params=["right", "wrong"])
def echo(request: pytest.FixtureRequest):
    server = subprocess.Popen([sys.executable, "-c", SERVER, request.param], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": str(BENCH.parent)})
    assert server.stdout is not None
    yield request.param, server.stdout.readline().strip()
    server.kill()
    server.communicate()


@pytest.mark.parametrize("language", ["C", "Python"])
@pytest.mark.parametrize("mode", ["ws-echo", "poll-echo"])
def test_a_wrong_echo_is_found(generators: dict[str, list[str]], echo: tuple[str, str], mode: str, language: str):
    answer, port = echo
    command = [*generators[language], mode, port, "connections=3", "seconds=0.1", "size=200"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if answer == "right":
        assert json.loads(result.stdout)["operations"] > 0
    else:
        assert result.returncode != 0
        assert "an echo is not what was sent" in result.stderr


def test_a_wrong_echo_is_found_by_a_client_with_a_get_waiting(generators: dict[str, list[str]], echo: tuple[str, str]):
    answer, port = echo
    command = [*generators["C"], "poll-wait", port, "connections=3", "seconds=0.1", "size=200"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (result.returncode == 0) is (answer == "right")
    assert ("an echo is not what was sent" in result.stderr) is (answer == "wrong")


#: what Chrome sends with a POST and a GET of a page's own origin, in its order
CHROME_POST = ["Host", "Connection", "Content-Length", "sec-ch-ua-platform", "User-Agent", "Accept", "sec-ch-ua", "Content-type",
               "sec-ch-ua-mobile", "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Referer", "Accept-Encoding",
               "Accept-Language", "Cookie"]
CHROME_GET = [name for name in CHROME_POST if name not in ("Content-Length", "Content-type", "Origin")]


def test_its_polling_requests_are_those_of_chrome(generators: dict[str, list[str]]):
    """Each client has a cookie of its own, and each request a stamp of its own."""
    heads = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        load = subprocess.Popen([*generators["C"], "poll-echo", port, "connections=2"], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        connections = []
        for _ in range(2):
            connections.append(listener.accept()[0])
            heads.append(connections[-1].recv(65536).decode())
            opened = b'0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":100}'
            connections[-1].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(opened), opened))
        heads += [connection.recv(65536).decode() for connection in connections]
        for connection in connections:
            connection.close()
    load.wait()
    names = [[line.partition(":")[0] for line in head.partition("\r\n\r\n")[0].split("\r\n")[1:]] for head in heads]
    assert names == [CHROME_GET, CHROME_GET, CHROME_POST, CHROME_POST]
    assert len({re.search("&t=([0-9a-z]{8})", head).group(1) for head in heads}) == 4  # type: ignore[union-attr]
    assert len({re.search("session=(.*);", head).group(1) for head in heads}) == 2  # type: ignore[union-attr]


BROADCASTER = """
import engineio_wsgi
server = engineio_wsgi.listen(("127.0.0.1", 0))
@server.on("connection")
def connected(socket):
    for order in socket:
        count, size = map(int, order.split(":")[1:])
        for _ in range(count):
            server.broadcast("b" * size)
print(server.address[1], flush=True)
server.serve_forever()
"""


def test_broadcasts_one_at_a_time(generators: dict[str, list[str]]):
    server = subprocess.Popen([sys.executable, "-c", BROADCASTER], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": str(BENCH.parent)})
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    command = [*generators["C"], "broadcast", port, "connections=5", "size=100", "sequential=1", "seconds=0.1"]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout)
    server.kill()
    server.communicate()
    assert result["operations"] > 0
    assert result["operations"] % 5 == 0


def test_the_fallback_says_what_it_is(generators: dict[str, list[str]], echo: tuple[str, str]):
    result = subprocess.run([*generators["Python"], "ws-churn", echo[1]], capture_output=True, text=True, timeout=300)
    assert result.returncode != 0
    assert "needs a C compiler" in result.stderr


def test_summaries_are_medians_with_their_spread():
    results = [{"cpu_us": 3.0}, {"cpu_us": 1.0}, {"cpu_us": 2.0}]
    assert runner.summarise([10.0, 30.0, 20.0], results) == {"median": 20.0, "spread": 100.0, "cpu_us": 2.0}


@pytest.mark.parametrize(("name", "figures", "good"), [
    ("handshake and close, WS", {"ours": 151.0, "node": 100.0}, True),
    ("handshake and close, WS", {"ours": 149.0, "node": 100.0}, False),
    ("latency p50 at 10,000/s", {"ours": 1.0, "node": 2.0}, True),
    ("latency p50 at 10,000/s", {"ours": 2.0, "node": 1.0}, False),
])
def test_a_verdict_knows_which_way_is_better(name: str, figures: dict[str, float], good: bool):
    scenario = next(scenario for scenario in runner.SCENARIOS if scenario.name == name)
    peers = {peer: {"median": value, "spread": 0.0} for peer, value in figures.items()}
    assert [row[3] for row in runner.verdicts(scenario, peers)] == [good]
    table = runner.table({name: peers})
    assert ("**missed**" in table) is not good


def test_the_chart_is_an_image():
    peers = {"ours": {"median": 2.0}, "node": {"median": 1.0}}
    picture = runner.chart({"full upgrade": peers})
    assert re.match(r"<svg ", picture)
    assert "2.00 ×" in picture


@pytest.mark.parametrize("transport", ["webtransport", "websocket"])
def test_the_echoes_of_both_transports_are_measured(monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    monkeypatch.setitem(sys.modules, "run", runner)
    bench = load("webtransport")
    with bench.running() as (pid, port):
        figures = bench.measure(pid, port, transport, (2, 3, 100), 0.05)
    assert set(figures) == set(bench.FIGURES)
    assert min(figures.values()) > 0


def test_a_wrong_echo_over_webtransport_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "run", runner)
    bench = load("webtransport")
    with pytest.raises(SystemExit, match="a wrong echo: '5' instead of '40 xx"):
        bench.echo(lambda message: None, lambda: "5", 1, 10, bench.monotonic() + 60, [])


# -- what clients notice of a deploy

@pytest.fixture
def deploys(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, whose servers have one process and are settled as soon as they answer."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("PYTHONPATH", str(BENCH.parent))
    module = load("reload")
    monkeypatch.setattr(module, "SETTLING", 0)
    return module


@pytest.mark.parametrize(("name", "closed"), [("engineio-wsgi serve", 0), ("Node engine.io, one process", 2)])
def test_clients_count_what_a_restart_does_to_them(deploys: Any, name: str, closed: int) -> None:
    result = deploys.measure(deploys.PEERS[name], clients=2, workers=1, modules=str(node_modules()), period=50)
    assert (result["clients"], result["closed"], result["disordered"]) == (2, closed, 0)
    assert (result["requests"] > 0, result["back"] > 0) == (closed > 0, closed > 0)
    assert result["p50"] <= result["p99"] <= result["max"]


def test_the_table_and_the_chart_of_deploys(deploys: Any) -> None:
    quiet = {"clients": 60, "closed": 0, "closes": 0, "requests": 0, "back": 0, "p50": 0.08, "p99": 0.09, "max": 0.1, "lost": 0}
    loud = {**quiet, "closed": 60, "closes": 60, "requests": 200, "back": 4.04, "max": 2.5}
    results = {"a server": deploys.worst([quiet, quiet]), "another": deploys.worst([quiet, loud])}
    assert "   * - another\n     - 60 of 60\n     - 200\n     - 4.0 s\n     - 0.08 s, 0.09 s, 2.50 s\n" in deploys.table(results)
    chart = deploys.chart(results)
    assert "0.10 s; 0 closed, 0 requests" in chart
    assert "2.50 s; 60 closed, 200 requests" in chart
    assert deploys.sentence(results["a server"]).startswith("0 of 60 closed, 0 requests, nobody had to come back;")
