"""http3/certificates.py: which certificate new connections get, and when the files are looked at."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import pytest
from aioquic.quic.configuration import QuicConfiguration
from support.webtransport import make_certificate

from engineio_wsgi.http3.certificates import LOOK_PERIOD, CertificateFiles
from engineio_wsgi.runtime.clock import monotonic


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Two certificates, each with its key."""
    return [make_certificate(tmp_path_factory.mktemp("certificate")) for _ in range(2)]


class Renewed:
    """The files of a server, which are replaced."""

    def __init__(self, folder: Path, pairs: list[dict[str, str]]) -> None:
        self._pairs = pairs
        self.certfile, self.keyfile = folder / "cert.pem", folder / "key.pem"
        self.put(0, "certfile", "keyfile")
        self.files = CertificateFiles(str(self.certfile), str(self.keyfile))
        self._now = monotonic()

    def put(self, number: int, *names: str) -> None:
        """Replace files by those of a pair, as programs that renew certificates do."""
        for name in names:
            path: Path = getattr(self, name)
            fresh = path.with_suffix(".new")
            fresh.write_bytes(Path(self._pairs[number][name]).read_bytes())
            os.replace(fresh, path)

    def later(self, seconds: float = LOOK_PERIOD) -> QuicConfiguration:
        """What a client gets that connects later."""
        self._now += seconds
        return self.files.current(self._now)


@pytest.fixture
def renewed(tmp_path: Path, pairs: list[dict[str, str]]) -> Renewed:
    return Renewed(tmp_path, pairs)


def test_files_that_have_not_changed_are_not_read(renewed: Renewed) -> None:
    first = renewed.files.configuration
    assert renewed.later() is first
    assert renewed.later() is first


def test_files_that_have_changed_are_read_at_the_next_look(renewed: Renewed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine.webtransport")
    first = renewed.later()
    renewed.put(1, "certfile", "keyfile")
    assert renewed.later(LOOK_PERIOD / 2) is first
    second = renewed.later()
    assert second.certificate.serial_number != first.certificate.serial_number
    assert renewed.later() is second
    assert caplog.messages == [f"the certificate in {renewed.certfile} was read again"]


def test_a_certificate_whose_key_has_not_come_yet(renewed: Renewed, caplog: pytest.LogCaptureFixture) -> None:
    first = renewed.later()
    renewed.put(1, "certfile")
    assert renewed.later() is first
    assert renewed.later() is first
    assert len(caplog.messages) == 1, "once for each change"
    assert f"is not that of the certificate in {renewed.certfile}" in caplog.text
    renewed.put(1, "keyfile")
    assert renewed.later().certificate.serial_number != first.certificate.serial_number


def test_a_file_that_has_gone(renewed: Renewed, caplog: pytest.LogCaptureFixture) -> None:
    first = renewed.later()
    renewed.keyfile.unlink()
    assert renewed.later() is first
    assert renewed.later() is first
    assert len(caplog.messages) == 1
    assert "the former one is kept: [Errno 2]" in caplog.text
    with pytest.raises(FileNotFoundError):
        renewed.files.reload()
    assert renewed.files.configuration is first


def test_reloading_now(renewed: Renewed) -> None:
    first = renewed.files.configuration
    renewed.put(1, "certfile", "keyfile")
    renewed.files.reload()
    assert renewed.files.configuration.certificate.serial_number != first.certificate.serial_number
    assert renewed.later() is renewed.files.configuration


def test_one_file_with_both(pairs: list[dict[str, str]], tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(Path(pairs[0]["certfile"]).read_text() + Path(pairs[0]["keyfile"]).read_text())
    assert CertificateFiles(str(both), None).configuration.private_key is not None


def test_what_cannot_be_used(pairs: list[dict[str, str]], tmp_path: Path) -> None:
    certfile, keyfile = pairs[0]["certfile"], pairs[0]["keyfile"]
    locked, empty = tmp_path / "locked.pem", tmp_path / "empty.pem"
    subprocess.run(["openssl", "pkcs8", "-topk8", "-in", keyfile, "-out", locked, "-passout", "pass:x"], check=True)
    empty.touch()
    refused = [((certfile, None), "has no private key"), ((certfile, pairs[1]["keyfile"]), "is not that of the certificate"),
               ((certfile, str(locked)), "[Pp]assword"), ((str(empty), keyfile), "(?i)unable to load|index")]
    for files, said in refused:
        with pytest.raises(ValueError, match=said):
            CertificateFiles(*files)
