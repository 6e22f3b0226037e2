"""Groups of workers, in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

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


@pytest.fixture(params=["local", "redis"])
def name(request: pytest.FixtureRequest) -> str:
    """The option ``cluster`` of a cluster that no other test uses: one on this machine, and one over Redis."""
    if request.param == "local":
        return f"local:{uuid4()}"
    redis: RedisServer = request.getfixturevalue("shared_redis")
    return f"{redis.url}?group={uuid4()}"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may treat as it likes."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.resume()
    server.kill()
