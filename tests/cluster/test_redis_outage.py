"""Redis is down for half a minute, while requests and WebSocket messages for sessions on the other machine arrive."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from time import monotonic

import gevent
import gevent.event
import pytest
from support.clients import PollingSession, WebSocketSession
from support.redis import RedisServer
from support.workers import Nomad, Worker, Workers

#: seconds
AWAY = 30.0
#: seconds that a poll may be parked meanwhile, and between two messages of one client
LONG, PAUSE = 300.0, 0.02
#: seconds in which every poll has come to its session's worker, and is known to be there
PARKED = 0.3


class Talker:
    """A polling client at the other machine. It goes on when a message is refused, as no real one does."""

    def __init__(self, owner: Worker, other: Worker) -> None:
        self.session = PollingSession(owner).open()
        self.session.getting, self.session.posting = other.connect(), other.connect()
        self.session.getting.sock.settimeout(LONG)
        self.accepted: list[int] = []
        #: number, begin and end of each that was refused
        self.refused: list[tuple[int, float, float]] = []
        self.heard: list[int] = []

    def talk(self, go_on: gevent.event.Event, stop: gevent.event.Event) -> None:
        """Post one number after the other."""
        for number in count():
            go_on.wait()
            began = monotonic()
            response = self.session.post(f"4{number}")
            if response.body == b"ok":
                self.accepted.append(number)
                if stop.is_set():
                    return
            else:
                assert response.json()["code"] == 1
                self.refused.append((number, began, monotonic()))
            gevent.sleep(PAUSE)

    def listen(self) -> None:
        """Poll until there is no number any more."""
        while True:
            self.session.start_poll()
            response = self.session.getting.response()
            assert response.status == 200, response.body
            for packet in response.body.decode().split("\x1e"):
                if packet == "4end":
                    return
                assert packet[:1] == "4", packet
                self.heard.append(int(packet[1:]))


def by_websocket(owner: Worker, other: Worker, stop: gevent.event.Event) -> None:
    """Everything comes back, in order, however long it takes."""
    session = Nomad(owner).open()
    session.served = other
    websocket = session.upgrade()
    websocket.http.sock.settimeout(LONG)
    websocket.send("5")
    said = 0
    while not stop.is_set():
        websocket.send(f"4{said}")
        said += 1
        gevent.sleep(PAUSE)
    assert [websocket.recv() for _ in range(said)] == [f"4{number}" for number in range(said)]


@pytest.mark.deadline(600)
def test_redis_is_away_for_half_a_minute(start: Callable[..., Workers], redis: RedisServer) -> None:
    # no heartbeat within the test: sessions that miss one meanwhile end, as without a cluster
    group = start(2, cluster=redis.url, apart=True, ping_interval=LONG)
    owner, other = group.workers
    go_on, stop = gevent.event.Event(), gevent.event.Event()
    go_on.set()
    talkers = [Talker(owner, other) for _ in range(8)]
    talking = [gevent.spawn(talker.talk, go_on, stop) for talker in talkers]
    listening = [gevent.spawn(talker.listen) for talker in talkers]
    websockets = [gevent.spawn(by_websocket, owner, other, stop) for _ in range(4)]
    neighbours = [WebSocketSession(worker).open() for worker in group.workers]
    gevent.sleep(1)
    # a poll that is on its way when Redis goes is refused after a while, and its session ends, as if its client had left
    go_on.clear()
    gevent.sleep(PARKED)
    redis.kill()
    gone = monotonic()
    go_on.set()
    echoes = 0
    while monotonic() < gone + AWAY:
        for neighbour in neighbours:
            neighbour.say(str(echoes))
            assert neighbour.hear() == str(echoes), "sessions of one's own worker never notice"
        echoes += 1
        gevent.sleep(PAUSE)
    redis.start()
    back = monotonic()
    group.wait_for_log("back after", 2)
    stop.set()
    saying = [*talking, *websockets]
    assert len(gevent.joinall(saying, timeout=LONG, raise_error=True)) == len(saying), "all go on"
    for talker in talkers:
        assert owner.call("send", talker.session.sid, "end") is True
    gevent.joinall(listening, raise_error=True)
    for talker in talkers:
        assert talker.heard == sorted(set(talker.heard)), "once, and in order"
        assert set(talker.accepted) <= set(talker.heard)
        # of what was under way when Redis went or came, nobody can know
        without_effect = {number for number, began, ended in talker.refused if began > gone and ended < back}
        assert without_effect
        assert not without_effect & set(talker.heard)
    assert owner.ask()["clients"] == len(talkers) + len(websockets) + 1
    assert not [line for line in group.complaints() if "Redis is disconnected" not in line]
