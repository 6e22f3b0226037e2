"""Which hosts a request may be addressed to."""

from __future__ import annotations

import pytest

from engineio_wsgi.errors import Forbidden
from engineio_wsgi.http.policies.hosts import HostPolicy

ALLOWED = ["Example.org", ".wild.example", "localhost:8000", "[::1]"]


@pytest.mark.parametrize("host", [
    "example.org", "EXAMPLE.org:443", "example.org.", "wild.example", "a.wild.example", "a.b.wild.example:80", "localhost:8000",
    "[::1]", "[::1]:8000",
])
def test_allowed(host: str):
    HostPolicy(ALLOWED).check({"HTTP_HOST": host})


@pytest.mark.parametrize("host", [
    "", "evil.example", "example.org.evil.example", "notexample.org", "notwild.example", "localhost", "localhost:8001",
    "example.org:x", "[::2]", "a.example.org",
])
def test_refused(host: str):
    with pytest.raises(Forbidden, match="allowed_hosts"):
        HostPolicy(ALLOWED).check({"HTTP_HOST": host})


def test_any():
    HostPolicy(None).check({})
