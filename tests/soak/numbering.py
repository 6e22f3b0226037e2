"""The application of ``reloads.py``: it echoes numbered messages, and sends numbered ones of its own.

What counts is in ``socket.data``, so it moves with the session. The environment has the engine's options as JSON in ``OPTIONS``,
and the mean seconds between two messages of the server in ``PERIOD``.
"""

from __future__ import annotations

import json
import logging
import os
import random
from typing import Any

import gevent

import engineio_wsgi

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(process)d %(name)s: %(message)s")
period = float(os.environ["PERIOD"])
server = engineio_wsgi.Server(**json.loads(os.environ["OPTIONS"]))


def tell(text: str) -> None:
    """Print in one write: the workers share the file."""
    os.write(1, f"{text}\n".encode())


@server.on("connection")
def connected(socket: Any) -> None:
    """A session begins, with its first numbers."""
    socket.data.update(received=0, sent=0, stopped=False)
    listen(socket)


@server.on("resume")
def listen(socket: Any) -> None:
    """Number what comes and what is sent."""
    data = socket.data

    @socket.on("message")
    def message(text: str) -> None:
        if text == "stop":
            data["stopped"] = True
            socket.send(f"s{data['sent']}")
            return
        if int(text) != data["received"]:
            tell(f"disordered: {socket.id} got {text}, expected {data['received']}")
        data["received"] = int(text) + 1
        socket.send("e" + text)

    def push() -> None:
        while not data["stopped"]:
            gevent.sleep(period * random.uniform(0.5, 1.5))
            if not data["stopped"]:
                socket.send(f"p{data['sent']}")
                data["sent"] += 1

    socket.on("close", lambda reason, _: tell(f"closed: {socket.id} {reason}"))
    socket.spawn(push)


def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """A page of the wrapped application."""
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]


app = server.wrap(page)
