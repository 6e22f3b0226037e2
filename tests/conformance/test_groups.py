"""Groups of sessions, and broadcasts to slow clients."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.clients import PollingSession, open_session, upgrade

from engineio_wsgi import SocketClosed

pytestmark = pytest.mark.ours


def test_members_get_what_is_sent_to_their_group(serve: Any) -> None:
    served = serve(app="silent")
    sessions = [open_session(served, "polling"), open_session(served, "websocket"), upgrade(PollingSession(served).open()),
                open_session(served, "websocket")]
    for session in sessions[:3]:
        served.socket(session.sid).join("news")
    served.socket(sessions[1].sid).join("sport")
    served.server.broadcast("news", to="news")
    served.server.broadcast("sport", to="sport")
    served.server.broadcast("others", to="news", exclude=[served.socket(sessions[1].sid)])
    served.server.broadcast("all")
    assert [session.hear_many(count) for session, count in zip(sessions, (3, 3, 3, 1), strict=True)] == [
        ["news", "others", "all"], ["news", "sport", "all"], ["news", "others", "all"], ["all"]]
    assert [socket.id for socket in served.server.members("news")] == [session.sid for session in sessions[:3]]
    assert served.socket(sessions[1].sid).groups == {"news", "sport"}


def test_a_member_that_leaves_gets_no_more(serve: Any) -> None:
    served = serve(app="silent")
    session = open_session(served, "websocket")
    socket = served.socket(session.sid)
    socket.join("news")
    served.server.broadcast("one", to="news")
    socket.leave("news")
    socket.leave("news")
    served.server.broadcast("two", to="news")
    served.server.broadcast("three")
    assert session.hear_many(2) == ["one", "three"]
    assert (socket.groups, served.server.members("news")) == (frozenset(), [])


def test_a_closed_session_has_left_its_groups(serve: Any) -> None:
    served = serve(app="silent")
    gone, here = open_session(served, "websocket"), open_session(served, "websocket")
    socket = served.socket(gone.sid)
    for session in (gone, here):
        served.socket(session.sid).join("news")
    gone.vanish()
    served.events.wait("close")
    assert ([member.id for member in served.server.members("news")], socket.groups) == ([here.sid], frozenset())
    with pytest.raises(SocketClosed):
        socket.join("news")
    assert socket.groups == frozenset()
    served.server.broadcast("to who is left", to="news")
    assert here.hear() == "to who is left"


def test_other_threads_may_join_and_leave(serve: Any) -> None:
    served = serve(app="silent")
    session = open_session(served, "websocket")
    socket = served.socket(session.sid)
    names = [str(number) for number in range(20)]
    threads = [threading.Thread(target=socket.join, args=(name,)) for name in names]
    threads += [threading.Thread(target=socket.leave, args=("none",)) for _ in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert socket.groups == set(names)


@pytest.mark.parametrize("group", [None, 7, ""])
def test_invalid_group_names_are_refused(serve: Any, group: Any) -> None:
    served = serve(app="silent")
    session = open_session(served, "websocket")
    with pytest.raises((TypeError, ValueError), match="the name of a group"):
        served.socket(session.sid).join(group)


# -- slow clients: one that polls, and does not

LARGE = "x" * 600


def slow_client(serve: Any) -> tuple[Any, PollingSession]:
    served = serve(app="silent", max_buffered=1000)
    session = PollingSession(served).open()
    for number in range(2):
        served.server.broadcast(f"{number} {LARGE}")
    return served, session


def test_a_slow_client_is_closed(serve: Any) -> None:
    served, _ = slow_client(serve)
    served.server.broadcast("too much")
    assert served.events.wait("close")["reason"] == "client too slow"


def test_a_slow_client_is_left_out(serve: Any) -> None:
    served, session = slow_client(serve)
    served.server.broadcast("too much", on_slow="drop")
    assert session.hear_many(2) == [f"0 {LARGE}", f"1 {LARGE}"]
    served.server.broadcast("in time", on_slow="drop")
    assert session.hear() == "in time"


def test_a_slow_client_skips_values(serve: Any) -> None:
    served, session = slow_client(serve)
    for number in range(100):
        served.server.broadcast(f"price {number}", on_slow="latest", key="price")
        served.server.broadcast(f"stock {number}", on_slow="latest", key="stock")
    assert session.hear_many(4) == [f"0 {LARGE}", f"1 {LARGE}", "price 99", "stock 99"]


def test_a_volatile_message_is_dropped_where_there_is_no_room(serve: Any) -> None:
    served, session = slow_client(serve)
    socket = served.socket(session.sid)
    assert socket.send("too much", volatile=True) is socket
    assert session.hear_many(2) == [f"0 {LARGE}", f"1 {LARGE}"]
    socket.send("in time", volatile=True)
    assert session.hear() == "in time"
    session.close()
    served.events.wait("close")
    with pytest.raises(SocketClosed):
        socket.send("too late", volatile=True)
