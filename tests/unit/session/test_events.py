"""Listeners: order, once, off, and changes while they are being called."""

from __future__ import annotations

import pytest

from engineio_wsgi.session.events import Events


def test_listeners_are_called_in_order_with_all_arguments():
    events, calls = Events(), []
    events.on("x", lambda *args: calls.append(("a", args)))

    @events.on("x")
    def second(*args):
        calls.append(("b", args))

    assert events.emit("x", 1, 2)
    assert calls == [("a", (1, 2)), ("b", (1, 2))]
    assert events.listeners("x")[1] is second


def test_emit_returns_whether_there_were_listeners():
    assert not Events().emit("x")


def test_a_once_listener_is_called_once_even_if_it_emits_the_event():
    events, calls = Events(), []

    @events.once("x")
    def listener():
        calls.append(1)
        events.emit("x")

    events.emit("x")
    assert calls == [1]
    assert events.listeners("x") == []


@pytest.mark.parametrize("add", ["on", "once"])
def test_off_removes_one_an_event_or_all(add):
    events = Events()

    def listener():
        raise AssertionError("it was removed")

    getattr(events, add)("x", listener)
    events.off("x", listener)
    assert not events.emit("x")
    getattr(events, add)("x", listener)
    events.off("x")
    assert not events.emit("x")
    getattr(events, add)("x", listener)
    events.off()
    assert not events.emit("x")


def test_a_listener_added_during_an_emit_waits_for_the_next():
    events, calls = Events(), []
    events.on("x", lambda: events.on("x", lambda: calls.append(1)))
    events.emit("x")
    assert calls == []
    events.emit("x")
    assert calls == [1]


def test_a_listener_must_be_callable():
    with pytest.raises(TypeError, match="must be callable"):
        Events().on("x", 5)
