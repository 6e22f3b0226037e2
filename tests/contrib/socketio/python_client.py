"""A client of python-socketio that is driven over JSON lines, as ``node_client.js``: ``python_client.py URL OPTIONS``."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import socketio

url, options = sys.argv[1], json.loads(sys.argv[2])
client = socketio.Client(reconnection=False)
EVENTS = ("welcome", "echo", "asked", "shouted", "message", "volatile")


def tell(event: str, **fields: Any) -> None:
    # one write: handlers run in threads
    os.write(1, json.dumps({"event": event, **fields}).encode() + b"\n")


def shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, (list, tuple)):
        return [shown(each) for each in value]
    return {key: shown(each) for key, each in value.items()} if isinstance(value, dict) else value


def meant(value: Any) -> Any:
    if isinstance(value, list):
        return [meant(each) for each in value]
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"]) if "bytes" in value else {key: meant(each) for key, each in value.items()}
    return value


def listen(nsp: str) -> None:
    client.on("connect", lambda: tell("connect", nsp=nsp, id=client.get_sid(nsp), transport=client.transport()), namespace=nsp)
    client.on("disconnect", lambda reason: tell("disconnect", nsp=nsp, reason=reason), namespace=nsp)
    client.on("connect_error", lambda error: tell("connect_error", nsp=nsp, message=error["message"]), namespace=nsp)
    for event in EVENTS:
        client.on(event, lambda *args, event=event: tell(event, nsp=nsp, args=shown(args)), namespace=nsp)
    client.on("question", lambda data: data, namespace=nsp)


def packed(args: list[Any]) -> Any:
    data = tuple(meant(args))
    return data[0] if len(data) == 1 else data or None


for line in sys.stdin:
    command = json.loads(line)
    nsp = command.get("nsp", "/")
    if command["op"] == "open":
        for each in command["namespaces"]:
            listen(each)
        client.connect(url, auth=options.get("auth"), transports=options["transports"], namespaces=command["namespaces"])
    elif command["op"] == "emit":
        event, *args = command["args"]
        client.emit(event, packed(args), namespace=nsp)
    elif command["op"] == "ask":
        event, *args = command["args"]
        client.emit(event, packed(args), namespace=nsp, callback=lambda *answer: tell("ack", args=shown(answer)))
    elif command["op"] == "disconnect":
        client.disconnect()
client.disconnect()
