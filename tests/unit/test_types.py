"""The package's types: ``Any`` is rare, and each use says why nothing more precise is possible."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "engineio_wsgi"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
#: uses of ``Any`` in the whole package
LIMIT = 100


def uses(node: ast.AST, statement: int = 1) -> Iterator[tuple[int, int]]:
    """The uses of ``Any``, imports not counted: the line of each, and the first line of its statement."""
    for child in ast.iter_child_nodes(node):
        first = child.lineno if isinstance(child, ast.stmt) else statement
        if (isinstance(child, ast.Name) and child.id == "Any") or (isinstance(child, ast.Attribute) and child.attr == "Any"):
            yield child.lineno, first
        yield from uses(child, first)


def comments(source: str) -> tuple[set[int], set[int]]:
    """The lines that have a comment, and of these the lines that have nothing else."""
    found = [token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT]
    return {token.start[0] for token in found}, {token.start[0] for token in found if token.line.lstrip().startswith("#")}


def unexplained(source: str) -> list[int]:
    """The lines that use ``Any`` without a comment: on the line, on the statement's first line, or on the line above either."""
    anywhere, alone = comments(source)
    return [line for line, first in uses(ast.parse(source)) if not ({line, first} & anywhere or {line - 1, first - 1} & alone)]


def test_any_is_rare() -> None:
    counts = {module: len(list(uses(ast.parse((PACKAGE / module).read_text())))) for module in MODULES}
    assert 0 < sum(counts.values()) < LIMIT, {module: count for module, count in counts.items() if count}


@pytest.mark.parametrize("module", MODULES)
def test_each_any_has_its_reason_in_a_comment(module: str) -> None:
    assert unexplained((PACKAGE / module).read_text()) == []


@pytest.mark.parametrize(("source", "lines"), [
    ("a: Any = 1", [1]),
    ("a: typing.Any = 1", [1]),
    ("from typing import Any", []),
    ("a: Any = 1  # why", []),
    ("# why\na: Any = 1", []),
    ("a = 1  # something else\nb: Any = 1", [2]),
    ("# why\n\na: Any = 1", [3]),
    ("def f(a: int,  # why\n      b: Any) -> Any: ...", []),
    ("def f(a: int,\n      b: Any) -> None:\n    c: Any = 1  # why", [2]),
    ("a = '# no comment'\nb: list[Any] = []", [2]),
])
def test_what_counts_as_explained(source: str, lines: list[int]) -> None:
    assert unexplained(source) == lines
