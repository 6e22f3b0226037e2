"""Logging: which scopes a DEBUG variable chooses, how a line looks, and what is left alone."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from engineio_wsgi.log import LOGGERS, DebugHandler, Scopes, set_up_debug, shorten

NAMES = LOGGERS


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", ()),
        ("engine*", NAMES),
        ("*", NAMES),
        ("engine", ("engine",)),
        ("engine.*", NAMES[1:]),
        ("engine:*", NAMES[1:]),
        ("engine:ws", ("engine.ws",)),
        ("engine.ws,engine.http", ("engine.ws", "engine.http")),
        ("  engine.ws   engine.http ", ("engine.ws", "engine.http")),
        ("engine*,-engine.http,-engine.ws", ("engine", "engine.socket", "engine.polling", *NAMES[5:])),
        ("-engine.http,engine*", (*NAMES[:4], *NAMES[5:])),
        ("engine*,-*", ()),
        ("-engine", ()),
        ("*.ws", ("engine.ws",)),
        ("express*,enginex", ()),
        ("engine[.]ws", ()),
    ],
)
def test_scopes(text: str, chosen: tuple[str, ...]):
    scopes = Scopes(text)
    assert tuple(name for name in NAMES if scopes.chooses(name)) == chosen


def test_shorten():
    assert shorten("Vwp_esBFT23JQN7sLnre2X3E") == "Vwp_es…"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def levels() -> Iterator[None]:
    """The loggers' levels and handlers are put back."""
    before = {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in NAMES}
    yield
    for name, (level, handlers) in before.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers[:] = handlers


def lines_of(debug: str, stream: io.StringIO) -> list[str]:
    """What is printed when every logger says its name at DEBUG."""
    set_up_debug({"DEBUG": debug}, stream)
    for name in NAMES:
        logging.getLogger(name).debug("from %s", name)
    return stream.getvalue().splitlines()


@pytest.mark.usefixtures("levels")
def test_a_line():
    lines = lines_of("engine.ws", io.StringIO())
    assert len(lines) == 1
    assert re.fullmatch(r"engine\.ws from engine\.ws \+\d+ms", lines[0])


@pytest.mark.usefixtures("levels")
def test_lines_are_coloured_on_a_terminal_each_scope_alike():
    stream = Terminal()
    lines_of("engine*", stream)
    first = [line.split("\x1b[0m")[0] for line in stream.getvalue().splitlines()]
    assert [re.fullmatch(r"\x1b\[3\d;1m(.*)", start).group(1) for start in first] == list(NAMES)  # type: ignore[union-attr]
    again = [line.split("\x1b[0m")[0] for line in lines_of("engine*", Terminal())[: len(NAMES)]]
    assert again == first


@pytest.mark.usefixtures("levels")
@pytest.mark.parametrize("debug", ["", "express*", "-engine*"])
def test_nothing_changes_without_a_scope_of_this_package(debug: str):
    handlers = list(logging.getLogger("engine").handlers)
    assert set_up_debug({"DEBUG": debug}) is None
    assert set_up_debug({}) is None
    assert logging.getLogger("engine").handlers == handlers
    assert {logging.getLogger(name).level for name in NAMES} == {logging.NOTSET}


@pytest.mark.usefixtures("levels")
@pytest.mark.parametrize(
    ("debug", "quiet"),
    [("engine.ws", ["engine", "engine.socket"]), ("engine*,-engine.ws", ["engine.ws"]), ("engine", ["engine.http"])],
)
def test_a_scope_that_is_not_selected_is_not_enabled(debug: str, quiet: list[str]):
    set_up_debug({"DEBUG": debug}, io.StringIO())
    assert not any(logging.getLogger(name).isEnabledFor(logging.DEBUG) for name in quiet)


@pytest.mark.usefixtures("levels")
def test_a_traceback_is_printed():
    stream = io.StringIO()
    set_up_debug({"DEBUG": "engine*"}, stream)
    try:
        raise KeyError("lost")
    except KeyError:
        logging.getLogger("engine").debug("went wrong", exc_info=True)
    assert "Traceback" in stream.getvalue()
    assert "KeyError: 'lost'" in stream.getvalue()


class Broken(io.StringIO):
    """A stream whose reader went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.usefixtures("levels")
@pytest.mark.parametrize(("stream", "message"), [(Broken(), "%s"), (io.StringIO(), "%d")])
def test_a_line_that_cannot_be_written_does_not_fail_its_caller(
    stream: io.StringIO, message: str, monkeypatch: pytest.MonkeyPatch
):
    failed: list[logging.LogRecord] = []
    monkeypatch.setattr(DebugHandler, "handleError", lambda self, record: failed.append(record))
    monkeypatch.setattr(logging.getLogger("engine"), "propagate", False)
    set_up_debug({"DEBUG": "engine*"}, stream)
    logging.getLogger("engine").debug(message, "text")
    assert [record.name for record in failed] == ["engine"]


def test_leaves_is_true_for_records_that_are_not_written():
    handler = DebugHandler(Scopes("*,-engine.ws"), io.StringIO())

    def record(name: str) -> logging.LogRecord:
        return logging.LogRecord(name, logging.DEBUG, "", 0, "", (), None)

    left = [name for name in (*NAMES, "enginex", "other") if handler.leaves(record(name))]
    assert left == ["engine.ws", "enginex", "other"]


def test_importing_the_package_leaves_logging_alone():
    script = """
import logging
import engineio_wsgi
root, engine = logging.getLogger(), logging.getLogger("engine")
assert root.handlers == [] and root.level == logging.WARNING, root.handlers
assert engine.handlers == []
assert engine.propagate and engine.level == logging.NOTSET
engine.info("nobody asked for this")
engine.error("a listener failed")
"""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "a listener failed\n")
