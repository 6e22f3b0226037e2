"""The documentation: it builds without a warning, its snippets run, and what it names exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from engineio_wsgi import emitter
from engineio_wsgi.cluster import routing
from engineio_wsgi.cluster.addresses import AbstractNames
from engineio_wsgi.errors import ErrorCode
from engineio_wsgi.transports.base import CloseReason

pytestmark = pytest.mark.ours
ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {str(page.relative_to(DOCS)): page.read_text() for page in sorted(DOCS.rglob("*.rst"))}
SNIPPET = re.compile(r"^\.\. code-block:: python\n\n((?:(?:    .*)?\n)+)", re.MULTILINE)
WITH_SNIPPETS = [name for name, text in PAGES.items() if SNIPPET.search(text)]


@pytest.mark.deadline(120)
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
    for snippet in SNIPPET.findall(PAGES[name]):
        exec(compile(textwrap.dedent(snippet), name, "exec"), names)
    for test in [value for key, value in names.items() if key.startswith("test_")]:
        test()
    for value in list(names.values()):
        if type(value).__name__ in ("Server", "EngineIO"):
            value.close(timeout=0)


def test_the_promises_name_tests_that_exist() -> None:
    named = re.findall(r"``(tests/[\w/]+\.py)::(\w+)``", PAGES["promises.rst"])
    assert len(named) > 15
    assert [test for test in named if f"def {test[1]}(" not in (ROOT / test[0]).read_text()] == []


def test_every_error_code_and_close_reason_is_explained() -> None:
    page = PAGES["guides/troubleshooting.rst"]
    assert [code for code in ErrorCode if f"* - {int(code)} {code.message}\n" not in page] == []
    assert [str(reason) for reason in CloseReason if f"``{reason}``" not in page] == []


def test_every_command_of_a_page_has_its_file() -> None:
    for name, text in PAGES.items():
        for path in re.findall(r"``(examples/[\w/.]+)``", text):
            assert (ROOT / path).exists(), (name, path)
