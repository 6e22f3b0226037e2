"""Listeners: order, once, off, and changes while they are being called."""

from __future__ import annotations

import pytest

from engineio_wsgi.session.events import Emitter


def test_listeners_are_called_in_order_with_all_arguments():
    emitter, calls = Emitter(), []
    emitter.on("x", lambda *args: calls.append(("a", args)))

    @emitter.on("x")
    def second(*args):
        calls.append(("b", args))

    assert emitter.emit("x", 1, 2)
    assert calls == [("a", (1, 2)), ("b", (1, 2))]
    assert emitter.listeners("x")[1] is second


def test_emit_without_listeners_says_so():
    assert not Emitter().emit("x")


def test_once_is_called_once_even_when_emitted_from_within():
    emitter, calls = Emitter(), []

    @emitter.once("x")
    def listener():
        calls.append(1)
        emitter.emit("x")

    emitter.emit("x")
    assert calls == [1]
    assert emitter.listeners("x") == []


@pytest.mark.parametrize("add", ["on", "once"])
def test_off_removes_one_an_event_or_all(add):
    emitter = Emitter()

    def listener():
        raise AssertionError("it was removed")

    getattr(emitter, add)("x", listener)
    emitter.off("x", listener)
    assert not emitter.emit("x")
    getattr(emitter, add)("x", listener)
    emitter.off("x")
    assert not emitter.emit("x")
    getattr(emitter, add)("x", listener)
    emitter.off()
    assert not emitter.emit("x")


def test_a_listener_added_during_an_emit_waits_for_the_next():
    emitter, calls = Emitter(), []
    emitter.on("x", lambda: emitter.on("x", lambda: calls.append(1)))
    emitter.emit("x")
    assert calls == []
    emitter.emit("x")
    assert calls == [1]


def test_a_listener_must_be_callable():
    with pytest.raises(TypeError, match="must be callable"):
        Emitter().on("x", 5)
