"""python-engineio's client, driven over JSON lines: ``python python_client.py URL TRANSPORTS``."""

from __future__ import annotations

import base64
import json
import sys
import threading
from typing import Any

import engineio
from engineio.packet import CLOSE, Packet
from engineio.payload import Payload

# its client refuses responses with more packets; its documentation says to raise the number where that happens
Payload.max_decode_packets = 100_000
lock = threading.Lock()


def report(event: str, **fields: Any) -> None:
    """Tell what happened."""
    with lock:
        print(json.dumps({"event": event, **fields}), flush=True)


class Client(engineio.Client):
    """Runs its handlers in the order of the messages, and not in a thread each."""

    def _trigger_event(self, event: str, *args: Any, **kwargs: Any) -> Any:
        return super()._trigger_event(event, *args, **{**kwargs, "run_async": False})


def say_goodbye(client: Client) -> None:
    """End the session by a close packet: `disconnect` loses its own where a POST is under way."""
    client._send_packet(Packet(CLOSE))
    client.queue.join()
    client.disconnect()


def main(url: str, transports: str) -> None:
    """Connect, then do what stdin says."""
    client = Client()
    client.on("connect", lambda: report("open", sid=client.sid))
    client.on("disconnect", lambda *reason: report("close", reason=str(reason)))

    @client.on("message")
    def message(data: str | bytes) -> None:
        if isinstance(data, str):
            report("message", text=data)
        else:
            report("message", base64=base64.b64encode(data).decode())

    client.connect(url, transports=transports.split(","))
    report("connected", transport=client.transport())
    for line in sys.stdin:
        command = json.loads(line)
        if command["op"] == "close":
            say_goodbye(client)
        else:
            client.send(command["text"] if "text" in command else base64.b64decode(command["base64"]))
    client.disconnect()


main(*sys.argv[1:])
