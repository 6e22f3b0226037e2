"""The channels between two workers of a machine: kept for the next request, and made anew when they have ended."""

from __future__ import annotations

import io
import os
import socket as plain_socket
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

import gevent
import gevent.event
import pytest
from support.lateness import block_loop
from support.workers import settled

from engineio_wsgi.cluster.forwarder import RequestCopy
from engineio_wsgi.cluster.local.channel import Channel
from engineio_wsgi.cluster.local.forwarder import LocalForwarder
from engineio_wsgi.cluster.local.listener import UnixListener
from engineio_wsgi.cluster.local.names import AbstractNames
from engineio_wsgi.cluster.messages import Kind, Message, Request, write_answer
from engineio_wsgi.errors import OwnerGone, PayloadTooLarge
from engineio_wsgi.http.body import read_body
from engineio_wsgi.http.response import Response

OWNER = "abcd"


class Owner:
    """Answers every request with its query, once it is told to."""

    def __init__(self) -> None:
        self.names = AbstractNames(f"forwarder {os.getpid()}")
        self.channels: list[Channel] = []
        self.waiting = 0
        self.go_on = gevent.event.Event()
        self.go_on.set()
        self.unix_listener = UnixListener(self.names, OWNER, self.receive)

    def receive(self, channel: Channel, message: Message) -> None:
        """Take a request, and answer it."""
        self.channels.append(channel)
        channel.send(Message(Kind.TAKEN), monotonic() + 5)
        self.waiting += 1
        self.go_on.wait()
        query = Request.of(message).environ["QUERY_STRING"]
        channel.send(write_answer(Response("200 OK", [], query.encode())), monotonic() + 5)

    def wait_for(self, number: int) -> None:
        """Until so many requests have come."""
        while self.waiting < number:
            gevent.sleep(0)


@pytest.fixture
def owner() -> Iterator[Owner]:
    """A worker that listens."""
    owner = Owner()
    yield owner
    owner.unix_listener.close()


@pytest.fixture
def forwarder(owner: Owner) -> Iterator[LocalForwarder]:
    """The way to it."""
    forwarder = LocalForwarder(owner.names, 5)
    yield forwarder
    forwarder.close()


def relay(forwarder: LocalForwarder, query: str, worker: str = OWNER) -> str:
    """The body of the answer to a request, or why there is none."""
    try:
        request = RequestCopy({"REQUEST_METHOD": "GET", "QUERY_STRING": query}, "group", "sid", 1000)
        answered: Any = forwarder.relay(worker, request)
    except OwnerGone as error:
        return str(error)
    return str(answered.body.decode())


def ask(*arguments: Any) -> str:
    """The same in a greenlet, as requests are, and not in the thread that has none."""
    return str(gevent.spawn(relay, *arguments).get())


def test_requests_after_one_another_share_a_channel(owner: Owner, forwarder: LocalForwarder) -> None:
    assert [ask(forwarder, str(number)) for number in range(5)] == ["0", "1", "2", "3", "4"]
    assert len(set(map(id, owner.channels))) == 1


def test_requests_at_a_time_have_channels_of_their_own(owner: Owner, forwarder: LocalForwarder) -> None:
    owner.go_on.clear()
    asked = [gevent.spawn(relay, forwarder, str(number)) for number in range(20)]
    owner.wait_for(20)
    owner.go_on.set()
    gevent.joinall(asked, raise_error=True)
    assert sorted(int(one.value) for one in asked) == list(range(20))
    first = set(map(id, owner.channels))
    assert len(first) == 20
    # a few are kept, and they are the next ones'
    owner.channels.clear()
    assert [ask(forwarder, "x") for _ in range(20)] == ["x"] * 20
    assert not {id(channel) for channel in owner.channels} - first


def test_channel_that_has_ended_meanwhile(owner: Owner, forwarder: LocalForwarder) -> None:
    ask(forwarder, "first")
    owner.channels[0].shut_down()
    assert ask(forwarder, "again") == "again"
    assert len(set(map(id, owner.channels))) == 2


