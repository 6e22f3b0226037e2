"""The options that the command line and the environment set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from engineio_wsgi.options.options import Options
from engineio_wsgi.options.parsing import FORMS, TextForm
from engineio_wsgi.options.refusals import unknown, wrong

__all__ = ["from_environ", "parse_option", "simple_options"]

#: what is set in the environment for the package, and not for a server
NO_OPTIONS = frozenset({"inspector_password", "pure"})


def simple_options() -> dict[str, tuple[TextForm, str]]:
    """The options that can be set by text: the form of the text, and the help."""
    return {declared.name: (FORMS[declared.metadata["parse"]], declared.metadata["help"])
            for declared in fields(Options) if declared.metadata["parse"]}


def parse_option(name: str, text: str) -> object:
    """Convert the text of an option to its value.

    Raises:
        ConfigurationError: the text is not a value of the option.
    """
    declared = next(declared for declared in fields(Options) if declared.name == name)
    parse = declared.metadata["parse"]
    try:
        value = parse(text)
    except (KeyError, ValueError):
        raise wrong(name, text, FORMS[parse].expected) from None
    return declared.metadata["check"](name, value)


def from_environ(environ: Mapping[str, str], prefix: str = "ENGINEIO_") -> dict[str, object]:
    """The options that environment variables set (``ENGINEIO_PING_INTERVAL=10``), for ``Server(**…)``.

    Raises:
        ConfigurationError: a variable with the prefix is no option, or its text is no value of it.
    """
    given: dict[str, object] = {}
    names = simple_options()
    for variable, text in environ.items():
        if not variable.startswith(prefix):
            continue
        name = variable.removeprefix(prefix).lower()
        if name in NO_OPTIONS:
            continue
        if name not in names:
            raise unknown(name, names, "an option that the environment can set", lambda name: prefix + name.upper())
        given[name] = parse_option(name, text)
    return given
