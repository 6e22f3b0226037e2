"""Publishing over one connection: what is published together is sent together, and a busy loop delays nothing for long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from engineio_wsgi.cluster.redis.pubsub import Publication, PubSub
from engineio_wsgi.runtime.connection import Connection, detach

CHANNEL = b"channel"
CONFIRMATION = b">3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n"


class CountingConnection(Connection):
    """Counts the system calls that send."""

    def __init__(self, sock: Any) -> None:
        super().__init__(detach(sock))
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send."""
        self.writes.append(data)
        super().write(data)


class Connector:
    """Returns a connection that has logged in."""

    publish, subscribe = "PUBLISH", "SUBSCRIBE"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open(self, *commands: tuple[str | bytes, ...]) -> tuple[Connection, list[object]]:
        """The connection, and the replies: nobody listens to the channel."""
        return self._connection, [b"PONG", 0]


class Scene:
    """A worker, and the other end of its connection to Redis."""

    def __init__(self) -> None:
        near, self.redis = socket.socketpair()
        self.connection = CountingConnection(near)
        connector: Any = Connector(self.connection)
        self.pubsub = PubSub(connector, [CHANNEL], b"", lambda data: None, lambda away: None, lambda error: None)
        self.redis.sendall(CONFIRMATION)
        self.pubsub.open()
        self.connection.writes.clear()

    def publish(self, data: bytes) -> None:
        """Publish a message."""
        assert self.pubsub.publish(Publication(CHANNEL, data, False))

    def close(self) -> None:
        """Close both ends."""
        self.pubsub.close(0)
        self.redis.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A worker that has subscribed."""
    scene = Scene()
    yield scene
    scene.close()


def wait_until(condition: Callable[[], object]) -> None:
    """Let the event loop run until something is the case."""
    while not condition():
        gevent.sleep(0)


def test_messages_of_callbacks_that_follow_each_other_are_sent_at_once(scene: Scene) -> None:
    run_callback = gevent.get_hub().loop.run_callback
    scene.publish(b"first")
    run_callback(run_callback, scene.publish, b"second")
    wait_until(lambda: b"second" in b"".join(scene.connection.writes))
    assert len(scene.connection.writes) == 1
    assert b"first" in scene.connection.writes[0]


def test_a_loop_that_is_never_idle_still_sends(scene: Scene) -> None:
    one, other = socket.socketpair()
    other.sendall(b"x")
    watcher = gevent.get_hub().loop.io(one.fileno(), 1)
    watcher.start(lambda: None)
    try:
        scene.publish(b"message")
        wait_until(lambda: scene.connection.writes)
        assert b"message" in scene.connection.writes[0]
    finally:
        watcher.stop()
        watcher.close()
        one.close()
        other.close()
