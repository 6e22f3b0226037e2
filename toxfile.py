"""Lets tox find the Pythons that pyenv has installed and that are not on PATH; tox reads this file by itself."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from tox.plugin import impl

#: the folders of pyenv's versions that are releases of CPython
RELEASE = re.compile(r"3\.(\d+)\.(\d+)")


def pyenv_root() -> Path:
    """The folder that pyenv keeps everything in."""
    return Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")


def installed() -> dict[str, Path]:
    """The executable of the newest release of each minor version, by its name: ``python3.12``."""
    found: dict[str, tuple[int, Path]] = {}
    for folder in (pyenv_root() / "versions").glob("3.*"):
        release = RELEASE.fullmatch(folder.name)
        if release is None:
            continue
        name, patch = f"python3.{release[1]}", int(release[2])
        executable = folder / "bin" / name
        if os.access(executable, os.X_OK) and patch > found.get(name, (-1, executable))[0]:
            found[name] = (patch, executable)
    return {name: executable for name, (_, executable) in found.items()}


def is_on_path(name: str) -> bool:
    """Whether PATH has an interpreter of this name. pyenv's own, of versions that are not activated, only print an error."""
    shims = pyenv_root() / "shims"
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder and Path(folder) != shims]
    return shutil.which(name, path=os.pathsep.join(folders)) is not None


@impl
def tox_add_core_config(core_conf: Any, state: Any) -> None:
    """What tox calls before it looks for interpreters. In CI, one that is missing fails the run instead of being skipped."""
    options = state.conf.options
    missing = [str(executable) for name, executable in sorted(installed().items()) if not is_on_path(name)]
    options.discover = [*options.discover, *missing]
    if os.environ.get("CI", "").lower() in ("1", "true") and options.skip_missing_interpreters == "config":
        options.skip_missing_interpreters = "false"
