"""What the metrics say of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from support.redis import RedisServer
from support.workers import Nomad, Workers, settled

Start = Callable[..., Workers]


def test_hand_overs_on_one_machine(start: Start) -> None:
    owner, other = start(2, cluster=f"local:{uuid4()}", observed=True).workers
    session = Nomad(owner).open()
    session.served = other
    session.say("hello")
    assert session.hear() == "hello"
    forwarded = [sum(worker.call("metric", "cluster_requests_total", outcome=outcome) for outcome in outcomes)
                 for worker, outcomes in ((other, ("handed_over", "relayed")), (owner, ("adopted", "answered")))]
    assert forwarded == [2, 2]
    assert other.call("metric", "cluster_connected") == 1
    assert other.call("metric", "cluster_links", state="listening") == 0
    # no worker has such an id
    other.connect().get("/engine.io/?EIO=4&transport=polling&sid=zzzz-no-such-session")
    assert other.call("metric", "cluster_requests_total", outcome="failed") == 1


def test_links_between_machines(start: Start, redis: RedisServer) -> None:
    owner, other = start(2, cluster=f"{redis.url}?group={uuid4()}", apart=True, observed=True).workers
    session = Nomad(owner).open()
    session.served = other
    session.say("hello")
    assert session.hear() == "hello"
    assert other.call("metric", "cluster_requests_total", outcome="relayed") == 2
    assert other.call("metric", "cluster_links", state="listening") == 1
    settled(lambda: bool(other.call("metric", "cluster_unacknowledged_bytes") == 0))

    def is_connected(value: int) -> Any:
        return lambda: other.call("metric", "cluster_connected") == value

    redis.kill()
    settled(is_connected(0))
    session.start_poll()
    redis.start()
    settled(is_connected(1))
    settled(lambda: bool(other.call("metric", "cluster_retransmits_total") > 0))