def test_channel_that_ends_with_a_request_in_it(owner: Owner, forwarder: LocalForwarder) -> None:
    ask(forwarder, "first")
    owner.go_on.clear()
    asked = gevent.spawn(relay, forwarder, "second")
    owner.wait_for(2)
    owner.channels[-1].shut_down()
    assert asked.get() == "it has not answered: the other worker has closed the channel"
    assert owner.waiting == 2, "what was taken is not sent again"


def test_answer_that_arrived_before_a_late_check() -> None:
    """The worker that waits was busy itself: what has been taken will be answered, and it is still there to hear that."""
    near, far = (Channel(sock) for sock in plain_socket.socketpair(plain_socket.AF_UNIX, plain_socket.SOCK_SEQPACKET))
    near._sock.setblocking(False)
    far.send(Message(Kind.TAKEN), monotonic() + 5)
    assert near._late_reply() == Message(Kind.TAKEN)
    far.send(write_answer(Response("200 OK", [], b"answer")), monotonic() + 5)
    assert near.receive(monotonic() + 5).body == b"answer"
    assert near._late_reply() is None
    with pytest.raises(BrokenPipeError):
        far.send(Message(Kind.TAKEN), monotonic() + 5)
    near.close()
    far.close()


@pytest.mark.parametrize("size", [0, 100_000], ids=["short", "of several records"])
def test_message_that_arrived_while_the_loop_was_blocked(size: int) -> None:
    near, far = (Channel(sock) for sock in plain_socket.socketpair(plain_socket.AF_UNIX, plain_socket.SOCK_SEQPACKET))
    near._sock.setblocking(False)
    answer = write_answer(Response("200 OK", [], b"x" * size))
    block_loop(0.2, lambda: far.send(answer, monotonic() + 60))
    assert near.receive(monotonic() + 0.1) == answer
    near.close()
    far.close()


def test_room_that_was_made_while_the_loop_was_blocked() -> None:
    near, far = plain_socket.socketpair(plain_socket.AF_UNIX, plain_socket.SOCK_SEQPACKET)
    near.setblocking(False)
    far.setblocking(False)
    channel = Channel(near)
    with suppress(BlockingIOError):
        while True:
            near.send(b"x" * 1000)

    def empty() -> None:
        with suppress(BlockingIOError):
            while True:
                far.recv(1000)

    block_loop(0.2, empty)
    channel.send(Message(Kind.TAKEN), monotonic() + 0.1)
    channel.close()
    far.close()


def test_owner_that_has_closed(owner: Owner, forwarder: LocalForwarder) -> None:
    ask(forwarder, "first")
    owner.unix_listener.close()
    assert ask(forwarder, "second") == "no process listens on its socket: Connection refused"


def test_channels_to_workers_that_come_and_go(owner: Owner, forwarder: LocalForwarder) -> None:
    files = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        unix_listener = UnixListener(owner.names, f"{number:04}", owner.receive)
        assert ask(forwarder, "x", f"{number:04}") == "x"
        unix_listener.close()
    gevent.sleep(0)
    assert len(os.listdir("/proc/self/fd")) < files + 100
    forwarder.close()
    # each unix_listener's end of a channel is closed by its own greenlet
    settled(lambda: len(os.listdir("/proc/self/fd")) <= files)


@pytest.mark.parametrize("head", [{"CONTENT_LENGTH": "5"}, {"wsgi.input_terminated": True}], ids=["announced", "in chunks"])
def test_a_request_that_was_offered_to_another_worker_can_still_be_answered_here(head: dict[str, Any]) -> None:
    """Its session may arrive in this worker before the other one has taken it."""
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "QUERY_STRING": "", "wsgi.input": io.BytesIO(b"4text"), **head}
    request = RequestCopy(environ, "group", "sid", 1000)
    assert request.message().body == b"4text"
    assert request.message().body == b"4text"
    assert read_body(environ, 1000) == b"4text"


@pytest.mark.parametrize("head", [{"CONTENT_LENGTH": "5"}, {"wsgi.input_terminated": True}], ids=["announced", "in chunks"])
def test_a_body_that_is_too_large_for_another_worker_is_so_here(head: dict[str, Any]) -> None:
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "QUERY_STRING": "", "wsgi.input": io.BytesIO(b"4text"), **head}
    assert RequestCopy(environ, "group", "sid", 4).message().body == b""
    with pytest.raises(PayloadTooLarge):
        read_body(environ, 4)
