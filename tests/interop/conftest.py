"""Fixtures for real clients in processes of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from support.node import Browser, Driver  # noqa: E402

DRIVERS = Path(__file__).parent / "drivers"


@pytest.fixture
def drive() -> Iterator[Any]:
    """A factory of client processes: ``drive("node_client.js", …)``."""
    running: list[Driver] = []

    def start(script: str, *arguments: str) -> Driver:
        path = str(DRIVERS / script)
        running.append(Driver(*([path] if script.endswith(".js") else [sys.executable, path]), *arguments))
        return running[-1]

    yield start
    for driver in running:
        driver.stop()


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Headless Chromium with an empty page."""
    browser = Browser()
    yield browser
    browser.stop()
