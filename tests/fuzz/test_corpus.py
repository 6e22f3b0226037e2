"""What the fuzzer has found worth keeping is tried again: see ``tests/fuzz/README.rst``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

FUZZ = Path(__file__).parent


def load_targets() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_targets", FUZZ / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TARGETS


TARGETS = load_targets()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str):
    inputs = sorted((FUZZ / "corpus" / name).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[name](path.read_bytes())
