"""Hints for wrong command lines, such as those of other programs. The only I/O is a check whether a file exists."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from engineio_wsgi.options.aliases import find_alias

__all__ = ["argument_hint", "attribute_hint", "module_hint"]

_OF_SERVE = "it is a flag of serve: engineio-wsgi serve module:app"
#: flags of other servers' commands (flask, gunicorn, uvicorn, waitress, daphne, runserver)
FLAGS = {
    **dict.fromkeys(("--port", "-p", "--host", "--listen", "-l", "-b", "--address"), "did you mean --bind HOST:PORT?"),
    **dict.fromkeys(("-w", "--processes"), "did you mean --workers?"),
    "--threads": "each request has a greenlet instead; did you mean --workers?",
    **dict.fromkeys(("-k", "--worker-class"), "all workers run on gevent; leave it out"),
    "--workers": f"{_OF_SERVE} --workers NUMBER",
    **dict.fromkeys(("--verbose", "-v"), "did you mean --log-level info?"),
    **dict.fromkeys(("--ssl-certfile", "--cert"), "did you mean --certfile?"),
    **dict.fromkeys(("--ssl-keyfile", "--key"), "did you mean --keyfile?"),
    **dict.fromkeys(("--app", "-a"), "give the application without a flag: serve module:app"),
    "--reload": f"{_OF_SERVE} --reload",
    "--timeout": "did you mean --graceful-timeout?",
    "--debug": "did you mean --log-level debug?",
}
#: what applications are usually called
USUAL = ("app", "application", "wsgi_app", "wsgi")


def argument_hint(message: str, given: Sequence[str], known: Sequence[str]) -> str:
    """The hint for a wrong argument, as a text that begins with ``"; "``; empty if there is none.

    Args:
        message: argparse's.
        given: all arguments.
        known: the flags that there are.
    """
    unknown = [flag for argument in given if (flag := argument.partition("=")[0]).startswith("-") and flag not in known]
    if unknown and message.startswith(("unrecognized arguments: ", "argument command: invalid choice: ")):
        return _flag_hint(unknown[0], known)
    command = re.match("argument command: invalid choice: '([^']*(?::|[.]py)[^']*)'", message)
    return f"; did you mean serve {command[1]}?" if command else ""


def _flag_hint(flag: str, known: Sequence[str]) -> str:
    if flag in FLAGS:
        return f"; {FLAGS[flag]}"
    similar = difflib.get_close_matches(flag, known, 1, 0.75)
    alias = find_alias(flag, [each.removeprefix("--").replace("-", "_") for each in known])
    if alias is not None:
        return f"; did you mean --{alias.option.replace('_', '-')}?" if alias.option else f"; {alias.text}"
    return f"; did you mean {similar[0]}?" if similar else ""


def module_hint(name: str, attribute: str, modules: Mapping[str, ModuleType]) -> str:
    """The hint for the name of a file, or for a module and its application with a dot between them; empty if there is none.

    Args:
        name: of the module that is not there.
        attribute: what was to be got out of it.
        modules: those that have been imported.
    """
    path = name.removesuffix(".py")
    if path != name or "/" in name:
        parts = [part for part in re.split(r"[/\\]", path) if part != "."]
        is_there = Path(f"{path}.py").is_file() or path != name
        meant = ".".join(parts)
        return f"; did you mean '{meant}:{attribute}'?" if is_there and all(map(str.isidentifier, meant.split("."))) else ""
    parent, _, last = name.rpartition(".")
    if parent in modules and hasattr(modules[parent], last):
        return f"; did you mean '{parent}:{last}'?"
    return ""


def attribute_hint(module: ModuleType, name: str) -> str:
    """The hint for a name that a module does not have: a similar name, or that of its application; empty if there is none."""
    callables = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
    usual = [each for each in USUAL if each in callables]
    similar = difflib.get_close_matches(name, callables, 1) or usual
    return f"; did you mean '{module.__name__}:{similar[0]}'?" if similar else ""
