"""The pages of the manual, the files and commands in them, and a shell that runs the commands."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from support.deployment import Program
from support.processes import ROOT
from support.serving import EventLog, Served

DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
#: words that begin a command, in the midst of a sentence
PROGRAMS = (
    "apt apt-get bash cd curl docker engineio-wsgi flask git gunicorn haproxy make manage.py nginx node npm npx pip pytest "
    "python redis-cli redis-server sh sphinx-build systemctl systemd-analyze tox ulimit useradd uv"
)  # fmt: skip
BLOCK = re.compile(r"(?:^\.\. code-block:: (?:bash|console|shell|sh)|^(?!\.\. ).*::)\n\n((?:(?:    .*)?\n)+)", re.MULTILINE)
INLINE = re.compile(rf"``((?:{'|'.join(map(re.escape, PROGRAMS.split()))})(?: [^`]*)?)``")
CODE = re.compile(r"^\.\. code-block:: (\w+)\n(?:    :caption: (.+)\n)?\n((?:(?:    .*)?\n)+)", re.MULTILINE)
#: commands of a page that start a server, what has them listen on any port, and the port that they listen on as they are
SERVERS = {
    "flask run": ("--port 0", 5000),
    "engineio-wsgi serve ": ("--bind 127.0.0.1:0", 8000),
    "gunicorn ": ("-b 127.0.0.1:0 --no-control-socket", 8000),
    "python manage.py runengineio": ("0 --noreload", 8000),
}
#: commands after which the shell is another one
CHANGES = ("cd ", ". ", "export ")


@dataclass(frozen=True)
class Code:
    """A code block: its language, its file's name if it has one, its text, and what stands between it and the next one."""

    language: str
    name: str
    text: str
    after: str


def code_of(page: str) -> list[Code]:
    """The code blocks of a page, in their order."""
    blocks = list(CODE.finditer(page))
    ends = [*(block.start() for block in blocks), len(page)][1:]
    return [Code(block[1], block[2] or "", textwrap.dedent(block[3]), page[block.end() : end])
            for block, end in zip(blocks, ends, strict=True)]


def snippets(page: str, language: str = "python") -> list[str]:
    """The code blocks of one language."""
    return [code.text for code in code_of(page) if code.language == language]


def commands_of(text: str) -> list[str]:
    """The command lines of a page: those of its blocks that are neither Python nor a drawing, and those in its sentences."""
    found = []
    for block in map(textwrap.dedent, BLOCK.findall(text)):
        if block.isascii() and not is_python(block):
            found += lines_of(block)
    return [*found, *(" ".join(command.split()) for command in INLINE.findall(text))]


def commands_of_script(path: Path) -> list[str]:
    """The command lines in a script's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    lines = [line.strip() for line in docstring.splitlines() if line.startswith("    ")]
    return [re.split(r"  +", command)[0] for command in [*lines, *INLINE.findall(docstring)]]


def lines_of(block: str) -> list[str]:
    """The commands of a block: the lines after a prompt, or all lines if there is none."""
    lines = [line.strip() for line in block.splitlines() if line.strip()]
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [re.sub(r"  +# .*", "", line) for line in typed or lines]


def is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def check_requirement(text: str) -> None:
    """Check that a requirement names this package, and extras that it has."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = Requirement(text)
    assert needed.name == setup["metadata"]["name"]
    assert needed.extras <= set(setup["options.extras_require"])


def program(command: str) -> list[str]:
    """The words of a command, the program being the one that is installed beside this Python."""
    name, *arguments = shlex.split(command)
    if name == "python":
        return [sys.executable, *arguments]
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert path, f"there is no program {name}"
    return [path, *arguments]


class Shown(Program):
    """A server that was started by a command of the manual."""

    def __init__(self, folder: Path, command: list[str], cwd: Path, **environment: str) -> None:
        super().__init__(folder, command, lambda: self.port > 0, cwd=cwd, **environment)

    @property
    def port(self) -> int:
        """The port from its output; blocks until it has printed it."""
        match = re.search(r"https?://127\.0\.0\.1:(\d+)", self.logs())
        return int(match[1]) if match else 0

    @property
    def site(self) -> Served:
        """Connections to it, for a test."""
        return Served(("127.0.0.1", self.port), EventLog(), handler="shown")


class Finished(NamedTuple):
    """A command that has ended: it, and what it printed."""

    command: str
    output: str


class Shell:
    """Runs the commands of a page, beginning in an empty folder.

    ``pip install`` asks no index: what this Python has is made available in the environment that the page has made. Servers
    listen on any port. Nothing else is different.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self._folder = folder / "typed"
        self._folder.mkdir()
        self._logs = folder / "logs"
        self._changes: list[str] = []
        self._environment = environment

    @property
    def folder(self) -> Path:
        """The current folder."""
        return Path(self.type("pwd").output.strip())

    def write(self, name: str, text: str) -> None:
        """A file of the page, in the current folder; ``NAME (at the end)`` is added to what is there."""
        name, added, _ = name.partition(" (at the end)")
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text((path.read_text() if added else "") + text)

    def type(self, command: str) -> Finished:
        """Run a command, which must end well. ``cd``, ``.`` and ``export`` hold for those after it."""
        if command.startswith("pip install "):
            self._install(command.removeprefix("pip install ").strip("'"))
            return Finished(command, "")
        if command.startswith(CHANGES):
            self._changes.append(command)
            command = "true"
        done = subprocess.run(["bash", "-ec", self._script(command)], cwd=self._folder, env={**os.environ, **self._environment},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, (command, done.stdout)
        return Finished(command, done.stdout)

    def serve(self, command: str) -> Shown:
        """Start a server."""
        more = next(more for start, (more, _) in SERVERS.items() if start in command)
        return Shown(self._logs, ["bash", "-ec", self._script(f"exec {command} {more}")], self._folder, **self._environment)

    def _script(self, command: str) -> str:
        return "\n".join([*self._changes, command])

    def _install(self, requirement: str) -> None:
        """Make what this Python has importable in the environment that is active, with its programs."""
        if requirement != "pytest":
            check_requirement(requirement)
        environment = Path(self.type('echo "$VIRTUAL_ENV"').output.strip())
        assert (environment / "bin" / "activate").exists(), "no environment is active"
        own = Path(sys.executable).parent
        site = next(environment.glob("lib/python*/site-packages"))
        (site / "here.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in sys.path
                                               if path.endswith("-packages")) + f"{ROOT}\n")
        for name in ("flask", "gunicorn", "engineio-wsgi", "django-admin"):
            path = shutil.which(name, path=str(own))
            assert path, f"{name} is not installed"
            link = environment / "bin" / name
            if not link.exists():
                link.symlink_to(path)
