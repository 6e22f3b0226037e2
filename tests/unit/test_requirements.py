"""What the package requires is what is tested: the lower bounds have an environment of their own."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_lower_bounds_are_tested():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = setup["options"]["install_requires"].split()
    pinned = [line for line in (ROOT / "tests/lowest.txt").read_text().splitlines() if line and not line.startswith("#")]
    releases = [re.sub(r"(\.0)+$", "", line.replace("==", ">=")) for line in pinned]
    assert sorted(releases) == sorted(required)
