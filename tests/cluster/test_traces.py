"""Traces that continue in another worker: what a worker sends for one, and the spans there."""

from __future__ import annotations

import json
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from support.clients import WebSocketSession
from support.workers import Nomad, Workers, settled

TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
TRACEPARENT = ("traceparent", f"00-{TRACE:032x}-{PARENT:016x}-01")


class Span(NamedTuple):
    """What a worker has logged about a span."""

    pid: int
    name: str
    trace: int
    id: int
    parent: int
    attributes: dict[str, Any]


def spans_of(group: Workers, name: str, number: int) -> list[Span]:
    """The spans with a name, as soon as there are so many."""
    found: list[Span] = []

    def are_there() -> bool:
        lines = [line.removeprefix("span: ") for line in group.log().splitlines() if line.startswith("span: ")]
        found[:] = [span for line in lines if (span := Span(*json.loads(line))).name == name]
        return len(found) >= number

    settled(are_there)
    return found


@pytest.fixture(params=["local", "redis"])
def group(request: pytest.FixtureRequest, start: Any) -> Workers:
    """Two workers, on one machine or on two."""
    if request.param == "local":
        workers: Workers = start(2, cluster=f"local:{uuid4()}", traced=True)
    else:
        url = request.getfixturevalue("shared_redis").url
        workers = start(2, cluster=f"{url}?group={uuid4()}", apart=True, traced=True)
    return workers


def test_a_forwarded_request_continues_the_trace_of_its_client(group: Workers) -> None:
    owner, other = group.workers
    session = Nomad(owner).open()
    session.say("hello")
    session.served = other
    session.start_poll([TRACEPARENT])
    assert session.end_poll() == ["4hello"]
    hop = "hand_over" if group.total("adopted") else "relay"
    spans = spans_of(group, f"engineio.cluster/{hop}", 2)
    sent = next(span for span in spans if span.pid == other.pid)
    taken = next(span for span in spans if span.pid == owner.pid)
    assert (sent.trace, sent.parent) == (TRACE, PARENT)
    assert (taken.trace, taken.parent) == (TRACE, sent.id)
    assert sent.attributes["engineio.worker"] == session.sid[:4]
    assert not group.complaints()


def test_a_connection_that_has_moved_has_later_requests_of_its_own(group: Workers) -> None:
    """What is said of the first request does not hold for those after it."""
    owner, other = group.workers
    session = Nomad(owner).open()
    connection = other.connect()
    for number in range(3):
        session.say(str(number))
        assert connection.get(session.target(), [TRACEPARENT] if not number else []).body == f"4{number}".encode()
    received = [span for hop in ("hand_over", "relay") for span in spans_of(group, f"engineio.cluster/{hop}", 0)
                if span.pid == owner.pid]
    assert [span.trace == TRACE for span in received] == [True] + [False] * (len(received) - 1)


def test_an_upgrade_at_another_worker_is_in_the_trace_of_its_request(group: Workers) -> None:
    owner, other = group.workers
    session = Nomad(owner).open()
    session.served = other
    websocket = session.upgrade()
    websocket.send("5")
    websocket.send("4moved")
    while websocket.recv() != "4moved":
        pass
    (upgrade,) = spans_of(group, "upgrade /engine.io/", 1)
    sent = next(span for span in spans_of(group, "engineio.cluster/hand_over", 2) if span.id == upgrade.parent)
    assert (upgrade.pid, sent.pid, sent.trace) == (owner.pid, other.pid, upgrade.trace)


def test_a_message_to_a_session_of_another_worker(group: Workers) -> None:
    owner, other = group.workers
    session = WebSocketSession(owner).open()
    assert other.call("send", session.sid, "from afar") is True
    assert session.hear() == "from afar"
    spans = {span.pid: span for span in spans_of(group, "engineio.cluster/send", 2)}
    (written,) = spans_of(group, "send /engine.io/", 1)
    assert spans[owner.pid].parent == spans[other.pid].id
    assert (written.pid, written.parent) == (owner.pid, spans[owner.pid].id)
    assert {span.trace for span in spans.values()} == {written.trace}


def test_a_broadcast(group: Workers) -> None:
    owner, other = group.workers
    session = WebSocketSession(owner).open()
    other.call("broadcast", "to all")
    assert session.hear() == "to all"
    spans = {span.pid: span for span in spans_of(group, "engineio.cluster/broadcast", 2)}
    assert (spans[owner.pid].parent, spans[owner.pid].trace) == (spans[other.pid].id, spans[other.pid].trace)
