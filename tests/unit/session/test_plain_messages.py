"""The plain case of `send`: what the part in C does is what the one in Python does."""

from __future__ import annotations

import gc
import inspect
import os
import threading
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engineio_wsgi.protocol.websocket.batches import accelerated
from engineio_wsgi.runtime.threads import current_thread
from engineio_wsgi.session import plain_messages
from engineio_wsgi.session.plain_messages import QueueInPython, SenderInPython, first_in_python

MANY = settings(max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")), deadline=None)

ascii_text = st.text(st.characters(max_codepoint=127), max_size=50)
anything = st.one_of(st.text(st.characters(), max_size=50), ascii_text, st.binary(max_size=50), st.none(), st.integers(),
                     st.binary().map(bytearray))


class FakeTransport:
    """Counts how often it is woken."""

    def __init__(self) -> None:
        self.corked = False
        self.wakes = 0

    def wake(self) -> None:
        """There is something to write."""
        self.wakes += 1


def make(queue_type: Any, sender_type: Any, first: Any) -> tuple[Any, Any]:
    """Subclasses, as `WriteBuffer` and `Socket` are."""

    class Queue(queue_type):  # type: ignore[misc]
        __slots__ = ()

        def __init__(self, limit: int = 1000) -> None:
            self.entries: list[Any] = ["before"]
            self.size, self.limit = 6, limit
            self._thread, self._is_announced = current_thread(), False
            self._transport = FakeTransport()

    class Sender(sender_type):  # type: ignore[misc]
        __slots__ = ("__weakref__", "calls")

        def __init__(self, queue: Any) -> None:
            self._queue = queue
            self.calls: list[Any] = []

        @first
        def send(self, data: object, *, compress: bool = True) -> Any:
            """Send."""
            if compress and self._queue.put_message(data):
                return self
            self.calls.append((data, compress))
            return None

    return Queue, Sender


HERE = make(plain_messages.MessageQueue, plain_messages.MessageSender, plain_messages.plain_first)
REFERENCE = make(QueueInPython, SenderInPython, first_in_python)
BOTH = pytest.mark.parametrize("types", [HERE, REFERENCE], ids=["here", "reference"])


def outcome(types: tuple[Any, Any], message: object, limit: int, corked: bool, announced: bool) -> tuple[Any, ...]:
    """What becomes of a message."""
    queue = types[0](limit)
    queue._transport.corked, queue._is_announced = corked, announced
    sender = types[1](queue)
    returned = sender.send(message) is sender
    return returned, queue.entries, list(map(type, queue.entries)), queue.size, queue._transport.wakes, sender.calls


@MANY
@given(anything, st.integers(0, 12), st.booleans(), st.booleans())
def test_sending_is_that_of_the_reference(message: object, limit: int, corked: bool, announced: bool) -> None:
    assert outcome(HERE, message, limit, corked, announced) == outcome(REFERENCE, message, limit, corked, announced)


@BOTH
@pytest.mark.parametrize(("message", "size"), [
    ("", 0), ("abc", 3), (b"", 0), (b"\xff\x00", 2), ("ä", 2), ("a€", 4), ("😀€ä.", 10), ("\ud800", -1), ("😀\udc00", -1),
    (bytearray(b"x"), -1), (None, -1), (type("Text", (str,), {})("x"), -1), (type("Data", (bytes,), {})(b"x"), -1),
])
def test_what_is_plain_is_queued_and_wakes_the_transport(types: Any, message: object, size: int) -> None:
    queue = types[0]()
    assert queue.put_message(message) is (size >= 0)
    assert queue.entries == (["before"] if size < 0 else ["before", message])
    assert (queue.size, queue._transport.wakes) == ((6, 0) if size < 0 else (6 + size, 1))


@BOTH
def test_a_full_queue_takes_nothing(types: Any) -> None:
    queue = types[0](7)
    assert (queue.put_message("abc"), queue.put_message("d")) == (True, False)
    assert queue.entries == ["before", "abc"]


@BOTH
def test_other_threads_queue_nothing(types: Any) -> None:
    queue = types[0]()
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(queue.put_message("x")))
    thread.start()
    thread.join()
    assert (results, queue.entries) == ([False], ["before"])


@BOTH
def test_other_arguments_reach_the_method(types: Any) -> None:
    sender = types[1](types[0]())
    sender.send("a", compress=False)
    sender.send(data=None)
    assert sender.calls == [("a", False), (None, True)]
    with pytest.raises(TypeError, match=r"send\(\)"):
        sender.send()
    with pytest.raises(TypeError, match=r"send\(\)"):
        sender.send("a", "b")


@BOTH
def test_the_method_is_that_of_the_class(types: Any) -> None:
    send = types[1].send
    assert (send.__name__, send.__doc__) == ("send", "Send.")
    assert list(inspect.signature(send).parameters) == ["self", "data", "compress"]
    sender = types[1](types[0]())
    assert send(sender, "a") is sender
    bound = sender.send
    assert bound("b") is sender
    assert list(inspect.signature(bound).parameters) == ["data", "compress"]


@BOTH
def test_a_subclass_may_override_and_call_the_method(types: Any) -> None:
    class Louder(types[1]):  # type: ignore[misc]
        def send(self, data: object) -> Any:
            return super().send(str(data).upper())

    sender = Louder(types[0]())
    assert sender.send("a") is sender
    assert sender._queue.entries == ["before", "A"]


@BOTH
def test_errors_of_the_transport_are_raised(types: Any) -> None:
    queue = types[0]()
    queue._transport = None
    with pytest.raises(AttributeError):
        types[1](queue).send("a")


@BOTH
def test_circles_of_references_are_collected(types: Any) -> None:
    sender = types[1](types[0]())
    sender._queue.entries.append(sender)
    reference = weakref.ref(sender)
    del sender
    gc.collect()
    assert reference() is None


@pytest.mark.skipif(not accelerated, reason="it is about the part in C, which test_ci_has_the_part_in_c asks for")
def test_objects_that_were_not_set_up_are_refused() -> None:
    queue = plain_messages.MessageQueue()
    assert queue.put_message("a") is False
    queue.limit, queue._thread = 10, current_thread()
    with pytest.raises(AttributeError):
        queue.put_message("a")
    with pytest.raises(AttributeError):
        queue.entries  # noqa: B018
    with pytest.raises(TypeError):
        plain_messages.plain_first()  # type: ignore[call-arg]
