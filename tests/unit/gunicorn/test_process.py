"""The generations of gunicorn's workers, as its master counts them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from engineio_wsgi.gunicorn import process
from engineio_wsgi.handover import Generations


class Settings:
    """gunicorn's settings."""

    workers = 2


@pytest.fixture(autouse=True)
def generations(monkeypatch: pytest.MonkeyPatch) -> Generations:
    """Those of a master that has started no worker."""
    made = Generations()
    monkeypatch.setattr(process, "_generations", made)
    monkeypatch.setattr(process, "_settings", [])
    monkeypatch.setattr(process, "_numbers", [])
    return made


def generation_of(settings: Any) -> int:
    """The generation of the worker that is being started."""
    return process.new_handover(settings)._generation


def test_workers_with_the_same_settings_are_one_generation(generations: Generations) -> None:
    first, second = Settings(), Settings()
    for settings, generation in ((first, 1), (first, 1), (second, 2)):
        process.count_worker(settings)
        assert (generation_of(settings), generations.latest) == (generation, generation)


def test_a_worker_that_starts_during_a_reload_belongs_to_the_generation_in_which_it_was_started(generations: Generations) -> None:
    settings = Settings()
    process.count_worker(settings)
    generations.begin()
    assert generation_of(settings) == 1


def test_without_a_counter_a_worker_has_no_generation() -> None:
    assert generation_of(Settings()) == 0


def test_a_generation_serves_as_long_as_its_process_lives(generations: Generations) -> None:
    assert generations.serving == 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        generations.serve(7)
    assert generations.serving == 0
    generations.serve(8)
    assert (generations.serving, generations.latest) == (8, 0)
