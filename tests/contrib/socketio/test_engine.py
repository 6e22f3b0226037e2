"""What python-socketio and applications call on the engine, in python-engineio's words, and the reasons of disconnections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest
import socketio
from support.clients import open_session
from support.serving import EventLog, Served

from engineio_wsgi.contrib.socketio import adapter

pytestmark = pytest.mark.ours


def connected(site: Any, transport: str = "websocket") -> Any:
    """A raw client that is connected to the default namespace."""
    session = open_session(Served(site.address, EventLog(), handler="ours", path="/socket.io/"), transport)
    session.say("0")
    assert session.hear().startswith('2["welcome"')
    assert session.hear().startswith('0{"sid"')
    return session


def goodbye(session: Any, site: Any) -> None:
    session.send("1")


#: what ends a session, and what python-socketio calls it
ENDS: dict[str, tuple[Callable[[Any, Any], object], str]] = {
    "a close packet": (goodbye, "client disconnect"),
    "a disconnect packet": (lambda session, site: session.say("1"), "client disconnect"),
    "a lost connection": (lambda session, site: session.vanish(), "transport close"),
    "the engine's disconnect": (lambda session, site: site.sio.eio.disconnect(session.sid), "server disconnect"),
    "the end of the server": (lambda session, site: site.sio.shutdown(), "server disconnect"),
    "what is no packet": (lambda session, site: session.say("nonsense"), "transport error"),
}


@pytest.mark.parametrize("what", ENDS)
def test_reasons(site: Any, what: str) -> None:
    made = site()
    end, reason = ENDS[what]
    session = connected(made)
    gevent.spawn(end, session, made)
    assert made.events.wait("disconnect")["reason"] == reason


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_client_that_does_not_answer_a_ping(site: Any, transport: str) -> None:
    made = site(ping_interval=0.05, ping_timeout=0.05)
    made.sio.eio.on("disconnect", lambda sid, reason: made.events.add("ended", reason=reason))
    open_session(Served(made.address, EventLog(), handler="ours", path="/socket.io/"), transport)
    assert made.events.wait("ended")["reason"] == "ping timeout"


def test_what_is_for_a_session_that_is_gone_is_ignored(site: Any) -> None:
    eio = site().sio.eio
    eio.send("gone", "text")
    eio.send_packet("gone", socketio.server.base_server.engineio.packet.Packet(4, "text"))
    eio.disconnect("gone")
    for ask in (eio.transport, eio.get_session, eio._get_socket):
        with pytest.raises(KeyError):
            ask("gone")


def test_what_is_known_of_a_session(site: Any) -> None:
    made = site()
    sio = made.sio
    sessions = {name: connected(made, name) for name in ("polling", "websocket")}
    sids = {sio.transport(event["sid"]): event["sid"] for event in made.events.of("connect")}
    assert sids.keys() == sessions.keys()
    assert sio.eio.transport(sio.manager.eio_sid_from_sid(sids["polling"], "/")) == "polling"
    sio.save_session(sids["polling"], {"user": "tobi"})
    with sio.session(sids["polling"]) as session:
        session["count"] = 1
    assert sio.get_session(sids["polling"]) == {"user": "tobi", "count": 1}
    assert sio.get_session(sids["websocket"]) == {}
    environ = sio.get_environ(sids["polling"])
    environ["note"] = 1
    assert sio.get_environ(sids["polling"])["note"] == 1
    assert "transport=polling" in environ["QUERY_STRING"]


def exchange(sio: Any) -> list[Any]:
    """What a background task has got from a queue, before it has set an event."""
    queue, event, seen = sio.eio.create_queue(), sio.eio.create_event(), []

    def work(first: int, *, second: int) -> None:
        sio.sleep(0)
        seen.append((first, second, queue.get()))
        queue.task_done()
        event.set()

    task = sio.start_background_task(work, 1, second=2)
    queue.put("item")
    assert event.wait()
    queue.join()
    task.join()
    with pytest.raises(sio.eio.get_queue_empty_exception()):
        queue.get(block=False)
    return seen


def test_background_tasks_queues_and_events(site: Any) -> None:
    assert gevent.spawn(exchange, site().sio).get() == [(1, 2, "item")]


def test_a_background_task_of_a_plain_thread(site: Any) -> None:
    """Such as the main one, before the server listens: no event loop may ever run in it."""
    done: list[int] = []
    site().sio.start_background_task(done.append, 1).join()
    assert done == [1]


def test_a_room_of_another_manager_is_framed_once(site: Any, monkeypatch: Any) -> None:
    """python-socketio's own manager sends one packet to each client."""
    made = site(client_manager=socketio.Manager())
    sessions = [connected(made) for _ in range(3)]
    bundles: list[Any] = []
    original = adapter.Bundle

    def note(*messages: Any) -> Any:
        bundles.append(original(*messages))
        return bundles[-1]

    monkeypatch.setattr(adapter, "Bundle", note)
    made.sio.emit("news", {"n": 1})
    for session in sessions:
        assert session.hear() == '2["news",{"n":1}]'
    assert len(bundles) == 1


@pytest.mark.parametrize("namespace", ["/", "/chat"])
def test_a_room_is_framed_once(site: Any, namespace: str, monkeypatch: Any) -> None:
    made = site()
    sessions = [connected(made) for _ in range(3)]
    for session in sessions:
        session.say("0/chat,")
        session.hear(), session.hear()
    frames: list[Any] = []
    original = made.sio.eio.engine.deliver_to

    def note(sockets: Any, bundle: Any, on_slow: Any) -> None:
        frames.append(list(sockets))
        original(frames[-1], bundle, on_slow)

    monkeypatch.setattr(made.sio.eio.engine, "deliver_to", note)
    made.sio.emit("news", 1, namespace=namespace)
    expected = '2["news",1]' if namespace == "/" else '2/chat,["news",1]'
    assert [session.hear() for session in sessions] == [expected] * 3
    assert [len(sockets) for sockets in frames] == [3]
