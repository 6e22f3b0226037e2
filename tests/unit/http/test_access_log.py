"""http/access_log.py: gevent's format."""

from __future__ import annotations

import re

import gevent.pywsgi
import pytest

from engineio_wsgi.http.access_log import format_line, is_silent


def test_a_line() -> None:
    line = format_line(("1.2.3.4", 5), "GET / HTTP/1.1", "200", 12, 0.25)
    assert re.fullmatch(r'1\.2\.3\.4 - - \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "GET / HTTP/1\.1" 200 12 0\.250000', line)


def test_what_is_missing_is_a_dash() -> None:
    assert re.fullmatch(r'- - - \[[^]]+\] "" 400 - -', format_line("", None, "400", 0, None))


@pytest.mark.parametrize(("log", "silent"), [(None, True), ("default", False)])
def test_a_log_that_discards_its_lines_is_silent(log: str | None, silent: bool) -> None:
    server = gevent.pywsgi.WSGIServer(("127.0.0.1", 0), log=log)
    assert is_silent(server.log) is silent
    assert is_silent(None)
