"""The files whose changes restart the workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engineio_wsgi.cli.watching import WatchedFiles, short_name


def test_a_file_that_was_modified_is_found_once(tmp_path: Path) -> None:
    changing, other = tmp_path / "a.py", tmp_path / "b.py"
    files = WatchedFiles()
    for path in (changing, other):
        path.write_text("")
    files.add([str(changing), str(other), None])
    assert files.changed() == []
    os.utime(changing, ns=(1, 1))
    files.add([str(changing)])
    assert files.changed() == [str(changing)]
    assert files.changed() == []


def test_a_file_that_is_replaced_has_changed_when_it_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("")
    files = WatchedFiles()
    files.add([str(path)])
    path.unlink()
    assert files.changed() == []
    path.write_text("new")
    os.utime(path, ns=(1, 1))
    assert files.changed() == [str(path)]


def test_names_are_short_while_the_current_folder_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert short_name(str(folder / "a.py")) == "a.py"
    folder.rmdir()
    assert short_name("/x/a.py") == "/x/a.py"
