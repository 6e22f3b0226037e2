"""Random ids: their form, and that parent and child of a fork never have the same."""

from __future__ import annotations

import re
import subprocess
import sys

from engineio_wsgi.runtime.random_ids import random_id

#: takes some ids of a batch, forks, and prints the ids that child and parent take from then on
FORKING = """
import os, sys
from engineio_wsgi.runtime.random_ids import random_id
first = [random_id() for _ in range(3)]
is_child = os.fork() == 0
ids = [random_id() for _ in range(200)]
if not is_child:
    os.wait()
sys.stdout.write("".join(each + "\\n" for each in (ids if is_child else first + ids)))
sys.stdout.flush()
"""


def test_ids_are_all_different_and_safe_in_an_address() -> None:
    ids = [random_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"[\w-]{20}", each, re.ASCII) for each in ids)


def test_a_forked_child_has_other_ids_than_its_parent() -> None:
    ids = subprocess.run([sys.executable, "-c", FORKING], check=True, capture_output=True, text=True).stdout.split()
    assert len(ids) == 403
    assert len(set(ids)) == 403
