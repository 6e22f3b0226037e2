"""What the application sees of a session, over a transport that writes and reads when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support.fakeloop import FakeLoop
from support.fakesession import CONNECTIONS, ENVIRON, FakeHost, opened, opened_session, outcome, quiet, started

from engineio_wsgi.errors import SocketClosed, UsageError, WriteTimeout
from engineio_wsgi.packet import Packet, PacketType
from engineio_wsgi.session.session import Session
from engineio_wsgi.session.socket import Socket, as_message
from engineio_wsgi.session.state import SessionState
from engineio_wsgi.transports.base import Prepared


@pytest.fixture
def small() -> tuple[Any, Any]:
    """A session whose write buffer is full with ten bytes."""
    return opened(max_buffered=10)


# -- what it is


def test_the_request_is_the_handshakes_without_its_connection() -> None:
    socket, _ = opened()
    assert socket.request.cookies["user"] == "tobi"
    assert socket.request.args["user"] == "tobi"
    assert socket.request.get_data() == b""
    assert socket.request is socket.request
    kept = [name for name in CONNECTIONS if name in socket._environ]
    assert kept == []


def test_the_environ_of_the_handshake_is_not_changed() -> None:
    environ = {**ENVIRON, "wsgi.input": object()}
    before = dict(environ)
    host: Any = FakeHost()
    assert Socket(Session(host, "a", 4), environ).request.path == "/engine.io/"
    assert environ == before


def test_the_remote_address() -> None:
    assert opened()[0].remote_address == "192.0.2.7"
    host: Any = FakeHost()
    assert Socket(Session(host, "a", 4), {}).remote_address is None


def test_the_repr_does_not_show_the_id() -> None:
    assert repr(opened()[0]) == "<Socket 012345… open>"


def test_data_belongs_to_one_session() -> None:
    first, second = opened()[0], opened()[0]
    first.data["user"] = "tobi"
    assert first.data == {"user": "tobi"}
    assert second.data == {}


def test_the_server_and_the_states() -> None:
    session, transport = opened_session()
    socket = session.socket
    assert (socket.server, socket.ready_state, socket.upgrading) == (session.registry, "open", False)
    session.state = SessionState.UPGRADING
    assert socket.upgrading
    session.state = SessionState.OPEN
    socket.send("a").close()
    assert socket.ready_state == "closing"
    transport.take()
    assert socket.ready_state == "closed"
    assert session.registry.forgotten == [session]


# -- sending


@pytest.mark.parametrize(("data", "queued"), [
    ("text", "text"), (b"bytes", b"bytes"), (bytearray(b"array"), b"array"), (memoryview(b"-view-")[1:5], b"view"),
    (memoryview(b"a-b-c")[::2], b"abc"), ("", ""), (b"", b""),
])
def test_what_may_be_sent(data: Any, queued: str | bytes) -> None:
    socket, transport = opened()
    assert socket.send(data) is socket
    (entry,) = transport.take()
    assert (type(entry), entry) == (type(queued), queued)


def test_a_subclass_of_text_is_sent_as_text() -> None:
    class Markup(str):
        __slots__ = ()

    assert type(as_message(Markup("<b>"))) is str
    assert type(as_message(type("Blob", (bytes,), {})(b"x"))) is bytes


@pytest.mark.parametrize("data", [None, 0, 1.5, True, [], ["a"], {}, {"a": 1}, object(), Packet(PacketType.MESSAGE, "a")])
@pytest.mark.parametrize("how", [{}, {"compress": False}, {"callback": print}], ids=repr)
def test_what_may_not_be_sent(data: Any, how: dict[str, Any]) -> None:
    socket, transport = opened()
    with pytest.raises(TypeError, match=f"str .text. or bytes-like .binary., not {type(data).__name__}"):
        socket.send(data, **how)
    assert (socket.buffered, transport.wakes) == (0, 0)


@pytest.mark.parametrize(("data", "hint"), [({"a": 1}, "; send json.dumps() of it"), (["a"], "; send json.dumps() of it"),
                                            (None, "; send json.dumps() of it"), (object(), "")])
def test_what_json_can_say_is_to_be_sent_as_json(data: Any, hint: str) -> None:
    with pytest.raises(TypeError) as refused:
        as_message(data)
    assert str(refused.value) == f"a message is str (text) or bytes-like (binary), not {type(data).__name__}{hint}"


@pytest.mark.parametrize(("data", "size"), [("abc", 3), ("äöü", 6), ("😀", 4), (b"\xff\xff", 2), (bytearray(5), 5)], ids=repr)
def test_buffered_counts_bytes(data: Any, size: int) -> None:
    socket, transport = opened()
    socket.send(data).send(data)
    assert socket.buffered == 2 * size
    transport.take()
    assert socket.buffered == 0


def test_a_send_wakes_the_transport_unless_it_is_corked() -> None:
    socket, transport = opened()
    socket.send("a")
    assert transport.wakes == 1
    transport.corked = True
    socket.send("b")
    assert transport.wakes == 1


def test_the_write_buffer() -> None:
    socket, transport = opened()
    socket.send("a").send(b"b", compress=False).send("c", callback=print)
    transport.under_way = ["under way"]
    assert [(packet.data, packet.compress) for packet in socket.write_buffer] == [
        ("under way", True), ("a", True), (b"b", False), ("c", True)]
    assert all(packet.type is PacketType.MESSAGE for packet in socket.write_buffer)


def test_packet_create_sees_a_message_before_it_is_queued() -> None:
    socket, transport = opened()

    @socket.on("packet_create")
    def create(packet: Packet) -> None:
        packet.data = f"<{packet.data!s}>"

    socket.send("a")
    socket.off("packet_create")
    socket.send("b")
    first, second = transport.take()
    assert (first.data, second) == ("<a>", "b")


def test_a_callback_is_called_once_when_the_message_was_written() -> None:
    socket, transport = opened()
    calls: list[str] = []
    done = Event()
    socket.send("a", callback=lambda: (calls.append("a"), done.set()))
    gevent.sleep(0)
    assert calls == []
    transport.take()
    assert done.wait(60)
    socket.send("b")
    transport.take()
    gevent.sleep(0)
    assert calls == ["a"]


@pytest.mark.parametrize("how", ["send", "write"])
@pytest.mark.parametrize("discard", [False, True])
def test_nothing_is_sent_after_close(how: str, discard: bool) -> None:
    socket, _ = opened()
    socket.send("a").close(discard, "enough")
    with pytest.raises(SocketClosed) as closed:
        getattr(socket, how)("b")
    assert closed.value.reason == ("enough" if discard else None)
    assert [packet.data for packet in socket.write_buffer] == ["a"]


# -- a full buffer


def test_a_message_is_accepted_when_the_buffer_is_almost_full(small: Any) -> None:
    socket, _ = small
    socket.send("x" * 9).send("y" * 50)
    assert socket.buffered == 59


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_a_write_timeout(small: Any, timeout: float) -> None:
    socket, transport = small
    socket.send("x" * 10)
    in_time = pytest.raises(WriteTimeout, match=f"the write buffer stayed full for {timeout:g} s")
    with gevent.Timeout(60), in_time as timed_out:
        socket.send("y", timeout=timeout)
    assert isinstance(timed_out.value, TimeoutError)
    assert transport.take() == ["x" * 10], "what timed out was not queued"


def test_a_send_waits_for_room(small: Any) -> None:
    socket, transport = small
    socket.send("x" * 10)
    waiting = started(socket.send, "y", timeout=5)
    transport.take()
    assert outcome(waiting) is socket
    assert transport.take() == ["y"]


def test_room_for_one_message_wakes_senders_one_by_one(small: Any) -> None:
    socket, transport = small
    socket.send("x" * 10)
    waiting = [started(socket.send, f"{number}" * 10) for number in range(3)]
    taken = []
    for _ in range(4):
        taken += transport.take()
        assert socket.buffered == 0
        gevent.sleep(0.001)
        assert socket.buffered <= 10
    assert taken == ["x" * 10, "0" * 10, "1" * 10, "2" * 10]
    gevent.joinall(waiting, timeout=60)


@pytest.mark.parametrize("end", [
    lambda socket: socket.close(), lambda socket: socket.close(discard=True),
    lambda socket: socket._session.end("transport close"),
], ids=["close", "discard", "lost"])
def test_a_send_that_waits_raises_when_the_session_ends(small: Any, end: Callable[[Any], Any]) -> None:
    socket, _ = small
    socket.send("x" * 10)
    waiting = started(quiet, socket.send, "y")
    end(socket)
    assert isinstance(outcome(waiting), SocketClosed)
    socket.close(discard=True)


def test_the_event_loop_does_not_wait_for_room(small: Any) -> None:
    socket, _ = small
    socket.send("x" * 10)
    outcomes: list[Any] = []
    gevent.get_hub().loop.run_callback(lambda: outcomes.append(quiet(socket.send, "y")))
    gevent.sleep(0)
    assert "the event loop cannot block" in str(outcomes)
    assert isinstance(outcomes[0], WriteTimeout)


def test_a_broadcast_ends_a_session_whose_buffer_is_full(small: Any) -> None:
    socket, transport = small
    session = socket._session
    session.send_prepared(Prepared("x" * 10, True))
    session.send_prepared(Prepared("y", True))
    assert (socket.close_reason, transport.closings) == ("client too slow", ["client too slow"])


# -- flush


def test_flush(small: Any) -> None:
    socket, transport = small
    assert socket.flush(timeout=0) is True, "there is nothing to wait for"
    socket.send("a")
    assert socket.flush(timeout=0) is False
    assert socket.flush(timeout=0.01) is False
    waiting = started(socket.flush)
    transport.take()
    assert outcome(waiting) is True


def test_flush_raises_when_the_session_ends_before_everything_is_written() -> None:
    socket, _ = opened()
    socket.send("a")
    waiting = started(quiet, socket.flush)
    socket.close(discard=True, reason="enough")
    error = outcome(waiting)
    assert isinstance(error, SocketClosed)
    assert error.reason == "enough"


# -- receiving


@pytest.fixture
def receiving() -> Iterator[tuple[Any, Any]]:
    """A session without listeners; it ends with the test."""
    socket, transport = opened()
    yield socket, transport
    socket._session.end("the test is over")
    gevent.sleep(0)


def test_what_waits_is_received_in_order(receiving: Any) -> None:
    socket, transport = receiving
    transport.arrive("a", b"b")
    transport.arrive("")
    assert [socket.receive(timeout=0) for _ in range(3)] == ["a", b"b", ""]


def test_receive_waits_and_reads_for_itself(receiving: Any) -> None:
    socket, transport = receiving
    waiting = started(socket.receive)
    transport.arrive("a", "b")
    assert outcome(waiting) == "a"
    assert socket.receive() == "b"


def test_a_false_alarm_does_not_end_the_wait(receiving: Any) -> None:
    socket, transport = receiving
    waiting = started(socket.receive)
    transport.arrive()
    gevent.sleep(0)
    assert not waiting.ready()
    transport.arrive("a")
    assert outcome(waiting) == "a"


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_receive_times_out(receiving: Any, timeout: float) -> None:
    socket, transport = receiving
    with pytest.raises(TimeoutError, match="no message arrived in time"):
        socket.receive(timeout=timeout)
    assert socket._session.inbox.receiver is None
    transport.arrive("late")
    assert socket.receive(timeout=0) == "late"


def test_false_alarms_do_not_make_a_timeout_longer(receiving: Any) -> None:
    socket, transport = receiving
    waiting = gevent.spawn(quiet, socket.receive, timeout=0.05)
    with gevent.Timeout(60):
        while not waiting.ready():
            transport.arrive()
            gevent.sleep(0.01)
    assert type(outcome(waiting)) is TimeoutError


def test_a_timer_that_was_not_needed_is_closed(receiving: Any) -> None:
    socket, transport = receiving
    socket._session.loop = loop = FakeLoop()
    waiting = started(socket.receive, timeout=1000)
    assert len(loop.timers) == 1
    transport.arrive("a")
    assert outcome(waiting) == "a"
    assert loop.timers == []


def test_a_second_greenlet_cannot_receive(receiving: Any) -> None:
    socket, transport = receiving
    waiting = started(socket.receive)
    with pytest.raises(UsageError, match="another greenlet is receiving from this session already"):
        socket.receive()
    with pytest.raises(UsageError):
        next(iter(socket))
    transport.arrive("a")
    assert outcome(waiting) == "a", "the first one is not disturbed"


@pytest.mark.parametrize("stop", ["kill", "timeout"])
def test_no_message_is_lost_when_a_receiver_is_killed(receiving: Any, stop: str) -> None:
    socket, transport = receiving

    def receive() -> Any:
        with gevent.Timeout(0.01 if stop == "timeout" else None, False):
            return socket.receive()

    waiting = started(receive)
    if stop == "kill":
        waiting.kill()
    waiting.join(60)
    assert waiting.ready()
    transport.arrive("a")
    assert socket.receive(timeout=0) == "a"


def test_receiving_makes_room_in_the_inbox() -> None:
    socket, transport = opened(max_inbox=100)
    transport.arrive("x" * 101)
    assert socket._session.inbox.reading_paused
    socket.receive()
    assert not socket._session.inbox.reading_paused


@pytest.mark.parametrize("discard", [False, True])
def test_receive_raises_when_the_session_ends(discard: bool) -> None:
    socket, _ = opened()
    socket.send("left")
    waiting = started(quiet, socket.receive)
    socket.close(discard, "enough")
    error = outcome(waiting)
    assert isinstance(error, SocketClosed)
    assert error.reason == ("enough" if discard else None)
    socket.close(discard=True)


def test_iteration_ends_with_the_session() -> None:
    socket, transport = opened()
    transport.arrive("a")
    everything = started(list, socket)
    transport.arrive("b")
    gevent.sleep(0)
    socket.close()
    assert outcome(everything) == ["a", "b"]
    assert list(socket) == []


def test_queued_messages_are_received_while_the_session_is_closing() -> None:
    socket, transport = opened()
    transport.arrive("a", "b")
    socket.send("left").close()
    assert list(socket) == ["a", "b"]
    socket.close(discard=True)


def test_a_listener_that_receives_lets_others_run() -> None:
    """What is queued for the session's turn is not held up by the turn that waits for a message."""
    socket, transport = opened()
    order: list[str] = []
    done = Event()
    socket._session.inbox.queue_call(lambda: (order.extend(socket), done.set()))
    socket.on("drain", lambda: order.append("drain"))
    gevent.sleep(0)
    socket.send("x")
    transport.take()
    gevent.sleep(0)
    transport.arrive("a")
    gevent.sleep(0)
    socket.close()
    assert done.wait(60)
    assert order == ["drain", "a"]


