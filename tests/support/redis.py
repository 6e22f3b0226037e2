"""A Redis server for one test: its faults, and the forms in which it is deployed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import redis

#: seconds that anything may take; only a failing test waits that long
PATIENCE = 60.0


def free_port() -> int:
    """A port on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A running ``redis-server``.

    Args:
        folder: an empty one.
        settings: lines of its configuration, beside the port.
        port: of its own if not given.
        mode: more arguments, such as ``--sentinel``.
        secure: it speaks TLS only; the settings then name its certificate.
    """

    def __init__(self, folder: Path, *settings: str, port: int = 0, mode: tuple[str, ...] = (), secure: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        program = shutil.which("redis-server", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
        assert program is not None, "redis-server is missing: apt-get install redis-server"
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        plain = ["port 0", f"tls-port {self.port}"] if secure else [f"port {self.port}"]
        config = folder / "redis.conf"
        config.write_text("\n".join(["bind 127.0.0.1", *plain, f'dir "{folder}"', 'save ""', *settings, ""]))
        self._command = [program, str(config), *mode]
        self._secure = secure
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert monotonic() < deadline and self.process.poll() is None, (self._folder / "log").read_text()
            sleep(0.01)

    def ask(self, *command: str) -> Any:
        """The reply to a command, on a connection of its own."""
        with redis.Redis(port=self.port, decode_responses=True) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """Kill it (SIGKILL), as if its machine lost power."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stop it (SIGSTOP): it does not answer, and its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue after :meth:`pause`."""
        self.process.send_signal(signal.SIGCONT)
