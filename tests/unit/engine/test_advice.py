"""Advice for the operator: each piece is logged once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from engineio_wsgi.engine.advice import Advice

PLAIN: dict[str, Any] = {"SERVER_PROTOCOL": "HTTP/1.1", "SERVER_SOFTWARE": "plain/1", "wsgi.multiprocess": True}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What has been logged."""
    caplog.set_level(logging.WARNING, "engine")
    return lambda: caplog.messages


def test_a_server_whose_connections_cannot_be_taken_over(lines: Callable[[], list[str]]) -> None:
    advice = Advice()
    assert [advice.check_can_upgrade(PLAIN, ("polling", "websocket")) for _ in range(2)] == [False, False]
    assert ["plain/1" in line for line in lines()] == [True]


def test_no_advice_where_no_upgrade_is_wanted(lines: Callable[[], list[str]]) -> None:
    assert not Advice().check_can_upgrade(PLAIN, ("polling",))
    assert lines() == []


def test_http_2(lines: Callable[[], list[str]]) -> None:
    advice = Advice()
    advice.polling_only({**PLAIN, "SERVER_PROTOCOL": "HTTP/2"})
    advice.polling_only(PLAIN)
    assert [line.partition(" ")[0] for line in lines()] == ["clients", "connections"]


@pytest.mark.parametrize(("environ", "sid", "expected"), [
    (PLAIN, "efgh1", 1), (PLAIN, "abcd1", 0), ({**PLAIN, "wsgi.multiprocess": False}, "efgh1", 0),
])
def test_a_session_of_another_worker(environ: dict[str, Any], sid: str, expected: int, lines: Callable[[], list[str]]) -> None:
    advice = Advice()
    advice.foreign_session(environ, sid, "abcd")
    advice.foreign_session(environ, sid, "abcd")
    assert len(lines()) == expected