# -- the rest of its life


def test_spawned_greenlets_end_with_the_session() -> None:
    socket, _ = opened()
    done = socket.spawn(lambda a, b: a + b, 1, b=2)
    assert outcome(done) == 3
    waiting = socket.spawn(gevent.sleep, 1000)
    gevent.sleep(0)
    assert socket._session.spawned == {waiting}, "what has ended is not kept"
    socket.close()
    assert isinstance(outcome(waiting), gevent.GreenletExit)
    with pytest.raises(SocketClosed) as closed:
        socket.spawn(print)
    assert closed.value.reason == "forced close"


def test_a_spawned_greenlet_may_find_the_session_closed() -> None:
    socket, _ = opened()
    task = socket.spawn(lambda: socket.close(discard=True).send("too late"))
    task.join()
    assert task.successful()


def test_close_waits_for_the_write_buffer_and_discard_does_not() -> None:
    socket, transport = opened()
    assert socket.send("a").close(reason="enough") is socket
    assert (socket.closed, socket.close_reason) == (False, None)
    transport.take()
    assert (socket.closed, socket.close_reason, transport.closings) == (True, "enough", ["enough"])
    socket.close(reason="again")
    assert socket.close_reason == "enough"
    other, _ = opened()
    assert other.send("a").close(discard=True).closed
    assert other.close_reason == "forced close"


def test_wait_closed() -> None:
    socket, _ = opened()
    assert socket.wait_closed(timeout=0) is False
    assert socket.wait_closed(timeout=0.01) is False
    waiting = started(socket.wait_closed)
    socket.send("left").close()
    gevent.sleep(0)
    assert not waiting.ready(), "closing is not closed"
    socket.close(discard=True)
    assert outcome(waiting) is True
    assert socket.wait_closed() is True
