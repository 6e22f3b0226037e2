"""Seconds that look like milliseconds are taken, and one line asks whether they are."""

from __future__ import annotations

import pytest

from engineio_wsgi import Server
from engineio_wsgi.options import milliseconds


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milliseconds, "_said", set())


@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout", "upgrade_timeout"])
def test_more_than_an_hour_is_asked_about_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert getattr(Server(**{name: 25000}).options, name) == 25000
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"{name}=25000 is 6.9 hours: options are in seconds, not in milliseconds; did you mean {name}=25?")]


def test_an_hour_is_not(caplog: pytest.LogCaptureFixture) -> None:
    Server(ping_interval=3600, ping_timeout=25, upgrade_timeout=10)
    assert caplog.records == []
