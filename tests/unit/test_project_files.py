"""The files that tell other programs of this project: they say what tox.ini and setup.cfg say."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def ini(name: str) -> ConfigParser:
    parsed = ConfigParser()
    parsed.read(ROOT / name)
    return parsed


def yaml_of(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


TOX = ini("tox.ini")
METADATA = ini("setup.cfg")["metadata"]
WORKFLOW = yaml_of(".github/workflows/ci.yml")
[JOB] = WORKFLOW["jobs"].values()


def test_the_workflow_runs_the_test_command() -> None:
    assert [step["run"] for step in JOB["steps"] if step.get("run", "").startswith(".ci")] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_the_workflow_has_the_pythons_of_tox() -> None:
    [step] = [step for step in JOB["steps"] if "setup-python" in step.get("uses", "")]
    wanted = {f"py{version.replace('.', '')}" for version in step["with"]["python-version"].split()}
    assert wanted == set(re.findall(r"py3\d+", TOX["tox"]["envlist"]))
    assert {f"Programming Language :: Python :: 3.{name[3:]}" for name in wanted} <= set(METADATA["classifiers"].splitlines())


def test_the_classifiers_name_the_frameworks() -> None:
    """Those that have an integration; the package is for synchronous Python."""
    frameworks = {line for line in METADATA["classifiers"].splitlines() if line.startswith("Framework :: ")}
    assert frameworks == {f"Framework :: {path.name.removesuffix('.py').title()}"
                          for path in (ROOT / "engineio_wsgi" / "contrib").iterdir() if path.name in ("flask.py", "django")}


def test_the_workflow_installs_what_the_tests_start() -> None:
    """What tests/prepare.sh would install as root."""
    needed = set(re.findall(r"missing\+=\((\S+)\)", (ROOT / "tests/prepare.sh").read_text())) - {"chromium"}
    [command] = [step["run"] for step in JOB["steps"] if "apt-get install" in step.get("run", "")]
    assert needed <= set(command.split())
    assert JOB["env"]["CHROMIUM"]
    assert "CHROMIUM" in TOX["testenv"]["passenv"].split()


@pytest.mark.parametrize("name", ["lint", "types"])
def test_each_hook_is_an_environment_of_tox(name: str) -> None:
    [repo] = yaml_of(".pre-commit-config.yaml")["repos"]
    [hook] = [hook for hook in repo["hooks"] if hook["id"] == name]
    environment = TOX[f"testenv:{name}"]
    assert hook["entry"] == environment["commands"].strip()
    required = ini("setup.cfg")["options"]["install_requires"].split()
    assert [each for each in hook["additional_dependencies"] if each not in required] == environment["deps"].split()


def test_the_manual_is_built_as_in_tox() -> None:
    built = yaml_of(".readthedocs.yaml")
    assert built["sphinx"] == {"configuration": "docs/conf.py", "fail_on_warning": True}
    assert "sphinx-build -W docs" in TOX["testenv:docs"]["commands"]
    assert {"requirements": "tests/requirements.txt"} in built["python"]["install"]
    for each in built["python"]["install"]:
        assert (ROOT / (each.get("requirements") or each["path"])).exists()


def test_the_links_are_those_of_the_name() -> None:
    assert METADATA["name"] in METADATA["url"]
    for link in METADATA["project_urls"].split():
        if link.startswith("https:"):
            assert METADATA["name"] in link
