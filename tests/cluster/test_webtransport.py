"""Upgrades to WebTransport of sessions that another worker has: the worker with the UDP port relays them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from support.clients import open_session
from support.serving import LocalServer
from support.webtransport import Client, Stream, make_certificate

import engineio_wsgi
from engineio_wsgi import WebTransportServer

TRANSPORTS = ("polling", "websocket", "webtransport")


class Pair:
    """Two workers. One has the sessions, the other one the UDP port."""

    def __init__(self, certificate: dict[str, str], app: str = "echo", **options: Any) -> None:
        options = {"transports": TRANSPORTS, "cluster": f"local:webtransport-{os.getpid()}", **options}
        self.owner = LocalServer(app, "ours", **options)
        self.other = LocalServer(None, "ours", **options)
        self.webtransport = WebTransportServer(("127.0.0.1", 0), self.other.engine, **certificate)
        self.webtransport.start()
        self.client = Client(self.webtransport.address)

    def session(self) -> tuple[Any, Stream]:
        """A session of the first worker that polls, and a stream at the second one."""
        session = open_session(self.owner.served, "polling")
        return session, self.client.open().send(f'0{{"sid":"{session.sid}"}}')

    def upgraded(self) -> Stream:
        """A session that was upgraded."""
        _, stream = self.session()
        assert stream.send("2probe").packet() == "3probe"
        stream.send("5")
        # the owner sees a WebSocket
        assert self.owner.events.wait("upgrade", len(self.owner.events.of("connection")))["transport"] == "websocket"
        return stream

    def stop(self) -> None:
        """Stop everything."""
        self.client.stop()
        self.webtransport.stop(timeout=0)
        self.other.stop()
        self.owner.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_certificate(tmp_path_factory.mktemp("webtransport"))


@pytest.fixture
def pair(request: pytest.FixtureRequest, certificate: dict[str, str]) -> Iterator[Pair]:
    pair = Pair(certificate, **getattr(request, "param", {}))
    yield pair
    pair.stop()


@pytest.mark.parametrize("messages", [["4hello", b"\x00\x01", "4", "4€ 🦄"], ["4" + "x" * 200, bytes(200), "4" + "x" * 70_000],
                                      [bytes(999_000)], [f"4{index}" for index in range(500)]], ids=len)  # fmt: skip
def test_messages_in_both_directions(pair: Pair, messages: list[str | bytes]) -> None:
    stream = pair.upgraded().send(*messages)
    assert [stream.packet() for _ in messages] == messages


def test_an_empty_binary_message(pair: Pair) -> None:
    assert pair.upgraded().send(b"").packet() == "b"


def test_the_client_closes(pair: Pair) -> None:
    pair.upgraded().send("4bye").close()
    told = pair.owner.events.wait("close")
    assert (told["reason"], told["description"]) == ("transport close", engineio_wsgi.GOODBYE)


def test_the_client_vanishes(pair: Pair) -> None:
    pair.upgraded()
    pair.client.quic.close(0x101)
    pair.client.send()
    assert pair.owner.events.wait("close")["reason"] == "transport close"


def test_the_worker_closes(pair: Pair) -> None:
    stream = pair.upgraded()
    sid = pair.owner.events.wait("connection")["sid"]
    pair.owner.engine.clients[sid].send("last words").close()
    assert stream.packet() == "4last words"
    assert stream.wait_closed() == (0, "forced close")


def test_a_client_that_violates_the_protocol(pair: Pair) -> None:
    stream = pair.upgraded().write(b"\xff" + b"\xff" * 8)
    assert stream.wait_closed()[0] == 1009
    assert pair.owner.events.wait("close")["reason"].startswith("transport")


@pytest.mark.parametrize("pair", [{"app": "silent", "max_buffered": 200_000}], indirect=True)
def test_a_client_that_does_not_read_blocks_the_sender(pair: Pair) -> None:
    stream = pair.upgraded()
    socket = pair.owner.engine.clients[pair.owner.events.wait("connection")["sid"]]
    pair.client.pause_reading(stream)
    count = 0
    with pytest.raises(engineio_wsgi.WriteTimeout):
        while count < 1000:
            socket.send(f"{count} " + "x" * 32_768, timeout=0.05)
            count += 1
    pair.client.resume_reading(stream)
    assert [str(stream.packet())[1:].split()[0] for _ in range(count)] == [str(index) for index in range(count)]


@pytest.mark.parametrize("pair", [{"app": "silent", "max_inbox": 50_000}], indirect=True)
def test_a_listener_that_blocks_slows_its_client_down(pair: Pair) -> None:
    go_on = gevent.event.Event()
    received: list[int] = []

    @pair.owner.engine.on("connection")
    def connection(socket: Any) -> None:
        socket.off("message")

        @socket.on("message")
        def message(data: str) -> None:
            go_on.wait()
            received.append(int(data.split()[0]))

    stream = pair.upgraded()
    count = 400
    stream.send(*[f"4{index} " + "x" * 10_000 for index in range(count)])
    pair.client.wait(lambda: pair.client.is_blocked(stream))
    assert pair.client.sent(stream) < 3_000_000
    go_on.set()
    pair.client.wait(lambda: len(received) == count)
    assert received == list(range(count))


def test_a_wrong_probe(pair: Pair) -> None:
    session, stream = pair.session()
    stream.send("2other").wait_closed()
    session.say("still here")
    assert session.hear() == "still here"


def test_a_session_of_a_worker_that_does_not_exist(pair: Pair) -> None:
    stream = pair.client.open().send('0{"sid":"AAAAbbbbbbbbbbbbbbbbbbbb"}')
    assert stream.wait_closed() == (1008, '{"code":1,"message":"Session ID unknown"}')
    assert pair.other.events.wait("connection_error")["context"]["name"] == "OWNER_GONE"
