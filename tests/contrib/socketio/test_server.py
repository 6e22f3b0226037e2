"""What the server does with packets that arrive: order, handlers at once, malformed ones, full buffers."""

from __future__ import annotations

import contextvars
import json
from typing import Any

import gevent
import gevent.event
import msgpack
import pytest
from support.clients import open_session
from support.serving import EventLog, Served

from engineio_wsgi.contrib.socketio import Server
from engineio_wsgi.contrib.socketio import server as module

pytestmark = pytest.mark.ours


def connected(site: Any, *namespaces: str, transport: str = "websocket", path: str = "/socket.io/") -> Any:
    """A raw client that is connected to the default namespace, and to others."""
    session = open_session(Served(site.address, EventLog(), handler="ours", path=path), transport)
    for name in ("", *namespaces):
        session.say(f"40{name},"[1:] if name else "0")
        assert f"0{name}" in hear_all(session, 2)[1]
    return session


def hear_all(session: Any, count: int) -> list[str]:
    return [session.hear() for _ in range(count)]


@pytest.mark.parametrize("packet", [
    "", "9", "abc", "2", "2{}", "2[]", '2["unclosed"', "2[null]", "2[true]", '51-["connect",{"_placeholder":true,"num":0}]',
    *(f'2["{name}"]' for name in ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")),
    "3[1]", "31{}", "0[]", '1"x"', '4"x"', '51-["no attachment"]x', "5999-[1]", '2["a"]]', "2" + "[" * 100_000, b"\x00",
])
def test_a_malformed_packet_ends_the_session(site: Any, packet: str | bytes) -> None:
    made = site()
    session = connected(made)
    session.say(packet)
    assert made.events.wait("disconnect")["reason"] == "transport error"
    assert made.sio.refusals["malformed packet"] == 1
    assert made.sio._binary_packet == {}


def test_attachments_that_do_not_fit(site: Any) -> None:
    made = site()
    for count, messages in enumerate((['51-["x",{"_placeholder":true,"num":7}]', b"1"], ['51-["x"]', "text"]), 1):
        session = connected(made)
        session.say(*messages)
        assert made.events.wait("disconnect", count)["reason"] == "transport error"


def test_attachments_have_a_limit_in_all(site: Any) -> None:
    """They wait in memory for the last of them."""
    made = site(max_http_buffer_size=1000)
    places = ",".join(json.dumps({"_placeholder": True, "num": number}) for number in range(12))
    session = connected(made)
    session.say(f'512-["x",{places}]', *[b"x" * 900] * 12)
    assert made.events.wait("disconnect")["reason"] == "transport error"
    assert made.sio.refusals["malformed packet"] == 1


def test_what_nobody_waits_for_is_ignored(site: Any) -> None:
    session = connected(site())
    session.say("30[]", "399[]", '2/chat,["echo"]', "1/chat,", '2["echo","still here"]')
    assert session.hear() == '2["echo","still here"]'


def test_a_client_cannot_open_namespaces_without_bound(site: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MAX_NAMESPACES", 2)
    made = site(namespaces="*")
    session = connected(made)
    session.say("0/one,", "0/two,", "0/chat,")
    assert session.hear().startswith('0/one,{"sid"')
    assert hear_all(session, 2) == [f'4/{name},{{"message":"Too many namespaces"}}' for name in ("two", "chat")]
    session.say("0/one,", "0/nowhere,")
    assert session.hear() == '4/one,{"message":"Unable to connect"}'
    assert session.hear() == '4/nowhere,{"message":"Too many namespaces"}'
    assert made.sio.refusals == {"too many namespaces": 3, "unable to connect": 1}


def test_events_begin_in_their_order_and_do_not_wait_for_each_other(site: Any) -> None:
    made = site()
    begun: list[int] = []
    gate = gevent.event.Event()

    @made.sio.on("slow")
    def slow(sid: str, number: int) -> None:
        begun.append(number)
        gate.wait()
        made.sio.emit("done", number, to=sid)

    session = connected(made)
    session.say(*(f'2["slow",{number}]' for number in range(20)), '2["echo","not held up"]')
    assert session.hear() == '2["echo","not held up"]'
    assert begun == list(range(20))
    gate.set()
    assert sorted(hear_all(session, 20)) == sorted(f'2["done",{number}]' for number in range(20))


def test_a_client_has_a_bounded_number_of_handlers(site: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MAX_HANDLERS", 3)
    made = site()
    begun: list[int] = []
    gate = gevent.event.Event()
    full = gevent.event.Event()

    @made.sio.on("slow")
    def slow(sid: str, number: int) -> int:
        begun.append(number)
        if len(begun) == 4:
            full.set()
        gate.wait()
        return number

    session, other = connected(made), connected(made)
    session.say(*(f'2{number}["slow",{number}]' for number in range(9)))
    full.wait()
    other.say('2["echo"]')
    assert other.hear() == '2["echo"]'
    assert begun == [0, 1, 2, 3]
    gate.set()
    assert sorted(hear_all(session, 9)) == [f"3{number}[{number}]" for number in range(9)]


def test_handlers_one_after_the_other(site: Any) -> None:
    made = site(async_handlers=False)
    running: list[int] = []

    @made.sio.on("slow")
    def slow(sid: str) -> int:
        running.append(1)
        gevent.sleep(0)
        count = len(running)
        running.pop()
        return count

    session = connected(made)
    session.say(*(f'2{number}["slow"]' for number in range(5)))
    assert hear_all(session, 5) == [f"3{number}[1]" for number in range(5)]


def test_context_variables_do_not_leak_into_the_next_event(site: Any) -> None:
    made = site()
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("test", default="unset")

    @made.sio.on("set")
    def set_it(sid: str) -> str:
        before = variable.get()
        variable.set("set")
        return before

    session = connected(made)
    for number in range(3):
        session.say(f'2{number}["set"]')
        assert session.hear() == f'3{number}["unset"]'


@pytest.mark.complains
def test_a_handler_that_fails_harms_nothing_else(site: Any, caplog: Any) -> None:
    made = site()

    @made.sio.on("fail")
    def fail(sid: str) -> None:
        raise ValueError("on purpose")

    session = connected(made)
    session.say('2["fail"]', '2["echo","next"]')
    assert session.hear() == '2["echo","next"]'
    assert "a handler of the event 'fail' failed" in caplog.text
    assert made.events.of("connect")[0]["sid"] not in caplog.text


def test_what_the_application_replaces_is_called(site: Any) -> None:
    made = site()
    seen: list[str] = []
    trigger = made.sio._trigger_event

    def note(event: str, *args: Any) -> Any:
        seen.append(event)
        return trigger(event, *args)

    made.sio._trigger_event = note
    session = connected(made)
    session.say('21["back",1]')
    assert session.hear() == "31[1]"
    assert seen == ["connect", "back"]


@pytest.mark.parametrize("name", ["_handle_event", "_handle_event_internal", "_send_packet", "_send_eio_packet"])
def test_a_method_that_is_replaced_for_a_while_is_called_for_this_while(site: Any, name: str) -> None:
    made = site()
    session = connected(made)
    calls: list[str] = []
    original = getattr(made.sio, name)

    def note(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return original(*args, **kwargs)

    setattr(made.sio, name, note)
    session.say('21["echo",1]')
    assert sorted(hear_all(session, 2)) == ['2["echo",1]', "31[]"]
    assert calls
    count = len(calls)
    delattr(made.sio, name)
    session.say('22["echo",2]')
    assert sorted(hear_all(session, 2)) == ['2["echo",2]', "32[]"]
    assert len(calls) == count


def test_what_a_subclass_overrides_is_called(site: Any) -> None:
    seen: list[Any] = []

    class Noting(Server):
        def _trigger_event(self, event: str, *args: Any) -> Any:
            seen.append(event)
            return super()._trigger_event(event, *args)

        def _send_packet(self, eio_sid: str, pkt: Any) -> None:
            seen.append(pkt.data)
            super()._send_packet(eio_sid, pkt)

    session = connected(site(server_class=Noting))
    del seen[:]
    session.say('21["back",5]')
    assert session.hear() == "31[5]"
    assert seen == ["back", [5]]


def test_a_handler_that_replaces_the_engines_gets_all_messages(site: Any) -> None:
    made = site()
    session = connected(made)
    made.sio.eio.on("message", lambda sid, data: made.sio.eio.send(sid, f"got {data}"))
    session.say('2["echo",1]', "anything")
    assert hear_all(session, 2) == ['got 2["echo",1]', "got anything"]


def test_an_emit_of_the_manager_that_is_replaced_is_called(site: Any) -> None:
    made = site()
    session = connected(made)
    emitted: list[str] = []
    original = made.sio.manager.emit

    def note(event: str, *args: Any, **kwargs: Any) -> None:
        emitted.append(event)
        original(event, *args, **kwargs)

    made.sio.manager.emit = note
    session.say('2["echo",1]')
    assert session.hear() == '2["echo",1]'
    assert emitted == ["echo"]


def test_names_and_texts_are_escaped(site: Any) -> None:
    made = site()
    session = connected(made)
    sid = made.events.of("connect")[0]["sid"]
    for data in ('"quotes"', "line\nbreak \\ \u2028 \U0001f600 \ud800", ""):
        made.sio.emit('an "event"', data, to=sid)
        assert json.loads(session.hear()[1:]) == ['an "event"', data]


def test_what_is_sent_to_a_client_that_does_not_read(site: Any) -> None:
    made = site(max_buffered=10_000)
    connected(made, transport="polling")
    quick = connected(made)
    sid = made.events.of("connect")[0]["sid"]
    for number in range(3):
        made.sio.emit("big", "x" * 6000, to=sid, volatile=number == 2)
    # the third was dropped; a broadcast leaves the client out if it is volatile, and disconnects it otherwise
    made.sio.emit("all", 1, volatile=True)
    assert quick.hear() == '2["all",1]'
    assert made.events.of("disconnect") == []
    made.sio.emit("all", 2)
    assert quick.hear() == '2["all",2]'
    assert made.events.wait("disconnect") == {"nsp": "/", "sid": sid, "reason": "transport error"}


def test_a_client_that_makes_no_room_is_disconnected(site: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("engineio_wsgi.contrib.socketio.adapter.SEND_TIMEOUT", 0.05)
    made = site(max_buffered=10_000)
    connected(made, transport="polling")
    sid = made.events.of("connect")[0]["sid"]
    for _ in range(3):
        made.sio.emit("big", "x" * 6000, to=sid)
    assert made.events.wait("disconnect")["reason"] == "transport error"


def test_attachments_stay_with_their_packet(site: Any) -> None:
    made = site(max_buffered=1000)
    session = connected(made)
    sid = made.events.of("connect")[0]["sid"]
    blocks = [bytes([number]) * 700 for number in range(4)]

    def send(number: int) -> None:
        made.sio.emit("block", (number, blocks[number], blocks[number]), to=sid)

    gevent.joinall([gevent.spawn(send, number) for number in range(4)])
    for _ in range(4):
        head = session.hear()
        number = int(head.partition('["block",')[2][0])
        assert hear_all(session, 2) == [blocks[number]] * 2


def test_the_session_of_a_client_can_be_read_when_it_disconnects(site: Any) -> None:
    made = site()
    left: list[Any] = []

    @made.sio.on("disconnect", namespace="/own")
    def disconnect(sid: str, reason: str) -> None:
        left.append(made.sio.get_session(sid, namespace="/own"))
        made.events.add("left")

    @made.sio.on("connect", namespace="/own")
    def connect(sid: str, environ: Any) -> None:
        made.sio.save_session(sid, {"user": "tobi"}, namespace="/own")

    session = connected(made)
    session.say("0/own,")
    session.hear()
    session.close()
    made.events.wait("left")
    assert left == [{"user": "tobi"}]
    gevent.sleep(0)
    assert made.sio.environ == {}
    assert made.sio.eio.sockets == {}


def test_packets_in_msgpack(site: Any) -> None:
    """python-socketio's other form of packets, with events and acknowledgements both ways."""
    made = site(serializer="msgpack")
    session = open_session(Served(made.address, EventLog(), handler="ours", path="/socket.io/"), "websocket")

    def say(kind: int, data: Any, **fields: Any) -> None:
        session.say(msgpack.dumps({"type": kind, "nsp": "/", "data": data, **fields}))

    def hear() -> tuple[int, Any]:
        packet = msgpack.loads(session.hear())
        return packet["type"], packet["data"]

    say(0, {"token": "right"})
    assert hear() == (2, ["welcome", {"token": "right"}])
    assert hear() == (0, {"sid": made.events.of("connect")[0]["sid"]})
    say(2, ["echo", b"\x00\xff", {"n": [1, "ü"]}])
    assert hear() == (2, ["echo", b"\x00\xff", {"n": [1, "ü"]}])
    say(2, ["back", 1.5], id=7)
    assert hear() == (3, [1.5])
    session.say(b"no packet")
    assert made.events.wait("disconnect")["reason"] == "transport error"
