"""Fixtures for the example deployment: the application, and a proxy in front of it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.deployment import Backend, Proxy, Site, free_port
from support.node import Driver

NODE_CLIENT = Path(__file__).parent.parent / "interop" / "drivers" / "node_client.js"


@dataclass
class Deployment:
    """A proxy, and the application behind it."""

    proxy: Proxy
    backend: Backend
    #: where the application listens
    address: str

    @property
    def site(self) -> Site:
        """What listens for HTTP."""
        return self.proxy.served

    @property
    def secured(self) -> Site:
        """What listens for HTTPS."""
        return self.proxy.secured

    def stop(self) -> None:
        """End both."""
        self.proxy.stop()
        self.backend.stop()


Deploy = Callable[..., Deployment]


def deploy_in(folder: Path, certificate: dict[str, str], proxy: str, socket: str, how: str, *, hurried: bool = False,
              **options: Any) -> Deployment:
    """Start both. ``socket`` is ``"unix"`` or ``"tcp"``; for the others see `Backend` and `Proxy`."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    address = f"unix:{folder}/socket" if socket == "unix" else f"127.0.0.1:{free_port()}"
    backend = Backend(folder / "backend", how, address, **options)
    try:
        return Deployment(Proxy(folder / "proxy", proxy, address, certificate, hurried=hurried), backend, address)
    except BaseException:
        backend.stop()
        raise


@pytest.fixture
def deploy(short_folder: Path, certificate: dict[str, str]) -> Iterator[Deploy]:
    """A factory of deployments of the test's own: ``deploy(proxy, socket, how)``."""
    running: list[Deployment] = []

    def start(*arguments: Any, **options: Any) -> Deployment:
        running.append(deploy_in(short_folder, certificate, *arguments, **options))
        return running[-1]

    yield start
    for deployment in running:
        deployment.stop()


@pytest.fixture(scope="module", params=["nginx-unix-worker", "nginx-tcp-server", "haproxy-unix-worker", "haproxy-tcp-gevent",
                                        "caddy-unix-worker", "caddy-tcp-worker", "traefik-tcp-worker"])
def deployment(request: pytest.FixtureRequest, short_folder: Path, certificate: dict[str, str]) -> Iterator[Deployment]:
    """One for all tests of a kind; nothing may have gone wrong in it when it ends."""
    running = deploy_in(short_folder, certificate, *request.param.split("-"))
    yield running
    running.stop()
    assert not running.proxy.complaints(), running.proxy.logs()
    # strangers' pages are refused, as they should be
    assert not [line for line in running.backend.complaints() if "was refused; expected" not in line], running.backend.logs()


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver]]:
    """A factory of official clients in Node: ``drive(url, options as JSON)``."""
    running: list[Driver] = []

    def start(*arguments: str) -> Driver:
        running.append(Driver(str(NODE_CLIENT), "engine.io-client", *arguments))
        return running[-1]

    yield start
    for driver in running:
        driver.stop()
