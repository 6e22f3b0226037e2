"""Several workers without sticky sessions, each variant started by one command; Ctrl-C ends it.

    python run.py nginx [PORT]     nginx in front of one gunicorn with four workers
    python run.py redis [PORT]     nginx in front of two gunicorns, as on two machines, that share a Redis

It prints the commands that it runs, as you would write them into units or containers. You need the programs ``nginx`` and
``redis-server``, and ``pip install 'engineio-wsgi[gunicorn,redis]'``.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKERS = 4


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Programs:
    """The running programs; they are stopped together."""

    def __init__(self):
        self.processes = []

    def start(self, *command, port, **environment):
        program = shutil.which(command[0], path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
        if program is None:
            sys.exit(f"{command[0]} is not installed")
        print(*[f"{name}={value}" for name, value in environment.items()], shlex.join(command), flush=True)
        process = subprocess.Popen([program, *command[1:]], cwd=HERE, env={**os.environ, **environment}, start_new_session=True)
        self.processes.append(process)
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        sys.exit(f"{command[0]} has not started")

    def stop(self):
        # in reverse order: nginx before the servers behind it
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            process.wait()


def gunicorn(programs, port, **environment):
    programs.start(sys.executable, "-m", "gunicorn", "-k", "engineio_wsgi.gunicorn.Worker", "-w", str(WORKERS),
                   "-b", f"127.0.0.1:{port}", "app:app", port=port, BEHIND_PROXY="1", **environment)


def nginx(programs, folder, port, backends):
    text = (HERE / "nginx.conf").read_text()
    servers = " ".join(f"server 127.0.0.1:{backend};" for backend in backends)
    configuration = folder / "nginx.conf"
    configuration.write_text(text.replace("@PORT@", str(port)).replace("@SERVERS@", servers).replace("@FOLDER@", str(folder)))
    programs.start("nginx", "-e", str(folder / "error.log"), "-c", str(configuration), "-g", "daemon off;", port=port)


def main(variant, port):
    programs = Programs()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        backends = [free_port()] if variant == "nginx" else [free_port(), free_port()]
        try:
            environment = {}
            if variant == "redis":
                redis_port = free_port()
                programs.start("redis-server", "--port", str(redis_port), "--save", "", "--dir", name, port=redis_port)
                environment["ENGINEIO_CLUSTER"] = f"redis://127.0.0.1:{redis_port}"
            for backend in backends:
                gunicorn(programs, backend, **environment)
            nginx(programs, folder, port, backends)
            print(f"Listening at: http://127.0.0.1:{port}", flush=True)
            signal.pause()
        except KeyboardInterrupt:
            pass
        finally:
            programs.stop()


if __name__ == "__main__":
    if sys.argv[1:2] not in (["nginx"], ["redis"]):
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8000)
