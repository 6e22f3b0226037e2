"""Hostile peers, and what becomes of the well-behaved beside them: ``python tests/hostile/run.py [--seconds N] [ATTACK …]``.

A server in a process of its own, ten sessions over polling and ten over WebSocket that echo ten times a second, and one attack
after the other from a third process. For each, a line: how much the server's memory grew, its share of a core, the latency of the
well-behaved against that before, what was logged, and what of its files and sessions is left five seconds after. The exit status
is 1 if a bound is broken: memory, files, log lines, or a session that was lost. Latency is printed, and judged if there is a
``--latency``.

On a machine with two cores or more, the server has one for itself. Attackers and witnesses share another one, on which the
attackers get only the time that nobody else wants, so that the latency is the server's. ``--no-pin`` leaves that to the system.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from time import monotonic
from typing import Any, NamedTuple

import gevent
from attacks import ATTACKS, HERE, ROOT
from support.clients import Session, open_session
from support.serving import EventLog, Served

#: the engine's, beside those of tests/soak/server.py
OPTIONS = {"per_message_deflate": True, "jsonp": True, "allowed_hosts": ["127.0.0.1"], "upgrade_timeout": 2.0,
           "ping_timeout": 10.0}
WITNESSES = 10
#: KB by which the process may have grown, of which 10,000 half-open connections take the most
MAX_GROWTH_KB = 150_000
#: lines in the log for one attack, however long
MAX_LINES = 100
#: files and sessions beyond those before, afterwards
MAX_LEFT = 5
#: the core of the server, and that of attackers and witnesses
SERVER_CORE, CLIENT_CORE = 0, 1
#: as :manpage:`nice(1)` has it
ATTACKER_NICE = 19
#: seconds until everything that an attack has left has to be gone: beyond the time for a head, and a heartbeat
AFTERMATH = 60.0


class Witness:
    """A well-behaved session that measures round trips."""

    def __init__(self, served: Served, transport: str) -> None:
        self.session: Session = open_session(served, transport)
        self.seconds: list[float] = []

    def run(self) -> None:
        """About ten a second, until it is killed. The pauses differ, so that the sessions do not all meet the same delay."""
        while True:
            began = monotonic()
            self.session.say("witness")
            while (heard := self.session.recv()) != "4witness":
                if heard == "2":
                    self.session.send("3")
            self.seconds.append(monotonic() - began)
            gevent.sleep(random.uniform(0.05, 0.15))


class Row(NamedTuple):
    """What was seen."""

    p50: float
    p99: float
    growth: float
    cpu: float
    #: share of the time for which the server was ready to run, and other processes had its core
    waited: float
    lines: int
    complaints: list[str]


def can_pin() -> bool:
    """Whether this process may use both cores."""
    return hasattr(os, "sched_setaffinity") and {SERVER_CORE, CLIENT_CORE} <= os.sched_getaffinity(0)


class Target:
    """The server, its log, and its well-behaved sessions.

    Args:
        log: the file that the server's log is written to.
        pinned: whether the server has a core for itself.
        realtime: the real-time priority of the server and the witnesses, if they have one.
    """

    def __init__(self, log: Path, pinned: bool, realtime: int | None) -> None:
        command = [sys.executable, str(ROOT / "tests" / "soak" / "server.py"), json.dumps(OPTIONS)]
        with log.open("wb") as written:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written, text=True,
                                            env={**os.environ, "PYTHONPATH": str(ROOT)})
        if pinned:
            os.sched_setaffinity(self.process.pid, {SERVER_CORE})
            os.sched_setaffinity(0, {CLIENT_CORE})
        if realtime is not None:
            # the attackers, which this process starts, do not inherit it
            policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
            for pid in (self.process.pid, 0):
                os.sched_setscheduler(pid, policy, os.sched_param(realtime))
        self.pinned = pinned
        self._log = log.open("rb")
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        served: Any = Served(("127.0.0.1", self.port), EventLog(), handler="ours")
        self.witnesses = [Witness(served, transport) for transport in ("polling", "websocket") for _ in range(WITNESSES)]
        self._running = [gevent.spawn(witness.run) for witness in self.witnesses]

    def stats(self) -> dict[str, Any]:
        """What it says of itself."""
        url = f"http://127.0.0.1:{self.port}/stats"
        content: dict[str, Any] = json.loads(gevent.get_hub().threadpool.apply(
            lambda: urllib.request.urlopen(url, timeout=60).read()))
        return content

    def alive(self) -> int:
        """How many of the well-behaved are left."""
        return sum(not greenlet.dead for greenlet in self._running)

    def cpu_seconds(self) -> float:
        """Of the server."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def waited_seconds(self) -> float:
        """For which the server was ready to run, and did not."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[1]) / 1e9

    def resident(self) -> int:
        """KB of the server."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def lines(self) -> list[str]:
        """What has been logged since the last time."""
        return self._log.read().decode(errors="replace").splitlines()

    def watch(self, seconds: float) -> Row:
        """Look for some time."""
        for witness in self.witnesses:
            witness.seconds = []
        self.lines()
        cpu, waited, began, first = self.cpu_seconds(), self.waited_seconds(), monotonic(), self.resident()
        peak = first
        while monotonic() - began < seconds:
            gevent.sleep(0.1)
            peak = max(peak, self.resident())
        elapsed = monotonic() - began
        cpu, waited = (self.cpu_seconds() - cpu) / elapsed, (self.waited_seconds() - waited) / elapsed
        took = sorted(each for witness in self.witnesses for each in witness.seconds) or [float("nan")]
        lines = self.lines()
        return Row(1000 * took[len(took) // 2], 1000 * took[int(len(took) * 0.99)], peak - first, cpu, waited, len(lines),
                   [line for line in lines if "Traceback" in line or line.startswith("ERROR")])


def attack(target: Target, name: str, seconds: float, quiet: Row, most: float | None) -> list[str]:
    """One attack. Prints its line, and returns what was wrong; a p99 above ``most`` times the quiet one is, if that is given."""
    before = target.stats()
    with TemporaryFile("w+") as output:
        attacker = subprocess.Popen([sys.executable, str(HERE / "attacks.py"), name, str(target.port)], stderr=output)
        if target.pinned:
            # it inherits the core of this process
            os.setpriority(os.PRIO_PROCESS, attacker.pid, ATTACKER_NICE)
        row = target.watch(seconds)
        status = attacker.poll()
        attacker.kill()
        attacker.wait()
        output.seek(0)
        found = [] if status is None else [output.read().strip()]
    deadline = monotonic() + AFTERMATH
    after = target.stats()
    while any(after[name] > before[name] + MAX_LEFT for name in ("files", "sessions")) and monotonic() < deadline:
        gevent.sleep(0.5)
        after = target.stats()
    lost = 2 * WITNESSES - target.alive()
    print(f"{name:18} memory {row.growth / 1024:+7.1f} MB   CPU {100 * row.cpu:4.0f} %   waited {100 * row.waited:4.1f} %   "
          f"p50 {row.p50:6.1f} ms   p99 {row.p99:7.1f} ms ({row.p99 / quiet.p99:4.1f} × quiet)   log {row.lines:3}   left: files "
          f"{after['files'] - before['files']:+d}, sessions {after['sessions'] - before['sessions']:+d}, lost {lost}", flush=True)
    bounds = {
        f"memory grew by {row.growth} KB": row.growth > MAX_GROWTH_KB,
        f"{row.lines} lines were logged": row.lines > MAX_LINES,
        **{f"{after[name] - before[name]} {name} are left": after[name] > before[name] + MAX_LEFT
           for name in ("files", "sessions")},
        f"{lost} well-behaved sessions were lost": lost > 0,
        f"logged: {row.complaints[:1]}": bool(row.complaints),
        f"p99 was {row.p99 / quiet.p99:.1f} times the quiet one": most is not None and row.p99 > most * quiet.p99,
    }
    return [f"{name}: {text}" for text in [*found, *[text for text, broken in bounds.items() if broken]]]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}; all, if none is named")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each")
    parser.add_argument("--pin", action=argparse.BooleanOptionalAction, default=can_pin(),
                        help="give the server core 0, and let attackers and witnesses share core 1, attackers with the lowest "
                             "priority (by default, where these cores are available)")
    parser.add_argument("--latency", type=float, metavar="TIMES", help="fail if p99 is more than so many times the quiet one")
    parser.add_argument("--realtime", type=int, metavar="PRIORITY",
                        help="the real-time priority of server and witnesses, on a machine that is busy otherwise; as root")
    given = parser.parse_args()
    unknown = set(given.names) - set(ATTACKS)
    if unknown:
        parser.error(f"there is no attack {', '.join(sorted(unknown))}")
    if given.pin and not can_pin():
        parser.error(f"the cores {SERVER_CORE} and {CLIENT_CORE} are not available to this process: use --no-pin")
    found: list[str] = []
    with TemporaryDirectory() as folder:
        target = Target(Path(folder) / "log", given.pin, given.realtime)
        try:
            gevent.sleep(1)
            quiet = target.watch(given.seconds)
            print(f"{'quiet':18} memory {quiet.growth / 1024:+7.1f} MB   CPU {100 * quiet.cpu:4.0f} %   "
                  f"waited {100 * quiet.waited:4.1f} %   p50 {quiet.p50:6.1f} ms   p99 {quiet.p99:7.1f} ms", flush=True)
            for name in given.names or ATTACKS:
                found += attack(target, name, given.seconds, quiet, given.latency)
        finally:
            target.process.kill()
            target.process.wait()
    print("\n".join(f"hostile: {line}" for line in found) or "hostile: every bound held")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
