"""Where ``websockets`` was installed without its C extension, frames are read as well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
SUITES = ("tests/unit/protocol/websocket/test_frames.py", "tests/unit/protocol/websocket/test_deflate.py")

WITHOUT_EXTENSION = """
import sys
sys.modules["websockets.speedups"] = None
import pytest
from engineio_wsgi.protocol.websocket import frames
assert frames.apply_mask.__module__ == "websockets.utils"
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.deadline(300)
def test_the_frame_suite_without_the_c_extension() -> None:
    command = [sys.executable, "-c", WITHOUT_EXTENSION, "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *SUITES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
