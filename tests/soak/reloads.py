"""The soak test of reloads: sessions that number their messages, under a server that is reloaded again and again.

``python tests/soak/reloads.py`` holds 240 sessions against gunicorn with our worker class, and reloads it 20 times. A third of
them uses WebSocket, a third polls, and a third is at some step of an upgrade; half of them speak revision 3. No session may be
closed, and each message has to arrive once and in order, in both directions. For each reload a line says how long the clients
have waited, and what the server's processes hold afterwards; the line of reload 0 is the same without a reload, for comparison.
The exit status is 1 if anything went wrong. ``--server`` and ``--nginx`` choose other servers, ``--realtime`` (as root) puts
server and clients before whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import gevent
from gevent.pool import Pool

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from reload_clients import Session
from support.deployment import Proxy, free_port
from support.processes import ServerProcess

from engineio_wsgi.runtime.clock import monotonic

#: seconds that a reload may take until its old workers have ended
GRACEFUL = 60
#: seconds after which a client must have been answered by a server that has been reloaded
PATIENCE = 120.0
#: gunicorn's seconds for idle connections; behind a proxy they must be more than the proxy's
KEEP_ALIVE, BEHIND_PROXY = 5, 75
HEADER = """\
                        silence (ms)              wait for an echo (ms)     of the workers              of the master
reload seconds closed   p50   p90   p99   max     p50   p90   p99   max        MB      files threads   count  files   MB"""
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
COMMON = ("--worker-connections", "20000", "--graceful-timeout", str(GRACEFUL), "--backlog", "2048")
SERVERS = {
    "ours": ("engineio_wsgi.gunicorn.Worker", COMMON),
    "gevent": ("gevent", (*COMMON, "-c", "python:engineio_wsgi.gunicorn")),
    "gevent_pywsgi": ("gevent_pywsgi", (*COMMON, "-c", "python:engineio_wsgi.gunicorn")),
    "serve": ("serve", ("--graceful-timeout", str(GRACEFUL))),
}
KINDS = ("websocket", "polling", "upgrading")
OPTIONS = {"handover": True, "allow_eio3": True, "upgrade_timeout": 30.0}


class Held(NamedTuple):
    """What a process holds."""

    resident_kb: int
    files: int
    threads: int


def held_by(pid: int) -> Held:
    """What a process holds."""
    folder = Path(f"/proc/{pid}")
    resident = int((folder / "statm").read_text().split()[1]) * PAGE_KB
    return Held(resident, len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir())))


def children(pid: int) -> set[int]:
    """The processes that a process has started."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def wait_for_end(pids: Iterable[int], seconds: float) -> bool:
    """Wait until processes have ended. Returns whether they have in time."""

    def wait(pid: int) -> None:
        try:
            number = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            gevent.get_hub().wait(gevent.get_hub().loop.io(number, 1))
        finally:
            os.close(number)

    return len(gevent.joinall([gevent.spawn(wait, pid) for pid in pids], seconds)) == len(set(pids))


class Site:
    """The server, and the proxy in front of it if there is to be one.

    Args:
        folder: an empty one.
        kind: one of ``SERVERS``.
        workers: how many.
        has_proxy: whether nginx is in front of it.
        period: mean seconds between two messages of the server to one session.
    """

    def __init__(self, folder: Path, kind: str, workers: int, has_proxy: bool, period: float) -> None:
        name, arguments = SERVERS[kind]
        count = "--workers" if kind == "serve" else "-w"
        if kind != "serve":
            arguments = (*arguments, "--keep-alive", str(BEHIND_PROXY if has_proxy else KEEP_ALIVE))
        self.server = ServerProcess(
            folder, name, *arguments, count, str(workers), bind=f"127.0.0.1:{free_port()}", has_access_log=False,
            application=(HERE / "numbering.py").read_text(), options=OPTIONS, environment={"PERIOD": str(period)})
        self.has_proxy = has_proxy
        self._proxy: Proxy | None = None
        self.address = self.server.served.address
        if has_proxy:
            self._proxy = Proxy(folder / "nginx", "nginx", "{}:{}".format(*self.address), certificate(folder))
            self.address = self._proxy.served.address
        self.server.until(lambda: len(self.workers()) == workers)

    @property
    def master(self) -> int:
        """The process that starts the workers."""
        return self.server.process.pid

    def workers(self) -> set[int]:
        """The processes of the workers."""
        return children(self.master)

    def stop(self) -> None:
        """End both."""
        if self._proxy is not None:
            self._proxy.stop()
        self.server.stop()


