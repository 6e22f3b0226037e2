"""The folders of the package import each other in one direction only: `docs/architecture.rst` has the floors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "engineio_wsgi"
NAME = PACKAGE.name


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def room(module: str) -> str:
    """The folder of a module at the top of the package; a loose file is a room of its own."""
    return ".".join(module.split(".")[:2])


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, at its top and inside of its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == NAME:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == NAME)


def rooms() -> dict[str, set[str]]:
    """Every room, and the rooms that it imports from."""
    edges: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        here = edges.setdefault(room(module), set())
        here |= {room(other) for other in imported(path)} - {room(module), NAME}
    edges.pop(NAME)
    return edges


def test_no_two_rooms_import_each_other() -> None:
    order = list(TopologicalSorter(rooms()).static_order())
    assert order.index(f"{NAME}.session") < order.index(f"{NAME}.engine") < order.index(f"{NAME}.cluster")


def test_the_engine_does_not_know_that_there_are_other_workers() -> None:
    assert not {f"{NAME}.cluster", f"{NAME}.emitter"} & rooms()[f"{NAME}.engine"]


def test_every_room_says_what_it_owns() -> None:
    silent = [module for module, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_the_files_that_the_architecture_names_exist() -> None:
    text = (PACKAGE.parent / "docs/architecture.rst").read_text()
    exist = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*")}
    # where a sentence is about a room, it names the files without it
    named = {name.rstrip("/") for name in re.findall(r"``((?!tests/)[a-z_0-9]+/[a-z_0-9/]*)``", text)}
    assert {name for name in named if not any(path == name or path.endswith(f"/{name}") for path in exist)} == set()
