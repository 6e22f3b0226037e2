"""Groups of workers, in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.redis import RedisServer
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


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may treat as it likes."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.resume()
    server.kill()