def certificate(folder: Path) -> dict[str, str]:
    """A certificate for the proxy, which nobody uses, and its key: the names of their files."""
    certfile, keyfile = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", keyfile,
                    "-out", certfile], check=True, capture_output=True)
    return {"certfile": certfile, "keyfile": keyfile}


def shares(values: list[float]) -> str:
    """p50, p90, p99 and the largest, in milliseconds."""
    ordered = sorted(values) or [0.0]
    picked = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99, 1.0)]
    return " ".join(f"{1000 * value:5.0f}" for value in picked)


class Trial:
    """Clients and reloads.

    Args:
        site: what is reloaded.
        clients: how many sessions.
        kinds: which of ``KINDS``, in equal parts.
        period: mean seconds between two messages of each.
        pause: seconds between two reloads.
    """

    def __init__(self, site: Site, clients: int, kinds: list[str], period: float, pause: float) -> None:
        self._site = site
        self._pause = pause
        self.counters: Counter[str] = Counter()
        self.failures: list[str] = []
        variants = [(kind, eio) for kind in kinds for eio in (4, 3)]
        self.sessions = [Session(site.address, *variants[number % len(variants)], period, self.counters)
                         for number in range(clients)]
        self._running = Pool()

    def open(self) -> None:
        """Open all sessions, as many in each worker. Returns when each has got an echo.

        The system gives most connections to the worker that waited last, so all workers but one are stopped meanwhile. Upgrading
        sessions are where the system puts them, and so are all behind a proxy, which would send requests to workers that are
        stopped.
        """
        placed = [] if self._site.has_proxy else [session for session in self.sessions if session.kind != "upgrading"]
        workers = sorted(self._site.workers())
        for number, worker in enumerate(workers if placed else ()):
            for other in workers:
                os.kill(other, signal.SIGCONT if other == worker else signal.SIGSTOP)
            self._start(placed[number::len(workers)])
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
        self._start([session for session in self.sessions if session not in placed])
        for session in self.sessions:
            session.gaps.await_echo()
        self._wait_for(self.sessions)

    def _start(self, sessions: list[Session]) -> None:
        for session in sessions:
            self._running.spawn(session.run)
            gevent.sleep(0.001)
        self._wait_for(sessions)

    def _wait_for(self, sessions: list[Session]) -> None:
        """Wait until each of these that is left has got an echo."""
        deadline = monotonic() + PATIENCE
        while silent := [session for session in sessions if not (session.gaps.is_heard or session.is_over)]:
            if monotonic() > deadline:
                self.failures += [f"{session.kind}, EIO {session.eio}, {session.sid}, {session.stage}: no echo for {PATIENCE} s"
                                  for session in silent]
                return
            gevent.sleep(0.05)

    def watch(self, number: int, seconds: float | None = None) -> None:
        """Reload once, or wait for so many ``seconds`` instead; print what the clients have seen meanwhile."""
        old = self._site.workers()
        for session in self.sessions:
            session.gaps.restart()
        began = monotonic()
        if seconds is None:
            self._site.server.signal(signal.SIGHUP)
            if not wait_for_end(old, 2 * GRACEFUL):
                self.failures.append(f"reload {number}: old workers are left: {old & self._site.workers()}")
        else:
            gevent.sleep(seconds)
        took = monotonic() - began
        for session in self.sessions:
            session.gaps.await_echo()
        self._wait_for(self.sessions)
        self._print(number, took)

    def _print(self, number: int, took: float) -> None:
        gaps = [session.gaps for session in self.sessions if not session.is_over]
        workers = [held_by(pid) for pid in self._site.workers()]
        master = held_by(self._site.master)
        print(f"{number:6} {took:6.1f} {self.counters['closed']:6} {shares([gap.silence for gap in gaps])}  "
              f"{shares([gap.wait for gap in gaps])}  {span([held.resident_kb // 1024 for held in workers]):>9} "
              f"{span([held.files for held in workers]):>10} {span([held.threads for held in workers]):>6} "
              f"{len(workers):7} {master.files:6} {master.resident_kb // 1024:4}", flush=True)

    def run(self, reloads: int) -> None:
        """All reloads; then wait until each message has been answered."""
        print(HEADER)
        self.watch(0, max(self._pause, 5.0))
        for number in range(1, reloads + 1):
            gevent.sleep(self._pause)
            self.watch(number)
        for session in self.sessions:
            session.stop()
        if not self._running.join(2 * PATIENCE):
            self.failures.append(f"{len(self._running)} clients have not ended")
        for session in self.sessions:
            self.failures += session.failures

    def of_the_server(self, lines: list[str]) -> None:
        """What the server's log says that must not be there."""
        closes = Counter(line.rpartition(" ")[2] for line in lines if line.startswith("closed: "))
        count = sum(line.startswith("closed: ") for line in lines)
        print(f"the server has closed {count} sessions: {dict(closes)}")
        if count != self.counters["ended by the client"]:
            self.failures.append(f"the server has closed {count} sessions, the clients {self.counters['ended by the client']}")
        self.failures += [line for line in lines if line.startswith("disordered: ") or "do not move" in line]


