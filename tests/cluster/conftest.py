"""Groups of workers, in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.workers import Workers


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Workers]]:
    """A factory of groups of workers."""
    groups: list[Workers] = []

    def begin(*arguments: Any, **options: Any) -> Workers:
        folder = tmp_path / str(len(groups))
        folder.mkdir()
        groups.append(Workers(folder, *arguments, **options))
        return groups[-1]

    yield begin
    for group in groups:
        group.stop()
