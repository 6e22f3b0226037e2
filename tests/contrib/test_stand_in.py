"""What a framework's integration puts in the place of a listener: it is listed, and taken off, as the listener itself."""

from __future__ import annotations

from typing import Any

from engineio_wsgi.session.events import Events, Listener, StandIn


class _Loud(StandIn):
    def __call__(self, *args: Any) -> Any:
        return self.listener(*(text.upper() for text in args))


class _LoudEvents(Events):
    def stand_in(self, listener: Listener) -> Listener:
        return _Loud(listener)


def test_a_listener_that_something_stands_for_is_listed_and_taken_off_as_itself() -> None:
    events, heard = _LoudEvents(), []
    listener = events.on("said", heard.append)
    other = events.once("said", lambda text: heard.append(text + "!"))
    assert events.listeners("said") == [listener, other]
    events.emit("said", "a")
    events.emit("said", "b")
    assert heard == ["A", "A!", "B"]
    events.once("said", other)
    events.off("said", listener)
    assert events.listeners("said") == [other]
    events.off("said", other)
    assert not events.emit("said", "c")