def span(values: list[int]) -> str:
    """The smallest and the largest."""
    return f"{min(values)}–{max(values)}"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", choices=SERVERS, default="ours")
    parser.add_argument("--nginx", action="store_true", help="with nginx in front of the server")
    parser.add_argument("--clients", type=int, default=240)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only sessions of this kind; may be repeated")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--period", type=float, default=0.5,
                        help="mean seconds between two messages of a client; the server sends as many of its own")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two reloads")
    parser.add_argument("--realtime", action="store_true", help="run server and clients with the scheduling policy SCHED_RR")
    parser.add_argument("--keep", action="store_true", help="keep the server's logs")
    return parser.parse_args()


def main() -> int:
    """Run, print, and judge."""
    given = arguments()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if given.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(5))
    folder = Path(tempfile.mkdtemp(prefix="reloads-"))
    print(f"{given.clients} clients, {given.server}, {given.workers} workers{', nginx' if given.nginx else ''}, a message each "
          f"{given.period} s{', realtime' if given.realtime else ''}; {folder}", flush=True)
    site = Site(folder, given.server, given.workers, given.nginx, given.period)
    trial = Trial(site, given.clients, given.kind or list(KINDS), given.period, given.pause)
    try:
        trial.open()
        trial.run(given.reloads)
        site.server.until(lambda: site.server.logs().count("closed: ") >= trial.counters["ended by the client"], lambda: "")
    except AssertionError as error:
        trial.failures.append(f"{error or 'the server does not know of all closes'}")
    finally:
        site.stop()
    trial.of_the_server(site.server.logs().splitlines())
    print(", ".join(f"{name}: {count}" for name, count in trial.counters.items()))
    print(json.dumps(dict(Counter(line.split(" ", 3)[-1][:100] for line in site.server.complaints()).most_common(10)), indent=1))
    for failure in trial.failures[:50]:
        print(f"reloads: {failure}")
    if not given.keep and not trial.failures:
        shutil.rmtree(folder)
    print("reloads: failed" if trial.failures else "reloads: no session was closed, nothing was lost, doubled or reordered")
    return 1 if trial.failures else 0


if __name__ == "__main__":
    sys.exit(main())
