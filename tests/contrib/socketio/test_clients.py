"""Real Socket.IO clients: the official ones of four versions in Node, the current one in Chromium, and python-socketio's."""

from __future__ import annotations

import json
from typing import Any

import pytest

#: by the name of the package: Socket.IO 4.8, 4.0, 3.1 and 2.5
NODE = ["socket.io-client", "sio40", "sio3", "sio2"]
CLIENTS = [*NODE, "chromium", "python"]
TRANSPORTS = [["polling", "websocket"], ["polling"], ["websocket"]]
BYTES = {"bytes": "000102ff"}


def connect(drive: Any, site: Any, client: str, transports: list[str], auth: Any = None, namespaces: Any = ("/",)) -> Any:
    """A connected client. Version 2 has no ``auth``."""
    options = {"transports": transports, **({"auth": auth} if auth and client != "sio2" else {})}
    driver = drive(client, site.url, json.dumps(options))
    if client == "python":
        driver.tell("open", namespaces=list(namespaces))
        for number, _ in enumerate(namespaces, 1):
            driver.events.wait("connect", number)
    else:
        # one after the other: while a connection is not open, the packages open another for each namespace
        for number, nsp in enumerate(namespaces, 1):
            driver.tell("open", nsp=nsp)
            driver.events.wait("connect", number)
    return driver


@pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
@pytest.mark.parametrize("client", CLIENTS)
def test_events_acks_and_binary_both_ways(site: Any, drive: Any, client: str, transports: list[str]) -> None:
    made = site(allow_eio3=True)
    driver = connect(drive, made, client, transports, auth={"token": "right"})
    if client != "sio2":
        assert driver.events.wait("welcome")["args"] == [{"token": "right"}]
    if len(transports) == 2 and client != "python":
        assert driver.events.wait("upgrade")["transport"] == "websocket"
    driver.tell("emit", args=["echo", "text", 1, {"a": [None, True, "ü"]}])
    assert driver.events.wait("echo")["args"] == ["text", 1, {"a": [None, True, "ü"]}]
    driver.tell("emit", args=["echo", BYTES, {"deep": [BYTES]}])
    assert driver.events.wait("echo", 2)["args"] == [BYTES, {"deep": [BYTES]}]
    driver.tell("ask", args=["back", 1, "two"])
    assert driver.events.wait("ack")["args"] == [1, "two"]
    driver.tell("ask", args=["back", BYTES])
    assert driver.events.wait("ack", 2)["args"] == [BYTES]
    driver.tell("emit", args=["ask", {"n": 1}])
    assert driver.events.wait("asked")["args"] == [{"n": 1}]
    driver.tell("emit", args=["ask", BYTES])
    assert driver.events.wait("asked", 2)["args"] == [BYTES]
    driver.tell("disconnect")
    # python-socketio's client may close its WebSocket before it has written that it disconnects
    expected = {"client disconnect", "transport close"} if client == "python" else {"client disconnect"}
    assert made.events.wait("disconnect")["reason"] in expected


@pytest.mark.parametrize("client", CLIENTS)
def test_namespaces_and_rooms(site: Any, drive: Any, client: str) -> None:
    made = site(allow_eio3=True)
    first = connect(drive, made, client, ["websocket"], namespaces=("/", "/chat"))
    second = connect(drive, made, client, ["polling"], namespaces=("/", "/chat"))
    for driver in (first, second):
        driver.tell("ask", nsp="/chat", args=["join", "room"])
        assert driver.events.wait("ack")["args"] == ["room"]
    first.tell("emit", nsp="/chat", args=["shout", "room", "hello"])
    assert second.events.wait("shouted") ["args"] == ["hello"]
    second.tell("emit", nsp="/chat", args=["shout", "room", BYTES])
    assert first.events.wait("shouted") ["args"] == [BYTES]
    # the rooms of another namespace are others
    first.tell("emit", args=["shout", "room", "nobody"])
    first.tell("ask", args=["back"])
    first.events.wait("ack", 2)
    assert len(second.events.of("shouted")) == 1


@pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
def test_volatile_events_both_ways(site: Any, drive: Any, transports: list[str]) -> None:
    made = site()
    driver = connect(drive, made, "socket.io-client", transports)
    if len(transports) == 2:
        driver.events.wait("upgrade")
    driver.tell("volatile", args=["echo", 1])
    assert driver.events.wait("echo")["args"] == [1]
    made.sio.emit("volatile", 2, volatile=True)
    assert driver.events.wait("volatile")["args"] == [2]
    made.sio.emit("volatile", 3, to=driver.events.of("connect")[0]["id"], volatile=True)
    assert driver.events.wait("volatile", 2)["args"] == [3]


@pytest.mark.parametrize("client", [*NODE, "chromium"])
def test_a_client_learns_why_it_was_disconnected(site: Any, drive: Any, client: str) -> None:
    made = site(allow_eio3=True)
    driver = connect(drive, made, client, ["websocket"])
    driver.tell("emit", args=["kick"])
    assert driver.events.wait("disconnect")["reason"] == "io server disconnect"
    assert made.events.wait("disconnect")["reason"] == "server disconnect"


@pytest.mark.parametrize("client", ["socket.io-client", "sio40", "sio3", "chromium"])
def test_a_client_reads_why_it_was_refused(site: Any, drive: Any, client: str) -> None:
    made = site()
    driver = drive(client, made.url, json.dumps({"transports": ["websocket"], "auth": {"token": "wrong"}}))
    driver.tell("open", nsp="/")
    assert driver.events.wait("connect_error")["message"] == "wrong token"
    driver.tell("open", nsp="/unknown")
    assert driver.events.wait("connect_error", 2)["message"] == "Invalid namespace"
