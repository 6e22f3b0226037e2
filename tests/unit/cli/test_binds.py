"""Where the command listens."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

import pytest

from engineio_wsgi.cli.binds import bind_text, inherited_binds, open_binds
from engineio_wsgi.errors import CannotListen


@pytest.mark.parametrize("text", ["127.0.0.1:0", ":8000", "[::1]:80", "localhost:65535", "unix:a", "unix:/a:b", "fd:3"])
def test_an_address_is_accepted(text: str) -> None:
    assert bind_text(text) == text


@pytest.mark.parametrize("text", ["", "8000", "host", "host:", "host:65536", "a:b:80", "unix:", "fd:", "fd:-1", "fd:x"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not HOST:PORT, unix:PATH or fd:NUMBER"):
        bind_text(text)


@pytest.mark.parametrize(("other", "count", "binds"), [(0, "2", ["fd:3", "fd:4"]), (1, "2", []), (0, "", [])])
def test_sockets_of_systemd(other: int, count: str, binds: list[str]) -> None:
    environ = {"LISTEN_PID": str(os.getpid() + other), "LISTEN_FDS": count, "LISTEN_FDNAMES": "a:b", "OTHER": "1"}
    assert inherited_binds(environ) == binds
    assert ("LISTEN_FDS" in environ) == (not binds)
    assert environ["OTHER"] == "1"


@pytest.mark.parametrize(("text", "url"), [("127.0.0.1:0", "https://127.0.0.1:{}/"), (":0", "https://localhost:{}/"),
                                           ("[::1]:0", "https://[::1]:{}/")])
def test_the_url_is_one_that_a_browser_understands(text: str, url: str) -> None:
    (bound,) = open_binds([text])
    assert bound.url("https") == url.format(bound.listener.getsockname()[1])
    bound.close()


def test_nothing_is_left_open_if_one_address_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen, match=f"cannot listen on {bind}: Address already in use"):
            open_binds([f"unix:{path}", bind])
    assert not path.exists()


def test_the_path_of_another_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    (bound,) = open_binds([f"unix:{path}"])
    assert bound.url("http") == f"unix:{path}"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        bound.close()
    assert path.exists()
