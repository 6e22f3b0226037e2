"""A session that OS threads use; what reads and writes it stays in the hub's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from support.fakesession import opened, quiet

from engineio_wsgi.errors import SocketClosed, WriteTimeout


def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What ``function`` returns or raises in an OS thread; the hub goes on."""
    return gevent.get_hub().threadpool.spawn(quiet, function, *args, **kwargs)


def test_a_thread_sends_in_order() -> None:
    socket, transport = opened()

    def send() -> None:
        for number in range(100):
            socket.send(str(number))

    in_thread(send).get(timeout=60)
    gevent.sleep(0)
    assert transport.take() == [str(number) for number in range(100)]


def test_what_a_thread_sends_is_queued_in_the_hubs_thread() -> None:
    socket, transport = opened()
    threads: list[int] = []
    socket.on("packet_create", lambda packet: threads.append(threading.get_native_id()))
    in_thread(socket.send, "a").get(timeout=60)
    gevent.sleep(0)
    assert [entry.data for entry in transport.take()] == ["a"]
    assert threads == [threading.get_native_id()]


def test_a_thread_waits_for_room() -> None:
    socket, transport = opened(max_buffered=10)
    socket.send("x" * 10)
    waiting = in_thread(socket.send, "y")
    gevent.sleep(0.02)
    assert not waiting.ready()
    transport.take()
    assert waiting.get(timeout=60) is socket
    gevent.sleep(0)
    assert transport.take() == ["y"]


def test_a_send_from_a_thread_times_out() -> None:
    socket, transport = opened(max_buffered=10)
    socket.send("x" * 10)
    error = in_thread(socket.send, "y", timeout=0.01).get(timeout=60)
    assert isinstance(error, WriteTimeout)
    assert "the write buffer stayed full for 0.01 s" in str(error)
    gevent.sleep(0)
    assert transport.take() == ["x" * 10]


def test_a_send_of_a_wrong_type_raises_in_a_thread() -> None:
    socket, _ = opened()

    def send() -> str:
        with pytest.raises(TypeError, match="NoneType"):
            socket.send(None)
        return "told"

    assert in_thread(send).get(timeout=60) == "told"


@pytest.mark.parametrize("discard", [False, True])
def test_a_send_to_a_closed_session_raises_in_a_thread(discard: bool) -> None:
    socket, _ = opened()
    socket.send("left").close(discard)
    assert isinstance(in_thread(socket.send, "y").get(timeout=60), SocketClosed)
    socket.close(discard=True)


@pytest.mark.parametrize("discard", [False, True])
def test_a_thread_closes_the_session_in_the_hubs_thread(discard: bool) -> None:
    socket, transport = opened()
    threads: list[int] = []
    socket.on("close", lambda reason, description: threads.append(threading.get_native_id()))
    if discard:
        socket.send("left")
    in_thread(socket.close, discard, "enough").get(timeout=60)
    assert socket.wait_closed(timeout=60)
    gevent.sleep(0.001)
    assert (transport.closings, threads) == (["enough"], [threading.get_native_id()])


def test_a_close_from_a_thread_follows_what_it_sent() -> None:
    socket, transport = opened()
    in_thread(lambda: socket.send("a").send("b").close()).get(timeout=60)
    gevent.sleep(0)
    assert socket.ready_state == "closing"
    assert transport.take() == ["a", "b"]
    assert socket.closed
