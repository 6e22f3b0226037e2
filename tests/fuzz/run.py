"""Coverage-guided fuzzing with atheris: ``python tests/fuzz/run.py TARGET [libFuzzer's arguments]``.

New inputs that reach new code are kept in ``tests/fuzz/corpus/TARGET``; the tests replay that folder. An input that breaks a
promise is written to the working directory, and the run ends with its traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["engineio_wsgi"]):
    from targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer's limits are reached (``-max_total_time=60``, ``-runs=100000``) or something is found."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(TARGETS)} [-max_total_time=60 …]")
    name = sys.argv.pop(1)
    folder = Path(__file__).parent / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], str(folder), *sys.argv[1:]], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
