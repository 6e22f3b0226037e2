"""The reference server of npm in a process of its own, with the same interface as ours: to check the tests themselves.

``TEST_REFERENCE=1 pytest tests/conformance`` runs the tests of the protocol against it. Tests that need our Python API,
or where ours differs on purpose (marked ``differs``), are left out.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import gevent
from gevent import subprocess

from support.node import node_environment
from support.rawhttp import HttpConnection
from support.serving import EventLog, Served

SCRIPT = Path(__file__).with_name("reference_server.js")
#: our options that are seconds here and milliseconds there
SECONDS = ("ping_interval", "ping_timeout", "upgrade_timeout")
#: our options that have another name there
NAMES = {"allow_eio3": "allowEIO3", "max_http_buffer_size": "maxHttpBufferSize"}

ENABLED = bool(os.environ.get("TEST_REFERENCE"))


def camel_case(name: str) -> str:
    """``ping_interval`` as JavaScript spells it."""
    return NAMES.get(name) or re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def translated(options: dict[str, Any]) -> dict[str, Any]:
    """Our options, spelt as the reference's."""
    known = {name: round(value * 1000, 3) if name in SECONDS else value for name, value in options.items()}
    if "cors" in known:
        known["cors"] = {"origin": known["cors"]}
    if known.get("cookie") is True:
        known["cookie"] = {"name": "io"}
    known.pop("jsonp", None)
    return {camel_case(name): value for name, value in known.items()}


class ReferenceServer:
    """One process of the reference server."""

    def __init__(self, app: str | None, **options: Any) -> None:
        argument = json.dumps({"app": app, "options": translated(options)})
        self.process = subprocess.Popen(
            ["node", str(SCRIPT), argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=node_environment()
        )
        self.events = EventLog()
        self.reader = gevent.spawn(self._read)
        port = self.events.wait("listening")["port"]
        self.served = Served(("127.0.0.1", port), self.events, handler="reference")

    def _read(self) -> None:
        for line in self.process.stdout:
            fields = json.loads(line)
            self.events.add(fields.pop("event"), **fields)

    def stop(self) -> None:
        """End the process."""
        HttpConnection.close_all()
        self.process.stdin.close()
        self.process.wait(60)
        self.reader.join(60)
        self.process.stdout.close()
