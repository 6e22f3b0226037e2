"""Every session gets what was sent to it and what was broadcast, completely and in order, however a broadcast is written."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import gevent
import pytest
from gevent.queue import Queue
from support.clients import PollingSession, Session, WebSocketSession, open_session, upgrade
from support.rawhttp import HttpConnection

from engineio_wsgi.runtime import connection
from engineio_wsgi.runtime.sends import send_to_all_in_python
from engineio_wsgi.session import broadcasts

pytestmark = pytest.mark.ours

SIZES = (0, 0, 1, 100, 3000, 60_000)
#: more than the kernel takes of a message to a client that does not read
HUGE = 6_000_000
PAUSES = (0, 0, 0.001, 0.003)
WAYS = ("by the write buffers", "in pieces", "at once", "at once, in Python")


class Sender:
    """Sends and broadcasts at random, and notes for each session what it has to get, in this order.

    Args:
        served: the server.
        rng: where all choices come from.
        sids: the sessions; the first half of them are a group.
    """

    def __init__(self, served: Any, rng: random.Random, sids: list[str]) -> None:
        self.served = served
        self.rng = rng
        self.sids = sids
        self.expected: dict[str, list[str]] = defaultdict(list)
        self.count = 0
        for sid in self.group:
            served.socket(sid).join("group")

    @property
    def group(self) -> list[str]:
        """The sessions in the group."""
        return self.sids[: len(self.sids) // 2]

    def act(self, size: int | None = None) -> None:
        """Send one message to one session, to some or to all. Lets no other greenlet run."""
        self.count += 1
        head = f"{self.count}|"
        data = head + "x" * (self.rng.choice(SIZES) if size is None else size)
        one = self.rng.choice(self.sids)
        choice = self.rng.random() if size is None else 1.0
        if choice < 0.4:
            self.served.socket(one).send(data)
            receivers = [one]
        elif choice < 0.5:
            self.served.server.broadcast(data, to="group")
            receivers = self.group
        elif choice < 0.6:
            self.served.server.broadcast(data, exclude=[one])
            receivers = [sid for sid in self.sids if sid != one]
        else:
            self.served.server.broadcast(data, on_slow="drop")
            receivers = self.sids
        for sid in receivers:
            self.expected[sid].append(head)

    def talk(self, turns: int) -> None:
        """Act some times in each of several turns of the event loop."""
        for _ in range(turns):
            for _ in range(self.rng.choice((1, 1, 2, 5))):
                self.act()
            gevent.sleep(self.rng.choice(PAUSES))


def opened_sessions(served: Any) -> list[Session]:
    """Clients of each kind."""
    reading = [open_session(served, transport, eio) for transport in ("polling", "websocket") for eio in (4, 3)]
    reading += [open_session(served, "websocket"), upgrade(PollingSession(served).open())]
    slow = WebSocketSession(served, http=HttpConnection(served.address, receive_buffer=4096)).open()
    return [*reading, slow, PollingSession(served).open()]


def read(session: Session, received: list[str]) -> None:
    """Read until the client is told that this was all."""
    while (data := str(session.hear())) != "end":
        received.append(data[: data.index("|") + 1])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_messages_arrive_completely_and_in_order(serve: Any, monkeypatch: pytest.MonkeyPatch, way: str, seed: int) -> None:
    if way == "in pieces":
        monkeypatch.setattr(broadcasts, "AT_ONCE", 2)
    elif way.endswith("in Python"):
        monkeypatch.setattr(connection, "send_to_all", send_to_all_in_python)
    served = serve(app=None, max_buffered=1 << 28, max_http_buffer_size=1 << 28)
    if way == "by the write buffers":
        # it is told which messages were written
        served.server.on("flush", lambda socket, packets: None)
    rng = random.Random(seed)
    sessions = opened_sessions(served)
    rng.shuffle(sessions)
    sender = Sender(served, rng, [session.sid for session in sessions])
    listened: Queue[str] = Queue()
    for session in sessions[2:4]:
        served.socket(session.sid).on("message", lambda data: listened.put(sender.talk(3)))
    received: dict[str, list[str]] = {session.sid: [] for session in sessions}
    # two of them read nothing before the end
    reading = [gevent.spawn(read, session, received[session.sid]) for session in sessions[:6]]
    sending = [gevent.spawn(sender.talk, 10) for _ in range(3)]
    for session in sessions[2:4]:
        session.say("talk")
    gevent.joinall(sending, raise_error=True)
    for _ in range(2):
        listened.get(timeout=60)
    for size in (HUGE, 10):
        sender.act(size)
        gevent.sleep(0)
    sender.talk(10)
    served.settle()
    buffered = max(served.socket(sid).buffered for sid in sender.sids)
    served.server.broadcast("end")
    reading += [gevent.spawn(read, session, received[session.sid]) for session in sessions[6:]]
    gevent.joinall(reading, raise_error=True)
    assert received == sender.expected
    assert buffered > 0, "the kernel has taken everything: nothing was slow"
    served.settle()
    assert {served.socket(sid).buffered for sid in sender.sids} == {0}
