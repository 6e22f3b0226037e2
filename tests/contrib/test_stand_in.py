"""What a framework's integration puts in the place of a listener: it is listed, and taken off, as the listener itself."""

from __future__ import annotations

from typing import Any

from engineio_wsgi.session.events import Emitter, Listener, StandIn


class _Loud(StandIn):
    def __call__(self, *args: Any) -> Any:
        return self.listener(*(text.upper() for text in args))


class _LoudEmitter(Emitter):
    def stand_in(self, listener: Listener) -> Listener:
        return _Loud(listener)


def test_a_listener_that_something_stands_for_is_listed_and_taken_off_as_itself() -> None:
    emitter, heard = _LoudEmitter(), []
    listener = emitter.on("said", heard.append)
    other = emitter.once("said", lambda text: heard.append(text + "!"))
    assert emitter.listeners("said") == [listener, other]
    emitter.emit("said", "a")
    emitter.emit("said", "b")
    assert heard == ["A", "A!", "B"]
    emitter.once("said", other)
    emitter.off("said", listener)
    assert emitter.listeners("said") == [other]
    emitter.off("said", other)
    assert not emitter.emit("said", "c")
