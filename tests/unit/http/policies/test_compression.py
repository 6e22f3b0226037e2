"""How ``Accept-Encoding`` chooses the compression of a response."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest

from engineio_wsgi.http.policies.compression import choose_coding, compress
from engineio_wsgi.options.values import HttpCompression

BODY = b"4hello" * 400
SETTINGS = HttpCompression(threshold=1024)
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("gzip, deflate, br, zstd", "gzip"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("*", "gzip"),
        ("*;q=0.1", "gzip"),
        ("gzip;q=0, *", "deflate"),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("gzip;q=0", None),
        ("gzip;q=0, deflate;q=0", None),
        ("*;q=0", None),
        ("identity", None),
        ("br", None),
        ("x" * 50, None),
        (";;,,=q;q", None),
        ("gzipped", None),
    ],
)
def test_choice(header: str, coding: str | None) -> None:
    assert choose_coding(header) == coding


@pytest.mark.parametrize("coding", DECOMPRESS)
def test_compressed(coding: str) -> None:
    body, used = compress(BODY, coding, SETTINGS)
    assert used == coding
    assert len(body) < len(BODY) / 10
    assert DECOMPRESS[coding](body) == BODY


@pytest.mark.parametrize("header", ["", "identity", "br"])
def test_not_wanted(header: str) -> None:
    assert compress(BODY, header, SETTINGS) == (BODY, None)


def test_threshold() -> None:
    assert compress(b"x" * 1023, "gzip", SETTINGS) == (b"x" * 1023, None)
    assert compress(b"x" * 1024, "gzip", SETTINGS)[1] == "gzip"
    assert compress(b"", "gzip", HttpCompression(threshold=0))[1] == "gzip"


def test_level() -> None:
    data = b"".join(b"message %d of client %d;" % (number, number * number % 97) for number in range(1000))
    fast, best = (len(compress(data, "gzip", HttpCompression(level=level))[0]) for level in (1, 9))
    assert len(compress(data, "gzip", HttpCompression(level=0))[0]) > len(data) > fast > best


def test_a_long_header_is_not_cut_into_another_one() -> None:
    header = "br" + "," * 192 + " gzip;q=0"
    assert choose_coding(header[:200]) == "gzip"
    assert compress(BODY, header, SETTINGS) == (BODY, None)


def test_a_long_header_is_not_looked_at() -> None:
    assert compress(BODY, "gzip" + "," * 196, SETTINGS)[1] == "gzip"
    assert compress(BODY, "gzip" + "," * 197, SETTINGS) == (BODY, None)


def test_the_same_body_is_the_same_whenever() -> None:
    assert compress(BODY, "gzip", SETTINGS)[0][4:8] == bytes(4)
