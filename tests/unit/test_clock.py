"""The clock: monotonic, and not stopped by libraries that freeze the time of an application."""

from __future__ import annotations

import time

from freezegun import freeze_time

from engineio_wsgi.runtime.clock import monotonic


def test_it_is_the_monotonic_clock() -> None:
    before = time.monotonic()
    now = monotonic()
    assert before <= now <= time.monotonic()


def test_it_goes_on_while_the_time_is_frozen() -> None:
    real = monotonic()
    with freeze_time("2001-01-01"):
        frozen = time.monotonic()
        assert monotonic() >= real
        assert monotonic() != frozen
