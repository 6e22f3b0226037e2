"""runtime/private_folders.py: directories that no other user can enter."""

from __future__ import annotations

from pathlib import Path

import pytest

from engineio_wsgi.runtime import private_folders
from engineio_wsgi.runtime.private_folders import folder_of_user, is_private, make_private


def test_a_new_directory_is_private_and_may_be_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert not is_private(folder)
    make_private(folder)
    make_private(folder)
    assert is_private(folder)


@pytest.mark.parametrize("what", ["open", "file", "link"])
def test_what_another_user_may_have_made_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "taken"
    if what == "open":
        folder.mkdir()
        folder.chmod(0o777)
    elif what == "file":
        folder.touch(0o600)
    else:
        (tmp_path / "elsewhere").mkdir(0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="is not a directory of this user with mode 0700; remove it"):
        make_private(folder)


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert folder_of_user("x").parent == tmp_path
    for other in ("", str(tmp_path / "nowhere")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", other)
        assert folder_of_user("x").parent == Path(private_folders.gettempdir())
