"""The documentation: it builds without a warning, its snippets run, and what it names exists."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import PollingSession, open_session, upgrade
from support.manual import code_of, snippets

from engineio_wsgi import Server, emitter
from engineio_wsgi.cluster import router as routing
from engineio_wsgi.cluster.local.names import AbstractNames
from engineio_wsgi.errors import ErrorCode
from engineio_wsgi.log import LOGGERS, set_up_debug
from engineio_wsgi.transports.base import CloseReason

pytestmark = pytest.mark.ours
ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {str(page.relative_to(DOCS)): page.read_text() for page in sorted(DOCS.rglob("*.rst"))}
#: files of a project, which test_tutorials.py, test_periodic_work.py and test_tracing_recipes.py make
PROJECTS = ("start/django.rst", "guides/periodic-work.rst", "guides/tracing.rst")
WITH_SNIPPETS = [name for name, text in PAGES.items() if snippets(text) and name not in PROJECTS]


@pytest.mark.deadline(600)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-d", str(tmp_path / "trees"), str(DOCS),
               str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    options = (tmp_path / "site/reference/options.html").read_text()
    assert "max_http_buffer_size" in options
    assert "engineio_messages_sent_total" in (tmp_path / "site/reference/metrics.html").read_text()
    assert "--ping-interval SECONDS" in (tmp_path / "site/reference/command-line.html").read_text()


@pytest.mark.parametrize("name", WITH_SNIPPETS)
def test_the_snippets_of_a_page_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in one namespace; then whatever tests they have defined."""
    for module in (emitter, routing):
        # what a page broadcasts is not for the workers of other tests
        monkeypatch.setattr(module, "choose_names", lambda group: AbstractNames(f"{group} of {name} in {os.getpid()}"))
    names: dict[str, Any] = {"__name__": "snippets"}
    for code in code_of(PAGES[name]):
        if code.language == "python" and not code.name.startswith("test_"):
            exec(compile(code.text, name, "exec"), names)
    for test in [value for key, value in names.items() if key.startswith("test_")]:
        test()
    for value in list(names.values()):
        if type(value).__name__ in ("Server", "EngineIO"):
            value.close(timeout=0)


@pytest.mark.parametrize(("page", "least"), [("promises.rst", 15), ("reference/conformance.rst", 100)])
def test_the_tests_that_a_page_names_exist(page: str, least: int) -> None:
    named = re.findall(r"``(tests/[\w/]+\.py)::(\w+)``", PAGES[page])
    assert len(named) > least
    assert [test for test in named if f"def {test[1]}(" not in (ROOT / test[0]).read_text()] == []


def test_every_error_code_and_close_reason_is_explained() -> None:
    page = PAGES["guides/troubleshooting.rst"]
    assert [code for code in ErrorCode if f"* - {int(code)} {code.message}\n" not in page] == []
    assert [str(reason) for reason in CloseReason if f"``{reason}``" not in page] == []


def test_every_command_of_a_page_has_its_file() -> None:
    for name, text in PAGES.items():
        for path in re.findall(r"``(examples/[\w/.]+)``", text):
            assert (ROOT / path).exists(), (name, path)


# -- what is logged


def texts_of_the_package() -> list[str]:
    """All strings of the package, with … for what is put in."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "engineio_wsgi").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    strings = [node.value for node in nodes if isinstance(node, ast.Constant)]
    strings += ["".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                for node in nodes if isinstance(node, ast.JoinedStr)]
    return [re.sub(r"%[-.\d]*[a-z]", "…", text) for text in strings if isinstance(text, str)]


def is_in(quote: str, text: str) -> bool:
    """Whether the parts of a quote come one after the other in a text."""
    position = 0
    for part in quote.split("…"):
        position = text.find(part.strip(), position)
        if position < 0:
            return False
    return True


def quoted_lines() -> list[str]:
    """What the manual quotes from the log."""
    page = PAGES["guides/troubleshooting.rst"]
    section = page[page.index("Warnings in the log\n") : page.index("What goes on\n")]
    terms = re.findall(r"^``.*``$", section, re.MULTILINE)
    elsewhere = [quote for text in PAGES.values() for quote in re.findall(r"``([a-z][a-z ]+ …[a-z… ]*)``", text)]
    return [quote for term in terms for quote in re.findall(r"``(.+?)``", term)] + elsewhere


def test_log_lines_that_are_quoted_exist() -> None:
    texts = texts_of_the_package()
    quotes = quoted_lines()
    assert len(quotes) > 12
    assert [quote for quote in quotes if not any(is_in(quote, text) for text in texts)] == []


def test_every_logger_is_a_scope_that_the_manual_explains() -> None:
    sources = [path.read_text() for path in (ROOT / "engineio_wsgi").rglob("*.py")]
    used = {name for source in sources for name in re.findall(r"""getLogger\(["'](engine[\w.]*)["']\)""", source)}
    explained = re.findall(r"^   \* - ``(engine[\w.]*)``$", PAGES["guides/troubleshooting.rst"], re.MULTILINE)
    assert used <= set(LOGGERS)
    assert explained == list(LOGGERS)


@pytest.fixture
def unchanged_loggers() -> Iterator[None]:
    """Their levels and handlers are put back."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.alone("it is a cluster of its own")
@pytest.mark.usefixtures("unchanged_loggers")
def test_each_scope_prints_something(serve: Any, handler: str) -> None:
    """Of a session that begins and ends, in a cluster, and a bad request. Three scopes are about something else."""
    output = io.StringIO()
    set_up_debug({"DEBUG": "engine*"}, output)
    served = serve(cluster=f"local:scopes-{os.getpid()}")
    session = upgrade(open_session(served))
    session.say("x")
    assert session.hear() == "x"
    session.close()
    served.events.wait("close")
    if handler != "stock":
        assert served.connect().get("/", [("no token", "x")]).status == 400
    printed = {line.split(" ")[0] for line in output.getvalue().splitlines()}
    silent = {"engine.access", "engine.socketio", "engine.webtransport"} | ({"engine.http"} if handler == "stock" else set())
    assert printed == set(LOGGERS) - silent


# -- recipes


@pytest.mark.alone("the engine is the snippet's")
def test_a_room_goes_on_without_its_slow_and_closed_members(serve: Any) -> None:
    names: dict[str, Any] = {}
    for snippet in snippets(PAGES["guides/broadcasting.rst"])[:2]:
        exec(compile(snippet, "broadcasting", "exec"), names)
    server: Server = names["server"]
    server.off("connection", names["connected"])
    served = serve(None, server=server)
    slow, closing, well = ([PollingSession(served).open() for _ in range(count)] for count in (2, 2, 3))
    for session in slow:
        served.socket(session.sid).send("x" * server.options.max_buffered)
    for session in closing:
        served.socket(session.sid).send("x").close()
    well[0].say("hello")
    assert [session.hear() for session in well] == ["hello"] * 3
    assert {served.events.wait("close", number)["reason"] for number in (1, 2)} == {"client too slow"}
    for session in closing:
        assert session.hear() == "x"
    for session in well:
        session.close()
    served.events.wait("close", 7)
    assert server.members("lobby") == []
