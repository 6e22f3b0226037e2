"""http3/neighbours.py: processes on one UDP port pass each other's datagrams on, and no other user gets any."""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import gevent
import pytest

from engineio_wsgi.errors import ConfigurationError
from engineio_wsgi.http3 import neighbours
from engineio_wsgi.http3.neighbours import MARK_SIZE, Neighbours

PORT = 4433
CLIENT = ("192.0.2.1", 5000)


class Received:
    """A process, and what others have passed on to it."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Any]] = []
        self.neighbours = Neighbours(PORT, lambda data, address: self.datagrams.append((data, address)))

    def wait(self, size: int) -> None:
        """Block until it has received so many."""
        with gevent.Timeout(60):
            while len(self.datagrams) < size:
                gevent.sleep(0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the sockets, which is created by the first process."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return neighbours.folder_of_user(f"udp-{PORT}")


@pytest.fixture
def begin(folder: Path) -> Iterator[Callable[[], Received]]:
    """A factory of processes."""
    running: list[Received] = []

    def start() -> Received:
        running.append(Received())
        return running[-1]

    yield start
    for each in running:
        each.neighbours.close()


def test_a_datagram_reaches_the_process_whose_mark_its_id_has(begin: Any) -> None:
    first, second = begin(), begin()
    identifier = second.neighbours.mark + bytes(6)
    assert first.neighbours.pass_on(identifier, b"one\n", CLIENT)
    assert first.neighbours.pass_on(identifier, b"", ("::1", 1))
    second.wait(2)
    assert second.datagrams == [(b"one\n", CLIENT), (b"", ("::1", 1))]
    assert (first.neighbours.passed_on, second.neighbours.passed_on, first.datagrams) == (2, 0, [])


def test_many_datagrams_come_in_turns(begin: Any) -> None:
    first, second = begin(), begin()
    sent = 0
    for number in range(200):
        # one that finds no room is lost, as datagrams may be
        before = first.neighbours.passed_on
        assert first.neighbours.pass_on(second.neighbours.mark, str(number).encode(), CLIENT)
        sent += first.neighbours.passed_on - before
    assert 0 < sent <= 200
    second.wait(sent)
    assert [data for data, _ in second.datagrams] == [str(number).encode() for number in range(sent)]


def test_nobody_has_the_mark(begin: Any) -> None:
    first, second = begin(), begin()
    assert not first.neighbours.pass_on(first.neighbours.mark + bytes(6), b"", CLIENT)
    assert not first.neighbours.pass_on(b"\x01", b"", CLIENT)
    mark = second.neighbours.mark
    second.neighbours.close()
    second.neighbours.close()
    assert second.neighbours.fileno() == -1
    assert not first.neighbours.pass_on(mark, b"", CLIENT)


def test_no_other_user_can_take_the_place_of_a_process(begin: Any, folder: Path) -> None:
    first = begin()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == [first.neighbours.mark.hex()]
    # anybody can take an abstract name
    mark = bytes(byte ^ 0xFF for byte in first.neighbours.mark)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.bind(f"\0engineio-wsgi/udp/{PORT}/{mark.hex()}")
        assert not first.neighbours.pass_on(mark + bytes(6), b"secret", CLIENT)


def test_a_directory_that_others_can_enter_is_not_used(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match=f"on the UDP port {PORT} cannot reach each other: .* mode 0700; remove it"):
        Received()


def test_the_sockets_of_killed_processes_are_removed(begin: Any, folder: Path) -> None:
    folder.mkdir(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(folder / "0000"))
    first = begin()
    second = begin()
    assert {path.name for path in folder.iterdir()} == {first.neighbours.mark.hex(), second.neighbours.mark.hex()}
    first.neighbours.close()
    assert [path.name for path in folder.iterdir()] == [second.neighbours.mark.hex()]


def test_a_mark_that_is_taken(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = count()
    monkeypatch.setattr(neighbours.secrets, "token_bytes", lambda size: (next(marks) // 2).to_bytes(size, "big"))
    first, second = begin(), begin()
    assert (first.neighbours.mark, second.neighbours.mark) == (bytes(MARK_SIZE), b"\x00\x01")
    monkeypatch.setattr(neighbours.secrets, "token_bytes", bytes)
    with pytest.raises(ConfigurationError, match="Address already in use"):
        Received()


def test_other_systems(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours.sys, "platform", "darwin")
    with pytest.raises(ConfigurationError, match="need Linux"):
        Received()
