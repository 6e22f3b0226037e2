"""The names that users, and gunicorn, find in the gunicorn room."""

from __future__ import annotations

from typing import Any

import gevent
import gunicorn.config
import pytest
from gevent import socket
from gunicorn.config import KNOWN_SETTINGS
from gunicorn.workers.ggevent import GeventWorker

import engineio_wsgi.gunicorn as room
from engineio_wsgi.runtime.connection import Connection, detach


def test_gunicorn_reads_nothing_but_the_hooks_from_the_module() -> None:
    """``-c python:engineio_wsgi.gunicorn`` makes a setting of every name in the module that is one."""
    settings = {setting.name for setting in KNOWN_SETTINGS}
    assert settings & {*vars(room)} == {"post_worker_init", "pre_fork", "worker_exit"}


def test_the_hooks_have_the_arguments_that_gunicorn_gives_them() -> None:
    cfg = gunicorn.config.Config()
    for name in ("post_worker_init", "pre_fork", "worker_exit"):
        cfg.set(name, getattr(room, name))


def test_the_public_names() -> None:
    assert issubclass(room.Worker, GeventWorker)
    assert room.Worker.wsgi_handler is room.GunicornHandler
    assert {*room.__all__} <= {*dir(room)}


def test_a_websocket_keeps_the_place_of_its_client() -> None:
    pool = room.ClientPool(1)
    near, far = socket.socketpair()
    connections: list[Connection] = []

    def give_away() -> None:
        connections.append(Connection(detach(near)))
        pool.keep_place(connections[0])

    pool.spawn(give_away).join()
    gevent.sleep(0)
    assert (pool.kept, pool.full()) == (1, True)
    connections[0].close()
    assert (pool.kept, pool.full()) == (0, False)
    far.close()


def test_a_greenlet_outside_of_the_pool_has_no_place_to_keep() -> None:
    pool = room.ClientPool(1)
    near, far = socket.socketpair()
    connection = Connection(detach(near))
    pool.keep_place(connection)
    connection.close()
    assert (pool.kept, pool.free_count()) == (0, 1)
    far.close()


@pytest.mark.parametrize(("clients", "warned"), [(8, 0), (9, 1)])
def test_a_worker_warns_near_its_limit_of_clients(clients: int, warned: int, caplog: Any) -> None:
    watch = room.LimitWatch(10)
    watch.look(clients)
    watch.look(clients)
    lines = [record.getMessage() for record in caplog.records if "worker_connections" in record.getMessage()]
    assert len(lines) == warned
