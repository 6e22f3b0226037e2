"""`ClusterManager` by itself: what it publishes, and to whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from engineio_wsgi.contrib.socketio import ClusterManager, Server

pytestmark = pytest.mark.ours

HERE, THERE = "here", "ther"
#: a client's id: its worker, and 20 characters
CLIENT = THERE + "x" * 20


class FakeCluster:
    """Writes down what is published."""

    worker_id = HERE

    def __init__(self) -> None:
        self.published: list[tuple[str | None, dict[str, Any]]] = []
        self.receive: Callable[[str], object] = lambda data: None

    def workers(self) -> list[str]:
        """Two."""
        return [HERE, THERE]

    def publish(self, topic: str, data: str | bytes, *, session: str | None = None, worker: str | None = None) -> None:
        """Write it down."""
        self.published.append((worker, json.loads(data)))

    def subscribe(self, topic: str, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Keep the subscriber."""
        self.receive = callback
        return lambda: None


@pytest.fixture
def cluster() -> FakeCluster:
    """One that a server's manager has joined."""
    made = FakeCluster()
    manager = ClusterManager()
    server = Server(client_manager=manager)
    manager.join(made)
    made.server = server  # type: ignore[attr-defined]
    return made


def test_what_is_for_one_client_goes_to_one_worker(cluster: Any) -> None:
    server = cluster.server
    server.emit("said", 1, to=CLIENT)
    server.enter_room(CLIENT, "room")
    server.leave_room(CLIENT, "room")
    server.disconnect(CLIENT)
    assert [(worker, message["method"]) for worker, message in cluster.published] == [
        (THERE, "emit"), (THERE, "enter_room"), (THERE, "leave_room"), (THERE, "disconnect")]


def test_what_is_for_a_room_goes_to_all(cluster: Any) -> None:
    server = cluster.server
    server.emit("said", 1)
    # a room may have a name as long as a client's id
    for room in ("room", "none" + "x" * 20):
        server.emit("said", b"\x00", to=room)
    server.close_room("room")
    assert [worker for worker, _ in cluster.published] == [None] * 4
    assert cluster.published[1][1]["data"] == [[{"_placeholder": True, "num": 0}], "AA=="]


def test_what_is_for_a_client_that_is_gone_goes_to_nobody(cluster: Any) -> None:
    cluster.server.emit("said", 1, to=HERE + "x" * 20)
    assert cluster.published == []


def test_an_acknowledgement_goes_to_the_worker_that_waits_for_it(cluster: Any) -> None:
    answers: list[Any] = []
    cluster.server.emit("question", 1, to=CLIENT, callback=lambda *data: answers.append(data))
    worker, message = cluster.published.pop()
    assert (worker, message["callback"]) == (THERE, [CLIENT, "/", 1])
    cluster.receive(json.dumps({"method": "callback", "host_id": HERE, "sid": CLIENT, "namespace": "/", "id": 1, "args": [2]}))
    assert answers == [(2,)]
    cluster.server.manager._return_callback(THERE, CLIENT, "/", 7, "answer")
    assert cluster.published == [(THERE, {"method": "callback", "host_id": THERE, "sid": CLIENT, "namespace": "/", "id": 7,
                                          "args": ["answer"]})]


def test_its_own_messages_are_not_carried_out_twice(cluster: Any) -> None:
    cluster.server.emit("said", 1)
    _, message = cluster.published.pop()
    cluster.receive(json.dumps(message))
    assert cluster.published == []


def test_a_volatile_event_is_volatile_in_the_other_workers(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for volatile in (True, False):
        cluster.server.emit("said", volatile, volatile=volatile)
    assert [message.get("volatile") for _, message in cluster.published] == [True, None]
    sent: list[bool] = []
    monkeypatch.setattr(cluster.server.eio, "broadcast", lambda sockets, bundle, volatile: sent.append(volatile))
    cluster.server.manager.basic_enter_room("a client", "/", None, eio_sid="a session")
    for _, message in list(cluster.published):
        cluster.receive(json.dumps({**message, "host_id": THERE}))
    assert sent == [True, False]
