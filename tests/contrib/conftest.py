"""Fixtures of the frameworks' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.flask_site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    """One that is stopped when the test ends."""
    made = Site()
    yield made
    made.stop()
