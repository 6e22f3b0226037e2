"""Fixtures of the manual's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent.parent)]

from support.node import Browser  # noqa: E402


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Headless Chromium with an empty page. The fixture's parameter, if it has one, is the driver's arguments."""
    browser = Browser(*getattr(request, "param", ()))
    yield browser
    browser.stop()
