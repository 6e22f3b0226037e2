"""The official clients in Node, and python-engineio's: everything comes back once, in order, identical."""

from __future__ import annotations

import json
from typing import Any

import pytest
from corpus import corpus, described, shortened, undescribed

ROOM = 10_000_000
NODE = ["engine.io-client", "eio3"]
TRANSPORTS = [["polling", "websocket"], ["polling"], ["websocket"]]


def origin(served: Any) -> str:
    return "ws://{}:{}".format(*served.address)


def assert_echoed(driver: Any, sent: list[str | bytes], before: int = 0) -> None:
    """All of ``sent`` has come back, after ``before`` messages that came earlier."""
    driver.events.wait("message", before + len(sent))
    received = [undescribed(fields) for fields in driver.events.of("message")][before:]
    assert shortened(received) == shortened(sent)
    assert received == sent


def send_all(driver: Any, messages: list[str | bytes]) -> None:
    for message in messages:
        driver.tell("send", **described(message))


@pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
@pytest.mark.parametrize("package", NODE)
def test_node(serve: Any, drive: Any, package: str, transports: list[str]) -> None:
    served = serve(app="echo", max_http_buffer_size=ROOM)
    client = drive("node_client.js", package, origin(served), json.dumps({"transports": transports}))
    messages = corpus(separator=package == "eio3" or transports == ["websocket"])
    client.events.wait("open")
    send_all(client, messages)
    if len(transports) == 2:
        assert client.events.wait("upgrade")["transport"] == "websocket"
        assert served.events.wait("upgrade")["transport"] == "websocket"
    assert_echoed(client, messages)
    send_all(client, messages)
    assert_echoed(client, messages, len(messages))
    assert served.events.wait("connection")["protocol"] == (3 if package == "eio3" else 4)
    client.tell("close")
    client.events.wait("close")
    assert served.events.wait("close")["reason"] == "transport close"
    assert len(client.events.of("message")) == 2 * len(messages)
    assert client.events.of("error") == []


@pytest.mark.parametrize("package", NODE)
def test_node_is_told_when_the_server_closes(serve: Any, drive: Any, package: str) -> None:
    served = serve(app="told")
    for transports, event in ((["polling", "websocket"], "upgrade"), (["polling"], "open")):
        client = drive("node_client.js", package, origin(served), json.dumps({"transports": transports}))
        client.events.wait(event)
        client.tell("send", text='["then_close", ["bye"]]')
        assert undescribed(client.events.wait("message")) == "bye"
        assert client.events.wait("close")["reason"] == "transport close"


@pytest.mark.parametrize("package", NODE)
@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_node_stays_alive(serve: Any, drive: Any, package: str, transport: str) -> None:
    served = serve(app="echo", ping_interval=0.1, ping_timeout=60.0)
    client = drive("node_client.js", package, origin(served), json.dumps({"transports": [transport]}))
    client.events.wait("open")
    served.events.wait("heartbeat", 5)
    client.tell("send", text="still here")
    assert undescribed(client.events.wait("message")) == "still here"


@pytest.mark.own_handler
@pytest.mark.parametrize("transports", [["polling", "websocket"], ["websocket"]], ids="+".join)
@pytest.mark.parametrize("package", NODE)
def test_node_that_offers_sub_protocols(serve: Any, drive: Any, package: str, transports: list[str]) -> None:
    """``ws`` gives up where a server agrees on none of them."""
    served = serve(app="echo")
    options = {"transports": transports, "protocols": ["chat", "v2.chat"]}
    client = drive("node_client.js", package, origin(served), json.dumps(options))
    if len(transports) == 2:
        assert client.events.wait("upgrade")["transport"] == "websocket"
    client.events.wait("open")
    client.tell("send", text="hello")
    assert undescribed(client.events.wait("message")) == "hello"
    assert client.events.of("error") == []


def test_node_without_binary_support(serve: Any, drive: Any) -> None:
    """What browsers without XMLHttpRequest 2 do."""
    served = serve(app="echo", max_http_buffer_size=ROOM)
    options = {"transports": ["polling", "websocket"], "forceBase64": True}
    client = drive("node_client.js", "eio3", origin(served), json.dumps(options))
    client.events.wait("open")
    send_all(client, corpus())
    assert_echoed(client, corpus())


def test_node_with_compression(serve: Any, drive: Any) -> None:
    served = serve(app="echo", max_http_buffer_size=ROOM, per_message_deflate=True)
    options = {"perMessageDeflate": {"threshold": 100}}
    client = drive("node_client.js", "engine.io-client", origin(served), json.dumps(options))
    messages = corpus(separator=False)
    client.events.wait("upgrade")
    send_all(client, messages)
    assert_echoed(client, messages)


@pytest.mark.parametrize("transports", ["polling,websocket", "polling", "websocket"])
def test_python_engineio(serve: Any, drive: Any, transports: str) -> None:
    served = serve(app="echo", max_http_buffer_size=ROOM)
    url = "http://{}:{}".format(*served.address)
    client = drive("python_client.py", url, transports)
    expected = "polling" if transports == "polling" else "websocket"
    assert client.events.wait("connected")["transport"] == expected
    messages = corpus(separator=transports != "polling")
    send_all(client, messages)
    assert_echoed(client, messages)
    client.tell("close")
    client.events.wait("close")
    assert served.events.wait("close")["reason"] == "transport close"
