"""Fixtures of the manual's tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent.parent)]

from support.node import Driver  # noqa: E402

DRIVER = Path(__file__).parent.parent / "interop" / "drivers" / "browser.js"


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Headless Chromium with an empty page; see the driver for what it can be told. Its arguments may be the parameter."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    driver = Driver(str(DRIVER), chromium, *getattr(request, "param", ()))
    driver.events.wait("ready")
    yield driver
    driver.stop()
