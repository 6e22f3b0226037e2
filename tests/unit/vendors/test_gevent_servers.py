"""The private names of gevent's servers, handlers and pools that this package relies on."""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.baseserver import BaseServer
from gevent.event import Event
from gevent.pool import Group, Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer
from gevent.server import StreamServer

from engineio_wsgi.vendors import gevent_servers as vendors
from engineio_wsgi.vendors.gevent_servers import PlacePool


@pytest.fixture
def reader() -> Iterator[Any]:
    """A buffered reader over a connection, on which ``abcdef`` has arrived."""
    near, far = socket.socketpair()
    far.sendall(b"abcdef")
    made = near.makefile("rb", -1)
    yield made
    made.close()
    near.close()
    far.close()


# -- servers


def test_a_greenlet_of_a_server_says_whose_connection_it_serves() -> None:
    seen: list[Any] = []
    served = Event()

    def handle(sock: Any, address: Any) -> None:
        seen.extend([vendors.accepted_in(gevent.getcurrent()), sock, address])
        served.set()

    server = StreamServer(("127.0.0.1", 0), handle)
    server.start()
    with socket.create_connection(server.address):
        assert served.wait(60)
    server.stop()
    accepted, sock, address = seen
    assert accepted == (server, sock, address)


def test_a_wsgi_servers_greenlets_say_so_too() -> None:
    seen: list[Any] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(vendors.accepted_in(gevent.getcurrent()))
        start_response("200 OK", [("Content-Length", "0")])
        return []

    server = WSGIServer(("127.0.0.1", 0), application, log=None)
    server.start()
    with socket.create_connection(server.address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while client.recv(1000):
            pass
        assert seen[0][0] is server
        assert seen[0][2] == client.getsockname()
    server.stop()


def test_other_greenlets_say_nothing() -> None:
    assert vendors.accepted_in(gevent.getcurrent()) is None
    assert vendors.accepted_in(gevent.spawn(print)) is None
    assert vendors.accepted_in(gevent.Greenlet(print, 1, self_of_a_list().append, (2, 3))) is None


def self_of_a_list() -> list[Any]:
    """Something whose methods have a ``__self__`` that is no server."""
    return []


def test_a_server_serves_what_is_given_to_its_do_handle() -> None:
    assert list(inspect.signature(BaseServer.do_handle).parameters) == ["self", "args"]
    seen: list[Any] = []
    server = StreamServer(("127.0.0.1", 0), lambda sock, address: seen.append(address))
    server.start()
    near, far = socket.socketpair()
    server.do_handle(near, "an address")
    with far:
        assert far.recv(1) == b"", "the server closes the connection afterwards"
    server.stop()
    assert seen == ["an address"]


def test_a_server_has_a_replaceable_handler_of_tls_connections() -> None:
    assert list(inspect.signature(StreamServer.wrap_socket_and_handle).parameters) == ["self", "client_socket", "address"]


# -- requests


def test_a_reader_is_in_the_input_or_is_the_input(reader: Any) -> None:
    assert vendors.buffered_reader(Input(reader, 6)) is reader
    assert vendors.buffered_reader(reader) is reader


def test_a_reader_knows_its_socket(reader: Any) -> None:
    sock = vendors.reader_socket(reader)
    assert sock.recv(6) == b"abcdef"
    assert vendors.reader_socket(io.BytesIO()) is None
    assert vendors.reader_socket(None) is None


def test_an_input_is_pywsgis_or_a_plain_reader_of_its_own(reader: Any) -> None:
    assert vendors.is_pywsgi_input(Input(reader, 6), "")
    assert vendors.is_pywsgi_input(reader, "gevent/26.9 Python/3.11")
    assert not vendors.is_pywsgi_input(reader, "Werkzeug/3")


def test_pywsgis_server_names_itself() -> None:
    server = WSGIServer(("127.0.0.1", 0), None)
    assert server.get_environ()["SERVER_SOFTWARE"].startswith(vendors.PYWSGI)


def test_an_input_counts_what_was_read(reader: Any) -> None:
    body = Input(reader, 6)
    assert vendors.is_untouched(body)
    assert body.read(2) == b"ab"
    assert not vendors.is_untouched(body)
    assert vendors.is_untouched(reader)


def test_a_body_in_chunks_is_never_untouched(reader: Any) -> None:
    assert not vendors.is_untouched(Input(reader, None, chunked_input=True))


def test_a_skipped_body_is_not_read(reader: Any) -> None:
    body = Input(reader, 6)
    assert body.read(2) == b"ab"
    vendors.skip_body(body)
    body._discard()
    assert reader.read(4) == b"cdef"


def test_pywsgi_discards_the_rest_of_a_body_that_is_not_skipped(reader: Any) -> None:
    body = Input(reader, 6)
    body._discard()
    vendors.reader_socket(reader).settimeout(0)
    assert reader.peek(1) == b""


def test_an_exception_is_reported_with_its_traceback() -> None:
    class Log(io.StringIO):
        """A server's error log, and its loop's."""

        def handle_error(self, context: Any, kind: Any, value: Any, traceback: Any) -> None:
            """What the handler calls."""
            self.write(f"{kind.__name__} {value} {context['PATH_INFO']}")

    log = Log()
    handler = WSGIHandler.__new__(WSGIHandler)
    handler.environ = {"PATH_INFO": "/here"}
    handler.server = SimpleNamespace(loop=log, secure_environ_class=dict)
    vendors.log_failure(handler, ValueError, ValueError("broken"), None)
    assert log.getvalue() == "ValueError broken /here"


def test_a_server_without_a_log_discards_its_lines() -> None:
    assert vendors.discards_lines(WSGIServer(("127.0.0.1", 0), None, log=None).log)
    assert not vendors.discards_lines(WSGIServer(("127.0.0.1", 0), None).log)


# -- pools


def test_a_pool_counts_its_places_with_a_semaphore() -> None:
    pool = Pool(2)
    pool.spawn(gevent.sleep, 60)
    assert pool._semaphore.counter == 1
    pool.kill()
    assert pool._semaphore.counter == 2


def test_a_pool_frees_a_place_when_it_discards_a_greenlet() -> None:
    assert list(inspect.signature(Pool._discard).parameters) == ["self", "greenlet"]
    assert list(inspect.signature(Group._discard).parameters) == ["self", "greenlet"]
    pool = Pool(1)
    greenlet = pool.spawn(gevent.sleep, 60)
    Group._discard(pool, greenlet)
    assert pool._semaphore.counter == 0
    assert greenlet not in pool
    greenlet.kill()


def test_a_kept_place_is_taken_until_it_is_given_back() -> None:
    pool = PlacePool(1)
    ended = pool.spawn(lambda: None)
    give_back = pool.keep(ended)
    ended.join()
    gevent.sleep(0)
    assert (len(pool), pool.kept, pool.free_count(), pool.full()) == (0, 1, 0, True)
    give_back()
    assert (pool.kept, pool.free_count()) == (0, 1)
    assert pool.spawn(lambda: "served").get(timeout=60) == "served"


def test_a_place_that_is_given_back_before_its_greenlet_ends() -> None:
    pool = PlacePool(1)
    goes_on = Event()
    running = pool.spawn(goes_on.wait)
    pool.keep(running)()
    assert pool.free_count() == 0
    goes_on.set()
    running.join()
    gevent.sleep(0)
    assert (pool.kept, pool.free_count()) == (0, 1)
