"""The events of a server: who is called, and in which greenlet."""

from __future__ import annotations

import logging
from typing import Any

import gevent
import pytest

from engineio_wsgi.engine.server_events import ServerEvents
from engineio_wsgi.session.events import StandIn


class Loud(StandIn):
    """Calls the listener with capitals."""

    def __call__(self, *args: Any) -> Any:
        return self.listener(*(arg.upper() for arg in args))


def events(watched: list[str] | None = None) -> ServerEvents:
    """Events whose listeners get capitals."""
    return ServerEvents(Loud, lambda: None if watched is None else watched.append("watched"))


def test_a_listener_is_called_through_the_stand_in_of_the_server() -> None:
    those, heard = events(), []
    listener = those.on("shop:said", heard.append)
    those.emit("shop:said", "a")
    assert (heard, those.listeners("shop:said")) == (["A"], [listener])


def test_whether_an_event_has_listeners() -> None:
    those = events()
    listener = those.on("shop:said", str)
    assert ("shop:said" in those, "shop:done" in those) == (True, False)
    assert (len(those.registered("shop:said")), those.registered("shop:done")) == (1, ())
    those.off("shop:said", listener)
    assert "shop:said" not in those


@pytest.mark.parametrize(("event", "expected"), [("flush", ["watched"]), ("drain", ["watched"]), ("connection", [])])
def test_buffers_are_watched_for_some_events(event: str, expected: list[str]) -> None:
    watched: list[str] = []
    events(watched).on(event, str)
    assert watched == expected


def test_an_announcement_does_not_block_the_caller() -> None:
    those, heard = events(), []
    those.on("shop:lost", heard.append)
    those.announce("shop:lost", "a")
    those.announce("shop:no-listeners", "b")
    assert heard == []
    gevent.idle()
    assert heard == ["A"]


@pytest.mark.complains
def test_a_listener_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    those = events()

    @those.on("shop:lost")
    def fail(_: str) -> None:
        raise ValueError("of the test")

    with caplog.at_level(logging.ERROR, "engine"):
        those.emit_safely("shop:lost", "a")
    assert "a listener (shop:lost) failed" in caplog.text
    assert "of the test" in caplog.text
