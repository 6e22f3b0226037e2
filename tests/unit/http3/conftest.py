"""Fixtures of the tests of http3/: a certificate, and listeners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.quic import Echo
from support.webtransport import make_certificate

from engineio_wsgi.http3.certificates import CertificateFiles
from engineio_wsgi.http3.listener import Http3Listener, Limits


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate and its key."""
    return make_certificate(tmp_path_factory.mktemp("http3"))


@pytest.fixture
def listen(certificate: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """A factory of listeners with an `Echo`: ``listen(**limits)``."""
    running: list[Http3Listener] = []

    def start(shared: bool = False, certificate: dict[str, str] = certificate, **limits: Any) -> Any:
        echo = Echo()
        files = CertificateFiles(**certificate)
        listener = Http3Listener(("127.0.0.1", 0), files, Limits(**{"connections": 1000, **limits}), echo.answer, shared)
        listener.listen()
        running.append(listener)
        return listener, echo

    yield start
    for listener in running:
        listener.close_connections()
